"""Problem 2's script, as a user runs it: rows, bad input, workers that die or never come. Networks are tiny."""

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

from experiments import p1_horovod, p2_strategy, store

SCRIPT = store.ROOT / "experiments" / "p2_strategy.py"
needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
TINY = ["--network", "tiny", "--data", "synthetic", "--epochs", "2", "--oversubscribe"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster and no data of the machine's own."""
    for name in ("TF_CONFIG", "DLPERF_DATA", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def command(results: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--results", str(results), *TINY, *arguments]


@needs_tensorflow
def test_rows_of_two_workers(tmp_path: Path) -> None:
    argv = command(tmp_path, "--learners", "2", "--steps-per-execution", "5")
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = store.read("p2_strategy", tmp_path)
    assert len(rows) == 4 and sorted(rows.worker) == [0, 0, 1, 1] and set(rows.kind) == {"measured"}
    # 2,000 images make 15 batches of 128, which 5 steps a call divide; a worker has half of each.
    assert set(rows.steps) == {15} and set(rows.images) == {15 * 64} and set(rows.effective_batch) == {128}
    np.testing.assert_allclose(rows.images_per_second, rows.images / rows.seconds)
    assert (rows.step_p10 <= rows.step_p50).all() and (rows.step_p50 <= rows.step_p90).all()
    assert (rows.groupby("epoch").test_accuracy.nunique() == 1).all() and rows.test_accuracy.max() > 0.5
    assert set(rows.learner) == {"process pinned to a core"} and set(rows.communication) == {"auto"}
    assert rows.all_reduce.isna().all() and set(rows.learning_rate) == {p2_strategy.RATE_AT_256 / 2}
    assert set(rows.parameters) == {4 * 27 + 4 + 4 * 8 * 8 * 10 + 10}
    origin = store.runs(tmp_path)[0].provenance
    assert {"tensorflow", "keras"} <= set(origin.versions) and origin.device_count == 2
    assert {"experiments/p2_strategy.py", "experiments/strategy.py", "experiments/fashion.py"} <= set(origin.sources)
    again = subprocess.run([*argv, "--skip-finished"], capture_output=True, text=True)
    assert again.returncode == 0 and "finished before, skipped" in again.stderr


@needs_tensorflow
def test_nccl_between_cpus_fails_with_tensorflows_own_words(tmp_path: Path) -> None:
    argv = command(tmp_path, "--learners", "2", "--strategy", "mirrored", "--all-reduce", "nccl")
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 1 and "No OpKernel was registered to support Op 'NcclAllReduce'" in done.stderr
    assert done.stderr.startswith("p2_strategy: worker 0 ended with status 1") and not list(tmp_path.rglob("*.parquet"))


def workers_of(results: Path) -> dict[int, int]:
    """Processes that are workers of a job, pid by rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if str(results).encode() in words and b"--report" in words:
            config = next(pair for pair in environment if pair.startswith(b"TF_CONFIG="))
            found[json.loads(config.partition(b"=")[2])["task"]["index"]] = int(entry.name)
    return found


@needs_tensorflow
@pytest.mark.parametrize(("number", "status"), [(None, 1), (signal.SIGTERM, 143)])
def test_no_worker_outlives_a_job(tmp_path: Path, number: signal.Signals | None, status: int) -> None:
    argv = command(tmp_path, "--learners", "2", "--epochs", "100000")
    with (tmp_path / "said").open("w+") as said:
        job = subprocess.Popen(argv, stdout=said, stderr=said)
        deadline = time.monotonic() + 60
        while len(found := workers_of(tmp_path)) < 2:
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(12)  # into the training
        if number is None:
            os.kill(found[1], signal.SIGKILL)
        else:
            job.send_signal(number)
        assert job.wait(60) == status
        said.seek(0)
        if number is None:
            assert "worker 1 at 127.0.0.1:" in (text := said.read()) and "was killed by signal 9" in text
    assert not workers_of(tmp_path) and not list(tmp_path.rglob("*.parquet"))


@needs_tensorflow
def test_a_worker_that_never_joins_is_named(tmp_path: Path) -> None:
    mine, absent = p2_strategy.free_addresses(2)
    config = {"cluster": {"worker": [mine, absent]}, "task": {"type": "worker", "index": 0}}
    argv = command(tmp_path, "--learners", "2", "--workers", "2", "--join-timeout", "5")
    done = subprocess.run(
        argv, env=os.environ | {"TF_CONFIG": json.dumps(config)}, capture_output=True, text=True, timeout=90
    )
    assert done.returncode != 0 and not list(tmp_path.rglob("*.parquet"))
    assert f"not all workers joined within 5 s; missing: {absent}" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learners", "0"], "--learners must be at least 1, not 0"),
        (["--workers", "-1"], "--workers must be at least 1, not -1"),
        (["--learners", "3", "--scaling", "strong"], "--effective-batch 256 can't be divided by 3 learners"),
        (["--learners", "4", "--workers", "3"], "4 learners can't be shared out evenly to 3 workers"),
        (["--strategy", "mirrored", "--workers", "2", "--learners", "2"], "--strategy mirrored has one worker"),
        (["--strategy", "mirrored", "--communication", "ring"], "--communication is of --strategy multiworker"),
        (["--all-reduce", "nccl"], "--all-reduce is of --strategy mirrored"),
        (["--gbit", "1"], "give --hosts 2 with it"),
        (["--hosts", "2"], "--hosts 2 is more than the 1 workers"),
        (["--steps-per-epoch", "1000000"], "--steps-per-epoch must be 1 to 31 with 2,000 images and batches of 64"),
        (["--steps-per-epoch", "3", "--steps-per-execution", "2"], "3 is no multiple of --steps-per-execution 2"),
        (["--learning-rate", "0"], "--learning-rate must be positive, not 0"),
        (["--join-timeout", "0"], "--join-timeout must be positive, not 0"),
        (["--seed", "-1"], "--seed must be 0 to"),
        (["--data", "fashion"], "no Fashion-MNIST data: give --data-dir DIR"),
        (["--launcher", "slurm"], "start the script with srun"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert p2_strategy.main(["--results", str(tmp_path), *TINY, *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("p2_strategy: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "TF_CONFIG is not"),
        ("[]", "TF_CONFIG is not"),
        ('{"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}', "must be host:port"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
            "names 1 workers, --workers says 2",
        ),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "there is no worker 2"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}', "this one is a 'chief'"),
        (
            '{"cluster": {"ps": ["c:1"], "worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}',
            "all tasks must be workers",
        ),
    ],
)
def test_a_cluster_that_does_not_fit(
    config: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    assert p2_strategy.main(["--results", str(tmp_path), *TINY, "--learners", "2"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_devices_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [word for word in TINY if word != "--oversubscribe"]
    assert p2_strategy.main(["--results", str(tmp_path), *few, "--learners", "1000", "--base", "1"]) == 2
    assert "1000 learners of 1 threads need 1000 cores" in capsys.readouterr().err
    for there, message in (([], "has no NVIDIA GPU"), (["0"], "2 learners need as many GPUs, this machine has 1")):
        monkeypatch.setattr(p1_horovod, "gpus", lambda there=there: there)
        assert p2_strategy.main(["--results", str(tmp_path), *TINY, "--learners", "2", "--device", "gpu"]) == 2
        assert message in capsys.readouterr().err


def test_weak_scaling_holds_a_learners_batch_and_strong_scaling_the_whole() -> None:
    parse = p2_strategy.arguments().parse_args
    for n in (1, 2, 4, 8, 16):
        weak = p2_strategy.configure(parse(["--scaling", "weak"]), n).job
        strong = p2_strategy.configure(parse(["--scaling", "strong"]), n).job
        assert (weak.per_learner_batch, weak.effective_batch, weak.workers) == (64, 64 * n, n)
        assert (strong.per_learner_batch, strong.effective_batch) == (256 // n, 256)
        assert weak.learning_rate / strong.learning_rate == pytest.approx(n / 4)
        assert weak.steps == 60_000 // (64 * n) and strong.steps == 234


def test_settings_have_results_of_their_own() -> None:
    parse = p2_strategy.arguments().parse_args
    names = set()
    for more in ([], ["--repeat", "2"], ["--jit-compile"], ["--communication", "ring"], ["--steps-per-execution", "3"]):
        c = p2_strategy.configure(parse(more), 2)
        names.add(store.run_id(c.slug, c.flat()))
    assert len(names) == 5
