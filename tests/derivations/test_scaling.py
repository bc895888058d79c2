"""derivations.scaling: all-reduces step by step, limits, break-even points and units."""

from __future__ import annotations

import math

import pytest
import sympy as sp

from derivations import scaling as s

ALL_REDUCES = {"ring": s.ring(), "tree": s.tree(), "halving": s.halving_doubling(), "hierarchical": s.hierarchical()}
POINT = {s.p: 4, s.b: 32, s.B: 128, s.n: 1e8, s.alpha: 1e-5, s.beta: 1e-9}
POINT |= {s.c: 1e-3, s.o: 2e-3, s.w: s.BACKWARD, s.phi: 0}


def at(expression: sp.Expr, **changes: float) -> float:
    values = POINT | {getattr(s, name): value for name, value in changes.items()}
    return float(expression.subs(values))


def simulated_ring(learners: int, size: float, latency: float, per_byte: float) -> tuple[list[list[int]], float]:
    """Ring all-reduce of numbers that tell who has added what; every step waits for its one message."""
    pieces = [[1 << rank for _ in range(learners)] for rank in range(learners)]
    seconds = 0.0
    for gathering in (False, True):
        for turn in range(learners - 1):
            # The reduce-scatter leaves rank r the whole sum of piece r + 1, which the all-gather sends first.
            sent = [(rank, (rank - turn + gathering) % learners) for rank in range(learners)]
            messages = [(rank, k, pieces[rank][k]) for rank, k in sent]
            for rank, k, value in messages:
                there = pieces[(rank + 1) % learners]
                there[k] = value if gathering else there[k] + value
            seconds += latency + size / learners * per_byte
    return pieces, seconds


@pytest.mark.parametrize("learners", [1, 2, 3, 8])
def test_ring_is_what_its_steps_cost(learners: int) -> None:
    pieces, seconds = simulated_ring(learners, 1e8, 1e-5, 1e-9)
    assert pieces == [[2**learners - 1] * learners] * learners  # everyone holds everyone's sum
    assert at(s.ring(), p=learners) == pytest.approx(seconds)


def test_ring_in_symbols() -> None:
    assert sp.simplify(s.ring() - (2 * (s.p - 1) * s.alpha + 2 * (s.p - 1) / s.p * s.n * s.beta)) == 0


@pytest.mark.parametrize("learners", [1, 2, 4, 16])
def test_halving_doubling_and_tree_step_by_step(learners: int) -> None:
    levels = range(1, int(math.log2(learners)) + 1)
    halving = 2 * sum(1e-5 + 1e8 / 2**i * 1e-9 for i in levels)
    assert at(s.halving_doubling(), p=learners) == pytest.approx(halving)
    assert at(s.tree(), p=learners) == pytest.approx(2 * len(levels) * (1e-5 + 1e8 * 1e-9))


def test_hierarchy_of_one_node_or_of_single_learners_is_a_ring() -> None:
    inside = {s.alpha_in: s.alpha, s.beta_in: s.beta}
    outside = {s.alpha_out: s.alpha, s.beta_out: s.beta}
    assert sp.simplify(s.hierarchical().subs({s.m: 1, s.g: s.p} | inside) - s.ring()) == 0
    assert sp.simplify(s.hierarchical().subs({s.g: 1, s.m: s.p} | outside) - s.ring()) == 0


def test_hierarchy_on_equal_links_moves_as_many_bytes_as_a_ring() -> None:
    equal = {s.beta_in: s.beta, s.beta_out: s.beta, s.alpha_in: 0, s.alpha_out: 0}
    ring = s.ring().subs(s.p, s.g * s.m).subs(s.alpha, 0)
    assert sp.simplify(s.hierarchical().subs(equal) - ring) == 0


def test_half_of_a_rings_bandwidth() -> None:
    size = at(s.half_size())
    assert at(s.ring(), n=size) == pytest.approx(2 * at(s.ring(), n=size, alpha=0))


def test_limits_for_many_learners() -> None:
    free = {s.alpha: 0}  # no latency
    assert sp.limit(s.ring().subs(free), s.p, sp.oo) == 2 * s.n * s.beta
    assert sp.limit(s.tree().subs(free), s.p, sp.oo) == sp.oo
    weak = sp.limit(s.weak_efficiency().subs(free), s.p, sp.oo)
    assert sp.simplify(weak - (s.c * s.b + s.o) / (s.c * s.b + s.o + 2 * s.n * s.beta - s.phi * s.w * s.c * s.b)) == 0
    strong = sp.limit(s.strong_speedup().subs(free), s.p, sp.oo)
    assert sp.simplify(strong - (s.c * s.B + s.o) / (2 * s.n * s.beta + s.o)) == 0
    # With latency a ring of ever more learners gets nowhere.
    assert sp.limit(s.weak_speedup(), s.p, sp.oo) == (s.c * s.b + s.o) / (2 * s.alpha)
    assert sp.limit(s.strong_speedup(), s.p, sp.oo) == 0
    assert sp.limit(s.strong_efficiency(), s.p, sp.oo) == 0


def test_one_learner_is_the_base_of_both_speedups() -> None:
    alone = {s.p: 1, s.phi: 0}
    assert sp.simplify(s.weak_efficiency().subs(alone)) == sp.simplify(s.strong_speedup().subs(alone)) == 1


def test_communication_is_hidden_up_to_the_overlap() -> None:
    computing = 32e-3 + 2e-3
    assert at(s.step(), phi=1, n=1e6) == pytest.approx(computing)
    assert at(s.step(), phi=0, n=1e6) == pytest.approx(computing + at(s.ring(), n=1e6))
    assert at(s.step(), phi=1) == pytest.approx(computing + at(s.ring()) - 32e-3 * 2 / 3)
    assert at(s.step(), phi=1) == pytest.approx(at(s.exposed_step(), phi=1))
    assert at(s.step(s.tree(), s.B / s.p)) == pytest.approx(computing + at(s.tree()))


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_break_even_points_take_half_of_the_step(phi: float) -> None:
    for changes in ({"b": at(s.half_batch(), phi=phi)}, {"beta": 1 / at(s.half_bandwidth(), phi=phi)}):
        waiting = at(s.exposed(s.ring()), phi=phi, **changes)
        assert waiting == pytest.approx(at(s.step(), phi=phi, **changes) / 2)
    assert at(s.exposed(s.ring()), b=at(s.half_batch()) / 2) > at(s.step(), b=at(s.half_batch()) / 2) / 2


def power_of(expression: sp.Expr, unit: int) -> sp.Expr:
    """The power of a unit (0 s, 1 byte, 2 image) in an expression, by measuring with a unit that is k times smaller."""
    k = sp.Symbol("k", positive=True)
    expression = expression.replace(sp.Max, sp.Add)  # a maximum has its arguments' unit, and so must their sum
    scaled = expression.subs({x: x * k ** powers[unit] for x, powers in s.UNITS.items()}, simultaneous=True)
    return sp.simplify(sp.log(sp.simplify(scaled / expression)) / sp.log(k))


SECONDS, IMAGES, NONE = (1, 0, 0), (0, 0, 1), (0, 0, 0)
QUANTITIES = {
    **{name: (expression, SECONDS) for name, expression in ALL_REDUCES.items()},
    "step": (s.step(), SECONDS),
    "exposed step": (s.exposed_step(), SECONDS),
    "hierarchical step": (s.exposed_step(s.hierarchical()), SECONDS),
    "weak speed-up": (s.weak_speedup(), NONE),
    "strong efficiency": (s.strong_efficiency(), NONE),
    **{f"growth of {name}": (expression, NONE) for name, expression in s.growth().items()},
    "batch": (s.half_batch(), IMAGES),
    "link": (s.half_bandwidth(), (-1, 1, 0)),
    "size": (s.half_size(), (0, 1, 0)),
}


@pytest.mark.parametrize("name", QUANTITIES)
def test_units_are_consistent(name: str) -> None:
    expression, expected = QUANTITIES[name]
    assert expression.free_symbols <= set(s.UNITS)
    assert tuple(power_of(expression, unit) for unit in range(3)) == expected


def test_the_unit_check_finds_a_mistake() -> None:
    assert power_of(s.c * s.b + s.n, 0) != 1  # seconds plus bytes


def test_units_as_text() -> None:
    assert [s.units(x) for x in (s.p, s.n, s.alpha, s.beta, s.c)] == ["–", "byte", "s", "s·byte⁻¹", "s·image⁻¹"]
    with pytest.raises(KeyError):
        s.units(sp.Symbol("unheard"))
