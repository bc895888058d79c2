"""Problem 4: budgets and schedules, on hand-made runs."""

from __future__ import annotations

import pytest

from report.figures import augmentation_schedules
from tests.frames import H200
from tests.p1_runs import data, lines
from tests.p4_epochs import ONE, TWO, run, runs, seeds


def test_equal_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation_schedules, "BUDGETS", (200,))
    long, half = [9.0] * 160 + [6.0], [9.0] * 96  # 161 and 2 · 96 = 192: 200, to the next hundred
    frame = runs(run(long, 1, schedule="scaled"), run(half, 2, schedule="scaled"), run(long, 2, schedule="scaled"))
    frame = runs(frame, run([9] * 40, 4), run([9] * 80, 4, schedule="scaled"))  # 300, which nobody asked for
    table = lines(augmentation_schedules.tbl_p4_budget(frame))  # type: ignore[arg-type]
    assert table[1:] == [
        ["200", "1", "161", "6.00", "–", "125,741", "1"],  # 781 updates an epoch
        ["", "2", "96", "9.00", "3.00", "74,976", "1"],
    ]
    said = "With a budget of 200, M = 2 ended 3.00 points above M = 1"
    assert augmentation_schedules.text_p4_budget(frame) == f"{said}: too few runs for a verdict."
    more = [run(errors, m, schedule="scaled", seed=s) for m, errors in ((1, long), (2, half)) for s in (1, 2)]
    assert augmentation_schedules.text_p4_budget(runs(frame, *more)).startswith(f"{said}, all beyond noise: ")
    better = [run([*half[:-1], e], 2, schedule="scaled", seed=s) for s, e in ((1, 5.0), (2, 6.0))]
    noisy = augmentation_schedules.text_p4_budget(runs(frame, *more[:2], *better))
    assert noisy == "With a budget of 200, M = 2 ended 0.00 points above M = 1."


def test_gradient_evaluations_are_epochs_times_m() -> None:
    drawn = data(augmentation_schedules.fig_p4_evaluations(runs(ONE, TWO)))
    assert [row["evaluations"] for row in drawn if row["M"] == 2] == [2, 4, 6, 8]


def test_schedules_are_compared_in_errors() -> None:
    scaled = run([9, 5, 5, 5], 2, schedule="scaled", drop=2, step=595.0)
    other = run([9, 8, 5, 5.8], 2, seed=4, allocation="two", step=1.0)
    table = lines(augmentation_schedules.tbl_p4_schedule(runs(TWO.assign(wall_seconds=120.0), other, scaled, ONE)))  # type: ignore[arg-type]
    assert table[1:] == [
        ["2, H100", "authors", "5.80 (5.70–5.90)", "–", "3", "4"],
        ["", "scaled", "5.00", "−0.80 (−0.90 to −0.70)", "2", "1"],
    ]
    text = augmentation_schedules.text_p4_schedule(runs(TWO, scaled))
    assert text == (
        "With the scaled schedule the learning rate first falls at epoch 2, not 3. Beside the authors', its last error "
        "is open for want of runs with M = 2. M = 1, 4, 8, 16 and 32 did not run with both schedules in one place."
    )
    worse = seeds([[9, 6, 6, 6.0], [9, 6, 6, 6.9], [9, 6, 6, 7.2]], schedule="scaled", drop=2, code="older")
    older = augmentation_schedules.tbl_p4_schedule(runs(ONE.assign(code="older"), worse))
    assert lines(str(older))[1][0] == "1, H100, earlier kernels"
    noisy = augmentation_schedules.text_p4_schedule(runs(ONE.assign(code="older"), worse))
    assert "is the same within noise with M = 1. M = 2" in noisy
    lower = seeds([[9, 5, 5, 5.5], [9, 5, 5, 5.4], [9, 5, 5, 5.6]], 2, schedule="scaled", drop=2)
    higher = seeds([[9, 9, 9, 7.5], [9, 9, 9, 7.6], [9, 9, 9, 7.7]], 1, schedule="scaled", drop=2)
    both = augmentation_schedules.text_p4_schedule(runs(ONE, TWO, lower, higher))
    assert "is higher with M = 1 (by 0.60 points) and lower with M = 2 (by 0.30 points). M = 4" in both
    few = run([9, 9, 9, 9], 1, schedule="scaled", drop=2, device=H200, seed=7)
    there = run([9, 9, 9, 8], 1, device=H200, seed=7)
    assert (
        augmentation_schedules.text_p4_schedule(runs(ONE, TWO, lower, higher, few, there)) == both
    )  # of the place of most
