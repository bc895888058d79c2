"""Which jobs a budget holds, with made-up times."""

from __future__ import annotations

import pytest

from experiments.cli import UsageError
from experiments.measure_plan.budget import choose, span
from tests.measure_machines import job

# Ten seconds answer two parts; thirty answer one; the last answers nothing.
SHORT = [job("short", 5, "a", "b"), job("short", 5, "a", "b", learners=2)]
LONG = [job("long", 30, "c")]
MORE = [job("more", 10)]
ALL = [*MORE, *LONG, *SHORT]


def names(jobs: list) -> list[tuple[str, int | None]]:
    return [(one.what, one.repeat) for one in jobs]


def test_one_repetition_of_everything_comes_before_the_second() -> None:
    chosen, out = choose(ALL, 2, 60)
    first = [("short 1", 1), ("short 2", 1), ("long 1", 1), ("more 1", 1)]  # 0.2, 0.03 and 0 parts a second
    # 50 s are spent; ten more hold the second repetition of what answers most, in reverse.
    assert names(chosen) == [*first, ("short 2", 2), ("short 1", 2)] and out == []


def test_a_small_budget_has_what_answers_most_in_a_second() -> None:
    chosen, out = choose(ALL, 3, 15)
    assert names(chosen) == [("short 1", 1), ("short 2", 1)]
    assert [(one.what, one.why) for one in out] == [
        ("long 1", "about 30 s more than --budget holds"),
        ("more 1", "about 10 s more than --budget holds"),
    ]


def test_a_series_that_does_not_fit_whole_has_its_first_sizes_but_never_one_alone() -> None:
    four = [job("curve", 10, "a", learners=n) for n in (1, 2, 4, 8)]
    assert names(choose(four, 1, 25)[0]) == [("curve 1", 1), ("curve 2", 1)]
    with pytest.raises(UsageError, match="--budget 19 s is too little: the first answer takes about 20 s"):
        choose(four, 1, 19)


def test_without_a_budget_all_is_run_as_often_as_asked() -> None:
    chosen, out = choose(LONG, 3, None)
    assert names(chosen) == [("long 1", 1), ("long 1", 2), ("long 1", 3)] and out == []


def test_what_is_done_costs_nothing_and_answers_what_it_answers() -> None:
    done = {one.key for one in SHORT}
    rival = job("rival", 10, "a")  # answers what the short ones did
    chosen, _ = choose([rival, *ALL], 1, 40, done)
    assert names(chosen) == [("long 1", 1), ("rival 1", 1)]  # 30 s for a new answer, then 10 s without one
    assert names(choose(ALL, 2, 10, done | {one.key for one in [*LONG, *MORE]})[0]) == [("short 2", 2), ("short 1", 2)]
    assert choose(ALL, 1, 1, done)[0] == []  # nothing fits, and nothing is wrong


def test_a_series_that_was_cut_goes_on_with_one_size() -> None:
    four = [job("curve", 10, "a", learners=n) for n in (1, 2, 4, 8)]
    done = {one.key for one in four[:2]}
    assert names(choose(four, 1, 15, done)[0]) == [("curve 4", 1)]


def test_times_read_as_people_say_them() -> None:
    assert [span(s) for s in (12.4, 100, 5400)] == ["12 s", "2 min", "1.5 h"]
