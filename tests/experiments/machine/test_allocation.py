"""Which allocation a run belongs to: by boot, host, GPUs and token; earlier runs by the table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from experiments.cli import UsageError
from experiments.machine import allocation, device_names
from experiments.store import parquet


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(allocation.TOKEN, "a go")
    device_names.driver.cache_clear()
    yield
    device_names.driver.cache_clear()


def gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, *uuids: str) -> None:
    """An nvidia-smi that lists GPUs of these UUIDs, as in a new process."""
    device_names.driver.cache_clear()
    folder.mkdir(exist_ok=True)
    lines = "".join(f"GPU {i}: NVIDIA H100 (UUID: GPU-{uuid})\\n" for i, uuid in enumerate(uuids))
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_jobs_on_disjoint_gpus_of_one_host_share_an_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(tmp_path, monkeypatch, "0a-1", "0b-2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    first = allocation.current()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert allocation.current() == first and len(first) == 8 and int(first, 16) >= 0
    assert list(device_names.physical_gpus()) == ["GPU-0a-1", "GPU-0b-2"]


def test_another_boot_host_gpu_or_go_is_another_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(tmp_path, monkeypatch, "0a-1")
    seen = [allocation.current()]
    gpus(tmp_path, monkeypatch, "0c-3")
    seen.append(allocation.current())
    monkeypatch.setenv(allocation.TOKEN, "another go")
    seen.append(allocation.current())
    monkeypatch.setattr(allocation.platform, "node", lambda: "another-host")
    seen.append(allocation.current())
    (tmp_path / "boot_id").write_text("1234\n")
    monkeypatch.setattr("experiments.machine.allocation.BOOT", tmp_path / "boot_id")
    seen.append(allocation.current())
    assert len(set(seen)) == 5


def test_a_go_without_a_token_makes_one_for_its_child_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(allocation.TOKEN)
    made = allocation.token()
    assert len(made) == 16 and allocation.token() == made
    monkeypatch.delenv(allocation.TOKEN)
    assert allocation.token() != made


@pytest.mark.parametrize("token", ["", "two\nlines", "x" * 101])
def test_a_token_is_one_short_line(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(allocation.TOKEN, token)
    with pytest.raises(UsageError, match="DLPERF_ALLOCATION must be 1 to 100 printable characters"):
        allocation.current()


def test_earlier_runs_are_told_apart_by_processor_cores_and_time() -> None:
    at = datetime(2026, 11, 26, 14, 30, tzinfo=UTC)
    assert allocation.of_earlier("Intel(R) Xeon(R) Processor", 64, at) == "1126-1424-64c"
    assert allocation.of_earlier("Intel(R) Xeon(R) Processor", 32, at) == ""
    assert allocation.of_earlier("AMD EPYC", 64, at) == ""
    assert allocation.of_earlier("Intel(R) Xeon(R) Processor", 64, at.replace(hour=15)) == ""


def test_windows_of_one_kind_of_host_are_at_least_15_minutes_apart() -> None:
    windows = sorted(allocation.windows(), key=lambda w: (w.host_cpu, w.host_cores, w.first))
    assert len({window.allocation for window in windows}) == len(windows)
    for window, following in pairwise(windows):
        assert window.first < window.last
        if window[1:3] == following[1:3]:
            assert (following.first - window.last).total_seconds() > 15 * 60


def test_every_stored_run_has_an_allocation_but_one_that_was_resumed_on_another_host() -> None:
    where = {run.provenance.run_id: run.provenance.where for run in parquet.runs()}
    assert [run for run in where if not where[run]] == ["cifar10-cutout-M01-e100-authors-fp32-cuda-s1-58bf771a"]
    assert {window.allocation for window in allocation.windows()} <= set(where.values())
