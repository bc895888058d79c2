"""Layer algebra against counts written by hand."""

import pytest
import sympy as sp

from derivations.layers import Shape, conv, fc, output_size, pool, sum_latex, totals


def test_tiny_net_by_hand():
    # 5×5×2 image; 3×3 convolution, 4 filters, padding 1: (5 + 2 − 3)/1 + 1 = 5 → 5·5·4 = 100 activations,
    # 3·3·2·4 = 72 weights, 4 biases, 25·72 = 1800 multiply-accumulates.
    first = conv("conv", Shape(5, 5, 2), 4, k=3, p=1)
    assert (first.activations, first.weights, first.biases, first.macs) == (100, 72, 4, 1800)
    # 2×2 pooling, stride 2: ⌊(5 − 2)/2⌋ + 1 = 2 → 2·2·4 = 16 activations, nothing learned, nothing multiplied.
    second = pool("pool", first.out, k=2, s=2)
    assert (second.activations, second.weights, second.biases, second.macs) == (16, 0, 0, 0)
    # 16 inputs, 3 outputs: 48 weights, 3 biases, 48 multiply-accumulates.
    third = fc("fc", second.out, 3)
    assert (third.activations, third.weights, third.biases, third.macs) == (3, 48, 3, 48)
    total = totals([first, second, third])
    assert (total.activations, total.weights, total.biases) == (119, 120, 7)
    assert (total.parameters, total.macs, total.flops) == (127, 1848, 3696)


def test_groups_and_no_bias_by_hand():
    # 2 groups: each of 6 filters reads 4/2 = 2 channels: 3·3·2·6 = 108 weights, not 216; output ⌊(7−3)/2⌋+1 = 3.
    layer = conv("conv", Shape(7, 7, 4), 6, k=3, s=2, groups=2, bias=False)
    assert layer.out == Shape(3, 3, 6)
    assert (layer.weights, layer.biases, layer.parameters, layer.macs) == (108, 0, 108, 972)


def test_not_square():
    # (4 − 2) + 1 = 3 rows, (6 − 2) + 1 = 5 columns.
    layer = conv("conv", Shape(4, 6, 1), 1, k=2)
    assert layer.out == Shape(3, 5, 1)
    assert layer.size_latex().count(r"\left\lfloor") == 2


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "expected"),
    [(224, 11, 4, 2, 55), (227, 11, 4, 0, 55), (224, 11, 4, 0, 54), (13, 3, 2, 0, 6), (7, 7, 1, 0, 1), (1, 1, 3, 0, 1)],
)
def test_output_size(n, k, s, p, expected):
    assert output_size(n, k, s, p) == expected


def test_symbols_keep_their_meaning():
    n, f, c, m = sp.symbols("n f c m", integer=True, positive=True)
    layer = conv("conv", Shape(n, n, c), m, k=f, p=(f - 1) / 2)
    assert layer.out == Shape(n, n, m)  # 'same' padding
    assert sp.expand(layer.weights - f**2 * c * m) == 0
    assert sp.expand(layer.macs - n**2 * f**2 * c * m) == 0
    strided = sp.sympify(output_size(n, f, 2, 0))
    assert strided.subs({n: 27, f: 3}) == 13 and strided.subs({n: 28, f: 3}) == 13
    grouped = conv("conv", Shape(8, 8, c), m, k=3, p=1, groups=2)
    assert sp.expand(grouped.weights - sp.Rational(9, 2) * c * m) == 0


def test_symbolic_and_integer_counts_agree():
    n, f, s, p = sp.symbols("n f s p", integer=True, positive=True)
    symbolic = sp.sympify(output_size(n, f, s, p))
    for values in [(224, 11, 4, 2), (55, 3, 2, 1), (9, 5, 3, 1)]:
        assert symbolic.subs(dict(zip((n, f, s, p), values, strict=True))) == output_size(*values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 4, "k": 5}, "5-wide window does not fit into 4 pixels"),
        ({"n": 4, "k": 0}, "kernel must be a whole number of at least 1"),
        ({"n": 4, "k": 2, "s": 0}, "stride must be"),
        ({"n": 4, "k": 2, "p": -1}, "padding must be"),
        ({"n": 4.5, "k": 2}, "input size must be"),
        ({"n": 4, "k": sp.Rational(3, 2)}, "kernel must be"),
        ({"n": 224, "k": 11, "s": 4, "exact": True}, r"\(224 \+ 2\*0 - 11\)/4 = 53.25 is not a whole number"),
    ],
)
def test_impossible_geometry(arguments, message):
    with pytest.raises(ValueError, match=message):
        output_size(**arguments)


def test_errors_name_the_layer():
    with pytest.raises(ValueError, match="conv9: 2 groups do not divide 3 input channels"):
        conv("conv9", Shape(5, 5, 3), 4, k=3, groups=2)
    with pytest.raises(ValueError, match="conv9: 2 groups do not divide 5 filters"):
        conv("conv9", Shape(5, 5, 4), 5, k=3, groups=2)
    with pytest.raises(ValueError, match="pool9: a 3-wide window"):
        pool("pool9", Shape(2, 2, 3), k=3, s=2)
    with pytest.raises(ValueError, match="height must be"):
        Shape(0, 5, 3)


def test_latex_is_substituted():
    layer = conv("conv1", Shape(224, 224, 3), 96, k=11, s=4, p=2)
    assert layer.size_latex() == r"\left\lfloor\frac{224+2\cdot 2-11}{4}\right\rfloor+1=55"
    assert layer.activations_latex() == r"55\cdot 55\cdot 96=290{,}400"
    assert layer.weights_latex() == r"(11\cdot 11\cdot 3)\cdot 96=34{,}848"
    assert layer.parameters_latex() == r"34{,}848+96=34{,}944"
    assert layer.macs_latex() == r"55\cdot 55\cdot 34{,}848=105{,}415{,}200"
    assert conv("c", Shape(9, 9, 4), 6, k=3, groups=2).weights_latex() == r"(3\cdot 3\cdot \frac{4}{2})\cdot 6=108"
    assert pool("p", Shape(4, 4, 2), k=2, s=2).weights_latex() == "0"
    dense = fc("fc", Shape(6, 6, 256), 4096)
    assert dense.weights_latex() == r"(6\cdot 6\cdot 256)\cdot 4{,}096=37{,}748{,}736"
    assert fc("fc", dense.out, 10).weights_latex() == r"4{,}096\cdot 10=40{,}960"
    assert sum_latex([1000, 24]) == "1{,}000+24=1{,}024"
    assert sum_latex([1, 2, 3], per_line=2) == r"\begin{aligned}&1+2 \\ &+3 \\ &=6\end{aligned}"


def test_a_layers_whole_calculation():
    source = Shape(4, 4, 2)
    whole = conv("conv", source, 3, k=3).calculation_latex()
    assert [part.split(":")[0].rsplit("{", 1)[1] for part in whole.split(r"\\")] == [
        "side",
        "activations",
        "weights",
        "parameters",
        "MACs",
    ]
    assert r"2\cdot 2\cdot 54=216" in whole
    assert "weights" not in pool("pool", source, k=2, s=2).calculation_latex()
    assert fc("fc", source, 5).calculation_latex() == (
        r"\begin{aligned}\text{weights: }&(4\cdot 4\cdot 2)\cdot 5=160 \\ \text{parameters: }&160+5=165\end{aligned}"
    )


def test_latex_of_symbols_brackets_sums():
    f, c = sp.symbols("f c", integer=True, positive=True)
    layer = conv("conv", Shape(8, 8, c), 2, k=f, p=(f - 1) / 2)
    assert r"2\cdot \left(\frac{f}{2} - \frac{1}{2}\right)" in layer.size_latex()


def test_layers_in_words():
    first = conv("c", Shape(9, 9, 4), 6, k=3, p=1, groups=2)
    assert str(first) == "6 filters of 3×3×2, stride 1, padding 1, in 2 groups"
    assert str(pool("p", first.out, k=3, s=2)) == "3×3 pooling, stride 2, padding 0"
    assert str(fc("f", Shape(4, 4, 6), 10)) == "10 units, each reading all of 4×4×6"
