"""Problem 1's script, as a user runs it: rows, bad input, learners that die. Networks are tiny."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments import p1_horovod
from experiments.cli import RunError
from experiments.machine import allocation
from experiments.p1 import horovod_launch, horovod_options
from experiments.store import epochs, parquet
from experiments.store.files import ROOT
from tests.processes import started_for

SCRIPT = ROOT / "experiments" / "p1_horovod.py"
needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
TINY = ["--model", "tiny", "--image-size", "32", "--batch-size", "4", "--epochs", "2", "--steps-per-epoch", "3"]
TINY += ["--warm-up", "1", "--oversubscribe", "--framework", "torch"]


def command(results: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--results", str(results), *TINY, *arguments]


def run(results: Path, *arguments: str, **environment: str) -> pd.DataFrame:
    """The rows of the one run that is made."""
    argv = command(results, *arguments)
    done = subprocess.run(argv, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.split()[-1])
    assert path.parent == results / "p1_horovod" and path.with_suffix(".log").read_text().count("epoch ") == 2
    rows = parquet.read("p1_horovod", results)
    return rows[rows.run_id == path.stem]


def check(rows: pd.DataFrame, learners: int) -> None:
    """A job's rows lay out the time of each learner, from the job's start to its end."""
    assert set(rows["rank"]) == set(range(learners)) and len(rows) == learners * (1 + 2 * 3 + 1)
    ended = rows.began + rows.seconds
    (end,) = set(ended[rows.phase == "end"].round(9))  # the same for all learners, which end together
    for _, own in rows.groupby("rank"):
        assert list(own.phase) == ["set-up", *["train"] * 6, "end"] and own.began.iloc[0] == 0
        assert list(own.epoch) == [0, 1, 1, 1, 2, 2, 2, 0] and list(own.step) == [0, 1, 2, 3, 1, 2, 3, 0]
        assert (own.began.to_numpy()[1:] >= ended[own.index].to_numpy()[:-1] - 1e-9).all()
        assert (own.seconds > 0).all() and own.seconds.sum() <= end + 1e-9
    took = rows.ended.iloc[0] - rows.started.iloc[0]
    assert end <= took.total_seconds()
    train = rows[rows.phase == "train"]
    assert set(train.images) == {4} and rows.images.sum() == 4 * len(train) and set(rows.batch_size) == {4}
    assert train.loss.notna().all() and rows.loss.count() == len(train)
    if set(rows.framework) == {"torch"}:
        assert (train.wait_seconds > 0).all() and (train.wait_seconds <= train.seconds).all()
        assert rows.wait_seconds.count() == len(train)
    else:
        assert rows.wait_seconds.isna().all()
    assert set(rows.gradient_bytes) == set(4 * rows.parameters)
    assert (rows.kind == "measured").all()


@pytest.mark.horovod
@needs_tensorflow
def test_tensorflow_through_horovodrun(tmp_path: Path) -> None:
    rows = run(tmp_path, "--learners", "2", "--framework", "tensorflow")
    check(rows, 2)
    assert set(rows.effective_batch) == {8} and set(rows.launcher) == {"horovodrun"} and set(rows.model) == {"tiny"}
    origin = parquet.runs(tmp_path)[0].provenance
    assert {"tensorflow", "keras", "horovod"} <= set(origin.versions)
    assert {"experiments/p1_horovod.py", "experiments/p1/learner.py", "experiments/p1/horovod_launch.py"} <= set(
        origin.sources
    )
    assert origin.allocation and origin.run_id.startswith(f"tensorflow-cpu-2-r1-{origin.allocation}-")
    derived = epochs.read("p1_horovod", tmp_path)
    assert len(derived) == 2 * 2 and set(derived.images) == {12} and set(derived.steps) == {3}
    assert derived.setup_seconds.max() < derived.began.max() < derived.job_seconds.max()


@pytest.mark.horovod
def test_torch_with_and_without_all_reduce_and_finished_runs_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(allocation.TOKEN, "one go")
    both = ["--learners", "2", "--launcher", "none", "--independent-too"]
    done = subprocess.run(command(tmp_path, *both), capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("\n") == 2, done.stderr
    assert "plan: 2 jobs" in done.stderr
    rows = parquet.read("p1_horovod", tmp_path)
    together, independent = rows[rows.allreduce], rows[~rows.allreduce]
    check(together, 2)
    check(independent, 2)
    assert together.started.max() < independent.started.min() and set(rows.allocation) == {rows.allocation.iloc[0]}
    assert set(independent.effective_batch) == {4} and set(together.effective_batch) == {8}
    assert independent[independent.epoch == 2].groupby("step").loss.nunique().eq(2).all()
    alone = [*both[:-1], "--no-allreduce", "--skip-finished"]
    for again in (both, alone):
        done = subprocess.run(command(tmp_path, *again), capture_output=True, text=True)
        assert done.returncode == 0 and "finished before, skipped" in done.stderr and not done.stdout


@pytest.mark.horovod
def test_an_earlier_allocations_run_stays(tmp_path: Path) -> None:
    """And is no reason to skip a job in another allocation."""
    for token in ("one go", "another"):
        check(run(tmp_path, "--skip-finished", "--launcher", "none", **{allocation.TOKEN: token}), 1)
    assert len(parquet.runs(tmp_path)) == 2


@pytest.mark.horovod
def test_variables_that_would_place_learners_are_cleared(tmp_path: Path) -> None:
    stray = {"HOROVOD_RANK": "0", "HOROVOD_SIZE": "1", "HOROVOD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_RANK": "0"}
    argv = command(tmp_path, "--learners", "2", "--launcher", "none")
    done = subprocess.run(argv, env=os.environ | stray, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == (
        "p1_horovod: removed from the environment: HOROVOD_LOCAL_RANK, HOROVOD_RANK, HOROVOD_SIZE, OMPI_COMM_WORLD_RANK"
    )
    rows = parquet.read("p1_horovod", tmp_path)
    check(rows, 2)
    losses = rows[rows.phase == "train"].pivot(index=["epoch", "step"], columns="rank", values="loss")
    assert (losses[0] != losses[1]).all()  # of other images
    assert not {"HOROVOD_RANK", "HOROVOD_SIZE"} & set(parquet.runs(tmp_path)[0].provenance.settings)


@pytest.mark.horovod
def test_horovods_settings_reach_the_learners_and_are_recorded(tmp_path: Path) -> None:
    same = {allocation.TOKEN: "one go"}
    given = {"HOROVOD_CYCLE_TIME": "200", "HOROVOD_FUSION_THRESHOLD": "0"}
    plain = run(tmp_path, "--learners", "2", **same)
    slow = run(tmp_path, "--learners", "2", **same, **given)
    settings = [stored.provenance.settings for stored in parquet.runs(tmp_path)]
    assert plain.run_id.iloc[0] != slow.run_id.iloc[0] and plain.allocation.iloc[0] == slow.allocation.iloc[0]
    assert sorted(given.items() <= recorded.items() for recorded in settings) == [False, True]
    # Horovod looks for tensors to be averaged every 200 ms, so that a step has to wait for the next time.
    assert slow[slow.phase == "train"].wait_seconds.median() > 0.1


@pytest.mark.horovod
def test_cores_are_dealt_out(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    argv = [word for word in command(tmp_path, "--learners", "2", "--launcher", "none") if word != "--oversubscribe"]
    assert subprocess.run(argv, capture_output=True).returncode == 0
    cores = parquet.read("p1_horovod", tmp_path).groupby("rank").cores.first()
    assert cores.nunique() == 2 and all("," not in core for core in cores)


def learners_of(results: Path) -> dict[int, int]:
    """Processes that are learners of a job, pid by rank."""
    found = {}
    for pid, words, settings in started_for(results, "--report"):
        rank = settings.get(b"HOROVOD_RANK", settings.get(horovod_launch.OWN_RANK.encode()))
        if rank is not None and words[0] == sys.executable.encode():
            found[int(rank)] = pid
    return found


def start(results: Path, launcher: str, *more: str) -> tuple[subprocess.Popen[str], dict[int, int]]:
    """A job of two learners that would take minutes, and its learners once they train."""
    argv = command(results, "--learners", "2", "--launcher", launcher, "--epochs", "100000", *more)
    job = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(found := learners_of(results)) < 2 or job.poll() is not None:
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()
        time.sleep(0.2)
    time.sleep(4)  # into the training
    return job, found


@pytest.mark.horovod
@pytest.mark.parametrize("launcher", ["horovodrun", "none"])
def test_a_learner_that_dies_ends_the_job(tmp_path: Path, launcher: str) -> None:
    job, found = start(tmp_path, launcher)
    began = time.monotonic()
    os.kill(found[1], signal.SIGKILL)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1 and time.monotonic() - began < 60
    assert "p1_horovod: learner 1 " in said and "nothing was written" in said
    assert not list(tmp_path.rglob("*.parquet")) and not learners_of(tmp_path)


@pytest.mark.horovod
@pytest.mark.parametrize("launcher", ["horovodrun", "none"])
def test_a_learner_that_is_stopped_ends_the_job(tmp_path: Path, launcher: str) -> None:
    job, found = start(tmp_path, launcher, "--stall-timeout", "2")
    os.kill(found[1], signal.SIGSTOP)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1
    assert f"p1_horovod: learner 1 (process {found[1]}) has been stopped for 2 s; all others were stopped and" in said
    assert not list(tmp_path.rglob("*.parquet")) and not list(started_for(tmp_path, "--report"))


@pytest.mark.horovod
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs: root, apt-get install iproute2")
def test_a_learner_that_is_stopped_on_an_emulated_host(tmp_path: Path) -> None:
    job, found = start(tmp_path, "none", "--hosts", "2", "--stall-timeout", "2")
    os.kill(found[1], signal.SIGSTOP)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1
    assert f"p1_horovod: learner 1 (process {found[1]}) has been stopped for 2 s; all others were stopped and" in said
    assert not list(started_for(tmp_path, "--report"))


@pytest.mark.horovod
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs: apt-get install util-linux")
def test_learners_end_when_the_script_is_killed(tmp_path: Path) -> None:
    job, _ = start(tmp_path, "horovodrun")
    job.kill()
    job.communicate()
    deadline = time.monotonic() + 30
    while learners_of(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.horovod
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs: root, apt-get install iproute2")
def test_learners_on_two_emulated_hosts(tmp_path: Path) -> None:
    rows = run(tmp_path, "--learners", "2", "--hosts", "2", "--gbit", "1")
    check(rows, 2)
    assert set(rows.hosts) == {2} and set(rows.host) == {0, 1} and (rows.gbit == 1).all()
    assert rows.link_gbit.between(0.5, 1.01).all()


@pytest.mark.horovod
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_a_job_stops_its_learners(tmp_path: Path, number: int, status: int) -> None:
    job, _ = start(tmp_path, "none")
    job.send_signal(number)
    job.communicate(timeout=60)
    assert job.returncode == status
    assert not list(tmp_path.rglob("*.parquet")) and not learners_of(tmp_path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Horovod is not what these tests are about."""
    monkeypatch.setattr("experiments.p1.horovod_launch.check_horovod", lambda framework: None)


def test_a_sweep_ends_with_the_slots(installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr(p1_horovod, "run", lambda c, *rest: ran.append(c.learners))
    monkeypatch.setattr("experiments.p1.horovod_launch.check_reachable", lambda slots, launcher: None)
    assert p1_horovod.main(["--sweep", "-H", "node2:3,node3:3", "--results", str(tmp_path)]) == 0
    assert ran == [1, 2, 4]


def test_a_failed_job_of_several_does_not_keep_the_others_from_running(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[int, bool]] = []

    def run(c: horovod_options.Config, *rest: object) -> None:
        ran.append((c.learners, c.job.allreduce))
        if len(ran) == 1:
            raise RunError("learner 0 died")

    monkeypatch.setattr(p1_horovod, "run", run)
    arguments = ["--learners", "1,2", "--oversubscribe", "--results", str(tmp_path)]
    assert p1_horovod.main([*arguments, "--independent-too"]) == 1
    assert ran == [(1, True), (1, False), (2, True), (2, False)]
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == "p1_horovod: 1 of 4 jobs failed: tensorflow-cpu-1-r1: learner 0 died"
    assert "plan: 4 jobs, of unknown length" in said


def test_sizes_that_are_too_large_are_left_out(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[int] = []
    monkeypatch.setattr("experiments.machine.nvidia.gpus", lambda: ["0", "1"])
    monkeypatch.setattr(p1_horovod, "run", lambda c, *rest: ran.append(c.learners))
    assert p1_horovod.main(["--results", str(tmp_path), "--device", "gpu", "--learners", "1,2,4"]) == 0
    assert ran == [1, 2]
    assert "larger jobs left out: 4 learners need as many GPUs, this machine has 2" in capsys.readouterr().err


def test_more_learners_than_gpus(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("experiments.machine.nvidia.gpus", lambda: ["0", "1"])
    assert p1_horovod.main(["--results", str(tmp_path), "--device", "gpu", "--learners", "4"]) == 2
    assert "4 learners need as many GPUs, this machine has 2" in capsys.readouterr().err


def test_horovod_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(horovod_launch.util, "find_spec", lambda name: None)
    assert p1_horovod.main(["--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "p1_horovod: Horovod is not installed; build it with: make horovod\n"
