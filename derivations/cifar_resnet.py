"""ResNet-(6n+2) for CIFAR-10 (He et al. 2015, §4.2): parameters, operations and activations.

A 3×3 convolution, three stages of n two-convolution blocks with 16, 32 and 64 filters on 32², 16² and 8² pixels,
global average pooling and a 10-way classifier. Convolutions have no bias; BatchNorm follows each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from derivations.layers import Layer, Shape, Size, conv, fc, totals

INPUT = Shape(32, 32, 3)
WIDTHS = (16, 32, 64)
CLASSES = 10


def layers(depth: int = 44, option: Literal["A", "B"] = "B") -> list[Layer]:
    """Convolutions and the classifier, in order. Where the shape changes the shortcut is parameter-free (option A:
    subsampling and zero channels) or a 1×1 convolution (option B).

    Raises ValueError for a depth that is not 6n + 2 or an unknown option.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth must be 6n + 2 with n ≥ 1, not {depth}")
    if option not in ("A", "B"):
        raise ValueError(f"shortcut option must be A or B, not {option}")
    net = [conv("conv1", INPUT, WIDTHS[0], k=3, p=1, bias=False)]
    shape = net[0].out
    for stage, width in enumerate(WIDTHS, start=1):
        for block in range(1, (depth - 2) // 6 + 1):
            name, source = f"stage{stage}.{block}", shape
            stride = 2 if stage > 1 and block == 1 else 1
            first = conv(f"{name}.conv1", source, width, k=3, s=stride, p=1, bias=False)
            second = conv(f"{name}.conv2", first.out, width, k=3, p=1, bias=False)
            net += [first, second]
            shape = second.out
            if shape != source and option == "B":
                net.append(conv(f"{name}.shortcut", source, width, k=1, s=stride, bias=False))
    net.append(fc("fc", Shape(1, 1, shape.c), CLASSES))
    return net


@dataclass(frozen=True)
class Counts:
    """Counts of one net; activations and multiply-accumulates are per image."""

    convolutions: int
    weights: Size  # of convolutions and classifier
    batchnorm: Size  # scales and shifts
    biases: Size  # the classifier's
    macs: Size  # of convolutions and classifier, forward
    conv_activations: Size  # elements of all convolution outputs
    conv_inputs: Size  # elements of all convolution inputs

    @property
    def parameters(self) -> Size:
        return self.weights + self.batchnorm + self.biases


def counts(depth: int = 44, option: Literal["A", "B"] = "B") -> Counts:
    """Count ResNet-``depth`` with shortcut option A or B. Raises ValueError as `layers` does."""
    net = layers(depth, option)
    convolutions = [layer for layer in net if layer.kind == "conv"]
    total = totals(net)
    return Counts(
        convolutions=len(convolutions),
        weights=total.weights,
        batchnorm=sum((2 * layer.out.c for layer in convolutions), start=0),
        biases=total.biases,
        macs=total.macs,
        conv_activations=totals(convolutions).activations,
        conv_inputs=sum((layer.source.units for layer in convolutions), start=0),
    )
