"""What few repetitions can tell, whatever continuous distribution they come from.

Each repetition falls below the true median with probability ½, by itself. So all n of them lie on one side with
probability 2·2⁻ⁿ, and their range holds the median else. And n + m repetitions of equal things come in any order with
the same probability: in 2 of C(n+m, n) choices of places, all n come before or after all m.
"""

from __future__ import annotations

import sympy as sp


def range_holds_median(n: int) -> sp.Rational:
    """The probability that the range of n repetitions, at least one, holds their distribution's median."""
    return 1 - 2 * sp.Rational(1, 2) ** _positive(n)


def wholly_apart(n: int, m: int) -> sp.Rational:
    """The probability that all of n repetitions lie above all of m others of the same distribution, or all below."""
    return 2 / sp.binomial(_positive(n) + _positive(m), n)


def _positive(n: int) -> int:
    if n < 1:
        raise ValueError(f"there must be at least one repetition, not {n}")
    return n
