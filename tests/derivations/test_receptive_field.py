"""The proofs, what they refuse, and the recurrence against an independent one."""

import pytest
import sympy as sp

from derivations import alexnet, receptive_field, vgg
from derivations.receptive_field import C, F, L, N, ProofError, closed_form, compare, field, prove, stacked


def test_proofs_hold():
    receptive_field.prove_stack()
    receptive_field.prove_spacing()
    receptive_field.prove_closed_form()
    assert receptive_field.prove_special_case() == N * F - N + 1
    assert receptive_field.main() == 0


@pytest.mark.parametrize(("claim", "stage"), [(N * F, "induction step"), (N * F - N + 2, "base case"), (F**N, "step")])
def test_a_false_claim_is_refused(claim, stage):
    with pytest.raises(ProofError, match=stage):
        prove("false", N, claim, 1, F, lambda r: r + F - 1)


def test_a_false_closed_form_is_refused(monkeypatch, capsys):
    # The stride of layer l itself belongs to the next layer's spacing, not to its own.
    index, term = sp.symbols("l i", integer=True, positive=True)
    k, s = receptive_field.KERNEL, receptive_field.STRIDE
    false = 1 + sp.Sum((k[index] - 1) * sp.Product(s[term], (term, 1, index)), (index, 1, L))
    monkeypatch.setattr(receptive_field, "closed_form", lambda: false)
    with pytest.raises(ProofError, match="closed form: induction step"):
        receptive_field.prove_closed_form()
    assert receptive_field.main() == 1
    assert "does not" not in capsys.readouterr().out


def from_the_output(layers):
    """Araujo et al. 2019, eq. 1: r_{l−1} = s_l·r_l + (k_l − s_l), from one output pixel back to the input."""
    r = 1
    for k, s in reversed(layers):
        r = s * r + k - s
    return sp.expand(r)


def test_recurrence_agrees_with_the_one_from_the_output():
    k, s = sp.symbols("k1:5"), sp.symbols("s1:5")
    for depth in range(5):
        layers = list(zip(k, s, strict=True))[:depth]
        assert sp.expand(field(layers) - from_the_output(layers)) == 0


def test_closed_form_agrees_with_the_recurrence():
    layers = [(11, 4), (3, 2), (5, 1), (3, 2)]
    values = {receptive_field.KERNEL[i]: k for i, (k, _) in enumerate(layers, 1)}
    values |= {receptive_field.STRIDE[i]: s for i, (_, s) in enumerate(layers, 1)}
    # 1 + 10 + 2·4 + 4·8 + 2·8 = 67
    assert closed_form().subs(L, 4).doit().subs(values) == field(layers) == 67


def test_known_fields():
    """195 for AlexNet and 212 for VGG-16 at the last pooling: google-research/receptive_field's table."""

    def windows(layers):
        return [(layer.kernel, layer.stride) for layer in layers if layer.kind != "fc"]

    assert field(windows(alexnet.layers())) == 195
    assert field(windows(vgg.layers(vgg.BLOCKS_VGG16))) == 212
    assert stacked(3, 5) == field([(5, 1)] * 3) == 13
    assert field([]) == 1


def test_comparisons():
    five = compare(3, 5)
    assert (five.field, five.stacked_weights, five.single_weights) == (13, 75 * C**2, 169 * C**2)
    assert five.ratio == sp.Rational(169, 75) and five.nonlinearities == (3, 1)
    three = compare(3, 3)
    assert (three.field, three.stacked_weights, three.single_weights) == (7, 27 * C**2, 49 * C**2)
