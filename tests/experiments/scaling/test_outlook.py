"""More learners from one and an all-reduce, with rates and times that can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments.cli import UsageError
from experiments.scaling import outlook
from experiments.scaling.outlook import Link, Series
from experiments.store import parquet
from tests.measured_runs import Epochs

ONE = Series("a series", "a GPU", "here", 64.0, {1: [100.0, 80.0, 160.0]})


@pytest.fixture(autouse=True)
def hundred_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.scaling.published.networks", lambda: {"ResNet-50": (10**8, 1)})


def test_a_step_is_one_learners_and_the_exposed_all_reduce() -> None:
    # 64 images at 100 images/s take 0.64 s; a byte takes 4 ns on its link, and 8 learners send 2 · 7/8 of 10⁸ of them.
    (one, eight) = outlook.project(ONE, Link(0.0, 4e-9, "made up"), [8])
    exposed = 2 * 7 / 8 * 1e8 * 4e-9  # 0.7 s
    assert one.rate == 100 and one.efficiency == 1
    assert eight.rate == pytest.approx(8 * 64 / (0.64 + exposed))
    assert eight.efficiency == pytest.approx(0.64 / (0.64 + exposed))
    assert eight.hours == pytest.approx(600_000 / eight.rate / 3600) and eight.cost is None
    # The slowest repetition takes 0.8 s and hides nothing; the fastest takes 0.4 s and hides two thirds of that.
    assert eight.low == pytest.approx(8 * 64 / (0.8 + exposed))
    assert eight.high == pytest.approx(8 * 64 / (0.4 + exposed - 0.4 * 2 / 3))


def test_the_interval_goes_down_by_what_the_method_promised_too_much() -> None:
    nothing = Link(0.0, 0.0, "no time at all")
    # Two learners are promised 200 images/s; the folder has 160 of them, a quarter less than promised.
    own = Series("a series", "a GPU", "here", 64.0, {1: [100.0], 2: [160.0]})
    _, two, four = outlook.project(own, nothing, [4], too_much=0.1)
    assert (two.rate, two.measured, four.measured) == (200, 160, None)
    assert four.low == pytest.approx(400 / 1.25) and four.high == 400
    assert outlook.project(ONE, nothing, [4], too_much=0.1)[1].low == pytest.approx(4 * 80 / 1.1)


def test_larger_jobs_over_another_link_check_nothing() -> None:
    own = Series("a series", "a GPU", "here", 64.0, {1: [100.0], 2: [160.0]})
    (one, four) = outlook.project(own, outlook.given_link(1e9), [4])
    assert (one.learners, one.measured, four.measured) == (1, 100, None)
    assert four.low == pytest.approx(400) == four.high
    assert outlook.errors_text(pd.DataFrame({"device": [], "error": []}), pd.DataFrame(), [one, four]) == []


def test_cost_is_learners_times_hours_times_price() -> None:
    (_, ten) = outlook.project(ONE, Link(0.0, 0.0, "no time at all"), [10], price=2.5)
    assert ten.hours == pytest.approx(600 / 3600)  # 600,000 images at 1,000 a second
    assert ten.cost == pytest.approx(10 * 600 / 3600 * 2.5)


def test_a_given_link_has_its_speed_and_no_latency() -> None:
    link = outlook.given_link(100)
    # 12.5 GB/s; two learners send each 2 · 1/2 of the bytes.
    assert link.seconds(2, 12.5e9) == pytest.approx(1.0)


def test_the_measured_link_is_of_the_same_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two learners of a ring: two messages of half the bytes each; 1 ms a message and 1 ns a byte.
    rows = [{"bytes": n, "seconds": 2 * 1e-3 + n * 1e-9} for n in (1e3, 1e6, 1e9)]
    timed = pd.DataFrame(rows).assign(hosts=1, kind="measured", allocation="here", learners=2, backend="nccl")
    monkeypatch.setattr(parquet, "read", lambda experiment, results: timed)
    link = outlook.measured_link(Path("any"), "here")
    assert link is not None and (link.alpha, link.beta) == (pytest.approx(1e-3), pytest.approx(1e-9))
    assert outlook.measured_link(Path("any"), "elsewhere") is None


def test_the_series_is_problem_1s_with_its_repetitions(measured: Epochs) -> None:
    own = outlook.series(Path("any"))
    # Epochs of 100 images take 5, 1 and 1 s; two learners' slowest takes as long and both do 100.
    assert own.name == "Horovod torch, a GPU, 224 pixels" and own.rates == {1: [100.0], 2: [200.0], 4: [400.0]}
    assert (own.batch, own.allocation) == (8.0, "here")


def test_without_one_learner_there_is_nothing_to_start_from(measured: Epochs) -> None:
    for experiment in measured:
        measured[experiment] = [row for row in measured[experiment] if row["learners"] > 1]
    with pytest.raises(UsageError, match="has no run of one learner"):
        outlook.series(Path("any"))


def test_published_clusters_are_predicted_beyond_a_node() -> None:
    rows = [(1, 100.0), (8, 700.0), (16, 1000.0)]
    frame = pd.DataFrame(rows, columns=["learners", "value"]).assign(
        series="a cluster", framework="F", network="ResNet-50", machine="M", unit="images/s", per_learner_batch=64.0,
        node_learners=8.0, link_gbit_per_second=8.0, source="me",
    )  # fmt: skip
    (only,) = outlook.on_published(frame).to_dict("records")
    # 1 GB/s: 2 · 15/16 of 10⁸ bytes take 0.1875 s beside a step of 0.64 s.
    assert only["learners"] == 16 and only["error"] == pytest.approx(16 * 64 / (0.64 + 0.1875) / 1000 - 1)


def test_the_committed_errors_are_those_of_the_stored_fit() -> None:
    rows = parquet.read("scaling_fit")
    stored = rows[rows.method == "link, nothing hidden"].error
    found = outlook.on_committed(parquet.RESULTS)
    assert sorted(found.error) == sorted(stored) and outlook.most_promised(found) == max(0, stored.max())
