"""Problem 4: epochs and wall clock to 94 %, on hand-made runs."""

from __future__ import annotations

from typing import Any

from report.answers import Answer, Missing
from report.figures import augmentation_time
from tests.p1_runs import data, lines
from tests.p4_epochs import FOUR, ONE, TWO, plain, run, runs, seeds

BETTER: list[list[float]] = [[9, 8, 5, 4], [9, 8, 5, 4.1], [9, 8, 5, 4.2]]


def test_the_answer_says_that_the_schedule_sets_the_epoch() -> None:
    late = run([9, 8, 7, 6], 8)
    text = plain(augmentation_time.answer_p4_augmentation(runs(ONE, TWO, FOUR, late)))
    assert text.startswith(
        "With cutout, M = 2 and 4 reach 94 % accuracy at epoch 3, the first after the learning rate falls: "
        "the schedule sets that epoch, not M. M = 8 reaches it at epoch 4. M = 1 does not reach it "
        "within 4 epochs (93.00 % in bf16)."
    )
    sooner = runs(ONE, TWO, seeds([[9, 6, 5, 5], [9, 8, 5, 5]], 4))
    text = plain(augmentation_time.answer_p4_augmentation(sooner))
    assert "M = 2 reaches 94 % accuracy at epoch 3" in text and "M = 4 reaches it at epochs 2 and 3" in text
    some = plain(augmentation_time.answer_p4_augmentation(runs(TWO, seeds([[9, 8, 7, 7], [9, 8, 7, 6]], 4))))
    assert "M = 4 reaches it at epoch 4 (1 of 2)" in some


def test_a_run_of_another_precision_that_does_reach_it_is_named() -> None:
    full = seeds([[9, 8, 7, 6.9], [9, 8, 7, 5.9]], precision="fp32", engine="plain")
    found = augmentation_time.answer_p4_augmentation(runs(ONE, TWO, full))
    assert "(93.00 % in bf16; in fp32, 1 of 2 runs reaches it, at epoch 4)" in plain(found)
    assert isinstance(found, Answer) and found.runs == 3 + 3 + 2


def test_the_clock_is_read_within_an_allocation() -> None:
    there = runs(run([9, 8, 5], 2, allocation="two", step=20.0), run([9, 8, 5], 8, allocation="two", step=60.0))
    here = runs(run([9, 8, 5], 2), run([9, 8, 5], 4, step=25.0), run([9, 8, 7], 1))
    subset = run([9, 8, 5], 4, allocation="three", step=1.0)
    moved = run([9, 8, 5], 16, allocation="", step=1.0)
    text = augmentation_time.clock_text(runs(there, here, subset, moved))
    # three epochs of 1 s, of 2.5 s, of 2 s and of 6 s, each with half a second of validation
    assert text == (
        f"The wall clock to 94 % is {4.5 / 60:.2f} and {9 / 60:.2f} min for M = 2 and 4 in one allocation and "
        f"{7.5 / 60:.2f} and {19.5 / 60:.2f} min for M = 2 and 8 in another."
    )


def test_the_table_of_times_has_a_row_for_each_allocation_and_none_for_a_moved_run() -> None:
    frame = runs(
        run([9, 8, 5], 2, step=595.0, setup_seconds=60.0),
        run([9, 8, 5], 2, seed=1, step=1195.0, setup_seconds=60.0),
        run([9, 8, 7], 1, step=595.0),
        run([9, 8, 5], 2, seed=2, allocation="two", step=595.0),
        run([9, 8, 5], 2, seed=3, allocation=""),
    )
    table = lines(augmentation_time.tbl_p4_time(frame))  # type: ignore[arg-type]
    assert table[1:] == [
        ["several", "cutout, M = 2", "1", "3", "–", "–"],
        ["one", "cutout, M = 1", "1", "no: 93.00 %", "3.00", "3.50"],  # 3 × 60 s, half a minute of set-up
        ["", "cutout, M = 2", "2", "3", "4.50 (3.00–6.00)", "5.50"],
        ["two", "cutout, M = 2", "1", "3", "3.00", "3.50"],
    ]


def test_an_m_that_misses_94_percent_with_a_seed_has_no_clock() -> None:
    frame = runs(run([9, 8, 5], 2), run([9, 8, 5], 4), run([9, 8, 7], 4, seed=1))
    assert augmentation_time.clock_text(frame) == f"The wall clock to 94 % is {4.5 / 60:.2f} min for M = 2."


def test_the_shortest_schedules_clock_is_of_the_allocation_that_ran_most() -> None:
    four = seeds([[9, 7, 5.8], [9, 7, 5.9], [9, 7, 6.0]], 4, schedule="scaled")
    eight = runs(
        *(run([9, 5], 8, seed=seed, schedule="scaled", step=595.0) for seed in (0, 1)),
        run([9, 5], 8, seed=2, schedule="scaled", allocation="two"),
    )
    short = run([9, 7], 4, schedule="scaled")  # misses it
    assert augmentation_time.shortest_text(runs(ONE, four, eight, short)) == (
        "With the shortest schedule that takes all seeds there (3 and 2 epochs), M = 4 and 8 reach it at epoch 3 and "
        "2, after 0.07 and 2.00 min in one allocation."
    )
    apart = augmentation_time.shortest_text(runs(ONE, four, eight.assign(allocation="two"), short))
    assert apart.endswith("M = 4 and 8 reach it at epoch 3 and 2, after 0.07 min for M = 4 in one allocation.")
    moved = augmentation_time.shortest_text(runs(ONE, four.assign(allocation="")))
    assert moved == "With the shortest schedule that takes all seeds there (3 epochs), M = 4 reaches it at epoch 3."
    assert augmentation_time.shortest_text(runs(ONE, short)) == ""


def test_what_the_drop_does() -> None:
    text = augmentation_time.text_p4_drop(runs(ONE, TWO))
    # medians of the third epoch: 7.1 and 5.5
    assert text == (
        "In epoch 3, when the learning rate falls, the error falls by 0.90 to 2.50 points, whatever M is: "
        "from 8.00 to 7.10 % with M = 1 and from 8.00 to 5.50 % with M = 2."
    )
    assert augmentation_time.text_p4_drop(run([9, 8], drop=9)) == ""


def test_which_m_to_take() -> None:
    text = plain(augmentation_time.text_p4_choice(runs(ONE, TWO, FOUR, run([9, 8, 5, 4], 8, step=40.0))))
    assert text.startswith(
        "**Which M to take with one GPU:** M = 2, whose error is 1.20 points (1.00 to 1.40) below that of M = 1, "
        "for 1.50 times the time of an epoch; no gain beyond noise from M = 4; M = 8 ran too "
        "few times for a verdict."
    )
    # three epochs of 1.5 s to 2.5 s of training and half a second each
    assert text.endswith(
        f"M = 2 reaches 94 % soonest: after 0.10 min, against {9 / 60:.2f} with M = 4 in the same allocation."
    )
    better = seeds(BETTER, 4, step=25.0)
    assert "M = 4, whose error is 2.90 points" in plain(augmentation_time.text_p4_choice(runs(ONE, TWO, better)))


def test_a_smaller_m_within_noise_of_the_chosen_one_is_named_with_what_beats_it() -> None:
    two = seeds([[9, 8, 6, 5.0], [9, 8, 6, 5.1], [9, 8, 6, 5.2]], 2)
    four = seeds([[9, 8, 6, 4.7], [9, 8, 6, 4.9], [9, 8, 6, 5.05]], 4)
    eight = seeds([[9, 8, 6, 4.6], [9, 8, 6, 4.8], [9, 8, 6, 4.9]], 8)
    text = plain(augmentation_time.text_p4_choice(runs(ONE, two, four, eight)))
    assert text.startswith("**Which M to take with one GPU:** M = 4, ")
    assert "; no gain beyond noise from M = 8; M = 2 is within noise of it, but not of M = 8." in text


def test_which_m_is_there_soonest_is_what_no_allocation_contradicts() -> None:
    here = runs(ONE, FOUR, run([9, 8, 5, 4], 8, step=40.0))
    there = runs(TWO.assign(allocation="two"), seeds(BETTER, 4, step=25.0, allocation="two"))
    text = plain(augmentation_time.text_p4_choice(runs(here, there)))
    assert "M = 2 reaches 94 % soonest: after 0.10 min, against 0.15 with M = 4 in the same allocation." in text
    # Two seeds of M = 4 in the allocation, the third in another: an error may pool them, a time may not.
    apart = runs(ONE, TWO, *(run(errors, 4, seed=seed, step=25.0) for seed, errors in enumerate(BETTER[:2])))
    apart = runs(apart, run(BETTER[2], 4, seed=2, step=25.0, allocation="two"))
    assert plain(augmentation_time.text_p4_choice(apart)).endswith("(two runs each, too few for a verdict).")
    alone = plain(augmentation_time.text_p4_choice(runs(ONE, TWO, seeds(BETTER, 4, allocation="two"))))
    assert "soonest" not in alone


def test_a_shortest_schedule_that_is_sooner_still_is_named() -> None:
    short = seeds([[9, 5]] * 3, 4, schedule="scaled", step=20.0)
    text = plain(augmentation_time.text_p4_choice(runs(ONE, TWO, FOUR, short)))
    # two epochs of 2.5 s
    assert text.endswith("Sooner still is M = 4 with its schedule scaled to 2 epochs: 0.08 min (@sec-p4-shortest).")
    for other in (short.assign(allocation="two"), seeds([[9, 5]] * 3, 4, schedule="scaled", step=40.0)):
        assert "Sooner" not in plain(augmentation_time.text_p4_choice(runs(ONE, TWO, FOUR, other)))


def test_too_few_runs_choose_no_m() -> None:
    assert isinstance(augmentation_time.text_p4_choice(runs(ONE, run([9, 8, 5, 4], 8))), Missing)


def test_the_clocks_chart_has_a_panel_for_each_allocation_with_several_m() -> None:
    frame = runs(run([9, 8], 1), run([9, 7], 2), run([9, 6], 4, allocation="two"))
    chart: Any = augmentation_time.fig_p4_clock(frame)
    assert len(chart.vconcat) == 1
    assert {row["M"] for row in data(chart) if "M" in row} == {1, 2}
    assert isinstance(augmentation_time.fig_p4_clock(run([9, 8], 1)), Missing)
