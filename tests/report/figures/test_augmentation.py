"""Problem 4: the baseline, the chart of all M and the errors, on hand-made runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.p4.wanted import ALL_M
from report.answers import Answer, Missing
from report.comparisons import Incomparable
from report.figures import (
    augmentation,
    augmentation_more,
    augmentation_runs,
    augmentation_schedules,
    augmentation_speed,
    augmentation_time,
)
from report.figures.augmentation_runs import finished
from tests.p1_runs import data, lines
from tests.p4_epochs import BASIC, FOUR, ONE, TWO, plain, run, runs

NO_EPOCHS = augmentation.load(Path("without results"))


def test_what_was_run_and_what_is_missing() -> None:
    short = runs(run([9, 8]), run([9] * 3, 4, allocation="two"), run([9, 8], schedule="scaled"))
    table = lines(augmentation.tbl_p4_runs(short))  # type: ignore[arg-type]
    assert table[1] == ["cutout", "1", "authors", "bf16", "2", "H100", "0"]
    text = plain(augmentation.text_p4_runs(short))
    assert "compare the 2 runs with the authors' schedule in bf16 on one H100" in text and "in 2 allocations" in text
    assert "**Shortened runs** are among them: M = 1 (2 epochs) and M = 4 (3 epochs)" in text
    wanting = augmentation.text_p4_wanting(runs(ONE, TWO))
    assert isinstance(wanting, Missing)
    assert wanting.what.endswith("asks for, the baseline and cutout with M = 4, 8, 16 and 32")
    assert wanting.command.splitlines()[-1].endswith("p4_cutout.py --M 32")
    assert augmentation.text_p4_wanting(runs(BASIC, *(run([9], m) for m in ALL_M))) == ""


def test_the_baselines_answer() -> None:
    found = augmentation.answer_p4_baseline(runs(BASIC, ONE))
    assert isinstance(found, Answer) and (found.runs, found.device) == (3, "one H100")
    text = plain(found)
    assert "**7.70 %** after 4 epochs (median of 3 seeds, 7.50–7.90) and 7.50 % at its best epoch" in text
    assert "from 10.00 to 8.00 % at epoch 3, the first with a lower learning rate" in text
    assert "None of the 3 runs reaches 94 % accuracy." in text
    better = runs(BASIC, run([5] * 4, augment="basic", seed=3, drop=9))
    assert "1 of the 4 runs reaches 94 % accuracy" in plain(augmentation.answer_p4_baseline(better))
    assert "at epoch" not in plain(augmentation.answer_p4_baseline(run([9, 8], augment="basic", drop=9)))


def test_curves_are_medians_with_ranges() -> None:
    (third,) = [row for row in data(augmentation.fig_p4_baseline(BASIC)) if row.get("epoch") == 3]
    assert (third["error"], third["low"], third["high"]) == tuple(pytest.approx(v) for v in (8, 7, 8))
    assert third["seeds"] == 3
    frame = augmentation.curves(runs(ONE, TWO), augmentation_runs.series(finished(runs(ONE, TWO))))
    (row,) = frame[(frame["M"] == 2) & (frame.epoch == 3)].to_dict("records")
    assert row["evaluations"] == 6 and row["minutes"] == pytest.approx(3 * (1.5 + 0.5) / 60)
    mixed = runs(run([9, 8]), run([9, 7], seed=1, code="older"))
    with pytest.raises(Incomparable, match="code"):
        augmentation.curves(mixed, finished(mixed))


def test_the_chart_of_all_m_has_a_second_panel_for_the_end() -> None:
    many = runs(run([9.0] * 20, 1), run([8.0] * 20, 2))
    chart: Any = augmentation.fig_p4_m(many)
    assert len(chart.vconcat) == 2
    _goal, late, whole = sorted(chart.to_dict()["datasets"].values(), key=len)
    assert {row["M"] for row in whole} == {1, 2}
    assert {row["epoch"] for row in late} == {18, 19, 20} and len(whole) == 2 * 20  # the last 15 % of 20


def test_the_table_of_errors() -> None:
    table = lines(augmentation.tbl_p4_errors(runs(BASIC, ONE, run([9, 8, 7, 6], 8))))  # type: ignore[arg-type]
    assert table[1:] == [
        ["basic, M = 1", "3", "4", "7.70 (7.50–7.90)", "7.50 (7.00–7.70)", "3 and 4"],
        ["cutout, M = 1", "3", "4", "7.00 (6.90–7.10)", "7.00 (6.90–7.10)", "4"],
        ["cutout, M = 8", "1", "4", "6.00", "6.00", "4"],
    ]


def test_errors_are_judged_only_with_three_seeds_of_both() -> None:
    text = plain(augmentation.text_p4_errors(runs(ONE, TWO, FOUR, run([9, 8, 5, 4], 8))))
    # medians 7.0, 5.8 and 5.8; the intervals of three seeds are their ranges
    assert "from M = 1 to 2 it falls by 1.20 points (1.00 to 1.40)" in text
    assert "from M = 2 to 4 it differs within noise, by 0.00 points (−0.20 to 0.20)" in text
    assert text.endswith("Single runs, which allow no verdict, ended at 4.00 % for M = 8.")
    assert isinstance(augmentation.text_p4_errors(runs(ONE, run([9, 8, 5, 4], 8))), Missing)


def test_without_runs_commands_are_named() -> None:
    for function in (
        augmentation.tbl_p4_runs,
        augmentation.answer_p4_baseline,
        augmentation.fig_p4_baseline,
        augmentation.fig_p4_m,
        augmentation.tbl_p4_errors,
        augmentation.text_p4_errors,
        augmentation_time.answer_p4_augmentation,
        augmentation_time.tbl_p4_time,
        augmentation_time.fig_p4_clock,
        augmentation_time.text_p4_choice,
        augmentation_speed.tbl_p4_cost,
        augmentation_speed.text_p4_marginal,
        augmentation_schedules.fig_p4_evaluations,
        augmentation_schedules.tbl_p4_budget,
        augmentation_schedules.tbl_p4_schedule,
        augmentation_more.tbl_p4_precision,
        augmentation_more.text_p4_generalisation,
    ):
        found: Any = function(NO_EPOCHS)
        assert isinstance(found, Missing) and found.command.startswith("python experiments/p4_"), function
