"""Predictions made before the run, beside what later jobs measured, on hand-made rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from report.answers import Missing
from report.figures import scaling_ahead
from report.figures.strategy_runs import homework
from tests.p1_runs import lines
from tests.p2_runs import runs, ten
from tests.scaling_rows import frame, row

SETTING = "tf.distribute mirrored default, NVIDIA H200, 224 pixels"
WRITTEN = pd.Timestamp("2026-12-31T12:00Z")


def predictions() -> pd.DataFrame:
    """A fit of 50 images/s on one GPU, and its predictions for 4 and 8: 2.4 to 3.2, and no interval."""
    name = SETTING.replace("default,", "default, weak,")
    rows = [row(name, "ahead", "fitted", 1, 50.0)]
    rows.append(row(name, "ahead", "projected", 4, 150.0, observed=None, low=120.0, high=160.0))
    rows.append(row(name, "ahead", "projected", 8, 250.0, observed=None))
    return frame(rows).assign(started=WRITTEN, ended=WRITTEN)


def later_jobs(*frames: pd.DataFrame) -> pd.DataFrame:
    return homework(runs(*frames)).assign(setting=SETTING)


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.setattr(scaling_ahead.parquet, "read", lambda *_: predictions())
    return scaling_ahead.load()


def test_a_prediction_is_a_speed_up_over_the_same_fits_one_gpu(ahead: pd.DataFrame) -> None:
    assert list(ahead.speed_up) == [3.0, 5.0] and list(ahead.scaling) == ["weak", "weak"]
    assert (ahead.least.iloc[0], ahead.most.iloc[0]) == (2.4, 3.2)
    assert set(ahead.setting) == {SETTING}


def test_a_later_job_tests_it_within_its_own_allocation(ahead: pd.DataFrame) -> None:
    early: dict[str, Any] = {"allocation": "early", "started": pd.Timestamp("2026-12-30T00:00Z")}
    # Later: 128 images in 100 s and 512 in 160 s, so 2.5 times as many; 3 is 20 % more. Before: 4 times as many.
    jobs = later_jobs(ten(100.0), ten(160.0, 4), ten(100.0, **early), ten(100.0, 4, **early), ten(100.0, 8, **early))
    head, *rows = lines(str(scaling_ahead.tbl_scaling_ahead(ahead, jobs)))
    assert head == ["GPUs", "Scaling", "N", "Projected", "80 % interval", "Measured", "Error"]
    assert rows[0] == ["H200, 224 px", "weak", "4", "3.00", "2.40–3.20", "2.50", "+20.0 %"]
    assert rows[1][2:] == ["8", "5.00", "–", "not run", "–"]
    assert scaling_ahead.text_scaling_ahead(ahead, jobs) == (
        "The predictions were written at 2026-12-31 12:00 UTC, before the jobs. Their errors: "
        "+20.0 % for 4 GPUs with weak scaling."
    )


def test_a_job_without_one_gpu_beside_it_tests_nothing(ahead: pd.DataFrame) -> None:
    jobs = later_jobs(ten(160.0, 4), ten(160.0, 2))
    assert scaling_ahead.text_scaling_ahead(ahead, jobs) == "None of these jobs has been run since."


def test_without_predictions_the_command_is_named(ahead: pd.DataFrame) -> None:
    found = scaling_ahead.tbl_scaling_ahead(ahead.iloc[:0], later_jobs(ten(1.0)))
    assert isinstance(found, Missing) and "scaling_ahead.py" in found.command
