"""Problem 2's cost (2.3) and the K80's projection, on hand-made runs and prices."""

from __future__ import annotations

import pandas as pd
import pytest

from report.answers import Answer, Missing
from report.figures import strategy_charts, strategy_costs
from report.figures.strategy_k80 import k80
from tests.p1_runs import data, lines, text
from tests.p2_runs import BOTH, CORES, K80, job, runs, ten

PRICES = pd.DataFrame(
    [
        ("H200", "us", 36.0, "2027", "a list"),
        ("H200", "us", 18.0, "2026", "a mirror"),
        ("K80", "us", 0.9, "2017", "a paper"),
    ],
    columns=["device", "region", "price_usd_per_hour", "date", "source"],
)


@pytest.fixture(autouse=True)
def hand_made_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy_costs, "priced", lambda unit: PRICES[PRICES.device == unit].reset_index(drop=True))
    monkeypatch.setattr(strategy_charts, "k80", lambda: k80(K80))


def test_cost_in_words() -> None:
    answer = strategy_costs.answer_p2_cost(BOTH)
    # A second costs 0.5 to 1 cent. Weak: 1,000 s of one, 1,250 s of two; strong: 4,000 s and 3,200 s.
    assert text(answer) == (
        "On 1 and 2 H200 GPUs (224 px, float32, XLA), training for ten epochs costs 5.00–10.00 and 12.50–25.00 "
        "USD with weak scaling, 2.50 times as much on 2 as on 1; and 20.00–40.00 and 32.00–64.00 USD with strong "
        "scaling, 1.60 times as much on 2 as on 1. Ranges of USD run from the lowest price found "
        "to the highest. Single runs, too few for a verdict."
    )
    assert isinstance(answer, Answer) and (answer.part, answer.runs, answer.basis) == ("2.3", 4, "measured")


def test_a_device_without_a_price_has_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy_costs, "priced", lambda unit: PRICES.iloc[:0])
    # 1,000 s and 2 · 1,250 s.
    assert "costs 0.28 and 0.69 GPU-hours with weak scaling, 2.50 times" in text(strategy_costs.answer_p2_cost(BOTH))


def test_without_whole_jobs_cost_is_projected_from_a_step() -> None:
    answer = strategy_costs.answer_p2_cost(runs(job([1.0]), job([1.0], 2), *CORES))
    # Half a second a step: 9,370 steps of one learner, 4,680 of two, at 0.5 to 1 cent a second.
    assert "would cost 23.43–46.85 and 23.40–46.80 USD with weak scaling, 1.00 times" in text(answer)
    assert isinstance(answer, Answer) and answer.basis == "projected"
    assert isinstance(strategy_costs.answer_p2_cost(runs(job([1.0]), *CORES)), Missing)


def test_cost_is_drawn_between_the_prices_and_as_hours_where_there_is_none() -> None:
    chart = data(strategy_costs.fig_p2_cost(BOTH))
    points = {(row["panel"], row["scaling"], row["learners"]): row for row in chart}
    two = points["H200, 224 px, XLA", "weak", 2]
    assert (two["low"], two["value"], two["high"]) == (pytest.approx(12.5), pytest.approx(12.5), pytest.approx(25.0))
    # Ten epochs of 937 steps of 64 images at 50 images/s, at 0.9 USD an hour.
    one = points[strategy_charts.K80_PANEL, "weak", 1]
    assert one["value"] == pytest.approx(9370 * 64 / 50 / 3600 * 0.9) and one["basis"] == "projected"
    cores = next(row for key, row in points.items() if key[0].startswith("CPU") and key[1:] == ("weak", 16))
    assert cores["value"] == pytest.approx(16 * 580 * 4 / 3600)  # 580 steps of 4 s


def test_the_table_tells_measured_from_projected_and_has_whole_jobs() -> None:
    head, *rows = lines(str(strategy_costs.tbl_p2_cost(BOTH)))
    assert head == ["Run on", "Job", "Training", "Hours × N", "USD, training", "USD, whole job"]
    # Two GPUs for 1,301 s.
    assert rows[1] == ["", "weak, 2 × 64", "20.8 min", "0.69", "12.50–25.00", "13.01–26.02"]
    assert rows[4] == ["CPU, MultiWorker, 32 px", "weak, 1 × 64", "≈ 2.60 h", "2.6", "–", "–"]


def test_prices_are_listed_with_their_sources() -> None:
    assert strategy_costs.text_p2_prices(BOTH).splitlines() == [
        "- H200: 36 USD/h (2027). a list.",
        "- H200: 18 USD/h (2026). a mirror.",
        "- K80: 0.9 USD/h (2017). a paper.",
        "- CPU: no price.",
    ]


def test_one_price_is_no_span() -> None:
    assert strategy_costs.span("K80", 8, 1800.0) == "3.60"  # 8 · 0.5 h · 0.9
    assert strategy_costs.span("H200", 1, 100.0) == "0.50–1.00"
    assert strategy_costs.span("TPU", 1, 100.0) is None


def test_a_job_that_ran_ten_epochs_is_not_projected() -> None:
    mixed = runs(ten(100.0), ten(125.0, 2), job([700.0] * 2, 2))
    _, *rows = lines(str(strategy_costs.tbl_p2_cost(mixed)))
    assert [row[2] for row in rows] == ["16.7 min", "20.8 min"]
