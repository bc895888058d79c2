"""Problem 4: kernels and least times on hand-made rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from derivations import roofline
from report.answers import Missing
from report.figures.augmentation_kernels import tbl_p4_floor, tbl_p4_kernels, text_p4_floor, text_p4_kernels, timed
from tests.frames import H100
from tests.p1_runs import lines
from tests.p4_epochs import plain, runs


def windows(m: int, seconds: float, **other: Any) -> pd.DataFrame:
    """A window of the step with M = m, on a device that copies 1 TB/s."""
    row = {"run_id": f"run {m}", "contender": "ours", "engine": "fused", "precision": "bf16", "M": m, "device": H100}
    row |= {"allocation": "one", "copy_bandwidth": 1e12, "images_per_second": 64 * m / seconds}
    return pd.DataFrame([row | other])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels: one moves 1 MB for each image in two launches, the other 10 MB in one, whatever the batch."""
    monkeypatch.setattr(
        roofline,
        "kernels",
        lambda images, element, depth: [
            roofline.Kernel("update", 1, 10_000_000),
            roofline.Kernel("join", 2, images * 1_000_000),
        ],
    )


@pytest.mark.usefixtures("counted")
def test_a_step_beside_the_time_of_its_bytes() -> None:
    step = runs(windows(2, 0.414e-3), windows(1, 0.374e-3))
    table = lines(str(tbl_p4_floor(step)))
    # 64 MB and 10: 74 MB in 0.074 ms at 1 TB/s; 0.3 ms beyond that in three launches
    assert table[1:] == [
        ["1", "3", "74", "0.07", "0.37", "5.1", "100"],
        ["2", "3", "138", "0.14", "0.41", "3.0", "92"],
    ]
    assert plain(text_p4_floor(step)) == (
        "On an H100, moving the bytes would take 20 % of the step's time with M = 1 and 33 % with M = 2. What M = 1 "
        "takes beyond that is 100 µs for each launch."
    )


@pytest.mark.usefixtures("counted")
def test_only_one_allocations_fused_steps_in_bf16_count() -> None:
    kept = runs(windows(1, 1e-3), windows(2, 1e-3))
    others = runs(
        windows(4, 1e-3, allocation="two"),
        windows(4, 1e-3, contender="eager"),
        windows(4, 1e-3, engine="plain"),
        windows(4, 1e-3, precision="fp32"),
    )
    assert set(timed(runs(others, kept)).run_id) == set(kept.run_id)
    none = windows(4, 1e-3, contender="eager")
    assert isinstance(tbl_p4_floor(none), Missing) and text_p4_floor(none) == ""


def test_the_bytes_are_those_of_the_derivation() -> None:
    row = lines(str(tbl_p4_floor(windows(4, 1e-3))))[1]
    assert row[1] == str(sum(kernel.launches for kernel in roofline.kernels(256)))
    assert row[2] == f"{sum(int(kernel.bytes) for kernel in roofline.kernels(256)) / 1e6:,.0f}"


@pytest.mark.usefixtures("counted")
def test_kernels_that_nobody_has_timed_show_their_least_time() -> None:
    none = pd.DataFrame(columns=["M", "seconds"])
    table = lines(str(tbl_p4_kernels(none, runs(windows(1, 1e-3), windows(2, 1e-3)))))
    assert table[1:] == [
        ["join", "2", "128", "0.128", "92.8 %", "–", "–"],
        ["update", "1", "10", "0.010", "7.2 %", "–", "–"],
    ]
    assert isinstance(text_p4_kernels(none), Missing)
    assert isinstance(tbl_p4_kernels(none, windows(1, 1e-3, contender="eager")), Missing)


def test_timed_kernels_beside_their_least_time() -> None:
    def kernel(name: str, launches: int, seconds: float, moved: int, m: int) -> dict[str, Any]:
        shared = {"M": m, "copy_bandwidth": 1e12, "step_seconds": 5e-3 if m == 32 else 1e-3}
        return shared | {"kernel": name, "launches": launches, "seconds": seconds, "bytes": moved}

    rows = pd.DataFrame(
        [
            kernel("join", 21, 1e-3, 500_000_000, 32),
            kernel("head", 1, 3e-3, 1_500_000_000, 32),
            kernel("join", 21, 1e-4, 50_000_000, 1),
        ]
    )
    table = lines(str(tbl_p4_kernels(rows, rows[:0])))
    assert table[1:] == [
        ["head", "1", "1,500", "1.500", "75.0 %", "3.000", "2.0"],  # 1.5 GB at 1,000 GB/s
        ["join", "21", "500", "0.500", "25.0 %", "1.000", "2.0"],
    ]
    small = pd.DataFrame([kernel("stem", 1, 2e-6, 1_000_000, 32), kernel("update", 2, 3e-6, 1_000_000, 32)])
    table = lines(str(tbl_p4_kernels(pd.concat([rows, small]), rows[:0])))
    assert table[-1] == ["update and stem", "3", "2", "0.002", "0.1 %", "0.005", "2.5"]
    assert plain(text_p4_kernels(rows)) == (
        "- M = 1: the kernels take 0.10 ms together, the step 1.00 ms.\n"
        "- M = 32: the kernels take 4.00 ms together, the step 5.00 ms."
    )
