"""Problem 2's script, as a user runs it: rows, bad input, workers that die. The network is tiny.

TensorFlow runs in processes of its own, as it can't share one with PyTorch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import cores, jobs, p2_strategy, store
from experiments.usage import RunError, UsageError
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
    worker = start_one(tmp_path, [mine, nobody], 0, "--join-timeout", "3")
    said = f"p2_strategy: worker 0: not all workers joined within 3 s; missing: {nobody}; nothing was written\n"
    assert worker.communicate(timeout=60) == ("", said) and worker.returncode == 1
    assert not list(tmp_path.rglob("*.parquet"))


def start_one(
    results: Path, addresses: list[str], rank: int, *arguments: str, **environment: str
) -> subprocess.Popen[str]:
    """One worker of two, as a user starts it."""
    argv = command(results, "--learners", "2", *arguments)
    variables = os.environ | (environment or {"TF_CONFIG": p2_strategy.as_tf_config(addresses, rank)})
    return subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def joined(rank: int) -> str:
    """What such a worker says once all are there."""
    return f"p2_strategy: worker {rank} has joined the others\n"


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
    rows = store.read("p2_strategy", tmp_path)
    assert sorted(rows.worker) == [0, 1] and set(rows.hosts) == {1}
    assert set(rows.learner) == {"process pinned to a core"}


@needs_tensorflow
def test_a_worker_of_its_own_ends_when_asked_to_and_the_other_says_whom_it_lost(tmp_path: Path) -> None:
    addresses = p2_strategy.free_addresses(2)
    workers = [start_one(tmp_path, addresses, rank, "--epochs", "3000", "--no-evaluate") for rank in range(2)]
    for rank, worker in enumerate(workers):
        assert worker.stderr is not None and worker.stderr.readline() == joined(rank)
    time.sleep(5)  # into the training
    workers[1].terminate()
    assert workers[1].communicate(timeout=30) == ("", "") and workers[1].returncode == 143
    said = f"p2_strategy: worker 0 lost {addresses[1]}, which no longer answers; nothing was written\n"
    # TensorFlow looks after its peers in its own time: 22 s were seen on two busy cores.
    assert workers[0].communicate(timeout=100) == ("", said) and workers[0].returncode == 1
    assert not list(tmp_path.rglob("*.parquet")) and not workers_of(tmp_path)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPUs, data and a cluster."""
    for name in [name for name in os.environ if name.startswith(("TF_CONFIG", "DLPERF_DATA", "SLURM_", "CUDA_VIS"))]:
        monkeypatch.delenv(name)
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
        (TWO + '{"type": "worker", "index": true}}', "2", "an index a number"),
        (TWO.replace("b:1", "b:x") + '{"type": "worker", "index": 0}}', "2", "must be host:port"),
        (TWO.replace("b:1", "b:0") + '{"type": "worker", "index": 0}}', "2", "must be host:port"),
        (TWO.replace("b:1", "b:65536") + '{"type": "worker", "index": 0}}', "2", "must be host:port"),
        (TWO.replace("b:1", ":1") + '{"type": "worker", "index": 0}}', "2", "must be host:port"),
        (TWO.replace("b:1", "A:1") + '{"type": "worker", "index": 0}}', "2", "names A:1 twice"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--threads 5000", "1 learners of 5000 threads need 5000 cores"),
        ("--device gpu", "this machine has no NVIDIA GPU"),
        ("--sweep", "--sweep is for workers that the script starts, but TF_CONFIG names them"),
        ("--skip-finished", "--skip-finished is for workers that the script starts, but TF_CONFIG names them"),
        ("--hosts 2", "--hosts is for workers that the script starts, but TF_CONFIG names them"),
        ("--data-dir /nowhere --data fashion", "/nowhere: no Fashion-MNIST files there"),
        ("--results /proc/nowhere", "/proc/nowhere"),
    ],
)
def test_bad_input_of_a_worker_of_its_own_is_one_line(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = [*p2_strategy.free_addresses(1), "elsewhere:1"]
    monkeypatch.setenv("TF_CONFIG", p2_strategy.as_tf_config(mine, 0))
    given = ["--results", str(tmp_path), "--data", "synthetic", "--learners", "2", *arguments.split()]
    assert p2_strategy.main(given) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("p2_strategy: ") and said.count("\n") == 1


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_worker_of_its_own_has_a_part_of_its_host(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[p2_strategy.Config, p2_strategy.Own]] = []

    def launch(c: p2_strategy.Config, report: Path, argv: list[str], own: p2_strategy.Own):  # type: ignore[no-untyped-def]
        started.append((c, own))
        raise RunError("enough")

    monkeypatch.setattr(p2_strategy, "launch", launch)
    monkeypatch.setattr(cores, "siblings", lambda: {4: 0, 5: 0})
    here, there = p2_strategy.free_addresses(2)
    addresses = [here, "127.0.0.2:" + there.partition(":")[2], there.replace("127.0.0.1", "localhost")]
    monkeypatch.setenv("TF_CONFIG", p2_strategy.as_tf_config(addresses, rank))
    results = tmp_path / "results"
    given = ["--results", str(results), "--data", "synthetic", "--learners", "3"]
    assert p2_strategy.main(given) == 1 and capsys.readouterr().err == "p2_strategy: enough\n"
    ((c, own),) = started
    assert c.hosts == 2 and "2hosts" in c.slug
    assert (own.rank, own.devices) == (rank, {"DLPERF_CORES": ["4", "4", "5"][rank]})
    assert results.exists() == (rank == 0)  # the only one that writes


def test_gpus_that_a_worker_of_its_own_was_given_are_its_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "gpus", lambda: ["3"])
    monkeypatch.setenv("TF_CONFIG", p2_strategy.as_tf_config(p2_strategy.free_addresses(2), 1))
    a = p2_strategy.arguments().parse_args(["--device", "gpu"])
    c = p2_strategy.configure(a, 2)
    with pytest.raises(UsageError, match="2 learners need as many GPUs, this machine has 1"):
        p2_strategy.own_place(c, a)  # both would take the only one
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert p2_strategy.own_place(c, a).devices == {"CUDA_VISIBLE_DEVICES": "3"}
    monkeypatch.setattr(jobs, "gpus", lambda: ["3", "5"])
    assert p2_strategy.own_place(c, a).devices == {"CUDA_VISIBLE_DEVICES": "5"}


def test_slurm_outside_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")  # as sbatch sets it
    assert p2_strategy.main(["--results", str(tmp_path), "--launcher", "slurm", "--learners", "2"]) == 2
    assert "no SLURM_STEP_NODELIST here; start the script with srun" in capsys.readouterr().err


def test_an_address_must_be_of_this_machine_and_free() -> None:
    (free,) = p2_strategy.free_addresses(1)
    p2_strategy.check_address(free)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "127.0.0.2"):  # TensorFlow listens at all of them
            with pytest.raises(UsageError, match=f"{host}:{port}: port {port} of this machine is in use"):
                p2_strategy.check_address(f"{host}:{port}")
    for address in ("192.0.2.1:29500", "no-such-host.invalid:29500"):
        with pytest.raises(UsageError, match=f"{address} is not an address of this machine"):
            p2_strategy.check_address(address)


def test_a_worker_of_its_own_is_told_of_a_port_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("TF_CONFIG", p2_strategy.as_tf_config([mine, "elsewhere:1"], 0))
        given = ["--results", str(tmp_path / "results"), "--data", "synthetic", "--learners", "2"]
        assert p2_strategy.main(given) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"p2_strategy: {mine}: port") and said.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_the_end_of_a_worker_of_its_own_is_told() -> None:
    nobody, mine = p2_strategy.free_addresses(2)
    own = p2_strategy.Own([nobody, mine], 1, {})
    gone = f"worker 1 lost {nobody}, which no longer answers; nothing was written"
    lost = "worker 1: UnavailableError: Socket closed"
    cause = "worker 1: RuntimeError: the loss is not finite after epoch 1"
    for status, log, told in (
        (1, ["joined 1", "Traceback", lost], gone),
        (-signal.SIGABRT, ["joined 1"], gone),
        (1, [f"p2_strategy: {cause}"], f"{cause}; nothing was written"),
        (-signal.SIGKILL, ["joined 1"], "worker 1 was killed by signal 9; nothing was written"),
    ):
        assert str(p2_strategy.own_failure(own, status, log)) == told
    with socket.create_server(("127.0.0.1", 0)) as answers:
        own = p2_strategy.Own([f"127.0.0.1:{answers.getsockname()[1]}", mine], 1, {})
        assert str(p2_strategy.own_failure(own, 1, [lost])) == f"{lost}; nothing was written"


def test_headings_of_tensorflow_say_nothing() -> None:
    assert jobs.first_line(RuntimeError("Graph execution error:\n\n  No OpKernel\nmore")) == "No OpKernel"
    assert jobs.first_line(RuntimeError("Graph execution error:\n")) == "no reason given"


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
