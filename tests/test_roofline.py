"""The bandwidth roofline, against a count by hand."""

from __future__ import annotations

import sympy as sp

from derivations import roofline


def test_bytes_of_resnet14_by_hand() -> None:
    # Outputs: stem and 4 convolutions of 32·32·16; 4 of 16·16·32 and a shortcut's; 4 of 8·8·64 and a shortcut's.
    elements = 5 * 16_384 + 5 * 8_192 + 5 * 4_096
    assert roofline.bytes_per_image(element=2, depth=14) == 14 * elements * 2


def test_resnet44_moves_about_12_megabytes_an_image_in_bf16() -> None:
    # 15 outputs of 32·32·16, 15 of 16·16·32 and 15 of 8·8·64, each 14 times.
    assert roofline.bytes_per_image() == 14 * 15 * (16_384 + 8_192 + 4_096) * 2 == 12_042_240


def test_throughput_is_bandwidth_over_bytes() -> None:
    bandwidth = sp.Symbol("W", positive=True)
    assert sp.simplify(roofline.images_per_second(bandwidth) * roofline.bytes_per_image() - bandwidth) == 0
    assert roofline.images_per_second(bandwidth, element=4) == roofline.images_per_second(bandwidth) / 2
