"""experiments.p4.training: its schedules of the learning rate."""

from __future__ import annotations

import pytest

from experiments.p4 import training


def rates(schedule: str, epochs: int) -> list[float]:
    return [training.learning_rate(epoch, schedule, epochs) for epoch in range(1, epochs + 1)]


def test_the_authors_schedule_drops_once_within_100_epochs() -> None:
    assert rates("authors", 100) == pytest.approx([0.1] * 81 + [0.01] * 19)
    assert rates("authors", 10) == [0.1] * 10


def test_the_scaled_schedule_has_all_three_drops() -> None:
    # After 40.5, 61 and 82 epochs: the first whole epochs behind these are numbers 42, 62 and 83.
    assert rates("scaled", 100) == pytest.approx([0.1] * 41 + [0.01] * 20 + [1e-3] * 21 + [1e-4] * 18)
    assert rates("scaled", 200) == rates("authors", 200)
