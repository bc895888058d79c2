"""Problem 2's script, as a user runs it: rows, bad input, workers that die. The network is tiny.

TensorFlow runs in processes of its own, as it can't share one with PyTorch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import p2_strategy
from experiments.cli import RunError
from experiments.machine import allocation, own_network, supervision
from experiments.machine.link_speed import Link
from experiments.p2 import placement, strategy_options
from experiments.store import epochs, parquet
from experiments.store.files import ROOT
from tests.processes import started_for

SCRIPT = ROOT / "experiments" / "p2_strategy.py"
pytestmark = pytest.mark.usefixtures("bare_machine")
needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
TINY = ["--network", "tiny", "--data", "synthetic", "--oversubscribe", "--base", "16"]


def command(results: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--results", str(results), *TINY, *arguments]


def workers_of(results: Path) -> dict[int, int]:
    """Processes that are workers of a job, pid by index."""
    return {
        json.loads(settings[b"TF_CONFIG"])["task"]["index"]: pid
        for pid, _, settings in started_for(results, "--report")
    }


@needs_tensorflow
def test_two_workers_write_their_rows_and_are_skipped_once_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = command(tmp_path, "--learners", "2", "--epochs", "2", "--learning-rate", "0.05")
    here = os.environ | {allocation.TOKEN: "one"}
    done = subprocess.run(argv, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("workers listen on all addresses" in done.stderr) == (not own_network.possible())
    path = Path(done.stdout.split()[-1])
    assert path.parent == tmp_path / "p2_strategy" and path.name.startswith("cpu-weak-2x16-multiworker-auto-r1")
    log = path.with_suffix(".log").read_text()
    assert all(log.count(f"epoch {number} of 2: ") == 1 for number in (1, 2))  # of worker 0 only
    assert "joined 0" in log and "joined 1" in log

    assert log.count("set-up: start ") == 1 and re.search(r", barrier \d+\.\d s", log)

    rows = parquet.read("p2_strategy", tmp_path)
    for column, value in {
        "network": "tiny", "dataset": "synthetic", "learners": 2, "workers": 2, "hosts": 1, "scaling": "weak",
        "effective_batch": 32, "per_learner_batch": 16, "image_size": 32, "communication": "auto",
        "whole_epochs": True, "learner": "process pinned to a core", "kind": "measured", "learning_rate": 0.05,
    }.items():  # fmt: skip
        assert set(rows[column]) == {value}, column
    assert rows.all_reduce.isna().all() and rows.gbit.isna().all()
    assert (rows.gradient_bytes == 4 * rows.parameters).all()
    # A convolution of 3x3 pixels, 3 colours and 4 filters, and a dense layer on 8x8 places.
    assert set(rows.parameters) == {(3 * 9 + 1) * 4 + (8 * 8 * 4 + 1) * 10}
    # 62 steps of 32 images are in an epoch of 2,000.
    epoch = [("train", step, 16) for step in range(1, 63)] + [("test", 0, 0)]
    timeline = [("set-up", 0, 0, 0), *((p, e, s, n) for e in (1, 2) for p, s, n in epoch), ("end", 0, 0, 0)]
    for worker in (0, 1):
        own = rows[rows.worker == worker]
        assert list(zip(own.phase, own.epoch, own.execution, own.images, strict=True)) == [
            (phase, number, step, images) for phase, number, step, images in timeline
        ]
        # The phases cover the job's time: no two overlap, and next to nothing is between them.
        ended = own.began + own.seconds
        gaps = own.began.to_numpy()[1:] - ended.to_numpy()[:-1]
        assert own.began.iloc[0] == 0 and (own.seconds > 0).all()
        assert (gaps > -1e-6).all() and gaps.sum() < 0.1
    assert rows.groupby("worker").apply(lambda own: (own.began + own.seconds).max()).nunique() == 1
    tests = rows[rows.phase == "test"]
    assert (tests.groupby("epoch").test_accuracy.nunique() == 1).all()
    assert (tests.test_accuracy > 0.5).all() and (tests.test_accuracy <= 1).all()
    assert rows[rows.phase != "test"].test_accuracy.isna().all()
    assert (rows.loss.notna() == (rows.phase == "train")).all()

    found = epochs.read("p2_strategy", tmp_path)
    assert sorted(zip(found.epoch, found.worker, strict=True)) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert set(found.steps) == {62} and set(found.images) == {62 * 16}
    np.testing.assert_allclose(found.images_per_second, found.images / found.seconds)
    assert (found.step_p10 <= found.step_p50).all() and (found.step_p50 <= found.step_p90).all()
    assert (found.step_p10 * found.steps <= found.seconds * 1.001).all()
    # A worker knows its own learners' losses.
    assert found[found.epoch == 2].train_loss.max() < found[found.epoch == 1].train_loss.min()

    origin = parquet.runs(tmp_path)[0].provenance
    names = "p2_strategy p2/worker_job p2/worker p2/placement p2/worker_process p2/fashion_mnist p2/join_timeout "
    names += "machine/cores machine/job_clock machine/nvidia"
    assert {f"experiments/{name}.py" for name in names.split()} <= set(origin.sources)
    assert {"tensorflow", "keras", "numpy"} <= {name.removesuffix("-cpu") for name in origin.versions}
    assert origin.device_count == 2

    monkeypatch.setenv(allocation.TOKEN, "one")
    assert p2_strategy.main([*argv[2:], "--skip-finished"]) == 0
    said = capsys.readouterr()
    assert "finished before, skipped" in said.err and not said.out


def report(rank: int, set_up: float) -> dict[str, Any]:
    """What a worker reports of two epochs of two executions and a test; its clock says when its set-up ended."""
    marks, losses = [[0.5, 1.5, 3.5], [4.0, 5.0, 6.0]], [[2.0, 1.0], [0.5, 0.25]]
    correct, tested = [100, 160 + rank], [4.0, 7.0]
    parts = [
        {
            "marks": [set_up + m for m in marks[e]],
            "losses": losses[e],
            "correct": correct[e],
            "tested": set_up + tested[e],
        }
        for e in (0, 1)
    ]
    return {"rank": rank, "set_up": set_up, "epochs": parts, "parameters": 10, "gradient_bytes": 40}


@pytest.mark.parametrize("assigned", [False, True])
def test_rows_of_a_report(assigned: bool) -> None:
    given = "--learners 4 --workers 2 --data synthetic --steps-per-epoch 4 --steps-per-execution 2 --epochs 2 --base 8"
    (c,) = strategy_options.series(strategy_options.arguments("").parse_args(given.split()))
    # Worker 1's script was started 3 s after worker 0's, so by its clock, all that both share was 3 s earlier.
    reports = [report(0, 10.0), report(1, 7.0 if assigned else 10.0)]
    done = p2_strategy.Finished(reports, Link(1.5, 80.0), [], 20.0)
    rows = p2_strategy.as_rows(c, done, assigned)
    images = 2 * 2 * 8  # two steps of two learners
    both = (200 / 400, 321 / 400)  # of the stand-in's 400 test images
    for rank in (0, 1):
        own = rows[rows.worker == rank]
        values = own[["phase", "epoch", "execution", "began", "seconds", "images", "loss", "test_accuracy"]]
        assert values.astype(object).where(values.notna(), None).to_numpy().tolist() == [
            ["set-up", 0, 0, 0.0, 10.0, 0, None, None],
            ["train", 1, 1, 10.5, 1.0, images, 2.0, None],
            ["train", 1, 2, 11.5, 2.0, images, 1.0, None],
            ["test", 1, 0, 13.5, 0.5, 0, None, both[0]],
            ["train", 2, 1, 14.0, 1.0, images, 0.5, None],
            ["train", 2, 2, 15.0, 1.0, images, 0.25, None],
            ["test", 2, 0, 16.0, 1.0, 0, None, both[1]],
            ["end", 0, 0, 17.0, 3.0, 0, None, None],
        ]
    assert set(rows.link_gbit) == {1.5} and set(rows.learner) == {"logical CPU of a process of 2 cores and threads"}
    # An epoch's rate is 4 steps · 32 images over 3 s, then over 2 s.
    assert p2_strategy.summary(c, rows) == (
        "cpu-weak-4x8-multiworker-auto-r1: 53.3 images/s (42.7 to 64.0 over epochs), test accuracy 80.25%"
    )


def test_a_worker_that_did_not_report_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(RunError, match=r"all 2 workers ended well, but only ranks \[\] reported"):
        p2_strategy.read_reports(path, 2)
    path.write_text(json.dumps([report(0, 1.0)]))
    assert [one["rank"] for one in p2_strategy.read_reports(path, 1)] == [0]
    with pytest.raises(RunError, match=r"all 2 workers ended well, but only ranks \[0\] reported"):
        p2_strategy.read_reports(path, 2)


@pytest.mark.slow
@needs_tensorflow
def test_what_tensorflow_cannot_do_is_told_in_its_words(tmp_path: Path) -> None:
    argv = command(tmp_path, "--strategy", "mirrored", "--learners", "2", "--all-reduce", "nccl", "--epochs", "1")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("p2_strategy: worker 0 ") and "No OpKernel" in last and "NcclAllReduce" in last
    assert not list(tmp_path.rglob("*.parquet"))


def start(results: Path, patience: float) -> tuple[subprocess.Popen[str], dict[int, int]]:
    """A job of two workers that would take many minutes, and its workers after so many seconds."""
    argv = command(results, "--learners", "2", "--epochs", "3000", "--no-evaluate")
    job = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(found := workers_of(results)) < 2:
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()
        time.sleep(0.2)
    time.sleep(patience)
    return job, found


@pytest.mark.slow
@needs_tensorflow
def test_a_worker_that_dies_ends_the_job(tmp_path: Path) -> None:
    job, found = start(tmp_path, 12)  # into the training
    began = time.monotonic()
    os.kill(found[1], signal.SIGKILL)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1 and time.monotonic() - began < 30
    assert "p2_strategy: worker 1 at 127.0.0.1:" in said and "was killed by signal 9" in said
    told = [line for line in said.splitlines() if not line.startswith("warning: ")]
    assert "nothing was written" in said and len(told) == 1
    assert not list(tmp_path.rglob("*.parquet")) and not workers_of(tmp_path)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(not own_network.possible(), reason="needs root and namespaces")
@needs_tensorflow
def test_workers_on_cores_are_out_of_reach(tmp_path: Path) -> None:
    job, found = start(tmp_path, 3)
    networks = {os.readlink(f"/proc/{pid}/ns/net") for pid in found.values()}
    assert len(networks) == 1 and networks != {os.readlink("/proc/self/ns/net")}
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=60)


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_a_job_stops_its_workers(tmp_path: Path, number: int, status: int) -> None:
    job, _ = start(tmp_path, 3)
    job.send_signal(number)
    job.communicate(timeout=60)
    assert job.returncode == status
    assert not list(tmp_path.rglob("*.parquet")) and not workers_of(tmp_path)


@pytest.mark.slow
@needs_tensorflow
def test_a_peer_that_never_joins_is_named(tmp_path: Path) -> None:
    mine, nobody = placement.free_addresses(2)
    worker = start_one(tmp_path, [mine, nobody], 0, "--join-timeout", "3")
    said = f"p2_strategy: worker 0: not all workers joined within 3 s; missing: {nobody}; nothing was written\n"
    assert worker.communicate(timeout=60) == ("", said) and worker.returncode == 1
    assert not list(tmp_path.rglob("*.parquet"))


def start_one(
    results: Path, addresses: list[str], rank: int, *arguments: str, **environment: str
) -> subprocess.Popen[str]:
    """One worker of two, as a user starts it."""
    argv = command(results, "--learners", "2", *arguments)
    variables = os.environ | (environment or {"TF_CONFIG": placement.as_tf_config(addresses, rank)})
    return subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def joined(rank: int) -> str:
    """What such a worker says once all are there."""
    return f"p2_strategy: worker {rank} has joined the others\n"


@pytest.mark.slow
@needs_tensorflow
def test_tasks_of_slurm_are_workers_and_the_first_writes(tmp_path: Path) -> None:
    step = {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NUM_TASKS": "2"}
    workers = [
        start_one(tmp_path, [], rank, "--launcher", "slurm", "--epochs", "1", SLURM_PROCID=str(rank), **step)
        for rank in range(2)
    ]
    ended = [worker.communicate(timeout=120) for worker in workers]
    said = ended[0][1] + ended[1][1]
    if "of this machine is in use" in said:
        pytest.skip("TensorFlow's ports for tasks of Slurm, 8888 and up, are in use")
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert ended[1] == ("", joined(1)), said
    rows = parquet.read("p2_strategy", tmp_path)
    assert sorted(set(rows.worker)) == [0, 1] and set(rows.hosts) == {1}
    # The barrier ends both set-ups at the same moment, whenever their scripts began.
    assert rows[rows.phase == "set-up"].seconds.nunique() == 1
    assert set(rows.learner) == {"process pinned to a core"}


@pytest.mark.slow
@needs_tensorflow
def test_a_worker_of_its_own_ends_when_asked_to_and_the_other_says_whom_it_lost(tmp_path: Path) -> None:
    addresses = placement.free_addresses(2)
    workers = [start_one(tmp_path, addresses, rank, "--epochs", "3000", "--no-evaluate") for rank in range(2)]
    for rank, worker in enumerate(workers):
        assert worker.stderr is not None and worker.stderr.readline() == joined(rank)
    time.sleep(5)  # into the training
    workers[1].terminate()
    ended = "p2_strategy: ended by SIGTERM; the workers were stopped, nothing of their job was written\n"
    assert workers[1].communicate(timeout=30) == ("", ended) and workers[1].returncode == 143
    said = f"p2_strategy: worker 0 lost {addresses[1]}, which no longer answers; nothing was written\n"
    # TensorFlow looks after its peers in its own time: 22 s were seen on two busy cores.
    assert workers[0].communicate(timeout=100) == ("", said) and workers[0].returncode == 1
    assert not list(tmp_path.rglob("*.parquet")) and not workers_of(tmp_path)


def test_headings_of_tensorflow_say_nothing() -> None:
    stack = "Detected at node A defined at (most recent call last):\n  File x, line 1\n"
    said = f"Graph execution error:\n\n{stack}\nNo OpKernel\nmore"
    assert supervision.first_line(RuntimeError(said)) == "No OpKernel"
    assert supervision.first_line(RuntimeError("Graph execution error:\n")) == "no reason given"
