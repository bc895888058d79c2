"""How much of an image cutout masks on average (DeVries & Taylor 2017, arXiv 1708.04552, §3.2).

As in the authors' code the centre is uniform over all pixels and the square is clipped at the border: rows
clip(y − L//2, 0, n) to clip(y + L//2, 0, n), columns alike. An odd length therefore masks L − 1 pixels at most.
"""

from __future__ import annotations

import functools

import sympy as sp

n, h, c = sp.symbols("n h c", integer=True, positive=True)  # side in pixels, half-length L//2, centre


@functools.cache
def expected_length() -> sp.Expr:
    """Expected number of masked pixels along one axis of n pixels, 2h − h²/n, for h ≤ n.

    A mask of 2h pixels loses h − c of them at the left border where c < h, and c + h − n at the right one where
    c + h > n; the mean over c = 0, …, n − 1 is the sum over n.
    """
    left = sp.Sum(h - c, (c, 0, h - 1))
    right = sp.Sum(c + h - n, (c, n - h + 1, n - 1))
    return sp.expand(sp.simplify((2 * h * n - (left + right).doit()) / n))


def expected_share() -> sp.Expr:
    """Expected masked share of an n×n image: rows and columns are independent, so the shares multiply."""
    return sp.factor((expected_length() / n) ** 2)


def masked_share(length: int, height: int, width: int | None = None) -> sp.Rational:
    """Exact expected masked share for a hole of ``length`` pixels on height×width (square by default) pixels.

    Raises ValueError for sizes that are not positive.
    """
    width = height if width is None else width
    if length < 1 or height < 1 or width < 1:
        raise ValueError(f"length and sides must be positive, not {length}, {height}, {width}")
    return _axis_share(length // 2, height) * _axis_share(length // 2, width)


def _axis_share(half: int, side: int) -> sp.Rational:
    if half >= side:  # every centre masks the whole axis, where the closed form does not hold
        return sp.Integer(1)
    return (expected_length() / n).subs({h: half, n: side})
