"""derivations.cifar_resnet against hand-written counts and He et al.'s sizes."""

import pytest

from derivations.cifar_resnet import counts, layers


def test_smallest_net_by_hand():
    # n = 1, option A. Weights: 3·9·16 = 432; 2·(16·9·16) = 4608; 16·9·32 + 32·9·32 = 13,824;
    # 32·9·64 + 64·9·64 = 55,296; classifier 640.  BatchNorm 2·(16·3 + 32·2 + 64·2) = 480; bias 10.
    net = counts(8, "A")
    assert net.convolutions == 7
    assert net.weights == 432 + 4608 + 13_824 + 55_296 + 640
    assert (net.batchnorm, net.biases) == (480, 10)
    assert net.parameters == 75_290
    # Per image: 32²·(432 + 4608) + 16²·13,824 + 8²·55,296 + 640.
    assert net.macs == 1024 * 5040 + 256 * 13_824 + 64 * 55_296 + 640
    assert net.conv_activations == 3 * 16_384 + 2 * 8192 + 2 * 4096
    assert net.conv_inputs == 3072 + 2 * 16_384 + (16_384 + 8192) + (8192 + 4096)
    # Option B adds 1×1 shortcuts with BatchNorm: 16·32 + 64 and 32·64 + 128.
    assert counts(8, "B").parameters - net.parameters == 512 + 64 + 2048 + 128


def test_resnet44():
    assert counts(44, "A").parameters == 658_586
    assert counts(44, "B").parameters == 661_338
    assert counts(44, "A").convolutions == 43 and counts(44, "B").convolutions == 45
    assert [str(layer.out) for layer in layers(44)][-2:] == ["8×8×64", "10"]


def test_sizes_printed_by_he_et_al():
    """Table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters for depths 20, 32, 44, 56 and 110."""
    printed = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}
    for depth, millions in printed.items():
        assert counts(depth, "A").parameters / 1e6 == pytest.approx(millions, abs=0.05 if depth == 110 else 0.007)


@pytest.mark.parametrize(("depth", "option", "message"), [(43, "B", "6n"), (2, "B", "6n"), (44, "C", "A or B")])
def test_errors(depth, option, message):
    with pytest.raises(ValueError, match=message):
        counts(depth, option)
