"""Problem 2's script, as a user runs it: rows, bad input, workers that die. The network is tiny.

TensorFlow runs in processes of its own, as it can't share one with PyTorch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import jobs, p2_strategy, store
from tests.processes import started_for

SCRIPT = store.ROOT / "experiments" / "p2_strategy.py"
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
def test_two_workers_write_their_rows_and_are_skipped_once_finished(tmp_path: Path) -> None:
    argv = command(tmp_path, "--learners", "2", "--epochs", "2", "--learning-rate", "0.05")
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.split()[-1])
    assert path.parent == tmp_path / "p2_strategy" and path.name.startswith("cpu-weak-2x16-multiworker-auto-r1")
    log = path.with_suffix(".log").read_text()
    assert all(log.count(f"epoch {number} of 2: ") == 1 for number in (1, 2))  # of worker 0 only
    assert "joined 0" in log and "joined 1" in log

    rows = store.read("p2_strategy", tmp_path)
    assert sorted(zip(rows.epoch, rows.worker, strict=True)) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for column, value in {
        "network": "tiny", "dataset": "synthetic", "learners": 2, "workers": 2, "hosts": 1, "scaling": "weak",
        "effective_batch": 32, "per_learner_batch": 16, "steps": 62, "images": 62 * 16, "communication": "auto",
        "whole_epochs": True, "learner": "process pinned to a core", "kind": "measured", "learning_rate": 0.05,
    }.items():  # fmt: skip
        assert set(rows[column]) == {value}, column
    assert rows.all_reduce.isna().all() and rows.gbit.isna().all()
    np.testing.assert_allclose(rows.images_per_second, rows.images / rows.seconds)
    assert (rows.step_p10 <= rows.step_p50).all() and (rows.step_p50 <= rows.step_p90).all()
    assert (rows.step_p10 * rows.steps <= rows.seconds * 1.001).all()
    assert (rows.gradient_bytes == 4 * rows.parameters).all()
    # A convolution of 3x3 pixels, 3 colours and 4 filters, and a dense layer on 8x8 places.
    assert set(rows.parameters) == {(3 * 9 + 1) * 4 + (8 * 8 * 4 + 1) * 10}
    assert (rows.groupby("epoch").test_accuracy.nunique() == 1).all()
    assert (rows.test_accuracy > 0.5).all() and (rows.test_accuracy <= 1).all()
    # A worker knows its own learners' losses.
    assert rows[rows.epoch == 2].train_loss.max() < rows[rows.epoch == 1].train_loss.min()

    origin = store.runs(tmp_path)[0].provenance
    names = ("p2_strategy", "strategy", "fashion", "jobs", "launch", "cores", "watch")
    assert {f"experiments/{name}.py" for name in names} <= set(origin.sources)
    assert {"tensorflow", "keras", "numpy"} <= {name.removesuffix("-cpu") for name in origin.versions}
    assert origin.device_count == 2

    again = subprocess.run([*argv, "--skip-finished"], capture_output=True, text=True)
    assert again.returncode == 0 and "finished before, skipped" in again.stderr and not again.stdout


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


@needs_tensorflow
def test_a_worker_that_dies_ends_the_job(tmp_path: Path) -> None:
    job, found = start(tmp_path, 12)  # into the training
    began = time.monotonic()
    os.kill(found[1], signal.SIGKILL)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1 and time.monotonic() - began < 30
    assert "p2_strategy: worker 1 at 127.0.0.1:" in said and "was killed by signal 9" in said
    assert "nothing was written" in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.parquet")) and not workers_of(tmp_path)


@needs_tensorflow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_a_job_stops_its_workers(tmp_path: Path, number: int, status: int) -> None:
    job, _ = start(tmp_path, 3)
    job.send_signal(number)
    job.communicate(timeout=60)
    assert job.returncode == status
    assert not list(tmp_path.rglob("*.parquet")) and not workers_of(tmp_path)


@needs_tensorflow
def test_a_peer_that_never_joins_is_named(tmp_path: Path) -> None:
    mine, nobody = p2_strategy.free_addresses(2)
    task = {"cluster": {"worker": [mine, nobody]}, "task": {"type": "worker", "index": 0}}
    argv = command(tmp_path, "--learners", "2", "--join-timeout", "3")
    done = subprocess.run(
        argv, env=os.environ | {"TF_CONFIG": json.dumps(task)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert f"worker 0: not all workers joined within 3 s; missing: {nobody}\n" in done.stdout
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPUs, data and a cluster."""
    for name in ("TF_CONFIG", "DLPERF_DATA", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jobs, "gpus", lambda: [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--learners 0", "--learners must be at least 1, not 0"),
        ("--workers 0", "--workers must be at least 1, not 0"),
        ("--base -1", "--base must be at least 1, not -1"),
        ("--seed -1", "--seed must be 0 to"),
        ("--scaling strong --learners 3", "--effective-batch 256 can't be divided by 3 learners"),
        ("--learners 4 --workers 3", "4 learners can't be shared out evenly to 3 workers"),
        ("--strategy mirrored --learners 2 --workers 2", "--strategy mirrored has one worker"),
        ("--strategy mirrored --communication ring", "--communication is of --strategy multiworker"),
        ("--all-reduce nccl", "--all-reduce is of --strategy mirrored"),
        ("--gbit 1", "give --hosts 2 with it"),
        ("--learners 2 --hosts 2 --gbit 0", "--gbit must be positive"),
        ("--hosts 2", "--hosts 2 is more than the 1 workers"),
        ("--steps-per-epoch 938", "--steps-per-epoch must be 1 to 937 with 60,000 images and batches of 64"),
        ("--steps-per-epoch 0", "--steps-per-epoch must be 1 to 937"),
        ("--data synthetic --base 2001", "--steps-per-epoch must be 1 to 0 with 2,000 images"),
        ("--steps-per-epoch 3 --steps-per-execution 2", "--steps-per-epoch 3 is no multiple of --steps-per-execution"),
        ("--learning-rate 0", "--learning-rate must be positive, not 0"),
        ("--learning-rate nan", "--learning-rate must be positive, not nan"),
        ("--join-timeout 0", "--join-timeout must be positive, not 0"),
        ("--learners 100000 --base 1 --steps-per-epoch 1 --scaling weak", "must be 1 to 0"),
        ("--learners 2000 --base 1", "2000 learners of 1 threads need 2000 cores"),
        ("--device gpu", "this machine has no NVIDIA GPU"),
        ("--launcher slurm", "no SLURM_PROCID here"),
        ("--sweep --workers 3", "--sweep: none of 1, 2, 4, 8, 16 learners suits 3 workers on 1 hosts"),
        ("", "no Fashion-MNIST data: give --data-dir DIR or set DLPERF_DATA=DIR"),
        ("--data-dir /nowhere", "/nowhere: no Fashion-MNIST files there"),
    ],
)
def test_bad_input_is_one_line(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert p2_strategy.main(["--results", str(tmp_path), *arguments.split()]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("p2_strategy: ") and said.count("\n") == 1


def test_more_learners_than_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "gpus", lambda: ["0", "1"])
    assert p2_strategy.main(["--results", str(tmp_path), "--device", "gpu", "--learners", "4"]) == 2
    assert "4 learners need as many GPUs, this machine has 2" in capsys.readouterr().err


TWO = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": '


@pytest.mark.parametrize(
    ("config", "workers", "message"),
    [
        ("{", "2", "TF_CONFIG is not {"),
        ("[]", "2", "TF_CONFIG is not {"),
        ("{}", "2", "KeyError: 'cluster'"),
        ('{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}', "2", "addresses must be host:port"),
        ('{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}', "2", "must be host:port"),
        ('{"cluster": {"worker": 2}, "task": {"type": "worker", "index": 0}}', "2", "TF_CONFIG is not {"),
        (TWO + '{"type": "worker", "index": "0"}}', "2", "an index a number"),
        (TWO + '{"type": "worker", "index": 2}}', "2", "there is no worker 2 among 2"),
        (TWO + '{"type": "worker", "index": -1}}', "2", "there is no worker -1 among 2"),
        (TWO + '{"type": "chief", "index": 0}}', "2", "all tasks must be workers, this one is a 'chief'"),
        (TWO + '{"type": "worker", "index": 0}}', "4", "TF_CONFIG names 2 workers, --workers says 4"),
        (TWO + '{"type": "worker", "index": 0}}', "1", "TF_CONFIG names 2 workers, --workers says 1"),
        ('{"cluster": {"worker": ["a:1"], "chief": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "1",
         "all tasks must be workers"),
    ],
)  # fmt: skip
def test_bad_clusters(
    config: str,
    workers: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    arguments = ["--results", str(tmp_path), "--data", "synthetic", "--learners", workers]
    assert p2_strategy.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("p2_strategy: ") and said.count("\n") == 1


def test_headings_of_tensorflow_say_nothing() -> None:
    assert p2_strategy.first_line(RuntimeError("Graph execution error:\n\n  No OpKernel\nmore")) == "No OpKernel"
    assert p2_strategy.first_line(RuntimeError("Graph execution error:\n")) == "no reason given"


def test_a_sweep_leaves_out_what_workers_cannot_share() -> None:
    parse = p2_strategy.arguments().parse_args
    for given, sizes in {
        "--learners 3": [3], "--sweep": [1, 2, 4, 8, 16], "--sweep --workers 2": [2, 4, 8, 16],
        "--sweep --hosts 4": [4, 8, 16], "--sweep --strategy mirrored": [1, 2, 4, 8],
    }.items():  # fmt: skip
        assert p2_strategy.sizes(parse(given.split())) == sizes


def test_settings_have_results_of_their_own() -> None:
    names = set()
    given = ["", "--repeat 2", "--seed 1", "--threads 2", "--base 32", "--scaling strong", "--epochs 3"]
    given += ["--strategy mirrored", "--communication ring", "--steps-per-execution 2", "--no-evaluate"]
    for more in given:
        c = p2_strategy.configure(p2_strategy.arguments().parse_args(more.split()), 1)
        names.add(store.run_id(c.slug, c.flat()))
    assert len(names) == len(given)


def test_strong_scaling_keeps_the_batch_and_weak_scaling_each_learners_part() -> None:
    parse = p2_strategy.arguments().parse_args
    for learners in (1, 2, 4, 16):
        strong = p2_strategy.configure(parse(["--scaling", "strong"]), learners)
        weak = p2_strategy.configure(parse(["--scaling", "weak"]), learners)
        assert (strong.job.effective_batch, strong.job.steps, strong.job.learning_rate) == (256, 234, 0.05)
        assert weak.job.per_learner_batch == 64 and weak.job.steps == 60_000 // (64 * learners)
        assert weak.job.learning_rate == pytest.approx(0.05 * learners / 4)
        assert strong.job.workers == weak.job.workers == learners
