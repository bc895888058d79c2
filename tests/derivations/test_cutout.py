"""The masked share of cutout against enumeration of every centre."""

from fractions import Fraction

import pytest
import sympy as sp

from derivations.cutout import expected_length, expected_share, h, masked_share, n


def enumerate_share(length, height, width):
    """DeVries & Taylor's code for every centre: clip(y − L//2, 0, h) to clip(y + L//2, 0, h)."""

    def clip(value, side):
        return max(0, min(value, side))

    masked = 0
    for y in range(height):
        for x in range(width):
            rows = clip(y + length // 2, height) - clip(y - length // 2, height)
            columns = clip(x + length // 2, width) - clip(x - length // 2, width)
            masked += rows * columns
    return Fraction(masked, (height * width) ** 2)


@pytest.mark.parametrize(
    ("length", "height", "width"),
    [
        (16, 32, 32),
        (8, 32, 32),
        (20, 32, 32),
        (15, 32, 32),
        (1, 4, 4),
        (2, 4, 4),
        (8, 4, 4),
        (9, 4, 4),
        (7, 5, 9),
        (6, 3, 8),
    ],
)
def test_closed_form_is_the_enumeration(length, height, width):
    share = masked_share(length, height, width)
    assert Fraction(int(share.p), int(share.q)) == enumerate_share(length, height, width)


def test_cifar10():
    assert masked_share(16, 32) == sp.Rational(196, 1024)
    assert masked_share(16, 32) < sp.Rational(16 * 16, 32 * 32)


def test_formulas():
    assert sp.expand(expected_length() - (2 * h - h**2 / n)) == 0
    assert sp.simplify(expected_share() - (h * (2 * n - h) / n**2) ** 2) == 0


@pytest.mark.parametrize("arguments", [(0, 32), (16, 0), (16, 32, -1)])
def test_sizes_must_be_positive(arguments):
    with pytest.raises(ValueError, match="must be positive"):
        masked_share(*arguments)
