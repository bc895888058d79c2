"""Receptive fields of stacked convolutions, proved by induction in sympy (Araujo, Norris & Sim 2019, distill 00021).

Layer l has a k_l-wide kernel and stride s_l. Two neighbouring outputs of layer l lie j_l = ∏ s_i input pixels apart,
so a window of k_l outputs of layer l−1, each seeing r_{l−1} pixels, sees r_l = r_{l−1} + (k_l − 1)·j_{l−1} pixels.

    python -m derivations.receptive_field    prints the proofs; exit status 1 if one does not hold
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import sympy as sp

from derivations.layers import Size

N, F, C, L = sp.symbols("N F C L", integer=True, positive=True)
_l, _i = sp.symbols("l i", integer=True, positive=True)
KERNEL, STRIDE = sp.IndexedBase("k"), sp.IndexedBase("s")


class ProofError(ValueError):
    """A step of a proof does not simplify to zero; the message says which and what is left."""


@dataclass(frozen=True)
class Induction:
    """A proved statement: claim(n) satisfies claim(start) = first and claim(n+1) = next(claim(n), n)."""

    name: str
    variable: sp.Symbol
    start: int
    claim: sp.Expr
    first: sp.Expr
    following: sp.Expr  # what the recurrence makes of claim(n)
    successor: sp.Expr  # claim(n+1), as the closed form gives it
    difference: sp.Expr  # of these two, simplified


def prove(
    name: str, variable: sp.Symbol, claim: sp.Expr, start: int, first: sp.Expr, step: Callable[[sp.Expr], sp.Expr]
) -> Induction:
    """Prove by induction that ``claim`` solves x(start) = first, x(n+1) = step(x(n)).

    The last term of a sum or product is split off, which is its definition; the rest is algebra.
    Raises ProofError when the base case or the induction step leaves anything but zero.
    """
    following, successor = step(claim), claim.subs(variable, variable + 1)
    _must_vanish(f"{name}: base case", claim.subs(variable, start).doit() - first)
    difference = _must_vanish(f"{name}: induction step", _split_last(successor, variable) - following)
    return Induction(name, variable, start, claim, sp.sympify(first), following, successor, difference)


def _must_vanish(what: str, residual: sp.Expr) -> sp.Expr:
    left = sp.simplify(sp.expand(residual))
    if left != 0:
        raise ProofError(f"{what} leaves {left}, not 0")
    return left


def _split_last(expression: sp.Expr, n: sp.Symbol) -> sp.Expr:
    def split(total: sp.Expr) -> sp.Expr:
        ((index, low, high),) = total.limits
        if high != n + 1:
            return total
        rest, last = total.func(total.function, (index, low, n)), total.function.subs(index, n + 1)
        return rest + last if isinstance(total, sp.Sum) else rest * last

    return expression.replace(lambda e: isinstance(e, sp.Sum | sp.Product), split)


def prove_stack() -> Induction:
    """N stacked F×F convolutions of stride 1 see N·F − N + 1 pixels: from r_1 = F and r_{N+1} = r_N + (F − 1)."""
    return prove("stack", N, N * F - N + 1, 1, F, lambda r: r + F - 1)


def prove_spacing() -> Induction:
    """Neighbouring outputs of layer L lie ∏ s_i pixels apart: from j_0 = 1 and j_{L+1} = s_{L+1}·j_L."""
    return prove("spacing", L, _spacing(L), 0, sp.Integer(1), lambda j: STRIDE[L + 1] * j)


def prove_closed_form() -> Induction:
    """r_L = 1 + Σ (k_l − 1)·∏_{i<l} s_i: from r_0 = 1 and r_{L+1} = r_L + (k_{L+1} − 1)·j_L, with j_L just proved."""
    prove_spacing()
    return prove("closed form", L, closed_form(), 0, sp.Integer(1), lambda r: r + (KERNEL[L + 1] - 1) * _spacing(L))


def prove_special_case() -> sp.Expr:
    """The closed form with k_l = F and s_l = 1 for all of N layers; raises ProofError unless it is N·F − N + 1."""
    special = closed_form().subs(L, N).replace(lambda e: isinstance(e, sp.Indexed), _uniform).doit()
    _must_vanish("special case", special - (N * F - N + 1))
    return sp.expand(special)


def _uniform(entry: sp.Indexed) -> sp.Expr:
    return F if entry.base == KERNEL else sp.Integer(1)


def _spacing(upper: sp.Expr) -> sp.Expr:
    return sp.Product(STRIDE[_i], (_i, 1, upper))


def closed_form() -> sp.Expr:
    """1 + Σ_{l=1}^{L} (k_l − 1)·∏_{i=1}^{l−1} s_i, unevaluated."""
    return 1 + sp.Sum((KERNEL[_l] - 1) * _spacing(_l - 1), (_l, 1, L))


def field(layers: Iterable[tuple[Size, Size]]) -> Size:
    """Receptive field in pixels of the last of ``layers``, given as (kernel, stride) from the input on."""
    r: Size = 1
    spacing: Size = 1
    for k, s in layers:
        r += (k - 1) * spacing
        spacing *= s
    return r


def stacked(n: Size, f: Size) -> Size:
    """N·F − N + 1, for numbers or symbols."""
    return n * f - n + 1


@dataclass(frozen=True)
class Comparison:
    """n stacked f×f convolutions against one with the same field; C channels in and out everywhere, no biases."""

    n: int
    f: int
    field: int
    stacked_weights: sp.Expr
    single_weights: sp.Expr

    @property
    def ratio(self) -> sp.Rational:
        """Weights of the single filter over those of the stack; multiply-accumulates have the same ratio."""
        return sp.simplify(self.single_weights / self.stacked_weights)

    @property
    def nonlinearities(self) -> tuple[int, int]:
        """ReLUs on the way through the stack and through the single layer."""
        return self.n, 1


def compare(n: int, f: int) -> Comparison:
    """Weights and non-linearities of n stacked f×f filters and of one (nf − n + 1)-wide filter, symbolic in C."""
    r = int(stacked(n, f))
    return Comparison(n, f, r, n * f**2 * C**2, r**2 * C**2)


def main() -> int:
    try:
        proofs = [prove_stack(), prove_spacing(), prove_closed_form()]
        special = prove_special_case()
    except ProofError as error:
        print(f"receptive_field: {error}", file=sys.stderr)
        return 1
    for proof in proofs:
        print(f"{proof.name}: {proof.claim}  (base case and induction step: 0)")
    print(f"special case k = F, s = 1: {special}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
