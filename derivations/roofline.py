"""The memory traffic of a training step of a CIFAR ResNet, and the throughput that a memory bandwidth allows.

A convolution needs BatchNorm's statistics of the whole batch before its output can be normalised, forward and
backward (Ioffe & Szegedy 2015, Alg. 1), so no cache holds the output until then: each kernel reads its tensors from
memory and writes them back. Two steps are counted, both with projection shortcuts (option B):

- `conventional`: a kernel for each convolution, for BatchNorm's statistics and for normalisation with ReLU, and
  their counterparts backward;
- `fused`: the kernels of experiments/p4/fused_engine.py, with its CUDA twins.

A tensor counts once for each kernel that reads or writes it: the halos and repeated reads of a convolution are left
to the caches. Weights are left out, as a batch shares them, and so are the 3 kB of the uint8 image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import sympy as sp

from derivations.cifar_resnet import counts, layers
from derivations.layers import Layer, Size

Step = Literal["conventional", "fused"]
ELEMENT = sp.Symbol("e", positive=True)  # bytes of an activation: 2 for bf16, 4 for fp32
PADDED = 16  # the image's channels and the classes, padded to a tile of the matrix units


@dataclass(frozen=True)
class Pass:
    """One kind of kernel moving one kind of tensor: elements per image, all layers together."""

    kernel: str
    moves: Literal["reads", "writes"]
    tensor: str
    elements: Size

    @property
    def bytes(self) -> sp.Expr:
        """Bytes per image, in terms of `ELEMENT`."""
        return self.elements * ELEMENT


@dataclass(frozen=True)
class Launch:
    """One launch of the fused step: the elements per image of the tensors that it reads and writes. `kernel` is one
    compiled program, as a profiler tells them apart; `part` says which part of the network it computes."""

    kernel: str
    part: str
    reads: dict[str, Size]
    writes: dict[str, Size]

    @property
    def elements(self) -> Size:
        return sum((*self.reads.values(), *self.writes.values()), start=0)


@dataclass(frozen=True)
class Kernel:
    """One compiled program of the fused step: its launches, and the bytes that they move, in a whole step."""

    name: str
    launches: int
    bytes: Size


# A convolution's output y, its normalised and rectified form a, and their gradients dy and da, each the size of y.
CONVENTIONAL: tuple[tuple[str, Literal["reads", "writes"], str], ...] = (
    ("convolution", "writes", "y"),
    ("statistics", "reads", "y"),
    ("normalisation", "reads", "y"),
    ("normalisation", "writes", "a"),
    ("next convolution", "reads", "a"),
    ("sums of gradients", "reads", "da"),
    ("sums of gradients", "reads", "y"),
    ("normalisation, backward", "reads", "da"),
    ("normalisation, backward", "reads", "y"),
    ("normalisation, backward", "writes", "dy"),
    ("input gradient", "reads", "dy"),
    ("input gradient", "writes", "da of the layer before"),
    ("weight gradient", "reads", "dy"),
    ("weight gradient", "reads", "a of the layer before"),
)


def conventional(depth: int = 44) -> list[Pass]:
    """The conventional step: 14 passes over the convolutions' outputs.

    The sums of shortcuts and their gradients are taken to be free, so the true traffic is higher. Raises ValueError
    as `resnet.layers` does.
    """
    elements = counts(depth, "B").conv_activations
    return [Pass(*names, elements) for names in CONVENTIONAL]


def launches(depth: int = 44) -> list[Launch]:
    """The fused step's launches that move activations, in order. Raises ValueError as `resnet.layers` does, and for a
    depth below 14.

    y1, y2 and s are the raw outputs of a block's convolutions and projection, dz1 and dz2 the gradients behind their
    BatchNorms, h the block's input. dz2 serves the projection and the identity as well. A block's join is made by the
    first convolution of the next block, while it loads; a stage begins with a join of its own. Triton has these joins
    and the beginnings of stages, CUDA all other convolutions.
    """
    if depth < 14:
        raise ValueError(f"the fused step needs a depth of at least 14, not {depth}")
    convolutions = [layer for layer in layers(depth, "B") if layer.kind == "conv"]
    stem, blocks = convolutions[0], _blocks(convolutions[1:])
    n = stem.out.units
    found = [
        Launch("augmentation", "augmentation", {}, {"x": n}),  # 16 channels, padded: as many as the stem has filters
        Launch("stem", "stem", {"x": n}, {"y": n}),
    ]
    ends = {"y": n}  # what makes the next block's input
    for block in blocks:
        first, _, *projection = block
        into, out, c = first.source.units, first.out.units, first.out.c
        if projection:
            found.append(Launch("join", "join", ends, {"h": into}))
            found.append(Launch("start of a stage", "conv1 and projection", {"h": into}, {"y1": out, "s": out}))
        else:
            found.append(Launch(f"conv1, {c} channels", "join and conv1", ends, {"h": into, "y1": out}))
        found.append(Launch(f"conv2, {c} channels", "conv2", {"y1": out}, {"y2": out}))
        ends = {"y2 of the block before": out} | ({"s of the block before": out} if projection else {"h before": out})
    found.append(Launch("head", "head", ends, {"dz2": blocks[-1][0].out.units}))
    for i, block in reversed(list(enumerate(blocks))):
        first, _, *projection = block
        into, out, c = first.source.units, first.out.units, first.out.c
        reads = {"dz2": out, "y2": out, "y1": out}
        found.append(Launch(f"conv2, {c} channels, backward", "conv2, backward", reads, {"dz1": out}))
        # The masked gradient of h is dz2 of the block (or stem) before, whose BatchNorms' sums need their raw inputs.
        reads = {"dz1": out, "y1": out, "dz2": out, "h": into, "y2 of the block before": into}
        writes = {"dz2 of the block before": into}
        if projection:
            found.append(
                Launch("start of a stage, backward", "conv1 and projection, backward", reads | {"s": out}, writes)
            )
            continue
        if i and len(blocks[i - 1]) == 3:
            reads["s of the block before"] = into
        found.append(Launch(f"conv1, {c} channels, backward", "conv1, backward", reads, writes))
    found.append(Launch("stem, weight gradient", "stem, weight gradient", {"dz": n, "y": n, "x": n}, {}))
    return found


def fused(depth: int = 44) -> list[Pass]:
    """The fused step, part by part. Raises ValueError as `launches` does."""
    total: dict[tuple[str, Literal["reads", "writes"], str], Size] = {}
    for launch in launches(depth):
        for tensor, elements in launch.reads.items():
            total[launch.part, "reads", tensor] = total.get((launch.part, "reads", tensor), 0) + elements
        for tensor, elements in launch.writes.items():
            total[launch.part, "writes", tensor] = total.get((launch.part, "writes", tensor), 0) + elements
    return [Pass(*names, elements) for names, elements in total.items()]


def kernels(images: Size, element: Size = 2, depth: int = 44) -> list[Kernel]:
    """The fused step of `images` images, kernel by kernel in order of first launch, the update included.

    The update is counted for each parameter: itself, its momentum and its gradient, read and written, and two places
    in packed copies, of 4 bytes each, and three casts to the activations' type. Raises ValueError as `launches` does.
    """
    found: dict[str, Kernel] = {}
    for launch in launches(depth):
        so_far = found.get(launch.kernel, Kernel(launch.kernel, 0, 0))
        moved = so_far.bytes + images * launch.elements * element
        found[launch.kernel] = Kernel(launch.kernel, so_far.launches + 1, moved)
    net = layers(depth, "B")
    channels = sum(layer.out.c for layer in net if layer.kind == "conv")
    weights = sum(layer.weights for layer in net) + 9 * (PADDED - 3) * net[0].out.c
    parameters = weights + (PADDED - net[-1].out.c) * net[-1].source.c + PADDED + 2 * channels
    update = Kernel("update", 1, parameters * (8 * 4 + 3 * element))
    # Two sums and two running statistics read and written, and the count read: fp32.
    return [*found.values(), update, Kernel("running statistics", 1, channels * 9 * 4)]


def _blocks(convolutions: list[Layer]) -> list[list[Layer]]:
    """conv1, conv2 and, where the shape changes, the projection of each block."""
    blocks: dict[str, list[Layer]] = {}
    for layer in convolutions:
        blocks.setdefault(layer.name.rpartition(".")[0], []).append(layer)
    return list(blocks.values())


def passes(depth: int = 44, step: Step = "conventional") -> list[Pass]:
    """The table of a step's passes. Raises ValueError for an unknown step."""
    if step not in ("conventional", "fused"):
        raise ValueError(f"step must be conventional or fused, not {step}")
    return conventional(depth) if step == "conventional" else fused(depth)


def bytes_per_image(element: Size = 2, depth: int = 44, step: Step = "conventional") -> Size:
    """Bytes moved per image and training step, with ``element`` bytes an activation."""
    return sum((p.elements for p in passes(depth, step)), start=0) * element


def images_per_second(bandwidth: Size, element: Size = 2, depth: int = 44, step: Step = "conventional") -> sp.Expr:
    """Most images a second at ``bandwidth`` bytes/s, reads and writes together (Williams et al. 2009's roofline).

    A bound for a step with this traffic only: one that moves less may be faster.
    """
    return sp.sympify(bandwidth) / bytes_per_image(element, depth, step)
