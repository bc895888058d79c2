"""The front page: every part has its answer in the table, and a change of the rows changes it."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from report.answers import Answer, Missing
from report.figures import front
from tests.p1_runs import lines


@pytest.fixture(scope="module")
def results() -> front.Results:
    return front.load()


def test_every_part_is_answered_under_its_own_number(results: front.Results) -> None:
    found = front.answers(results)
    assert list(found) == [part for parts in front.PARTS.values() for part in parts] and len(found) == 20
    for part, answer in found.items():
        assert isinstance(answer, Answer) and answer.part == part


def test_the_table_says_what_an_answer_rests_on_and_what_is_missing() -> None:
    some = Answer("1.1", "It grows 3-fold.", "4 H200", 12, "measured", "fig-p1-throughput")
    derived = Answer("1.3", "N times B.", "a CPU", 1, "derived", "tbl-p1-batch")
    found: dict[str, Answer | Missing] = {
        "1.1": some,
        "1.2": Missing("The scaling", "python x.py"),
        "1.3": derived,
        "1.4": some,
    }
    head, *rows = lines(front.tbl_answers(found, "p1"))
    assert head == ["Part", "Answer", "Basis", "See"]
    assert rows[0] == ["1.1", "It grows 3-fold.", "measured, 4 H200", "@fig-p1-throughput"]
    assert rows[1] == ["1.2", "*Not answered yet: the scaling is missing.*", "–", "–"]
    assert rows[2][2] == "derived" and len(rows) == 4


def test_other_rows_give_other_answers(results: front.Results) -> None:
    before = front.answers(results)["1.2"]
    slower = results.horovod.assign(rate=results.horovod.rate.where(results.horovod.learners == 1, 0.5))
    after = front.answers(replace(results, horovod=slower))["1.2"]
    assert isinstance(before, Answer) and isinstance(after, Answer) and before.sentence != after.sentence
    nothing = replace(results, horovod=results.horovod.iloc[:0])
    assert isinstance(front.answers(nothing)["1.2"], Missing)


def test_the_sizes_that_ran_are_counted(results: front.Results) -> None:
    jobs = pd.DataFrame({"device_kind": ["gpu", "gpu", "cpu"], "learners": [2, 1, 16], "image_size": [224, 32, 32]})
    assert front.text_ran(replace(results, horovod=jobs, strategy=jobs)) == (
        "Problem 1 ran on 1 and 2 GPUs, Problem 2 at 224 pixels on 2."
    )


def test_what_intervals_of_three_are_worth_is_derived() -> None:
    # 1 − 2/2³, and 2 of the 20 ways to place three among six
    assert front.text_intervals() == (
        "Intervals are 95 % bootstrap intervals of medians. Of three repetitions such an interval is their range, "
        "which holds the true median in only 75 % of cases; and three against three equal ones lie wholly apart by "
        "chance in 10 %."
    )


def test_time_and_cost_stand_together_or_their_runs_are_named(results: front.Results) -> None:
    made = front.fig_front_cost(results)
    assert not isinstance(made, Missing)
    drawn = str(made.to_dict())
    assert "minutes (log)" in drawn and "US dollars (log)" in drawn and "CPU" not in drawn
    assert isinstance(front.fig_front_cost(replace(results, strategy=results.strategy.iloc[:0])), Missing)
