"""Problem 2's efficiency of weak scaling (2.4) on hand-made runs."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from report.answers import Answer, Missing
from report.figures import strategy_charts, strategy_efficiency
from report.figures.strategy_k80 import k80
from tests.frames import H100
from tests.p1_runs import data, lines, text
from tests.p2_runs import BOTH, K80, job, repeated, runs, ten


@pytest.fixture(autouse=True)
def hand_made_k80(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy_charts, "k80", lambda: k80(K80))


def test_the_increase_of_an_iterations_time_in_words() -> None:
    answer = strategy_efficiency.answer_p2_efficiency(BOTH)
    # Two steps in 100 s and in 125 s; on the cores in 2 s and 8 s.
    assert text(answer) == (
        "On H200 GPUs (224 px, float32, XLA), an iteration takes 50,000 ms on one learner and 62,500 ms on 2: "
        "t(2)/t(1) = 1.25, an efficiency of 80.0 %. On CPU cores, an iteration takes 1,000 ms on one learner and "
        "4,000 ms on 16 (2 emulated hosts, 10 Gbit/s): t(16)/t(1) = 4.00, an efficiency of 25.0 %. "
        "Single runs, too few for a verdict."
    )
    assert isinstance(answer, Answer) and answer.runs == 4


def test_the_increase_of_a_go_with_repetitions_is_told_as_well() -> None:
    again = [*repeated(1.0, allocation="two"), *repeated(1.25, 2, allocation="two")]
    told = text(strategy_efficiency.answer_p2_efficiency(runs(ten(100.0), ten(125.0, 2), ten(130.0, 4), *again)))
    assert "t(4)/t(1) = 1.30, an efficiency of 76.9 %. In another allocation, with at least three repetitions: " in told
    assert re.search(r"repetitions: t\(2\)/t\(1\) = 1\.25 \(1\.2\d–1\.2\d\)\. Brackets", told)


def test_no_efficiency_without_one_learner_of_the_allocation() -> None:
    found = runs(ten(100.0, device=H100, allocation="two"), ten(100.0, 2), ten(110.0, 4))
    assert isinstance(strategy_efficiency.answer_p2_efficiency(found), Missing)
    assert strategy_efficiency.text_p2_unpaired(found) == (
        "H200, 224 px, XLA: no job of one learner ran in the same allocation, so no efficiency is given."
    )
    assert strategy_efficiency.text_p2_unpaired(BOTH).startswith("Every series that is shown has a job of one learner")


def test_increase_and_efficiency_are_drawn_and_the_k80s_too() -> None:
    chart = data(strategy_efficiency.fig_p2_efficiency(BOTH))
    values = {(row["panel"], row["measure"], row["learners"]): row["value"] for row in chart}
    assert values["H200, 224 px, XLA", strategy_efficiency.INCREASE, 2] == pytest.approx(1.25)
    assert values["H200, 224 px, XLA", strategy_efficiency.EFFICIENCY, 2] == pytest.approx(0.8)
    assert values[strategy_charts.K80_PANEL, strategy_efficiency.INCREASE, 16] == pytest.approx(1.0)  # 800 / 16 = 50
    assert values[strategy_charts.K80_PANEL, strategy_efficiency.EFFICIENCY, 1] == pytest.approx(1.0)


def test_the_table_of_efficiency_flags_what_is_above_ideal() -> None:
    head, *rows = lines(str(strategy_efficiency.tbl_p2_efficiency(runs(*repeated(1.0), *repeated(0.95, 2)))))
    assert head == ["Run on", "N", "t(N) (ms)", "t(N) / t(1)", "t(1) / t(N)", "Interval", "Runs"]
    assert rows[0] == ["H200, 224 px, XLA", "1", "500 (495–505)", "1.00", "100.0 %", "–", "3"]
    assert rows[1][:5] == ["", "2", "475 (470–480)", "0.95", "105.3 %*"]
    assert re.match(r"10[\d.]+–10[\d.]+ %", rows[1][5])


def test_every_go_that_has_one_learner_shows_its_increase() -> None:
    early = pd.Timestamp("2026-12-31T00:00Z")
    found = runs(
        *[ten(seconds, n, allocation="first", started=early) for seconds, n in ((100.0, 1), (125.0, 2))],
        *[job([seconds] * 3, n, repeat=r) for seconds, n in ((2.0, 1), (3.0, 2), (5.0, 4)) for r in (1, 2)],
        ten(9.0, 2, allocation="without one learner"),
    )
    head, *rows = lines(str(strategy_efficiency.tbl_p2_goes(found)))
    assert head == ["Allocation", "Job", "N", "t(N) / t(1)", "Interval", "Runs"]
    assert rows == [
        ["first, 2026-12-31", "10 epochs of all images", "2", "1.25", "–", "1"],
        ["one, 2027-01-01", "3 epochs of 2 steps", "2", "1.50", "–", "2"],
        ["", "3 epochs of 2 steps", "4", "2.50", "–", "2"],
    ]
