"""derivations.imagenet_resnet against a count by hand and the sizes that He et al. and torchvision print."""

from __future__ import annotations

import pytest

from derivations import imagenet_resnet
from derivations.layers import totals


@pytest.mark.parametrize(
    ("blocks", "parameters", "giga_macs"),
    [
        # Parameters as torchvision's models have them; operations as in He et al., Table 1.
        (imagenet_resnet.RESNET50, 25_557_032, 3.8),
        (imagenet_resnet.RESNET101, 44_549_160, 7.6),
        (imagenet_resnet.RESNET152, 60_192_808, 11.3),
    ],
)
def test_sizes(blocks: imagenet_resnet.Blocks, parameters: int, giga_macs: float) -> None:
    assert imagenet_resnet.parameters(blocks) == parameters
    assert float(imagenet_resnet.macs(blocks)) / 1e9 == pytest.approx(giga_macs, rel=0.02)


def test_smallest_net_by_hand() -> None:
    # One block a stage. Weights: stem 7·7·3·64; a stage's in·w + 9·w·w + w·4w and its shortcut's in·4w; classifier.
    weights, channels, outputs = 7 * 7 * 3 * 64, 64, 64
    for width in (64, 128, 256, 512):
        weights += channels * width + 9 * width**2 + 4 * width**2 + 4 * channels * width
        channels, outputs = 4 * width, outputs + width + width + 4 * width + 4 * width
    net = imagenet_resnet.layers((1, 1, 1, 1))
    assert totals(net).weights == weights + 2048 * 1000
    assert imagenet_resnet.parameters((1, 1, 1, 1)) == weights + 2048 * 1000 + 1000 + 2 * outputs


def test_shapes_of_the_stages() -> None:
    by_name = {layer.name: str(layer.out) for layer in imagenet_resnet.layers()}
    assert [by_name[f"conv{stage}_1.3"] for stage in (2, 3, 4, 5)] == [
        "56×56×256",
        "28×28×512",
        "14×14×1024",
        "7×7×2048",
    ]
    assert sum(layer.kind == "conv" for layer in imagenet_resnet.layers()) == 53
