"""What goes beyond Problem 2's questions, on hand-made runs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from report.answers import Missing
from report.figures import strategy_beyond
from tests.p1_runs import data, lines
from tests.p2_runs import BOTH, core, job, repeated, runs, ten


def alone(seconds: float, batch: int, **other: Any) -> pd.DataFrame:
    return job([seconds] * 2, each=batch, **other)


# 16 images in 10 ms, 64 in 22 ms, 256 in 70 ms: a fixed 6 ms and 0.25 ms an image. Two steps an epoch.
BATCHES = [alone(0.020, 16), alone(0.044, 64), alone(0.140, 256)]


# ---- one learner ---------------------------------------------------------------------------------------------------


def test_iterations_by_batch_with_the_bound_on_strong_scaling() -> None:
    found = runs(*BATCHES, alone(0.280, 512), job([0.140] * 2, scaling="strong", repeat=2))
    head, *rows = lines(str(strategy_beyond.tbl_p2_compute(found)))
    assert head == ["Run on", "Batch", "Iteration (ms)", "Images/s", "N", "Speed-up ≤", "Runs"]
    assert rows[0] == ["H200, 224 px, XLA", "16", "10", "1,600", "16", "7.00", "1"]
    assert rows[2] == ["", "256", "70 (70–70)", "3,657", "1", "1.00", "2"]  # a weak and a strong job are one
    assert rows[3][4:] == ["–", "–", "1"]  # strong scaling of 256 images gives no learner 512


def test_the_part_of_an_iteration_that_does_not_grow() -> None:
    # 70 / 10 = 7 for 16 times the images; the line has 6 ms at nothing, 60 % of 10 ms.
    assert strategy_beyond.text_p2_compute(runs(*BATCHES)) == (
        "- H200, 224 px, XLA: 16 times as many images take 7.00 times as long; 60 % of the smallest iteration is "
        "fixed.\n\nFixed is what a straight line through the smallest and the largest batch has without any images."
    )


def test_batches_of_several_allocations_are_no_curve() -> None:
    apart = runs(alone(0.02, 16), alone(0.1, 64, allocation="two"))
    assert isinstance(strategy_beyond.tbl_p2_compute(apart), Missing)


def test_settings_are_compared_with_plain_float32_of_their_allocation() -> None:
    plain: dict[str, Any] = {"jit_compile": False}
    found = runs(
        *repeated(1.0, each=256, **plain),
        *repeated(0.5, each=256),
        *repeated(0.8, each=256, precision="mixed_bfloat16", **plain),
        *repeated(9.0, each=256, steps_per_execution=10, allocation="two"),
    )
    head, *rows = lines(str(strategy_beyond.tbl_p2_settings(found)))
    assert len(head) == 7
    assert [row[2:5] for row in rows] == [
        ["float32", "512 (507–517)", "1"],
        ["float32, XLA", "1,024 (1,014–1,034)", "2.00"],
        ["mixed_bfloat16", "640 (634–646)", "1.25"],
    ]
    assert isinstance(strategy_beyond.tbl_p2_settings(runs(*repeated(1.0))), Missing)  # nothing beside XLA


# ---- the input pipeline --------------------------------------------------------------------------------------------


def test_the_fed_rate_is_a_share_of_the_resident_one() -> None:
    constant = {
        "device": "NVIDIA H100 80GB HBM3",
        "per_learner_batch": 256,
        "jit_compile": True,
        "run_id": "a",
        "steps": 30,
    }
    windows = pd.DataFrame(
        constant | {"contender": name, "images_per_second": rate}
        for name, rates in (("fed", (90, 95, 100)), ("resident", (100, 100, 100)))
        for rate in rates
    )
    _, row = lines(str(strategy_beyond.tbl_p2_input(windows)))
    assert row == ["H100, XLA", "256", "3 × 30 steps", "95 (90–100)", "100 (100–100)", "95 %", "90–100 %"]
    assert isinstance(strategy_beyond.tbl_p2_input(windows.iloc[:0]), Missing)


def test_the_stored_windows_can_be_shown() -> None:
    assert len(lines(str(strategy_beyond.tbl_p2_input(strategy_beyond.load_input())))) > 1


# ---- accuracy ------------------------------------------------------------------------------------------------------


def test_accuracy_by_effective_batch() -> None:
    found = runs(ten(1.0), ten(1.0, 16, accuracies=[0.5, 0.8, *[0.6] * 8]), job([1.0] * 2, 2))
    assert strategy_beyond.text_p2_accuracy(found) == (
        "At 224 px an effective batch of 64 makes 9,370 updates in 10 epochs and ends at 85.0 %; an effective batch of "
        "1,024 makes 580 updates in 10 epochs and ends at 60.0 %."
    )
    points = data(strategy_beyond.fig_p2_accuracy(found))
    second = {row["batch"]: row["percent"] for row in points if row["epoch"] == 2}
    assert len(points) == 20 and second == {64: pytest.approx(20.0), 1024: pytest.approx(80.0)}


def test_accuracies_of_an_effective_batch_say_how_many_learners_made_it() -> None:
    found = runs(ten(1.0), ten(1.0, 16), ten(1.0, 2, "strong", each=32, accuracies=[0.9] * 10))
    said = strategy_beyond.text_p2_accuracy(found)
    assert "ends at 87.5 (85.0–90.0) %, 2 runs with 1 and 2 learners; an effective batch of 1,024" in said


def test_runs_of_earlier_code_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = runs(ten(1.0), ten(1.0, 16))
    assert strategy_beyond.text_p2_stale(found) == ""
    monkeypatch.setattr(strategy_beyond, "stale", lambda: frozenset([found.run_id.iloc[0], "another"]))
    assert strategy_beyond.text_p2_stale(found).startswith("1 of this section's 2 runs were made by earlier versions")


# ---- CPU learners --------------------------------------------------------------------------------------------------


def mirrored(seconds: float, learners: int, **other: Any) -> pd.DataFrame:
    one: dict[str, Any] = {"strategy": "mirrored", "workers": 1, "all_reduce": "default", "communication": None}
    return core([seconds] * 3, learners, **(one | other))


def test_strategies_are_compared_within_an_allocation() -> None:
    _, *rows = lines(str(strategy_beyond.tbl_p2_strategies(runs(mirrored(1.0, 2), core([2.0] * 3, 2)))))
    assert rows == [["weak, 2 × 64", "256", "128", "2.00", "–", "1"]]
    apart = runs(mirrored(1.0, 2, allocation="two"), core([2.0] * 3, 2))
    assert isinstance(strategy_beyond.tbl_p2_strategies(apart), Missing)


def test_as_many_learners_on_two_hosts_as_on_one() -> None:
    there = [core([s] * 3, 16, hosts=2, gbit=gbit) for gbit, s in ((1.0, 8.0), (10.0, 4.0))]
    head, *rows = lines(str(strategy_beyond.tbl_p2_hosts(runs(core([2.0] * 3, 16), *there))))
    assert head[3] == "Of one host's"
    assert rows == [
        ["weak, 16 × 64", "one host", "1,024", "1.00", "–", "1"],
        ["", "2 emulated hosts, 1 Gbit/s", "256", "0.25", "–", "1"],
        ["", "2 emulated hosts, 10 Gbit/s", "512", "0.50", "–", "1"],
    ]
    assert isinstance(strategy_beyond.tbl_p2_hosts(BOTH), Missing)  # nothing on one host beside them
