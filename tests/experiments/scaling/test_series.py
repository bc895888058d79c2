"""experiments.scaling.series: what counts of measured runs, and that a curve comes from one allocation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.scaling import series
from tests.measured_runs import HOROVOD, STRATEGY, Epochs


def test_measured_runs_become_points(measured: Epochs, tmp_path: Path) -> None:
    points, runs = series.measured(tmp_path)
    horovod = points[points.series.str.startswith("Horovod")]
    # The slowest learner's time counts, the first epoch's warm-up does not; neither two hosts nor lone learners.
    assert list(horovod.images_per_second) == [100, 200, 400]
    assert set(horovod.series) == {"Horovod torch, a GPU, 224 pixels"} and set(horovod.per_learner_batch) == {8}
    strategy = points[points.series.str.startswith("tf.distribute")]
    assert list(strategy.per_learner_batch) == [256, 128, 64]
    assert list(strategy.images_per_second) == pytest.approx([256 / (1 / p + 0.1) for p in (1, 2, 4)])
    assert "p1-4-1-True" in runs and "p2-4" in runs and "p1-4-1-False" not in runs


def test_a_curve_comes_from_one_allocation(measured: Epochs, tmp_path: Path) -> None:
    """Another host, twice as fast, has two of the sizes only; then all of them, and more runs."""
    for p in (1, 4):
        run = {"learners": p, "run_id": f"fast-{p}", "allocation": "there", "epoch": 1, "rank": 0, "seconds": 0.5}
        measured["p1_horovod"].append(HOROVOD | run | {"images": 100 * p})
    rates = series.measured(tmp_path)[0].query("series == 'Horovod torch, a GPU, 224 pixels'").images_per_second
    assert list(rates) == [100, 200, 400]
    for repeat in (1, 2, 3):
        run = {"learners": 2, "run_id": f"fast-2-r{repeat}", "allocation": "there", "epoch": 1, "rank": 0}
        measured["p1_horovod"].append(HOROVOD | run | {"images": 200, "seconds": 0.5})
    points, runs = series.measured(tmp_path)
    rates = points.query("series == 'Horovod torch, a GPU, 224 pixels'").images_per_second
    assert list(rates) == [200, 400, 800] and not any(run.startswith("p1-") for run in runs)


def test_more_than_eight_learners_are_the_homeworks_two_hosts(measured: Epochs, tmp_path: Path) -> None:
    job = {"scaling": "weak", "strategy": "multiworker", "communication": "auto", "per_learner_batch": 64, "images": 64}
    for learners, hosts, seconds in ((8, 1, 1.0), (8, 2, 2.0), (16, 1, 4.0), (16, 2, 8.0)):
        run = {"learners": learners, "hosts": hosts, "seconds": seconds, "epoch": 1, "run_id": f"w-{learners}-{hosts}"}
        measured["p2_strategy"] += [STRATEGY | job | run] * learners
    points, runs = series.measured(tmp_path)
    weak = points[points.series.str.contains("multiworker auto, weak")]
    assert dict(zip(weak.learners, weak.images_per_second, strict=True)) == {8: 64 * 8 / 1.0, 16: 64 * 16 / 8.0}
    assert {"w-8-1", "w-16-2"} <= set(runs) and not {"w-8-2", "w-16-1"} & set(runs)


def test_each_run_counts_once_and_a_first_epoch_without_a_barrier_does_not() -> None:
    """Rates: 50 in the first epoch, then 100 in one run, twice 300 and 320 in two others; version 1 has no `began`."""
    epochs = {"one": [50, 100, 100, 100, 100, 100], "two": [50, 300, 300], "three": [50, 320, 320]}
    rows = [
        {"series": "s", "learners": 2, "workers": 2, "b": 8, "run_id": run, "epoch": e, "seconds": 1.0, "images": rate}
        for run, rates in epochs.items()
        for e, rate in enumerate(rates, 1)
    ]
    (rate,) = series.as_points(pd.DataFrame(rows).assign(began=np.nan), "b", 1.0).images_per_second
    assert rate == 300  # the median of 100, 300 and 320
    (rate,) = series.as_points(pd.DataFrame(rows[:2]).assign(began=0.0), "b", 1.0).images_per_second
    assert rate == 75  # of 50 and 100: with a barrier the first epoch counts


def test_without_measured_runs_there_are_no_points(tmp_path: Path) -> None:
    points, runs = series.measured(tmp_path)
    assert points.empty and list(points.columns) == series.POINTS and runs == []
