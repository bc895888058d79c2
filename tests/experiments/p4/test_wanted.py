"""Which trainings come next: by hand, from made-up errors."""

from __future__ import annotations

from collections.abc import Callable

from experiments.p4.wanted import ALL_M, PARTS, Training, budgets, shortest, wanted


def scaled(m: int, epochs: int, seed: int) -> Training:
    return Training("cutout", m, epochs, "scaled", seed)


def found_by(
    m: int, error: Callable[[int, int], float], seeds: int = 3
) -> tuple[list[tuple[int, int]], dict[Training, float]]:
    """The search to its end, all that it asks for at a time being run: (E, seed) in order, and all errors."""
    lowest: dict[Training, float] = {}
    order = []
    while asked := shortest(m, seeds, lowest):
        for one in asked:
            assert one not in lowest and (one.M, one.schedule, one.augment) == (m, "scaled", "cutout")
            lowest[one] = error(one.epochs, one.seed)
            order.append((one.epochs, one.seed))
    return order, lowest


def test_the_search_halves_what_is_left_and_one_seed_shows_that_a_schedule_is_too_short() -> None:
    order, _ = found_by(4, lambda epochs, seed: 6.0 if epochs >= 80 else 6.01)
    # of eight lengths the fifth, 40; of 60, 80 and 100 the second; then 60
    assert order == [(40, 0), (80, 0), (80, 1), (80, 2), (60, 0)]


def test_a_later_seed_that_is_not_there_decides_as_well() -> None:
    order, lowest = found_by(8, lambda epochs, seed: 5.0 if epochs >= 80 or (epochs == 60 and seed < 2) else 7.0)
    assert order == [(40, 0), (80, 0), (80, 1), (80, 2), (60, 0), (60, 1), (60, 2)]
    assert shortest(8, 3, lowest) == []


def test_the_search_ends_at_both_ends_of_the_lengths() -> None:
    never, _ = found_by(1, lambda epochs, seed: 9.0)
    assert never == [(40, 0), (80, 0), (100, 0)]
    always, _ = found_by(32, lambda epochs, seed: 5.0, seeds=1)
    assert always == [(40, 0), (20, 0), (15, 0), (10, 0)]


def test_what_is_done_already_is_taken_as_it_is() -> None:
    lowest = {scaled(4, 80, seed): 5.9 for seed in range(3)} | {scaled(4, 30, 2): 6.5}
    assert shortest(4, 3, lowest) == [scaled(4, 60, 0)]
    assert shortest(4, 3, lowest | {scaled(4, 60, 0): 6.2}) == []
    # One of three seeds is there: the others are missing.
    assert shortest(4, 3, {scaled(4, 40, 1): 5.0}) == [scaled(4, 40, 0), scaled(4, 40, 2)]


def test_budgets_are_equal_to_the_next_whole_epoch() -> None:
    assert budgets() == [(1, 100), (2, 50), (4, 25), (8, 12), (4, 100), (8, 50), (16, 25), (32, 12)]


def test_parts_come_in_their_order_each_training_once_and_none_that_is_done() -> None:
    authors = wanted(["authors"], 1, {})
    assert authors[0] == Training("basic", 1, 100, "authors", 0)
    assert [one.M for one in authors[1:]] == sorted(ALL_M, reverse=True)
    everything = wanted(PARTS, 2, {})
    assert len(set(everything)) == len(everything)
    # 7 trainings of the homework, one each for 4 searches, 6 scaled, and 6 budgets that aren't 100 epochs long
    assert len(everything) == 2 * 7 + 4 + 2 * 6 + 2 * 6
    assert wanted(PARTS, 2, dict.fromkeys(everything[:3], 7.0))[0] == everything[3]
    assert scaled(4, 100, 1) in wanted(["budgets"], 2, {}) and scaled(4, 100, 1) in wanted(["scaled"], 2, {})


def test_the_words_are_those_of_the_script() -> None:
    words = "--augment cutout --M 4 --epochs 80 --schedule scaled --seed 1"
    assert scaled(4, 80, 1).words() == words.split()
