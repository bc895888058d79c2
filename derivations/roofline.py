"""The least memory traffic of a training step of a CIFAR ResNet, and the throughput that it allows.

BatchNorm needs the statistics of a whole batch before it can normalise, forward and backward, so a convolution's
output crosses the memory bus several times even where all else is fused (Ioffe & Szegedy 2015, Alg. 1).
"""

from __future__ import annotations

import sympy as sp

from derivations.layers import Size
from derivations.resnet import counts

# What crosses the bus for each element of a convolution's output, in a step that fuses nothing across BatchNorm.
FORWARD = (
    "convolution writes y",
    "statistics read y",
    "normalisation reads y",
    "normalisation and ReLU write a",
    "next convolution reads a",
)
BACKWARD = (
    "sums read dz",
    "sums read y",
    "normalisation's gradient reads dz",
    "normalisation's gradient reads y",
    "normalisation's gradient writes dy",
    "input gradient reads dy",
    "input gradient writes dz of the layer before",
    "weight gradient reads dy",
    "weight gradient reads a",
)


def bytes_per_image(element: Size = 2, depth: int = 44) -> Size:
    """Bytes moved per image and training step, with ``element`` bytes an activation (2 for bf16).

    Weights, the input image and the classifier are left out: a batch shares the first, the others are small.
    """
    return (len(FORWARD) + len(BACKWARD)) * counts(depth, "B").conv_activations * element


def images_per_second(bandwidth: Size, element: Size = 2, depth: int = 44) -> sp.Expr:
    """Most images a second at ``bandwidth`` bytes/s, reads and writes together."""
    return sp.sympify(bandwidth) / bytes_per_image(element, depth)
