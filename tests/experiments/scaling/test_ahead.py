"""Numbers of GPUs that were not run yet, predicted from hand-made points of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.scaling.ahead import ahead, measured_gpus
from tests.measured_runs import Epochs

# τ(p, b) = 0.01 s + 0.16 s · 2(p−1)/p / b an image: one learner does 100 images/s, two with 16 images 2 / 0.02.
WEAK = {1: 100.0, 2: 100.0}


def points(series: str, rates: dict[int, float], batches: dict[int, int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "series": series,
            "setting": "one",
            "network": "ResNet-50",
            "learners": list(rates),
            "per_learner_batch": [float(batches[p]) for p in rates],
            "images_per_second": list(rates.values()),
            "gradient_bytes": np.nan,
            "source": "measured",
        }
    )


def test_weak_scaling_keeps_the_batch_of_a_learner() -> None:
    rows = ahead(points("weak", WEAK, {1: 16, 2: 16}), [4, 8], draws=100)
    assert [(row["role"], row["learners"]) for row in rows] == [
        ("fitted", 1), ("fitted", 2), ("projected", 4), ("projected", 8),
    ]  # fmt: skip
    # 2(p−1)/p is 1.5 for four learners and 1.75 for eight; 0.16 / 16 is 0.01.
    assert rows[2]["predicted"] == pytest.approx(4 / (0.01 + 0.01 * 1.5))
    assert rows[3]["predicted"] == pytest.approx(8 / (0.01 + 0.01 * 1.75))
    assert (rows[3]["per_learner_batch"], rows[3]["fit_points"]) == (16.0, "1, 2")
    assert np.isnan(rows[3]["low"])  # two points leave no freedom for an interval


def test_strong_scaling_keeps_the_effective_batch() -> None:
    # Two learners with 16 of 32 images each.
    rows = ahead(points("strong", WEAK, {1: 32, 2: 16}), [8], draws=100)
    assert rows[-1]["per_learner_batch"] == 32 / 8
    # 0.16 / 4 is 0.04.
    assert rows[-1]["predicted"] == pytest.approx(8 / (0.01 + 0.04 * 1.75))


def test_numbers_that_were_run_and_settings_with_one_size_are_left_out() -> None:
    assert [row["role"] for row in ahead(points("weak", WEAK, {1: 16, 2: 16}), [1, 2], draws=100)] == ["fitted"] * 2
    assert ahead(points("weak", {1: 100.0}, {1: 16}), [8]) == []
    assert ahead(points("weak", {2: 100.0, 4: 150.0}, {2: 16, 4: 16}), [8]) == []


def test_points_are_those_of_gpus_of_one_host(measured: Epochs) -> None:
    measured["p2_strategy"] = [row | {"device_kind": "cpu"} for row in measured["p2_strategy"]]
    found, runs = measured_gpus(Path("any"))
    assert sorted(found.learners) == [1, 2, 4] and set(found.setting) == {"Horovod torch, a GPU, 224 pixels"}
    assert runs == ["p1-1-1-True", "p1-2-1-True", "p1-4-1-True"]


def test_no_gpu_gives_no_point(measured: Epochs) -> None:
    for experiment in measured:
        measured[experiment] = [row | {"device_kind": "cpu"} for row in measured[experiment]]
    found, runs = measured_gpus(Path("any"))
    assert found.empty and runs == []
