"""What few repetitions can tell, counted out."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import sympy as sp

from derivations.repetitions import range_holds_median, wholly_apart


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_the_range_holds_the_median_unless_all_fall_on_one_side(n: int) -> None:
    sides = list(itertools.product((False, True), repeat=n))
    held = sum(any(above) and not all(above) for above in sides)
    assert Fraction(str(range_holds_median(n))) == Fraction(held, len(sides))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 3), (6, 3), (2, 5)])
def test_equal_things_lie_apart_in_two_of_all_orders(n: int, m: int) -> None:
    orders = list(itertools.combinations(range(n + m), n))
    apart = sum(places in (tuple(range(n)), tuple(range(m, n + m))) for places in orders)
    assert Fraction(str(wholly_apart(n, m))) == Fraction(apart, len(orders))


def test_of_three() -> None:
    assert range_holds_median(3) == sp.Rational(3, 4) and wholly_apart(3, 3) == sp.Rational(1, 10)


def test_no_repetition_tells_nothing() -> None:
    with pytest.raises(ValueError, match="at least one repetition, not 0"):
        range_holds_median(0)
    for n, m in ((3, 0), (-1, 3)):
        with pytest.raises(ValueError, match="at least one repetition"):
            wholly_apart(n, m)
