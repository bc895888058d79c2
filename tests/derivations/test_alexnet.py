"""AlexNet's published and hand-checked counts."""

import sympy as sp

from derivations.alexnet import input_choices, layers, neuron_checks, torchvision_layers
from derivations.layers import totals


def test_weights_by_hand():
    # 11·11·3·96, 5·5·48·256, 3·3·256·384, 3·3·192·384, 3·3·192·256, 6·6·256·4096, 4096·4096, 4096·1000
    expected = [34_848, 307_200, 884_736, 663_552, 442_368, 37_748_736, 16_777_216, 4_096_000]
    assert [layer.weights for layer in layers() if layer.kind != "pool"] == expected


def test_totals():
    assert totals(layers()).parameters == 60_965_224
    assert totals(layers()).biases == 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000
    assert totals(layers(groups=1)).parameters == 62_378_344
    assert totals(torchvision_layers()).parameters == 61_100_840


def test_grouping_halves_three_layers_only():
    pairs = zip(layers(), layers(groups=1), strict=True)
    halved = {grouped.name for grouped, whole in pairs if 2 * grouped.weights == whole.weights != 0}
    assert halved == {"conv2", "conv4", "conv5"}


def test_volumes():
    shapes = {layer.name: str(layer.out) for layer in layers()}
    assert shapes["conv1"] == "55×55×96" and shapes["conv2"] == "27×27×256" and shapes["conv5"] == "13×13×256"
    assert shapes["pool5"] == "6×6×256" and shapes["fc8"] == "1000"
    assert str(torchvision_layers()[7].out) == "6×6×256"  # so that its adaptive 6×6 pooling changes nothing


def test_input_size_question():
    choices = {(c.size, c.padding): c for c in input_choices()}
    assert choices[224, 0].output == 54 and not choices[224, 0].exact
    assert choices[224, 2].output == 55 and not choices[224, 2].exact
    assert choices[224, sp.Rational(3, 2)].output == 55 and choices[224, sp.Rational(3, 2)].exact
    assert choices[227, 0].output == 55 and choices[227, 0].exact
    # With 54×54 the net would be another one: 5×5×256 reach fc6, 11·256·4096 weights fewer.
    fewer = totals(layers()).weights - totals(layers(size=224)).weights
    assert fewer == (36 - 25) * 256 * 4096
    assert totals(layers(size=224, padding=2)) == totals(layers())


def test_the_caption_of_figure_2():
    wrong = [check for check in neuron_checks() if not check.agrees]
    assert [check.name for check in wrong] == ["conv1"]
    assert (wrong[0].printed, wrong[0].derived) == (55 * 48 * 96, 55 * 55 * 96)
