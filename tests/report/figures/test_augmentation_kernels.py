"""Problem 4: kernels and least times on hand-made rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from derivations import roofline
from experiments.p4.wanted import BATCH
from report.answers import Missing
from report.figures.augmentation_kernels import (
    load_kernels,
    steps,
    tbl_p4_floor,
    tbl_p4_kernels,
    text_p4_floor,
    text_p4_kernels,
)
from tests.frames import H100, H200
from tests.p1_runs import lines
from tests.p4_epochs import plain, runs

NONE = pd.DataFrame(columns=["M", "device", "seconds"])


def kernel(name: str, launches: int, seconds: float, megabytes: float, m: int, **other: Any) -> pd.DataFrame:
    """A kernel of the step with M = m, which takes 5 ms on a device that copies 1 TB/s."""
    row = {"kernel": name, "launches": launches, "seconds": seconds, "bytes": round(1e6 * megabytes), "M": m}
    row |= {"device": H100, "copy_bandwidth": 1e12, "step_seconds": 5e-3}
    return pd.DataFrame([row | other])


def test_a_step_beside_the_time_of_its_bytes() -> None:
    one = runs(
        kernel("join", 2, 1e-4, 64, 1, step_seconds=0.374e-3), kernel("update", 1, 2e-4, 10, 1, step_seconds=0.374e-3)
    )
    two = kernel("join", 3, 1e-4, 138, 2, step_seconds=0.414e-3)
    there = kernel("join", 3, 1e-4, 138, 2, step_seconds=0.276e-3, copy_bandwidth=2e12, device=H200)
    measured = runs(there, two, one)
    # 64 MB and 10: 74 MB in 0.074 ms at 1 TB/s; 0.3 ms beyond that in three launches
    assert lines(str(tbl_p4_floor(measured)))[1:] == [
        ["H100", "1", "0.07", "0.37", "5.05", "100", "74"],
        ["", "2", "0.14", "0.41", "3.00", "92", "138"],
        ["H200", "2", "0.07", "0.28", "4.00", "69", "138"],
    ]
    assert plain(text_p4_floor(measured)) == (
        "On an H100, moving the bytes would take 33 % of the step's time with M = 2, but 20 % with M = 1, whose 3 "
        "launches take 100 µs each beyond that. On an H200, moving the bytes would take 25 % of the step's time with "
        "M = 2."
    )
    assert isinstance(tbl_p4_floor(NONE), Missing) and text_p4_floor(NONE) == ""


def test_timed_kernels_beside_their_least_time() -> None:
    join, head = kernel("join", 21, 1e-3, 500, 32), kernel("head", 1, 3e-3, 1500, 32)
    few = kernel("join", 21, 1e-4, 50, 1, step_seconds=1e-3)
    measured = runs(join, head, few)
    head_row, join_row = ["head", "3.000 (2.0)", "1,500", "1"], ["join", "1.000 (2.0)", "500", "21"]
    table = lines(str(tbl_p4_kernels(measured)))
    assert table == [["Kernel", "H100: ms (times)", "MB", "Launches"], head_row, join_row]  # 1.5 GB at 1,000 GB/s
    small = runs(kernel("stem", 1, 2e-6, 1, 32), kernel("update", 2, 3e-6, 1, 32))
    assert lines(str(tbl_p4_kernels(runs(measured, small))))[-1] == ["stem and update", "0.005 (2.5)", "2", "3"]
    assert isinstance(tbl_p4_kernels(NONE), Missing) and isinstance(text_p4_kernels(NONE), Missing)


def test_each_device_has_a_column() -> None:
    here = runs(kernel("join", 21, 1e-3, 500, 32), kernel("head", 1, 3e-3, 1500, 32))
    there = kernel("join", 21, 2e-3, 500, 32, device=H200, copy_bandwidth=2e12)
    assert lines(str(tbl_p4_kernels(runs(there, here)))) == [
        ["Kernel", "H100: ms (times)", "H200: ms (times)", "MB", "Launches"],
        ["head", "3.000 (2.0)", "–", "1,500", "1"],
        ["join", "1.000 (2.0)", "2.000 (8.0)", "500", "21"],
    ]


def test_whether_time_passes_between_kernels() -> None:
    full = runs(kernel("join", 1, 5.1e-3, 500, 32), kernel("join", 1, 5e-3, 50, 1))
    assert text_p4_kernels(full) == (
        "Whatever M is, the kernels together take 1.00–1.02 times the step on an H100: hardly any time passes between "
        "them."
    )
    idle = runs(full, kernel("join", 1, 3e-3, 50, 1, device=H200))
    assert str(text_p4_kernels(idle)).endswith("on an H100 and 0.60 times the step on an H200.")


def test_stored_kernels_are_those_of_todays_derivation() -> None:
    found = steps(load_kernels())
    assert set(found) == {"H100", "H200"}
    for measured in found.values():
        assert [own.m for own in measured] == [1, 2, 4, 8, 16, 32]
        for own in measured:
            kernels = roofline.kernels(BATCH * own.m)
            assert own.launches == sum(kernel.launches for kernel in kernels)
            assert own.bytes == sum(int(kernel.bytes) for kernel in kernels)


def test_the_last_allocation_of_each_device_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def stored(device: str, allocation: str, started: int) -> pd.DataFrame:
        own = kernel("join", 1, 1e-3, 1, 1, device=device, allocation=allocation, started=started)
        return own.assign(dataset="cifar10", batch_size=BATCH, kind="measured")

    rows = runs(stored(H100, "one", 3), stored(H100, "two", 2), stored(H200, "three", 1), stored(H200, "four", 4))
    monkeypatch.setattr("report.comparisons.trusted", lambda experiment, results: rows)
    assert set(load_kernels().allocation) == {"one", "four"}
