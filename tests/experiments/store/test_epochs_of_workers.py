"""Problem 2's epochs, derived from rows of executions. Every expected value is worked out by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from experiments.store import epochs, parquet, schemas


def row(
    worker: int, phase: str, epoch: int, execution: int, began: float, seconds: float, **more: Any
) -> dict[str, Any]:
    """A row of a job of 2 workers with executions of 2 steps; a worker takes 16 images a step."""
    fixed = dict.fromkeys([*schemas.P2_STRATEGY.names, *parquet.ORIGIN])
    fixed |= {"run_id": "a", "allocation": "one", "learners": 2, "workers": 2, "steps_per_execution": 2}
    images = 2 * 16 if phase == "train" else 0
    place = {"worker": worker, "phase": phase, "epoch": epoch, "execution": execution, "images": images}
    return fixed | place | {"began": began, "seconds": seconds} | more


# Worker 1 starts its steps 0.5 s later, and its first one takes longer.
ROWS = [
    row(0, "set-up", 0, 0, 0.0, 10.0),
    row(0, "train", 1, 1, 10.0, 1.0, loss=3.0),
    row(0, "train", 1, 2, 11.0, 3.0, loss=2.0),
    row(0, "test", 1, 0, 14.0, 2.0, test_accuracy=0.25),
    row(0, "train", 2, 1, 16.5, 2.0, loss=1.0),
    row(0, "train", 2, 2, 18.5, 2.0, loss=0.5),
    row(0, "test", 2, 0, 20.5, 1.5, test_accuracy=0.75),
    row(0, "end", 0, 0, 22.0, 3.0),
    row(1, "set-up", 0, 0, 0.0, 10.5),
    row(1, "train", 1, 1, 10.5, 1.5, loss=4.0),
    row(1, "train", 1, 2, 12.0, 2.0, loss=3.0),
    row(1, "test", 1, 0, 14.0, 2.25, test_accuracy=0.25),
    row(1, "train", 2, 1, 16.5, 2.0, loss=2.0),
    row(1, "train", 2, 2, 18.5, 2.0, loss=1.0),
    row(1, "test", 2, 0, 20.5, 1.5, test_accuracy=0.75),
    row(1, "end", 0, 0, 22.0, 3.0),
]


def test_epochs_of_executions() -> None:
    found = epochs.derive(pd.DataFrame(ROWS), "p2_strategy").set_index(["worker", "epoch"]).sort_index()
    expected = {
        # Two executions of two steps, of 16 images each.
        "steps": [4, 4, 4, 4],
        "images": [64, 64, 64, 64],
        "began": [10.0, 16.5, 10.5, 16.5],
        "seconds": [4.0, 4.0, 3.5, 4.0],  # from the first execution's start to the last one's end
        "images_per_second": [16.0, 16.0, 64 / 3.5, 16.0],
        # Steps of worker 0's first epoch take 0.5 and 1.5 s, of worker 1's 0.75 and 1 s, of the second one all 1 s.
        "step_p50": [1.0, 1.0, 0.875, 1.0],
        "step_p10": [0.6, 1.0, 0.775, 1.0],  # a tenth of the way from the shorter one to the longer one
        "step_p90": [1.4, 1.0, 0.975, 1.0],
        "train_loss": [2.5, 0.75, 3.5, 1.5],
        "test_accuracy": [0.25, 0.75, 0.25, 0.75],
        "evaluation_seconds": [2.0, 1.5, 2.25, 1.5],
        "setup_seconds": [10.0, 10.0, 10.5, 10.5],
        "job_seconds": [25.0, 25.0, 25.0, 25.0],
    }
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values), name
    assert list(found.index) == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_job_without_tests_has_no_accuracy() -> None:
    rows = pd.DataFrame([one for one in ROWS if one["phase"] != "test"])
    found = epochs.derive(rows, "p2_strategy")
    assert len(found) == 4 and found.test_accuracy.isna().all() and found.evaluation_seconds.isna().all()
    assert found.seconds.tolist() == [4.0, 4.0, 3.5, 4.0]


def test_runs_are_kept_apart() -> None:
    other = [one | {"run_id": "b", "began": one["began"] * 2, "seconds": one["seconds"] * 2} for one in ROWS]
    found = epochs.derive(pd.DataFrame([*ROWS, *other]), "p2_strategy")
    first, second = (found[found.run_id == name] for name in "ab")
    assert second.seconds.tolist() == [8.0, 8.0, 7.0, 8.0] and set(second.job_seconds) == {50.0}
    assert first.seconds.tolist() == [4.0, 4.0, 3.5, 4.0] and set(first.job_seconds) == {25.0}
