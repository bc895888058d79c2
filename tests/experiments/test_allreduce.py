"""All-reduces of two processes are timed and stored; a learner that dies takes the run with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import allreduce
from experiments.cli import RunError, UsageError
from experiments.scaling import allreduce_learner
from experiments.store import parquet
from tests.experiments.machine.test_hosts import makes_hosts

SCRIPT = Path(allreduce.__file__)
TINY = ["--backend", "gloo", "--oversubscribe", "--windows", "2", "--window-seconds", "0.01"]
SECONDS = 60


@pytest.fixture(autouse=True)
def commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)


def learners_of(launcher: int) -> dict[int, int]:
    """Rank and process of a launcher's learners."""
    listing = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(launcher)], text=True)
    ranks = {}
    for pid in map(int, listing.split()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:  # ps itself
            continue
        if b"--learner" in words:
            ranks[json.loads(words[words.index(b"--learner") + 1])["rank"]] = pid
    return ranks


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_learners_are_measured_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLOO_TEST", "recorded")
    arguments = [*TINY, "--min-bytes", "1024", "--max-bytes", "16384", "--results", str(tmp_path)]
    assert allreduce.main(arguments) == 0
    frame = parquet.read("allreduce", tmp_path)
    assert frame.bytes.tolist() == [size for size in (1024, 2048, 4096, 8192, 16384) for _ in range(2)]
    assert frame.window.tolist() == [1, 2] * 5
    assert (frame.seconds > 0).all() and (frame.iterations >= 1).all()
    assert (frame.algorithm_bandwidth == frame.bytes / frame.seconds).all()
    assert frame.bus_bandwidth.to_numpy() == pytest.approx(frame.algorithm_bandwidth)  # 2(p−1)/p is 1 for 2
    same = {"backend": "gloo", "learners": 2, "hosts": 1, "device_kind": "cpu", "threads": 1, "device_count": 1}
    assert all((frame[name] == value).all() for name, value in same.items()) and frame.gbit.isna().all()
    (run,) = parquet.runs(tmp_path)
    assert run.provenance.config["environment"]["GLOO_TEST"] == "recorded"
    assert {"experiments/allreduce.py", "experiments/machine/cores.py"} <= set(run.provenance.sources)
    assert capsys.readouterr().out == f"{run.path}\n"
    assert len(run.path.with_suffix(".log").read_text().splitlines()) == 6  # what and where, then the sizes
    assert learners_of(os.getpid()) == {}


@pytest.mark.slow
@pytest.mark.root
@makes_hosts
def test_two_hosts(tmp_path: Path) -> None:
    small = ["--min-bytes", "1024", "--max-bytes", "1024", "--results", str(tmp_path)]
    assert allreduce.main([*TINY, *small, "--gbit", "1"]) == 0
    frame = parquet.read("allreduce", tmp_path)
    assert frame.hosts.tolist() == [2, 2] and frame.gbit.tolist() == [1, 1]


def test_bus_bandwidth_counts_what_a_learner_sends() -> None:
    assert allreduce.bus_bandwidth(4, 1000, 0.5) == 3000
    assert allreduce.bus_bandwidth(2, 1000, 0.5) == 2000


# ---- a failing run -------------------------------------------------------------------------------------------------


@pytest.fixture
def long_run(tmp_path: Path) -> Any:
    """A launcher whose learners would measure for hours, and its learners."""
    arguments = [*TINY, "--windows", "1000000", "--max-bytes", "1024", "--results", str(tmp_path / "results")]
    launcher = subprocess.Popen(
        [sys.executable, "-P", str(SCRIPT), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    end = time.monotonic() + SECONDS
    # The rendezvous grows when the learners have met.
    while not any(path.stat().st_size for path in tmp_path.glob("allreduce-*/rendezvous")):
        assert launcher.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    ranks = learners_of(launcher.pid)
    assert set(ranks) == {0, 1}
    yield launcher, ranks
    launcher.kill()
    launcher.communicate()


def left_behind(ranks: dict[int, int], tmp_path: Path) -> list[Any]:
    end = time.monotonic() + 10
    while any(map(alive, ranks.values())) and time.monotonic() < end:
        time.sleep(0.05)
    return [*filter(alive, ranks.values()), *tmp_path.rglob("*.parquet")]


def test_a_killed_learner_is_named_and_ends_the_run(long_run: Any, tmp_path: Path) -> None:
    launcher, ranks = long_run
    os.kill(ranks[1], signal.SIGKILL)
    _, stderr = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 1
    assert stderr.splitlines()[1:] == [
        "allreduce: learner 1 was killed by signal 9; all others were stopped and nothing was written"
    ]
    assert left_behind(ranks, tmp_path) == []
    assert not list(tmp_path.glob("allreduce-*"))


@pytest.mark.slow
def test_learners_end_with_their_launcher(long_run: Any, tmp_path: Path) -> None:
    launcher, ranks = long_run
    launcher.kill()
    launcher.wait()
    assert left_behind(ranks, tmp_path) == []


def test_a_learner_says_why_it_failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def exit_now(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", exit_now)
    config = vars(allreduce.configure(allreduce.arguments().parse_args([*TINY, "--max-bytes", "1024"])))
    for message, line in {
        "a wrong sum": "allreduce: learner 1: a wrong sum\n",
        "Connection closed by peer\nException raised from x.cc:1": "learner 1: Connection closed by peer\n",
        "": "allreduce: learner 1: RuntimeError\n",
    }.items():

        def learn(*_: object, message: str = message) -> None:
            raise RuntimeError(message)

        monkeypatch.setattr(allreduce, "learn", learn)
        with pytest.raises(SystemExit, match="1"):
            allreduce.learner(config, 1, "/nowhere")
        assert capsys.readouterr().out == line


@pytest.mark.parametrize("learners", [2, 3])
def test_sums_are_checked(learners: int, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 3 * allreduce_learner.PATTERN * 4096 // 2  # more than a block

    def reduced(vector: torch.Tensor) -> None:
        """As if all ranks had had this rank's share."""
        vector.mul_(learners * (learners + 1) // 2 // 2)

    if learners == 3:  # rank 1 holds twice the pattern, and the sum is six times that
        monkeypatch.setattr(allreduce.dist, "all_reduce", reduced)
        allreduce_learner.check_sum(torch.empty(size), 1, learners)
    for position in (0, size // 2, size - 1):

        def damaged(vector: torch.Tensor, position: int = position) -> None:
            vector.mul_(3)
            vector[position] += 1

        monkeypatch.setattr(allreduce.dist, "all_reduce", damaged)
        with pytest.raises(RunError, match=f"all-reduce of {4 * size} bytes has a wrong sum"):
            allreduce_learner.check_sum(torch.empty(size), 0, 2)


def test_the_largest_sums_are_exact() -> None:
    learners = allreduce_learner.MOST_LEARNERS
    assert learners * (learners + 1) // 2 * allreduce_learner.PATTERN < 1 << 24


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_too_few_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.machine.cores.siblings", lambda: {0: 0, 1: 0})
    with pytest.raises(UsageError, match="3 learners of 1 threads need 3 cores, this machine has 2"):
        allreduce.configure(allreduce.arguments().parse_args(["--backend", "gloo", "--learners", "3"]))


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--learners", "3"], "needs a GPU for each learner: 3 of them, PyTorch sees 2"),
        (["--gbit", "10"], "are for --backend gloo"),
        (["--oversubscribe"], "are for --backend gloo"),
    ],
)
def test_nccl_needs_gpus(argv: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allreduce.dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(allreduce.torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match=complaint):
        allreduce.configure(allreduce.arguments().parse_args(["--backend", "nccl", *argv]))


def test_folders_that_cannot_be_written_are_noticed_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert allreduce.main([*TINY, "--max-bytes", "1024", "--results", str(tmp_path / "file")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("allreduce:") and "earlier results are as they were" in line
