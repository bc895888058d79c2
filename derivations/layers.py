"""Layer algebra: what a convolution, pooling or fully-connected layer outputs, stores and computes.

Every size may be an integer or a sympy symbol, so the same code counts a real network and proves statements about
all networks. The ``*_latex`` methods print the calculation with the numbers put in. Sources: output size, weights
and biases as in Dumoulin & Visin 2016 (arXiv 1603.07285, relation 6); groups as in Krizhevsky et al. 2012, §3.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import sympy as sp

# A count: a whole number, or a sympy expression that stands for one.
Size: TypeAlias = int | sp.Expr


def number_latex(value: Size) -> str:
    r"""LaTeX of a count, with thousands separated: ``34{,}848``."""
    return f"{value:,}".replace(",", "{,}") if isinstance(value, int) else str(sp.latex(value))


def product_latex(*factors: Size | str) -> str:
    r"""``55\cdot 55\cdot 96``; sums are bracketed, ready-made LaTeX is taken as it is."""
    return r"\cdot ".join(_factor_latex(f) for f in factors)


def _factor_latex(value: Size | str) -> str:
    if isinstance(value, str):
        return value
    text = number_latex(value)
    return rf"\left({text}\right)" if isinstance(value, sp.Add) else text


def _size(name: str, value: Size, least: int) -> Size:
    """A plain int where the value is one. Raises ValueError unless it is a whole number of at least ``least``."""
    expression = sp.sympify(value)
    if expression.is_number:
        if not expression.is_Integer or expression < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value}")
        return int(expression)
    return expression


def _quotient(a: Size, b: Size) -> Size:
    return a // b if isinstance(a, int) and isinstance(b, int) else a / b


def output_size(n: Size, k: Size, s: Size = 1, p: Size = 0, *, exact: bool = False) -> Size:
    """⌊(n + 2p − k)/s⌋ + 1: the positions of a k-wide window on n pixels, stride s, p pixels of padding on each side.

    With ``exact`` the windows must end at the border, as if the floor were not there.
    Raises ValueError for sizes that are not whole or not positive, a window wider than the padded input, and, with
    ``exact``, a stride that leaves pixels over.
    """
    n, k, s, p = _size("input size", n, 1), _size("kernel", k, 1), _size("stride", s, 1), _size("padding", p, 0)
    span = n + 2 * p - k
    if isinstance(span, int) and isinstance(s, int):
        if span < 0:
            raise ValueError(f"a {k}-wide window does not fit into {n} pixels with padding {p}")
        if exact and span % s:
            steps = sp.Rational(span, s)
            raise ValueError(
                f"({n} + 2*{p} - {k})/{s} = {float(steps):g} is not a whole number: "
                f"windows of {k} with stride {s} leave {span % s} of {n + 2 * p} pixels over"
            )
        return span // s + 1
    return sp.sympify(span) / s + 1 if exact else sp.floor(sp.sympify(span) / s) + 1


@dataclass(frozen=True)
class Shape:
    """Height, width and channels of one image's activations."""

    h: Size
    w: Size
    c: Size

    def __post_init__(self) -> None:
        for name, field in (("height", "h"), ("width", "w"), ("channels", "c")):
            object.__setattr__(self, field, _size(name, getattr(self, field), 1))

    @property
    def units(self) -> Size:
        """Number of activations."""
        return self.h * self.w * self.c

    @property
    def flat(self) -> bool:
        """Whether this is a vector: one pixel."""
        return self.h == 1 and self.w == 1

    def __str__(self) -> str:
        return str(self.c) if self.flat else f"{self.h}×{self.w}×{self.c}"


@dataclass(frozen=True)
class Layer:
    """One layer, for one image. Build it with `conv`, `pool` or `fc`, which check the geometry."""

    name: str
    kind: Literal["conv", "pool", "fc"]
    source: Shape
    out: Shape
    kernel: Size = 1
    stride: Size = 1
    padding: Size = 0
    groups: Size = 1
    bias: bool = True

    def __str__(self) -> str:
        """In words: 256 filters of 5×5×48, stride 1, padding 2, in 2 groups."""
        if self.kind == "fc":
            return f"{self.out.c} units, each reading all of {self.source}"
        window = f"{self.kernel}×{self.kernel}"
        if self.kind == "pool":
            return f"{window} pooling, stride {self.stride}, padding {self.padding}"
        groups = f", in {self.groups} groups" if self.groups != 1 else ""
        depth = _quotient(self.source.c, self.groups)
        return f"{self.out.c} filters of {window}×{depth}, stride {self.stride}, padding {self.padding}{groups}"

    @property
    def activations(self) -> Size:
        """Output values per image."""
        return self.out.units

    @property
    def fan_in(self) -> Size:
        """Inputs that one output unit reads, which is also the number of its weights."""
        if self.kind == "fc":
            return self.source.units
        return self.kernel**2 * _quotient(self.source.c, self.groups)

    @property
    def weights(self) -> Size:
        """Learned weights without biases; 0 for pooling."""
        return 0 if self.kind == "pool" else self.fan_in * self.out.c

    @property
    def biases(self) -> Size:
        """One per output channel, or 0 where the layer has none."""
        return self.out.c if self.bias and self.kind != "pool" else 0

    @property
    def parameters(self) -> Size:
        """Weights and biases."""
        return self.weights + self.biases

    @property
    def macs(self) -> Size:
        """Multiply-accumulates per image: each weight is used once at each output pixel. Pooling has none."""
        return self.out.h * self.out.w * self.weights

    def size_latex(self) -> str:
        r"""The output size of a conv or pool layer, substituted, with its volume.

        ``\left\lfloor\frac{224+2\cdot 2-11}{4}\right\rfloor+1=55``; for fc the number of units.
        """
        if self.kind == "fc":
            return number_latex(self.out.c)
        sides = [(self.source.h, self.out.h)]
        if (self.source.w, self.out.w) != sides[0]:
            sides.append((self.source.w, self.out.w))
        return r",\quad ".join(self._side_latex(n, result) for n, result in sides)

    def _side_latex(self, n: Size, result: Size) -> str:
        padding = f"+{product_latex(2, self.padding)}" if self.padding != 0 else ""
        fraction = rf"\frac{{{number_latex(n)}{padding}-{_factor_latex(self.kernel)}}}{{{number_latex(self.stride)}}}"
        return rf"\left\lfloor{fraction}\right\rfloor+1={number_latex(result)}"

    def activations_latex(self) -> str:
        r"""``55\cdot 55\cdot 96=290{,}400``; a vector is its length."""
        if self.out.flat:
            return number_latex(self.out.c)
        return f"{product_latex(self.out.h, self.out.w, self.out.c)}={number_latex(self.activations)}"

    def weights_latex(self) -> str:
        r"""``(11\cdot 11\cdot 3)\cdot 96=34{,}848``; a grouped layer reads a fraction of the channels."""
        if self.kind == "pool":
            return "0"
        total = number_latex(self.weights)
        if self.kind == "fc" and self.source.flat:
            return f"{product_latex(self.source.c, self.out.c)}={total}"
        side = (self.source.h, self.source.w) if self.kind == "fc" else (self.kernel, self.kernel)
        channels: Size | str = self.source.c
        if self.groups != 1:
            channels = rf"\frac{{{number_latex(self.source.c)}}}{{{number_latex(self.groups)}}}"
        return rf"({product_latex(*side, channels)})\cdot {_factor_latex(self.out.c)}={total}"

    def parameters_latex(self) -> str:
        r"""``34{,}848+96=34{,}944``: weights plus biases."""
        if not self.biases:
            return number_latex(self.parameters)
        return f"{number_latex(self.weights)}+{number_latex(self.biases)}={number_latex(self.parameters)}"

    def macs_latex(self) -> str:
        r"""``55\cdot 55\cdot 34{,}848=105{,}415{,}200``: output pixels times weights."""
        if self.kind == "pool" or self.out.flat:
            return number_latex(self.macs)
        return f"{product_latex(self.out.h, self.out.w, self.weights)}={number_latex(self.macs)}"

    def calculation_latex(self) -> str:
        """The layer's whole calculation, one line each: side, activations, weights, parameters, MACs."""
        lines = [] if self.kind == "fc" else [("side", self.size_latex())]
        if not self.out.flat:
            lines.append(("activations", self.activations_latex()))
        if self.kind != "pool":
            lines += [("weights", self.weights_latex()), ("parameters", self.parameters_latex())]
            lines += [] if self.out.flat else [("MACs", self.macs_latex())]
        body = r" \\ ".join(rf"\text{{{what}: }}&{latex}" for what, latex in lines)
        return rf"\begin{{aligned}}{body}\end{{aligned}}"


def conv(
    name: str, source: Shape, filters: Size, k: Size, s: Size = 1, p: Size = 0, groups: Size = 1, bias: bool = True
) -> Layer:
    """A k×k convolution with ``filters`` output channels; each group reads its share of the input channels.

    Raises ValueError for impossible geometry, or channels that the groups do not divide.
    """
    groups, filters = _size("groups", groups, 1), _size("filters", filters, 1)
    for what, channels in (("input channels", source.c), ("filters", filters)):
        if isinstance(channels, int) and isinstance(groups, int) and channels % groups:
            raise ValueError(f"{name}: {groups} groups do not divide {channels} {what}")
    return _window(name, "conv", source, filters, k, s, p, groups, bias)


def pool(name: str, source: Shape, k: Size, s: Size, p: Size = 0) -> Layer:
    """A k×k pooling; channels stay. Raises ValueError for impossible geometry."""
    return _window(name, "pool", source, source.c, k, s, p, 1, False)


def _window(
    name: str,
    kind: Literal["conv", "pool"],
    source: Shape,
    c: Size,
    k: Size,
    s: Size,
    p: Size,
    groups: Size,
    bias: bool,
) -> Layer:
    try:
        out = Shape(output_size(source.h, k, s, p), output_size(source.w, k, s, p), c)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return Layer(name, kind, source, out, k, s, p, groups, bias)


def fc(name: str, source: Shape, units: Size, bias: bool = True) -> Layer:
    """A fully-connected layer: every output reads every input. Raises ValueError for a non-positive size."""
    return Layer(name, "fc", source, Shape(1, 1, units), bias=bias)


@dataclass(frozen=True)
class Totals:
    """Sums over layers, for one image where they depend on it."""

    activations: Size
    weights: Size
    biases: Size
    macs: Size

    @property
    def parameters(self) -> Size:
        return self.weights + self.biases

    @property
    def flops(self) -> Size:
        """A multiply and an add for each multiply-accumulate."""
        return 2 * self.macs


def totals(layers: Iterable[Layer]) -> Totals:
    """Sum activations, weights, biases and multiply-accumulates."""
    kept = list(layers)
    return Totals(
        activations=sum((layer.activations for layer in kept), start=0),
        weights=sum((layer.weights for layer in kept), start=0),
        biases=sum((layer.biases for layer in kept), start=0),
        macs=sum((layer.macs for layer in kept), start=0),
    )


def sum_latex(values: Iterable[Size], per_line: int = 3) -> str:
    r"""``34{,}944+307{,}456=342{,}400``; a longer sum is broken into lines of ``per_line`` terms."""
    kept = list(values)
    terms, total = [number_latex(v) for v in kept], number_latex(sum(kept, start=0))
    lines = ["+".join(terms[i : i + per_line]) for i in range(0, len(terms), per_line)]
    if len(lines) == 1:
        return f"{lines[0]}={total}"
    body = r" \\ &+".join(lines)
    return rf"\begin{{aligned}}&{body} \\ &={total}\end{{aligned}}"
