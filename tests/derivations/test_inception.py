"""Inception modules against hand-written counts."""

import pytest
import sympy as sp

from derivations.inception import (
    BOTTLENECKS,
    COURSE,
    GOOGLENET_3B,
    SLIDE_INPUT,
    SLIDE_PRINTED,
    SYMBOLIC,
    Widths,
    branch_macs,
    break_even,
    counted_twice,
    macs,
    naive,
    output,
    reduced,
    saving,
    uncounted,
)
from derivations.layers import Shape, conv


def test_tiny_module_by_hand():
    # 2×2×3 image (4 pixels); filters 2, 4, 5; bottlenecks 1, 2; projection 1.
    widths, source = Widths(2, 4, 5, 1, 2, 1), Shape(2, 2, 3)
    # naive: 4·3·2 = 24; 4·9·3·4 = 432; 4·25·3·5 = 1500; pooling 0.
    assert branch_macs(naive(widths, source)) == {"1×1": 24, "3×3": 432, "5×5": 1500, "pool": 0}
    # reduced: 24; 4·3·1 + 4·9·1·4 = 156; 4·3·2 + 4·25·2·5 = 1024; 4·3·1 = 12.
    assert branch_macs(reduced(widths, source)) == {"1×1": 24, "3×3": 156, "5×5": 1024, "pool": 12}
    assert output(naive(widths, source)) == Shape(2, 2, 2 + 4 + 5 + 3)
    assert output(reduced(widths, source)) == Shape(2, 2, 2 + 4 + 5 + 1)
    assert saving(widths, source) == 1 - sp.Rational(24 + 156 + 1024 + 12, 24 + 432 + 1500)
    # Bias: one addition per convolution output, 4·(2 + 4 + 5) = 44; pooling: 8 comparisons for 12 outputs.
    assert uncounted(naive(widths, source)).bias_additions == 44
    assert uncounted(naive(widths, source)).pool_comparisons == 96
    assert uncounted(reduced(widths, source)).bias_additions == 4 * (2 + 1 + 4 + 2 + 5 + 1)


def test_course_module():
    assert str(output(naive(COURSE))) == "32×32×672" and str(output(reduced(COURSE))) == "32×32×480"
    assert macs(naive(COURSE)) == 1_115_684_864
    assert macs(reduced(COURSE)) == 354_418_688
    assert saving(COURSE) == sp.Rational(363, 532)


def test_googlenet_3b():
    assert str(output(reduced(GOOGLENET_3B))) == "32×32×480"
    # per pixel: 256·128 + (256·128 + 9·128·192) + (256·32 + 25·32·96) + 256·64 = 388,096
    assert macs(reduced(GOOGLENET_3B)) == 1024 * 388_096


def test_symbolic_saving_contains_both_modules():
    for widths in (COURSE, GOOGLENET_3B):
        values = (widths.three_reduce, widths.five_reduce, widths.pool_projection)
        substitution = dict(zip(BOTTLENECKS, values, strict=True))
        assert saving(SYMBOLIC).subs(substitution) == saving(widths)
    assert not saving(SYMBOLIC).free_symbols - set(BOTTLENECKS)


def test_saving_does_not_depend_on_the_image():
    h, w = sp.symbols("h w", integer=True, positive=True)
    assert sp.simplify(saving(COURSE, Shape(h, w, 256)) - saving(COURSE)) == 0


def test_break_even():
    # 256b + 9·b·192 = 9·256·192 and 256b + 25·b·96 = 25·256·96
    assert break_even("3×3") == sp.Rational(9 * 256 * 192, 256 + 9 * 192)
    assert break_even("5×5") == sp.Rational(25 * 256 * 96, 256 + 25 * 96)


def test_the_slide():
    assert round(macs(naive(COURSE, SLIDE_INPUT)) / 1e6) == SLIDE_PRINTED["naive"]
    assert round(macs(reduced(COURSE, SLIDE_INPUT)) / 1e6) == 271 != SLIDE_PRINTED["reduced"]
    assert counted_twice() == ["3×3"]


def test_branches_must_match():
    source = Shape(8, 8, 4)
    with pytest.raises(ValueError, match="different size"):
        output({"a": [conv("a", source, 2, k=1)], "b": [conv("b", source, 2, k=3)]})
