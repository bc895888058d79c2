"""Problem 4: the rows that Problem 4's figures take, on hand-made runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.p4.wanted import ALL_M
from report.comparisons import Incomparable
from report.figures import (
    augmentation,
    augmentation_runs,
)
from report.figures.augmentation_runs import finished
from tests.frames import H200
from tests.p4_epochs import BASIC, ONE, run, runs
from tests.report.test_chapters import write


def test_a_run_is_summed_up() -> None:
    (row,) = finished(run([9, 6, 7, 6], m=2, step=20.0, seed=5)).to_dict("records")
    assert (row["last"], row["best"], row["best_epoch"]) == (pytest.approx(6), pytest.approx(6), 2)
    assert (row["goal_epoch"], row["goal_seconds"]) == (
        2,
        2 * 2.5,
    )  # 6.00 % is 94 % accuracy; 100 steps of 20 ms, tests
    assert row["seconds"] == 10.0 and row["epochs"] == 4 and row["first_drop"] == 3 and row["seed"] == 5
    assert row["images_per_second"] == 12_800 / 2 and row["step_ms"] == 20.0 and row["train_error"] == 10.0
    (row,) = finished(run([9, 6.01], drop=9)).to_dict("records")
    assert pd.isna(row["goal_epoch"]) and pd.isna(row["goal_seconds"]) and pd.isna(row["first_drop"])


def test_the_figures_show_one_device_precision_and_code_and_the_longest_runs() -> None:
    kept = runs(ONE, run([9, 8, 7, 6], 8), BASIC)
    others = runs(
        run([1] * 4, 8, precision="fp32"),
        run([1] * 4, 8, device=H200, allocation="two"),
        run([1] * 4, 8, code="older"),
        run([1] * 4, 8, schedule="scaled"),
        run([1] * 4, 8, augment="basic"),
        run([1] * 3, 8),
    )
    shown = augmentation_runs.main(finished(runs(others, kept)))
    assert set(shown.run_id) == set(kept.run_id) and not shown.elsewhere.any()


def test_errors_of_other_devices_codes_or_settings_are_never_pooled() -> None:
    others: list[dict[str, Any]] = [{"device": H200}, {"code": "older"}, {"precision": "fp32"}]
    for other in others:
        mixed = finished(runs(run([9, 8]), run([9, 7], seed=1, **other)))
        with pytest.raises(Incomparable, match=next(iter(other))):
            augmentation_runs.pooled_text(mixed)
        first, second = (mixed[mixed.seed == seed] for seed in (0, 1))
        with pytest.raises(Incomparable, match=next(iter(other))):
            augmentation_runs.difference(first, second, ["M"])
    elsewhere = finished(runs(run([9, 8]), run([9, 7], seed=1, allocation="two")))
    assert augmentation_runs.pooled_text(elsewhere) == "7.50 (7.00–8.00)"


def test_other_data_and_networks_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch, dataset="synthetic")
    write(tmp_path, monkeypatch, depth=14)
    write(tmp_path, monkeypatch, batch_size=32, seed=1)
    assert augmentation.load(tmp_path).empty
    origin = write(tmp_path, monkeypatch)
    found = augmentation.load(tmp_path)
    assert set(found.run_id) == {origin.run_id} and set(found.code) == {"today's"}


def test_stale_sources_make_another_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = write(tmp_path, monkeypatch)
    old = origin.model_copy(update={"sources": origin.sources | {"experiments/augment.py": "ab" * 32}})
    assert augmentation_runs.code(origin) == "today's"
    assert augmentation_runs.code(old) == "experiments/augment.py:abababababab"


def test_the_stored_seeds_of_an_m_are_of_one_code() -> None:
    shown = augmentation_runs.main(finished(augmentation.load()))
    assert set(ALL_M) <= set(shown.M)
    assert (shown[shown.M <= 8].groupby(["augment", "M"]).seed.nunique() >= 3).all()
