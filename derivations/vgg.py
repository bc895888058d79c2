"""VGG-19 (Simonyan & Zisserman 2015, Table 1, column E), in the form of the homework's Table 1.

All convolutions are 3×3 with stride 1 and padding 1, all poolings 2×2 with stride 2. The homework counts
activations and weights without biases. Its printed cells are kept here as data and compared with the derivation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import prod

from derivations.layers import Layer, Shape, Size, conv, fc, pool

INPUT = Shape(224, 224, 3)
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))  # convolutions, filters
BLOCKS_VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # column D, which CS231n's notes tabulate
FP32 = 4  # bytes
NOTES_PRINTED = 24  # CS231n's notes, case study VGGNet: "TOTAL memory" of VGG-16, in millions of activations


def layers(blocks: tuple[tuple[int, int], ...] = BLOCKS) -> list[Layer]:
    """The layers after the input, 24 for VGG-19, named as in the homework: CONV3-64, POOL2, FC."""
    net: list[Layer] = []
    shape = INPUT
    for convolutions, filters in blocks:
        for _ in range(convolutions):
            net.append(conv(f"CONV3-{filters}", shape, filters, k=3, p=1))
            shape = net[-1].out
        net.append(pool("POOL2", shape, k=2, s=2))
        shape = net[-1].out
    for units in (4096, 4096, 1000):
        net.append(fc("FC", shape, units))
        shape = net[-1].out
    return net


@dataclass(frozen=True)
class Row:
    """A row of the table: activations and weights (no biases), each also as the homework's product."""

    name: str
    activations: Size
    weights: Size
    activations_text: str  # 224*224*64, or 4096
    weights_text: str  # (3*3*3)*64, or 0


def table(blocks: tuple[tuple[int, int], ...] = BLOCKS) -> list[Row]:
    """The homework's Table 1 completed: the input and 24 layers, 25 rows, totals apart (`layers.totals`)."""
    rows = [Row("Input", INPUT.units, 0, _product(INPUT.h, INPUT.w, INPUT.c), "0")]
    for layer in layers(blocks):
        out = layer.out
        activations = str(out.c) if out.flat else _product(out.h, out.w, out.c)
        rows.append(Row(layer.name, layer.activations, layer.weights, activations, _weights_text(layer)))
    return rows


def _product(*factors: Size) -> str:
    return "*".join(str(f) for f in factors)


def _weights_text(layer: Layer) -> str:
    if layer.kind == "pool":
        return "0"
    if layer.kind == "conv":
        return f"({_product(layer.kernel, layer.kernel, layer.source.c)})*{layer.out.c}"
    if layer.source.flat:
        return _product(layer.source.c, layer.out.c)
    return f"({_product(layer.source.h, layer.source.w, layer.source.c)})*{layer.out.c}"


@dataclass(frozen=True)
class Memory:
    """Bytes in fp32. Activations are per image; parameters (here with biases) are shared by the batch."""

    forward: int
    forward_least: int
    training: int
    parameters: int
    training_parameters: int


def memory(bias: bool = True) -> Memory:
    """Memory of VGG-19 in fp32.

    ``forward`` keeps the input and every layer's output once (ReLU in place; no pooling indices, dropout masks or
    workspace). ``forward_least`` keeps only one layer's input and output at a time, the largest pair.
    ``training`` is the upper bound of twice ``forward``: the kept activations, and a gradient for each of them.
    ``training_parameters`` is three times the parameters: value, gradient and momentum.
    """
    rows = [int(row.activations) for row in table()]
    parameters = sum(int(layer.parameters if bias else layer.weights) for layer in layers())
    return Memory(
        forward=FP32 * sum(rows),
        forward_least=FP32 * max(a + b for a, b in pairwise(rows)),
        training=2 * FP32 * sum(rows),
        parameters=FP32 * parameters,
        training_parameters=3 * FP32 * parameters,
    )


# The homework's Table 1 as handed out: label, activations, parameters; "" is a cell to be filled in.
HOMEWORK: tuple[tuple[str, str, str], ...] = (
    ("Input", "224*224*3=150K", "0"),
    ("CONV3-64", "224*224*64=3.2M", "(3*3*3)*64 = 1,728"),
    ("CONV3-64", "224*224*64=3.2M", "(3*3*64)*64 = 36,864"),
    ("POOL2", "112*112*64=800K", "0"),
    ("CONV3-128", "", ""),
    ("CONV3-128", "", ""),
    ("POOL2", "56*56*128=400K", "0"),
    ("CONV3-256", "", ""),
    ("CONV3-256", "56*56*256=800K", "(3*3*256)*256 = 589,824"),
    ("CONV3-256", "", ""),
    ("CONV3-256", "", ""),
    ("POOL2", "", "0"),
    ("CONV3-512", "28*28*512=400K", "(3*3*256)*512 = 1,179,648"),
    ("CONV3-512", "", ""),
    ("CONV3-512", "28*28*512=400K", ""),
    ("CONV3-512", "", ""),
    ("POOL2", "", "0"),
    ("CONV3-512", "", ""),
    ("POOL2", "", "0"),
    ("FC", "4096", ""),
    ("FC", "4096", "4096*4096 = 16,777,216"),
    ("FC", "1000", ""),
)


@dataclass(frozen=True)
class Cell:
    """A printed cell beside the derived count.

    ``verdict``: exact; rounded (right in every printed digit); loose (right only if the printed zeros are not
    digits); wrong.
    """

    row: int  # in the completed table, from 0
    name: str
    column: str  # activations | weights
    printed: str
    derived: int
    value: int  # what the printed figure says
    rounded: str  # the derived count rounded to the printed unit and decimals
    verdict: str

    @property
    def error(self) -> Fraction:
        """(printed − derived)/derived."""
        return Fraction(self.value - self.derived, self.derived) if self.derived else Fraction(0)


@dataclass(frozen=True)
class Missing:
    """Rows that the printed table lacks: after ``row`` (in the completed table) come ``count`` more of ``name``."""

    row: int
    name: str
    count: int


def compare(printed: tuple[tuple[str, str, str], ...] = HOMEWORK, unit: int = 1000) -> tuple[list[Cell], list[Missing]]:
    """Compare every printed cell with the derived one, K = ``unit`` and M = ``unit``².

    Both tables are split at their poolings, so that a block that lacks rows is told from one that differs.
    Raises ValueError for a cell that can't be read, or a table whose blocks do not match VGG-19's.
    """
    derived = table()
    ours, theirs = _blocks([row.name for row in derived]), _blocks([label for label, _, _ in printed])
    if len(ours) != len(theirs):
        raise ValueError(f"the printed table has {len(theirs) - 1} poolings, VGG-19 has {len(ours) - 1}")
    cells: list[Cell] = []
    missing: list[Missing] = []
    for mine, other in zip(ours, theirs, strict=True):
        for i, j in zip(mine, other, strict=False):
            label, activations, weights = printed[j]
            row = derived[i]
            if label != row.name:
                raise ValueError(f"printed row {j + 1} is {label}, VGG-19's is {row.name}")
            texts = (("activations", activations, row.activations), ("weights", weights, row.weights))
            cells += [_cell(i, label, column, text, int(count), unit) for column, text, count in texts if text]
        if len(other) > len(mine):
            raise ValueError(f"printed row {other[len(mine)] + 1}, {printed[other[len(mine)]][0]}, is not in VGG-19")
        if len(mine) > len(other):
            missing.append(Missing(mine[len(other) - 1], derived[mine[-1]].name, len(mine) - len(other)))
    return cells, missing


def _blocks(names: list[str]) -> list[list[int]]:
    """Row numbers between poolings; a pooling begins the next block, so that rows may lack before it."""
    blocks: list[list[int]] = [[]]
    for i, name in enumerate(names):
        if name.startswith("POOL"):
            blocks.append([])
        blocks[-1].append(i)
    return blocks


def _cell(row: int, name: str, column: str, printed: str, derived: int, unit: int) -> Cell:
    expression, _, figure = (part.strip() for part in printed.rpartition("="))
    match = re.fullmatch(r"([\d,]+)(?:\.(\d+))?([KM]?)", figure)
    factors = [int(f) for f in re.findall(r"\d+", expression)]
    if not match or not re.fullmatch(r"[\d*() ]*", expression):
        raise ValueError(f"{name}: cannot read the {column} cell '{printed}'")
    whole, decimals, suffix = match[1].replace(",", ""), match[2] or "", match[3]
    scale = {"": 1, "K": unit, "M": unit**2}[suffix]
    digits = int(whole + decimals)  # in units of the last printed place
    place = Fraction(scale, 10 ** len(decimals))
    nearest = round(derived / place)
    zeros = len(str(digits)) - len(str(digits).rstrip("0")) if digits else 0
    if factors and prod(factors) != derived:
        verdict = "wrong"
    elif digits * place == derived:
        verdict = "exact"
    elif nearest == digits:
        verdict = "rounded"
    elif suffix and round(derived / (place * 10**zeros)) * 10**zeros == digits:
        verdict = "loose"
    else:
        verdict = "wrong"
    text = f"{nearest / 10 ** len(decimals):,.{len(decimals)}f}{suffix}"
    return Cell(row, name, column, printed, derived, int(digits * place), text, verdict)
