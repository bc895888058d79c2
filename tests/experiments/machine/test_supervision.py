"""Which GPUs there are, and what is said of a process that ended a job."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.cli import UsageError
from experiments.machine import device_names, nvidia, supervision
from experiments.machine.device_names import cpu_name, device_name

THREE = "".join(rf"GPU {i}: Fast GPU (UUID: GPU-{letter})\n" for i, letter in enumerate("abc"))


def fake_driver(folder: Path, listed: str, monkeypatch: pytest.MonkeyPatch, status: int = 0) -> None:
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\nprintf '{listed}'\nexit {status}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    device_names.driver.cache_clear()


@pytest.fixture(autouse=True)
def asked_again() -> Iterator[None]:
    yield
    device_names.driver.cache_clear()


def test_gpus_are_the_visible_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_driver(tmp_path, THREE, monkeypatch)
    assert nvidia.gpus() == ["0", "1", "2"] and device_name("gpu") == "Fast GPU"
    cases = {"": "", "2": "2", "1, 2": "1,2", "0,1,2,3": "0,1,2", "-1": "", "1,-1,0": "1", "7,0": "", "GPU-b": "GPU-b"}
    for visible, expected in cases.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert ",".join(nvidia.gpus()) == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(UsageError, match="4 learners need as many GPUs, this machine has 3"):
        nvidia.check_gpus(4, oversubscribe=False)
    nvidia.check_gpus(4, oversubscribe=True)
    fake_driver(tmp_path, "No devices found.", monkeypatch, 6)
    assert nvidia.gpus() == []
    with pytest.raises(UsageError, match="this machine has no NVIDIA GPU"):
        nvidia.check_gpus(1, oversubscribe=True)
    (tmp_path / "nvidia-smi").unlink()
    device_names.driver.cache_clear()
    assert nvidia.gpus() == [] and device_name("cpu") == cpu_name()


def test_hidden_and_repeated_gpus_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_driver(tmp_path, THREE, monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES='-1' hides this machine's 3 GPUs; unset it"):
        nvidia.check_gpus(1, oversubscribe=False)
    for twice in ("1,1", "1,GPU-b"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", twice)
        with pytest.raises(UsageError, match=f"CUDA_VISIBLE_DEVICES={twice} names GPU 1 twice; name each once"):
            nvidia.check_gpus(2, oversubscribe=False)


def test_the_name_is_that_of_the_visible_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_driver(tmp_path, r"GPU 0: Slow (UUID: GPU-a)\nGPU 1: Fast (UUID: GPU-b)\n", monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
    assert device_name("gpu") == "Fast"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # CUDA's own order puts the faster one first
    with pytest.raises(UsageError, match=r"GPUs of several models.*CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        device_name("gpu")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert device_name("gpu") == "Fast"


def test_a_broken_driver_gives_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_driver(tmp_path, r"Failed to initialize NVML: Driver/library version mismatch\n", monkeypatch, 18)
    with pytest.raises(UsageError, match=r"lists no GPUs \(Failed to initialize NVML: .*\); repair it, or use"):
        nvidia.check_gpus(1, oversubscribe=False)


def test_a_script_starts_itself_in_the_same_interpreter() -> None:
    command = supervision.command("experiments/p1_horovod.py", "--learners", "2")
    assert command[0] == sys.executable and command[-2:] == ["--learners", "2"]
    assert Path(command[-3]).is_absolute() and ("-P" in command) == bool(sys.flags.safe_path)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("a shape is wrong", "a shape is wrong"),
        ("Graph execution error:\n\nDetected at node x\nmore", "Detected at node x"),
        ("", "no reason given"),
    ],
)
def test_the_line_of_an_error_that_says_what_is_wrong(message: str, line: str) -> None:
    assert supervision.first_line(RuntimeError(message)) == line


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (["epoch 1", "job: learner 1: too hot", "job: learner 0: left alone", "bye"], " (job: learner 1: too hot)"),
        (["ssh: connect to host b port 22: Connection refused", "RuntimeError: some hosts"],
         " (ssh: connect to host b port 22: Connection refused)"),
        (["ssh not successful for host 10.0.0.1:", "Connection timed out", "RuntimeError: some hosts"],
         " (ssh not successful for host 10.0.0.1: Connection timed out)"),
        (["  Too hot", "", "------"], " (Too hot)"),
        (["", "---"], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_why_a_job_failed(log: list[str], reason: str) -> None:
    for status, how in ((3, "ended with status 3"), (-signal.SIGABRT, "was killed by signal 6")):
        failed = supervision.failure("job", "worker 3", status, log)
        assert str(failed) == f"worker 3 {how}; all others were stopped and nothing was written{reason}"


def test_who_was_killed_has_no_last_words() -> None:
    said = ["job: learner 1: too hot", "Connection reset by peer"]
    failed = supervision.failure("job", "worker 3", -9, said[1:])
    assert str(failed) == "worker 3 was killed by signal 9; all others were stopped and nothing was written"
    assert "reset" not in str(supervision.failure("job", "worker 3", 143, said[1:]))
    assert str(supervision.failure("job", "worker 3", -9, said)).endswith(" (job: learner 1: too hot)")
