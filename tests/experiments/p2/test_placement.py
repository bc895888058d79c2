"""Problem 2's workers where TF_CONFIG or Slurm gives them their places, and what is said of lost ones."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from experiments import p2_strategy
from experiments.cli import RunError, UsageError
from experiments.p2 import placement, strategy_options
from experiments.p2.placement import AssignedWorker

pytestmark = pytest.mark.usefixtures("bare_machine")


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
        ("--repeats 2", "--repeats is for workers that the script starts, but TF_CONFIG names them"),
        ("--learners 2,4", "--learners with several values is for workers that the script starts, but TF_CONFIG"),
        ("--scaling weak,strong", "--scaling with several values is for workers that the script starts"),
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
    mine = [*placement.free_addresses(1), "elsewhere:1"]
    monkeypatch.setenv("TF_CONFIG", placement.as_tf_config(mine, 0))
    learners = [] if "--sweep" in arguments else ["--learners", "2"]
    given = ["--results", str(tmp_path), "--data", "synthetic", *learners, *arguments.split()]
    assert p2_strategy.main(given) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("p2_strategy: ") and said.count("\n") == 1


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_worker_of_its_own_has_a_part_of_its_host(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[strategy_options.Config, AssignedWorker]] = []

    def launch(c: strategy_options.Config, report: Path, argv: list[str], stall_timeout: float, own: AssignedWorker):  # type: ignore[no-untyped-def]
        started.append((c, own))
        raise RunError("enough")

    monkeypatch.setattr(p2_strategy, "launch", launch)
    monkeypatch.setattr("experiments.machine.cores.siblings", lambda: {4: 0, 5: 0})
    here, there = placement.free_addresses(2)
    addresses = [here, "127.0.0.2:" + there.partition(":")[2], there.replace("127.0.0.1", "localhost")]
    monkeypatch.setenv("TF_CONFIG", placement.as_tf_config(addresses, rank))
    results = tmp_path / "results"
    given = ["--results", str(results), "--data", "synthetic", "--learners", "3"]
    assert p2_strategy.main(given) == 1 and capsys.readouterr().err == "p2_strategy: enough\n"
    ((c, own),) = started
    assert c.hosts == 2 and "2hosts" in c.slug
    assert (own.rank, own.devices) == (rank, {"DLPERF_CORES": ["4", "4", "5"][rank]})
    assert results.exists() == (rank == 0)  # the only one that writes


def test_gpus_that_a_worker_of_its_own_was_given_are_its_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.machine.nvidia.gpus", lambda: ["3"])
    monkeypatch.setenv("TF_CONFIG", placement.as_tf_config(placement.free_addresses(2), 1))
    (c,) = strategy_options.series(strategy_options.arguments("").parse_args(["--device", "gpu", "--learners", "2"]))
    with pytest.raises(UsageError, match="2 learners need as many GPUs, this machine has 1"):
        placement.assigned_worker(c.job, "local", False)  # both would take the only one
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert placement.assigned_worker(c.job, "local", False).devices == {"CUDA_VISIBLE_DEVICES": "3"}
    monkeypatch.setattr("experiments.machine.nvidia.gpus", lambda: ["3", "5"])
    assert placement.assigned_worker(c.job, "local", False).devices == {"CUDA_VISIBLE_DEVICES": "5"}


def test_slurm_outside_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")  # as sbatch sets it
    assert p2_strategy.main(["--results", str(tmp_path), "--launcher", "slurm", "--learners", "2"]) == 2
    assert "no SLURM_STEP_NODELIST here; start the script with srun" in capsys.readouterr().err


def test_an_address_must_be_of_this_machine_and_free() -> None:
    (free,) = placement.free_addresses(1)
    placement.check_address(free)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "127.0.0.2"):  # TensorFlow listens at all of them
            with pytest.raises(UsageError, match=f"{host}:{port}: port {port} of this machine is in use"):
                placement.check_address(f"{host}:{port}")
    for address in ("192.0.2.1:29500", "no-such-host.invalid:29500"):
        with pytest.raises(UsageError, match=f"{address} is not an address of this machine"):
            placement.check_address(address)


def test_a_worker_of_its_own_is_told_of_a_port_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("TF_CONFIG", placement.as_tf_config([mine, "elsewhere:1"], 0))
        given = ["--results", str(tmp_path / "results"), "--data", "synthetic", "--learners", "2"]
        assert p2_strategy.main(given) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"p2_strategy: {mine}: port") and said.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_the_end_of_a_worker_of_its_own_is_told() -> None:
    nobody, mine = placement.free_addresses(2)
    own = AssignedWorker([nobody, mine], 1, {})
    gone = f"worker 1 lost {nobody}, which no longer answers; nothing was written"
    lost = "worker 1: UnavailableError: Socket closed"
    cause = "worker 1: RuntimeError: the loss is not finite after epoch 1"
    for status, log, told in (
        (1, ["joined 1", "Traceback", lost], gone),
        (-signal.SIGABRT, ["joined 1"], gone),
        (1, [f"p2_strategy: {cause}"], f"{cause}; nothing was written"),
        (-signal.SIGKILL, ["joined 1"], "worker 1 was killed by signal 9; nothing was written"),
    ):
        assert str(placement.assigned_failure("p2_strategy", own, status, log)) == told
    with socket.create_server(("127.0.0.1", 0)) as answers:
        own = AssignedWorker([f"127.0.0.1:{answers.getsockname()[1]}", mine], 1, {})
        assert str(placement.assigned_failure("p2_strategy", own, 1, [lost])) == f"{lost}; nothing was written"
