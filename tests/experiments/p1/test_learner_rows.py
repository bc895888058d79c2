"""Rows of Problem 1 from learners' reports whose times are worked out here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments import p1_horovod
from experiments.cli import RunError
from experiments.machine.link_speed import Link
from experiments.p1 import horovod_options, learner_rows
from experiments.store import schemas


def report(rank: int, marks: list[list[float]]) -> dict[str, Any]:
    """What a learner reports that waited a tenth of a second in each step, whose losses are 7, 6, …"""
    lengths = [len(times) - 1 for times in marks]
    losses = iter(range(7, 0, -1))
    return {
        "rank": rank,
        "host": 0,
        "cores": [rank],
        "model": "tiny",
        "parameters": 5,
        "gradient_bytes": 20,
        "marks": marks,
        "losses": [[float(next(losses)) for _ in range(length)] for length in lengths],
        "waits": [[0.1] * length for length in lengths],
    }


ARGUMENTS = ["--learners", "2", "--batch-size", "4", "--epochs", "2", "--steps-per-epoch", "2"]
(CONFIG,) = horovod_options.series(p1_horovod.arguments().parse_args(ARGUMENTS))[0]
# Two epochs of two steps each; the learners wait for each other between epochs. The job takes 20 seconds.
FIRST = report(0, [[5.0, 6.0, 8.0], [9.0, 10.0, 11.0]])
SECOND = report(1, [[5.0, 5.5, 9.0], [9.0, 10.0, 12.0]])


def test_phases_cover_the_job() -> None:
    rows = learner_rows.as_rows(CONFIG, [FIRST, SECOND], None, 20.0)
    assert set(rows.columns) == set(schemas.of("p1_horovod").names)
    own = rows[rows["rank"] == 0]
    assert list(zip(own.phase, own.epoch, own.step, own.began, own.seconds, own.images, strict=True)) == [
        ("set-up", 0, 0, 0.0, 5.0, 0),
        ("train", 1, 1, 5.0, 1.0, 4),
        ("train", 1, 2, 6.0, 2.0, 4),
        ("train", 2, 1, 9.0, 1.0, 4),
        ("train", 2, 2, 10.0, 1.0, 4),
        ("end", 0, 0, 11.0, 9.0, 0),
    ]
    np.testing.assert_equal(own.loss.to_numpy(), [np.nan, 7, 6, 5, 4, np.nan])
    np.testing.assert_equal(own.wait_seconds.to_numpy(), [np.nan, 0.1, 0.1, 0.1, 0.1, np.nan])
    ends = rows[rows.phase == "end"]
    assert list(ends.began) == [11, 12] and list(ends.began + ends.seconds) == [20, 20]
    assert set(rows.effective_batch) == {8} and rows.link_gbit.isna().all() and rows.gbit.isna().all()


def test_where_a_framework_tells_no_wait_there_is_none() -> None:
    reports = [other | {"waits": [[None, None], [None, None]]} for other in (FIRST, SECOND)]
    rows = learner_rows.as_rows(CONFIG, reports, Link(9.5, 40.0), 20.0)
    assert rows.wait_seconds.isna().all() and rows.wait_seconds.dtype == float
    assert set(rows.link_gbit) == {9.5} and set(rows.link_round_trip_us) == {40.0}


def test_rates_are_of_all_learners_together() -> None:
    rates = learner_rows.rates(learner_rows.as_rows(CONFIG, [FIRST, SECOND], None, 20.0))
    # Eight images each: in epoch 1 in 3 s and in 4 s, in epoch 2 in 2 s and in 3 s.
    assert dict(rates) == pytest.approx({1: 8 / 3 + 8 / 4, 2: 8 / 2 + 8 / 3})


def test_a_clock_that_contradicts_the_job_is_an_error() -> None:
    with pytest.raises(RunError, match=r"learner 1 trained from 5\.000 to 12\.000 s of a job of 11\.500 s, .* nothing"):
        learner_rows.as_rows(CONFIG, [FIRST, SECOND], None, 11.5)
    with pytest.raises(RunError, match=r"learner 0 trained from -1\.000"):
        learner_rows.as_rows(CONFIG, [report(0, [[-1.0, 0.0, 1.0]])], None, 20.0)


@pytest.mark.parametrize("ranks", [[0], [1, 0], [0, 0], [0, 1, 2], []])
def test_learners_that_were_not_planned_are_an_error(ranks: list[int]) -> None:
    learner_rows.check_ranks(CONFIG, [{"rank": 0}, {"rank": 1}])
    with pytest.raises(RunError, match=r"2 learners were planned, ranks \[.*\] have reported; nothing was written"):
        learner_rows.check_ranks(CONFIG, [{"rank": rank} for rank in ranks])
