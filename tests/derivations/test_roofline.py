"""The memory traffic and the bandwidth roofline, against counts by hand."""

from __future__ import annotations

import pytest
import sympy as sp

from derivations import roofline

A, B, C = 32 * 32 * 16, 16 * 16 * 32, 8 * 8 * 64  # elements of an output of stage 1, 2 and 3


def test_conventional_bytes_of_resnet14_by_hand() -> None:
    # Outputs: stem and 4 convolutions of stage 1; 4 of stage 2 and a projection's; 4 of stage 3 and a projection's.
    assert roofline.bytes_per_image(element=2, depth=14) == 14 * 5 * (A + B + C) * 2


def test_conventional_resnet44_moves_about_12_megabytes_an_image_in_bf16() -> None:
    # 15 outputs of each stage, each 14 times.
    assert roofline.bytes_per_image() == 14 * 15 * (A + B + C) * 2 == 12_042_240


def test_fused_bytes_of_resnet14_by_hand() -> None:
    forward = {
        "augmentation and stem": (1 + 2) * A,
        "block 1, with the stem's join: conv1 3, conv2 2": 5 * A,
        "block 2, with a join: conv1 4, conv2 2": 6 * A,
        "first block of stage 2: join, conv1 and projection, conv2": 3 * A + (A + 2 * B) + 2 * B,
        "second block of stage 2, with a join": 6 * B,
        "first block of stage 3: join, conv1 and projection, conv2": 3 * B + (B + 2 * C) + 2 * C,
        "second block of stage 3, with a join, and the head": 6 * C + 3 * C,
    }
    backward = {
        "second block of stage 3: conv2 4, conv1 6 and the projection before": (4 + 6 + 1) * C,
        "first of stage 3: conv2, conv1 and projection": 4 * C + (3 * B + 4 * C),
        "second block of stage 2": (4 + 6 + 1) * B,
        "first of stage 2: conv2, conv1 and projection": 4 * B + (3 * A + 4 * B),
        "two blocks of stage 1: conv2 4, conv1 6": 2 * 10 * A,
        "weights of the stem": 3 * A,
    }
    elements = sum(forward.values()) + sum(backward.values())
    assert roofline.bytes_per_image(element=2, depth=14, step="fused") == 2 * elements


def test_another_block_of_each_stage_adds_16_tensors_to_the_fused_step() -> None:
    more = roofline.bytes_per_image(1, 20, "fused") - roofline.bytes_per_image(1, 14, "fused")
    assert more == (6 + 10) * (A + B + C)


def test_the_fused_steps_kernels_of_resnet14_by_hand() -> None:
    """Five images of 2-byte elements: a kernel's launches, and the elements of an image that they move."""
    table = {kernel.name: (kernel.launches, kernel.bytes) for kernel in roofline.kernels(5, 2, 14)}
    moved = {
        "augmentation": (1, A),
        "stem": (1, 2 * A),
        "conv1, 16 channels": (2, 3 * A + 4 * A),  # the first joins the stem's output, which has no shortcut
        "conv2, 16 channels": (2, 2 * 2 * A),
        "join": (2, 3 * A + 3 * B),
        "start of a stage": (2, A + 2 * B + B + 2 * C),
        "conv2, 32 channels": (2, 2 * 2 * B),
        "conv1, 32 channels": (1, 4 * B),
        "conv2, 64 channels": (2, 2 * 2 * C),
        "conv1, 64 channels": (1, 4 * C),
        "head": (1, 3 * C),
        "conv2, 64 channels, backward": (2, 2 * 4 * C),
        "conv1, 64 channels, backward": (1, 7 * C),  # the block before has a projection
        "start of a stage, backward": (2, (3 * B + 4 * C) + (3 * A + 4 * B)),
        "conv2, 32 channels, backward": (2, 2 * 4 * B),
        "conv1, 32 channels, backward": (1, 7 * B),
        "conv2, 16 channels, backward": (2, 2 * 4 * A),
        "conv1, 16 channels, backward": (2, 2 * 6 * A),
        "stem, weight gradient": (1, 3 * A),
    }
    # Stem, padded; stages of 4, 4 and 4 convolutions and two projections; the classifier, padded; BatchNorms.
    channels = 16 + 4 * 16 + 5 * 32 + 5 * 64
    parameters = 9 * 16 * 16 * 5 + (9 * 16 * 32 + 3 * 9 * 32 * 32 + 16 * 32) + (9 * 32 * 64 + 3 * 9 * 64 * 64 + 32 * 64)
    parameters += 64 * 16 + 16 + 2 * channels
    update = {"update": (1, parameters * 38), "running statistics": (1, channels * 36)}
    assert table == {name: (launches, 5 * 2 * elements) for name, (launches, elements) in moved.items()} | update


def test_the_kernels_add_up_to_the_bytes_of_the_images() -> None:
    of_images = sum(kernel.bytes for kernel in roofline.kernels(64, 2, 44)[:-2])  # the last two move no activations
    assert of_images == 64 * roofline.bytes_per_image(2, 44, "fused")


@pytest.mark.parametrize("step", ["conventional", "fused"])
def test_the_table_adds_up_to_the_bytes(step: roofline.Step) -> None:
    table = roofline.passes(44, step)
    assert len({(p.kernel, p.moves, p.tensor) for p in table}) == len(table)
    assert sum(p.bytes for p in table) == roofline.bytes_per_image(roofline.ELEMENT, 44, step)


def test_throughput_is_bandwidth_over_bytes() -> None:
    bandwidth = sp.Symbol("W", positive=True)
    assert sp.simplify(roofline.images_per_second(bandwidth) * roofline.bytes_per_image() - bandwidth) == 0
    assert roofline.images_per_second(bandwidth, element=4) == roofline.images_per_second(bandwidth) / 2


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 14"):
        roofline.passes(8, "fused")
    with pytest.raises(ValueError, match="conventional or fused"):
        roofline.passes(44, "magic")  # type: ignore[arg-type]
