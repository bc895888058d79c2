"""AlexNet (Krizhevsky, Sutskever & Hinton 2012, §3.5 and Fig. 2), layer by layer.

The paper's net runs on two GPUs: conv2, conv4 and conv5 read only the channels of their own GPU, which is a
convolution in two groups. Local response normalisation, ReLU and dropout have no weights and change no size.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from derivations.layers import Layer, Shape, Size, conv, fc, pool

PAPER_INPUT = 224  # as printed in §3.5 and Fig. 2; 227 is what the printed kernel, stride and 55×55 need
PRINTED_NEURONS = {  # Fig. 2, caption
    "input": 150_528,
    "conv1": 253_440,
    "conv2": 186_624,
    "conv3": 64_896,
    "conv4": 64_896,
    "conv5": 43_264,
    "fc6": 4096,
    "fc7": 4096,
    "fc8": 1000,
}


def layers(*, groups: int = 2, size: Size = 227, padding: Size = 0) -> list[Layer]:
    """The paper's net for a size×size×3 image; ``groups=1`` is the same net on one GPU, without the split."""
    conv1 = conv("conv1", Shape(size, size, 3), 96, k=11, s=4, p=padding)
    pool1 = pool("pool1", conv1.out, k=3, s=2)
    conv2 = conv("conv2", pool1.out, 256, k=5, p=2, groups=groups)
    pool2 = pool("pool2", conv2.out, k=3, s=2)
    conv3 = conv("conv3", pool2.out, 384, k=3, p=1)
    conv4 = conv("conv4", conv3.out, 384, k=3, p=1, groups=groups)
    conv5 = conv("conv5", conv4.out, 256, k=3, p=1, groups=groups)
    pool5 = pool("pool5", conv5.out, k=3, s=2)
    return [conv1, pool1, conv2, pool2, conv3, conv4, conv5, pool5, *_classifier(pool5.out)]


def torchvision_layers() -> list[Layer]:
    """torchvision's ``alexnet``: the one-column net of Krizhevsky 2014 (arXiv 1404.5997), for a 224×224×3 image.

    64-192-384-256-256 filters, no groups; padding 2 in conv1. Its adaptive pooling is the identity at this size.
    """
    conv1 = conv("conv1", Shape(224, 224, 3), 64, k=11, s=4, p=2)
    pool1 = pool("pool1", conv1.out, k=3, s=2)
    conv2 = conv("conv2", pool1.out, 192, k=5, p=2)
    pool2 = pool("pool2", conv2.out, k=3, s=2)
    conv3 = conv("conv3", pool2.out, 384, k=3, p=1)
    conv4 = conv("conv4", conv3.out, 256, k=3, p=1)
    conv5 = conv("conv5", conv4.out, 256, k=3, p=1)
    pool5 = pool("pool5", conv5.out, k=3, s=2)
    return [conv1, pool1, conv2, pool2, conv3, conv4, conv5, pool5, *_classifier(pool5.out)]


def _classifier(features: Shape) -> list[Layer]:
    fc6 = fc("fc6", features, 4096)
    fc7 = fc("fc7", fc6.out, 4096)
    return [fc6, fc7, fc("fc8", fc7.out, 1000)]


@dataclass(frozen=True)
class InputChoice:
    """One reading of conv1's input: how many steps of the stride fit, and the output that results."""

    size: int
    padding: sp.Rational  # pixels on each side, on average: 3/2 is 1 on one side and 2 on the other
    steps: sp.Rational  # (n + 2p − k)/s, whole when the windows end at the border
    output: int

    @property
    def exact(self) -> bool:
        return bool(self.steps.is_Integer)


def input_choices() -> list[InputChoice]:
    """224 or 227: the printed 224 without padding, with the padding that frameworks use, with the padding that fits
    exactly (solved for), and 227 without padding."""
    p = sp.Symbol("p", nonnegative=True)
    (exact,) = sp.solve(sp.Eq(_steps(PAPER_INPUT, p), 54), p)
    choices = [(PAPER_INPUT, sp.Integer(0)), (PAPER_INPUT, sp.Integer(2)), (PAPER_INPUT, exact), (227, sp.Integer(0))]
    return [
        InputChoice(size, padding, _steps(size, padding), int(sp.floor(_steps(size, padding))) + 1)
        for size, padding in choices
    ]


def _steps(size: int, padding: sp.Expr) -> sp.Expr:
    return (size + 2 * padding - 11) / sp.Integer(4)


@dataclass(frozen=True)
class NeuronCheck:
    """A layer's printed number of neurons beside the derived one."""

    name: str
    printed: int
    derived: Size

    @property
    def agrees(self) -> bool:
        return bool(self.printed == self.derived)


def neuron_checks() -> list[NeuronCheck]:
    """Compare the caption of the paper's Fig. 2 with the derivation: conv1 is the one that differs.

    The caption's input is the printed 224×224×3.
    """
    derived: dict[str, Size] = {layer.name: layer.activations for layer in layers() if layer.kind != "pool"}
    derived["input"] = Shape(PAPER_INPUT, PAPER_INPUT, 3).units
    return [NeuronCheck(name, printed, derived[name]) for name, printed in PRINTED_NEURONS.items()]
