"""Problem 4's shortest schedules on hand-made runs: 781 updates an epoch, and a run is there at 6 % or less."""

from __future__ import annotations

import pandas as pd
import pytest

from report.answers import Missing
from report.figures import augmentation_shortest
from report.figures.augmentation_shortest import (
    fig_p4_shortest,
    scaled,
    shortest,
    tbl_p4_both,
    tbl_p4_shortest,
    text_p4_shortest,
    text_p4_shortest_missing,
)
from tests.frames import H200
from tests.p1_runs import data, lines
from tests.p4_epochs import ONE, plain, run, runs, seeds

# M = 4 with three and with two epochs: all three seeds are there after the third epoch, one of three after the second.
THREE = seeds([[9, 7, 5.8], [9, 7, 5.9], [9, 7, 6.0]], 4, schedule="scaled")
TWO = seeds([[9, 6], [9, 7], [9, 8]], 4, schedule="scaled")
ALL = runs(ONE, THREE, TWO)


def test_the_shortest_schedule_is_the_fewest_epochs_with_which_every_seed_is_there() -> None:
    never = run([9, 7], 1, schedule="scaled")
    assert plain(text_p4_shortest(runs(ALL, never))) == (
        "On H100s the fewest epochs with which all seeds reach 94 % are 3 with M = 4 (with 2, 2 of 3 seeds miss it); "
        "they are there at epoch 3."
    )
    hundred = run([9.0] * 100, 1, schedule="scaled")
    assert plain(text_p4_shortest(hundred)) == "With 100 epochs, none of 1 seed with M = 1 reach 94 %."
    two = seeds([[9.0] * 100, [*[9.0] * 99, 5.9]], 2, schedule="scaled")
    assert plain(text_p4_shortest(runs(hundred, two))) == (
        "With 100 epochs, none of 1 seed with M = 1 and 1 of 2 seeds with M = 2 reach 94 %."
    )


def test_a_schedule_is_the_shortest_only_where_the_next_smaller_one_is_too_short() -> None:
    fifteen = seeds([[*[9.0] * 14, 5.0]] * 3, 4, schedule="scaled")  # the next smaller that is tried is 10
    assert shortest(fifteen) == [] and "for M = 1, 4, 8 and 32" in str(text_p4_shortest_missing(fifteen))
    nine, ten = (run([9.0] * n, 4, schedule="scaled") for n in (9, 10))
    assert shortest(runs(fifteen, nine)) == []
    ((least, short),) = shortest(runs(fifteen, nine, ten))
    assert least.epochs == 15 and short is not None and short.epochs == 10
    assert "(with 10, the one seed tried misses it)" in plain(text_p4_shortest(runs(fifteen, ten)))
    assert "for M = 1, 8 and 32" in str(text_p4_shortest_missing(runs(fifteen, ten)))


def test_what_a_larger_m_takes_beside_a_smaller_one() -> None:
    # There at the second epoch instead of the third, and at its first in another allocation, whose clock doesn't count.
    eight = seeds([[9, 5], [9, 5], [9, 6]], 8, schedule="scaled", step=25.0)
    other = run([5, 5], 8, seed=3, schedule="scaled", allocation="two")
    said = plain(text_p4_shortest(runs(THREE, eight)))
    # 2 of 3 epochs, twice as many images in each; 2 · 3 s instead of 3 · 1.5 s
    assert said.endswith(
        "are 3 with M = 4 and 2 with M = 8; they are there at epoch 3 and 2. Until then M = 8 takes, beside M = 4, "
        "0.67 times (0.67–0.67) the updates, 1.33 times (1.33–1.33) the gradient evaluations and 1.33 times "
        "(1.33–1.33) the wall clock in the same allocation."
    )
    assert "0.67 times (0.33–0.67) the updates" in plain(text_p4_shortest(runs(THREE, eight, other)))
    moved = plain(text_p4_shortest(runs(THREE, eight.assign(allocation="two"))))
    assert moved.endswith("1.33 times (1.33–1.33) the gradient evaluations.")


def test_both_schedules_stand_side_by_side_with_the_times_of_one_allocation() -> None:
    authors = runs(seeds([[9, 9, 9, 5]] * 3, 4), seeds([[9, 9, 9, 5], [9, 9, 9, 7]], 2))
    elsewhere = seeds([[9, 9, 9, 5]], 8, allocation="two")
    hundred = seeds([[9.0] * 100, [*[9.0] * 99, 5.9]], 2, schedule="scaled")
    other = run([9.0] * 100, 8, schedule="scaled", device=H200)  # of another GPU model than the figures show
    head, *rows = lines(str(tbl_p4_both(runs(authors, elsewhere, THREE, hundred, other))))
    assert head == ["M", "Authors': epoch", "Updates", "Minutes", "Shortest: epoch", "Updates", "Minutes"]
    assert rows == [
        ["2", "4 (1 of 2)", "–", "–", "1 of 2 in 100", "–", "–"],
        ["4", "4", "3,124", "0.10", "3 of 3", "2,343", "0.07"],  # 1.5 s an epoch
        ["8", "4", "3,124", "–", "–", "–", "–"],
    ]
    assert isinstance(tbl_p4_both(authors), Missing)
    moved = lines(str(tbl_p4_both(runs(authors, THREE.assign(allocation="")))))
    assert moved[2] == ["4", "4", "3,124", "–", "3 of 3", "2,343", "–"]


def test_each_device_model_has_its_shortest_schedule() -> None:
    there = runs(*(frame.assign(device=H200, allocation="two") for frame in (THREE, TWO)))
    there["run_id"] += "-there"
    eight = seeds([[9, 5]] * 3, 8, schedule="scaled")
    found = [(least.gpu, least.m, failed and failed.epochs) for least, failed in shortest(runs(ALL, eight, there))]
    assert found == [("H100", 4, 2), ("H100", 8, None), ("H200", 4, 2)]


def test_one_seed_can_show_that_a_schedule_is_too_short_but_not_that_it_is_long_enough() -> None:
    two = seeds([[9, 5], [9, 5]], 4, schedule="scaled")
    assert text_p4_shortest(runs(ONE, two)) == ""
    failing = run([9, 7], 4, schedule="scaled")
    assert text_p4_shortest(runs(ONE, failing)) == "" and shortest(runs(ONE, failing)) == []
    assert isinstance(tbl_p4_shortest(ONE), Missing) and isinstance(fig_p4_shortest(ONE), Missing)


@pytest.mark.usefixtures("few")
def test_device_models_are_not_pooled() -> None:
    other = run([9, 7, 5], 4, seed=2, schedule="scaled", allocation="two", device=H200)
    two = seeds([[9, 7, 5.8], [9, 7, 5.9]], 4, schedule="scaled")
    assert text_p4_shortest(runs(ONE, two, other)) == ""
    rows = lines(str(tbl_p4_shortest(runs(ONE, two, other))))[1:]
    assert [row[:2] + row[3:4] for row in rows] == [["4, 3", "H100", "2 of 2, at 3"], ["4, 3", "H200", "1 of 1, at 3"]]


def test_what_is_missing_is_what_decides_nothing_yet() -> None:
    missing = text_p4_shortest_missing(ONE)
    assert isinstance(missing, Missing) and "M = 1, 4, 8 and 32" in str(missing)
    hundred = run([9.0] * 100, 1, schedule="scaled")  # as long as the homework allows, and not there
    forty = run([9.0] * 60, 32, schedule="scaled")
    missing = str(text_p4_shortest_missing(runs(ALL, hundred, forty)))
    assert "for M = 8 and 32" in missing and "python experiments/p4_all.py --parts shortest" in missing
    done = [seeds([[9, 5]] * 3, m, schedule="scaled") for m in (8, 32)]
    assert text_p4_shortest_missing(runs(ALL, hundred, *done)) == ""


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search tries 2, 3 and 4 epochs."""
    monkeypatch.setattr(augmentation_shortest, "LENGTHS", (2, 3, 4))


@pytest.mark.usefixtures("few")
def test_the_table_has_only_the_lengths_of_the_search() -> None:
    budget = seeds([[9.0] * 5] * 3, 4, schedule="scaled")
    assert [row[0] for row in lines(str(tbl_p4_shortest(runs(ALL, budget))))[1:]] == ["4, 2", "4, 3"]


@pytest.mark.usefixtures("few")
def test_the_table_counts_seeds_updates_and_gradients() -> None:
    head, *rows = lines(str(tbl_p4_shortest(ALL)))
    assert head == ["M, E", "GPU", "Error", "94 % at epoch", "Updates", "Epochs × M", "Minutes"]
    # An epoch takes 1.5 s: at the second after 0.05 min, at the third after 0.075.
    assert rows[0] == ["4, 2", "H100", "7.00 (6.00–8.00)", "1 of 3, at 2", "1,562", "8", "0.05"]
    assert rows[1] == ["4, 3", "H100", "5.90 (5.80–6.00)", "3 of 3, at 3", "2,343", "12", "0.07"]


@pytest.mark.usefixtures("few")
def test_times_are_of_the_allocation_that_ran_most() -> None:
    elsewhere = run([9, 5, 5], 8, schedule="scaled", allocation="two", step=90.0)
    rows = lines(str(tbl_p4_shortest(runs(ALL, elsewhere))))
    assert rows[-1][:2] == ["8, 3", "H100"] and rows[-1][-1] == "–"


def test_a_point_is_a_seed_and_the_line_goes_through_medians_of_three() -> None:
    alone = run([9, 7, 5, 5], 4, schedule="scaled")
    found = fig_p4_shortest(runs(ALL, alone))
    points = [row for row in data(found) if "best" in row]
    assert sorted(row["best"] for row in points) == pytest.approx([5, 5.8, 5.9, 6.0, 6.0, 7.0, 8.0])
    line = {row["epochs_planned"]: row["error"] for row in points if row["seeds"] >= 3}
    assert line == pytest.approx({2: 7.0, 3: 5.9})
    assert not isinstance(found, Missing)
    assert len(data(fig_p4_shortest(runs(ONE, alone)))) and "line" not in str(fig_p4_shortest(runs(ONE, alone)))
    goal, curve, dots = found.to_dict()["layer"]
    assert [layer["encoding"]["y"]["field"] for layer in (goal, curve, dots)] == ["error", "error", "best"]
    assert dots["encoding"]["shape"]["legend"] is None  # of one GPU model
    (transform,) = curve["transform"]
    assert transform == {"filter": "(datum.seeds >= 3)"}


def test_only_runs_of_the_code_and_precision_of_most_count() -> None:
    others = runs(
        run([9, 5], 4, schedule="scaled", code="yesterday's"),
        run([9, 5], 4, schedule="scaled", precision="fp32"),
        run([9, 5], 4, schedule="scaled", augment="basic"),
    )
    assert set(scaled(runs(ALL, others)).run_id) == set(pd.concat([THREE, TWO]).run_id)
    assert scaled(ONE).empty


@pytest.mark.usefixtures("few")
def test_seeds_of_several_allocations_are_pooled() -> None:
    more = run([9, 7, 5], 4, seed=9, schedule="scaled", allocation="two")
    row = lines(str(tbl_p4_shortest(runs(ONE, THREE, more))))[1]
    assert row[2:4] == ["5.85 (5.00–6.00)", "4 of 4, at 3"] and row[-1] == "0.07"  # but times are of one
