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

import numpy as np
import pandas as pd
import pytest

from experiments import jobs, launch, p1_horovod, store
from experiments.usage import UsageError
from tests.processes import started_for

SCRIPT = store.ROOT / "experiments" / "p1_horovod.py"
needs_horovod = pytest.mark.skipif(importlib.util.find_spec("horovod") is None, reason="needs: make horovod")
needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
TINY = ["--model", "tiny", "--image-size", "32", "--batch-size", "4", "--epochs", "2", "--steps-per-epoch", "3"]
TINY += ["--warm-up", "1", "--oversubscribe", "--framework", "torch"]


def command(results: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--results", str(results), *TINY, *arguments]


def run(results: Path, *arguments: str) -> pd.DataFrame:
    done = subprocess.run(command(results, *arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.split()[-1])
    assert path.parent == results / "p1_horovod" and path.with_suffix(".log").read_text().count("epoch ") == 2
    return store.read("p1_horovod", results)


def check(rows: pd.DataFrame, learners: int) -> None:
    assert len(rows) == 2 * learners and set(rows["rank"]) == set(range(learners))
    assert set(rows.images) == {12} and set(rows.steps) == {3} and set(rows.batch_size) == {4}
    np.testing.assert_allclose(rows.images_per_second, rows.images / rows.seconds)
    assert (rows.step_p10 <= rows.step_p50).all() and (rows.step_p50 <= rows.step_p90).all()
    assert (rows.step_p10 * 3 <= rows.seconds * 1.001).all() and (rows.seconds <= 3 * rows.setup_seconds + 60).all()
    assert set(rows.gradient_bytes) == set(4 * rows.parameters)
    assert (rows.kind == "measured").all()


@needs_horovod
@needs_tensorflow
def test_tensorflow_through_horovodrun(tmp_path: Path) -> None:
    rows = run(tmp_path, "--learners", "2", "--framework", "tensorflow")
    check(rows, 2)
    assert set(rows.effective_batch) == {8} and set(rows.launcher) == {"horovodrun"} and set(rows.model) == {"tiny"}
    origin = store.runs(tmp_path)[0].provenance
    assert {"tensorflow", "keras", "horovod"} <= set(origin.versions)
    assert {"experiments/p1_horovod.py", "experiments/learner.py", "experiments/launch.py"} <= set(origin.sources)


@needs_horovod
def test_torch_with_and_without_all_reduce_and_finished_runs_are_skipped(tmp_path: Path) -> None:
    check(run(tmp_path, "--learners", "2", "--launcher", "none"), 2)
    rows = run(tmp_path, "--learners", "2", "--launcher", "none", "--no-allreduce")
    assert set(rows.allreduce) == {True, False}
    assert set(rows[~rows.allreduce].effective_batch) == {4} and set(rows[rows.allreduce].effective_batch) == {8}
    apart = rows[~rows.allreduce & (rows.epoch == 2)]
    assert apart.loss.nunique() == 2
    again = subprocess.run(
        command(tmp_path, "--learners", "2", "--launcher", "none", "--skip-finished"), capture_output=True, text=True
    )
    assert again.returncode == 0 and "finished before, skipped" in again.stderr and not again.stdout


@needs_horovod
def test_cores_are_dealt_out(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    argv = [word for word in command(tmp_path, "--learners", "2", "--launcher", "none") if word != "--oversubscribe"]
    assert subprocess.run(argv, capture_output=True).returncode == 0
    cores = store.read("p1_horovod", tmp_path).groupby("rank").cores.first()
    assert cores.nunique() == 2 and all("," not in core for core in cores)


def learners_of(results: Path) -> dict[int, int]:
    """Processes that are learners of a job, pid by rank."""
    found = {}
    for pid, words, settings in started_for(results, "--report"):
        rank = settings.get(b"HOROVOD_RANK", settings.get(launch.OWN_RANK.encode()))
        if rank is not None and words[0] == sys.executable.encode():
            found[int(rank)] = pid
    return found


def start(results: Path, launcher: str) -> tuple[subprocess.Popen[str], dict[int, int]]:
    """A job of two learners that would take minutes, and its learners once they train."""
    argv = command(results, "--learners", "2", "--launcher", launcher, "--epochs", "100000")
    job = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(found := learners_of(results)) < 2 or job.poll() is not None:
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()
        time.sleep(0.2)
    time.sleep(4)  # into the training
    return job, found


@needs_horovod
@pytest.mark.parametrize("launcher", ["horovodrun", "none"])
def test_a_learner_that_dies_ends_the_job(tmp_path: Path, launcher: str) -> None:
    job, found = start(tmp_path, launcher)
    began = time.monotonic()
    os.kill(found[1], signal.SIGKILL)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1 and time.monotonic() - began < 60
    assert "p1_horovod: learner 1 " in said and "nothing was written" in said
    assert not list(tmp_path.rglob("*.parquet")) and not learners_of(tmp_path)


@needs_horovod
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs: apt-get install util-linux")
def test_learners_end_when_the_script_is_killed(tmp_path: Path) -> None:
    job, _ = start(tmp_path, "horovodrun")
    job.kill()
    job.communicate()
    deadline = time.monotonic() + 30
    while learners_of(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@needs_horovod
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs: root, apt-get install iproute2")
def test_learners_on_two_emulated_hosts(tmp_path: Path) -> None:
    rows = run(tmp_path, "--learners", "2", "--hosts", "2", "--gbit", "1")
    check(rows, 2)
    assert set(rows.hosts) == {2} and set(rows.host) == {0, 1} and (rows.gbit == 1).all()
    assert rows.link_gbit.between(0.5, 1.01).all()


@needs_horovod
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_a_job_stops_its_learners(tmp_path: Path, number: int, status: int) -> None:
    job, _ = start(tmp_path, "none")
    job.send_signal(number)
    job.communicate(timeout=60)
    assert job.returncode == status
    assert not list(tmp_path.rglob("*.parquet")) and not learners_of(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learners", "0"], "--learners must be at least 1, not 0"),
        (["--learners", "-2"], "--learners must be at least 1, not -2"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--image-size", "16"], "--image-size must be at least 32"),
        (["--warm-up", "-1"], "--warm-up must not be negative"),
        (["--seed", "-1"], "--seed must be 0 to"),
        (["--gbit", "1"], "give --hosts 2 with it"),
        (["--hosts", "2"], "--hosts 2 is more than the 1 learners"),
        (["--learners", "2", "--hosts", "2", "--gbit", "nan"], "--gbit must be positive"),
        (["--learners", "2", "--hosts", "2", "-H", "a:2"], "give one of them"),
        (["--learners", "2", "--hosts", "2", "--launcher", "mpirun"], "--hosts goes with --launcher none"),
        (["--learners", "4", "-H", "a:1,b:2"], "4 learners need as many slots, a:1,b:2 has 3"),
        (["-H", "a"], "'a' is not a host and its slots"),
        (["-H", ""], "'' is not a host and its slots"),
        (["--sweep", "--hosts", "32"], "--sweep has no size with 32 hosts"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert p1_horovod.main(["--results", str(tmp_path), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("p1_horovod: ") and said.count("\n") == 1


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Horovod is not what these tests are about."""
    monkeypatch.setattr(launch, "check_horovod", lambda framework: None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learners", "100000"], "100000 learners of 1 threads need 100000 cores"),
        (["--device", "gpu"], "this machine has no NVIDIA GPU"),
        (["-H", "no-such-host.invalid:1"], "unknown host no-such-host.invalid"),
    ],
)
def test_what_this_machine_lacks(
    arguments: list[str],
    message: str,
    installed: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(jobs, "gpus", lambda: [])
    assert p1_horovod.main(["--results", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_cores_are_counted_where_learners_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p1_horovod.cores, "siblings", lambda: {0: 0, 1: 0})

    def check_devices(hosts: str) -> None:
        p1_horovod.check_devices(p1_horovod.configure(p1_horovod.arguments().parse_args(["-H", hosts]), 4))

    check_devices("node2:4")
    check_devices("node2:2,localhost:2")
    with pytest.raises(UsageError, match="3 learners of 1 threads need 3 cores, this machine has 2"):
        check_devices("node2:1,localhost:3")


def test_a_sweep_ends_with_the_slots(installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr(p1_horovod, "run", lambda c, *rest: ran.append(c.learners))
    monkeypatch.setattr(launch, "check_reachable", lambda slots, launcher: None)
    assert p1_horovod.main(["--sweep", "-H", "node2:3,node3:3", "--results", str(tmp_path)]) == 0
    assert ran == [1, 2, 4]


def test_more_learners_than_gpus(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "gpus", lambda: ["0", "1"])
    assert p1_horovod.main(["--results", str(tmp_path), "--device", "gpu", "--learners", "4"]) == 2
    assert "4 learners need as many GPUs, this machine has 2" in capsys.readouterr().err


def test_horovod_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch.util, "find_spec", lambda name: None)
    assert p1_horovod.main(["--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "p1_horovod: Horovod is not installed; build it with: make horovod\n"


def test_learners_are_placed_host_by_host() -> None:
    parse = p1_horovod.arguments().parse_args
    c = p1_horovod.configure(parse(["--learners", "10", "-H", "a:8,b:8"]), 10)
    assert c.placed() == [8, 2] and c.hosts == 2 and c.slug == "tensorflow-cpu-10-2hosts-r1"
    c = p1_horovod.configure(parse(["--learners", "8", "-H", "a:8,b:8"]), 8)
    assert c.placed() == [8, 0] and c.hosts == 1
    c = p1_horovod.configure(parse(["--learners", "3", "--hosts", "2", "--gbit", "10", "--no-allreduce"]), 3)
    assert c.placed() == [2, 1] and c.slug == "tensorflow-cpu-3-2hosts-10gbit-independent-r1"


def test_repetitions_and_settings_have_results_of_their_own() -> None:
    names = set()
    for more in ([], ["--repeat", "2"], ["--seed", "1"], ["--threads", "2"], ["--no-allreduce"], ["--epochs", "3"]):
        c = p1_horovod.configure(p1_horovod.arguments().parse_args(more), 1)
        names.add(store.run_id(c.slug, c.flat()))
    assert len(names) == 6
