"""The inception module (Szegedy et al. 2015, Fig. 2): naive, and with dimensionality reduction.

'Operations' are multiply-accumulates of the convolutions; a FLOP count is twice that. Bias additions and the
pooling's comparisons are not in it; `uncounted` says how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from derivations.layers import Layer, Shape, Size, conv, pool

INPUT = Shape(32, 32, 256)  # the homework's
SLIDE_INPUT = Shape(28, 28, 256)  # CS231n's
# CS231n 2017, lecture 9, printed totals of "Conv Ops" for the two modules at 28×28×256, in millions.
SLIDE_PRINTED = {"naive": 854, "reduced": 358}

Module = dict[str, list[Layer]]  # branch → its layers from the input on


@dataclass(frozen=True)
class Widths:
    """Filters of the branches and of their bottlenecks, the columns of Szegedy et al.'s Table 1."""

    one: Size  # 1×1
    three: Size  # 3×3
    five: Size  # 5×5
    three_reduce: Size
    five_reduce: Size
    pool_projection: Size


COURSE = Widths(128, 192, 96, 64, 64, 64)  # CS231n's figure, which the homework follows
GOOGLENET_3B = Widths(128, 192, 96, 128, 32, 64)  # GoogLeNet's own module with 256 input channels
BOTTLENECKS = sp.symbols("b_3 b_5 b_p", integer=True, positive=True)
SYMBOLIC = Widths(128, 192, 96, *BOTTLENECKS)


def naive(widths: Widths, source: Shape = INPUT) -> Module:
    """Fig. 2a: 1×1, 3×3, 5×5 convolutions and 3×3 pooling of the input, side by side, same padding, stride 1."""
    return {
        "1×1": [conv("1×1", source, widths.one, k=1)],
        "3×3": [conv("3×3", source, widths.three, k=3, p=1)],
        "5×5": [conv("5×5", source, widths.five, k=5, p=2)],
        "pool": [pool("3×3 pool", source, k=3, s=1, p=1)],
    }


def reduced(widths: Widths, source: Shape = INPUT) -> Module:
    """Fig. 2b: a 1×1 convolution narrows what the 3×3 and the 5×5 read, and what the pooling passes on."""
    three = conv("3×3 reduce", source, widths.three_reduce, k=1)
    five = conv("5×5 reduce", source, widths.five_reduce, k=1)
    pooled = pool("3×3 pool", source, k=3, s=1, p=1)
    return {
        "1×1": [conv("1×1", source, widths.one, k=1)],
        "3×3": [three, conv("3×3", three.out, widths.three, k=3, p=1)],
        "5×5": [five, conv("5×5", five.out, widths.five, k=5, p=2)],
        "pool": [pooled, conv("pool proj", pooled.out, widths.pool_projection, k=1)],
    }


def output(module: Module) -> Shape:
    """Shape after concatenating the branches along the channels.

    Raises ValueError when the branches differ in height or width.
    """
    outs = [branch[-1].out for branch in module.values()]
    if len({(out.h, out.w) for out in outs}) > 1:
        raise ValueError(f"branches of different size cannot be concatenated: {', '.join(map(str, outs))}")
    return Shape(outs[0].h, outs[0].w, sum((out.c for out in outs), start=0))


def branch_macs(module: Module) -> dict[str, Size]:
    """Multiply-accumulates of each branch."""
    return {name: sum((layer.macs for layer in branch), start=0) for name, branch in module.items()}


def macs(module: Module) -> Size:
    """Multiply-accumulates of the module's convolutions."""
    return sum(branch_macs(module).values(), start=0)


def saving(widths: Widths, source: Shape = INPUT) -> sp.Expr:
    """The share of the naive module's multiply-accumulates that reduction saves; the image's size cancels."""
    return sp.simplify(1 - sp.sympify(macs(reduced(widths, source))) / macs(naive(widths, source)))


def break_even(branch: str) -> sp.Rational:
    """The bottleneck width at which a branch ('3×3' or '5×5') costs as much as its naive form."""
    symbol = BOTTLENECKS[("3×3", "5×5").index(branch)]
    real = sp.Dummy(real=True)  # the two cost the same at a width that is not whole
    excess = sp.sympify(branch_macs(reduced(SYMBOLIC))[branch] - branch_macs(naive(SYMBOLIC))[branch])
    (width,) = sp.solve(excess.subs(symbol, real), real)
    return width


@dataclass(frozen=True)
class Uncounted:
    """Operations that 'multiply-accumulates' leave out."""

    bias_additions: Size  # one per convolution output
    pool_comparisons: Size  # k² − 1 per pooling output


def uncounted(module: Module) -> Uncounted:
    """Bias additions and pooling comparisons of a module."""
    layers = [layer for branch in module.values() for layer in branch]
    return Uncounted(
        bias_additions=sum((layer.activations for layer in layers if layer.kind == "conv"), start=0),
        pool_comparisons=sum(
            (layer.activations * (layer.kernel**2 - 1) for layer in layers if layer.kind == "pool"), start=0
        ),
    )


def counted_twice() -> list[str]:
    """The convolutions of CS231n's reduced module that, counted twice, give the slide's printed total in millions."""
    module = reduced(COURSE, SLIDE_INPUT)
    total, printed = macs(module), SLIDE_PRINTED["reduced"]
    layers = [layer for branch in module.values() for layer in branch]
    return [layer.name for layer in layers if round(sp.Rational(total + layer.macs, 10**6)) == printed]
