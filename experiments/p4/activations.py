"""The tensors of a block in the fused step, and what its kernels make of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from experiments.p4.packing import Conv

# What a convolution reads: its input as it is; normalised and rectified; or the join of the block before, which it also
# stores, without a shortcut, with an identity, or with a projection.
RAW, NORMALISED, JOINED_ALONE, JOINED, JOINED_TWO = range(5)
# What a backward kernel does with the gradient of its convolution's input; the first makes the weights' alone.
WEIGHTS_ONLY, INNER, BLOCK_END, BLOCK_END_TWO = range(4)


@dataclass
class Activations:
    """The tensors of one block for a batch, each (pixels, channels)."""

    y1: Tensor
    y2: Tensor
    out: Tensor
    shortcut: Tensor | None = None
    dz1: Tensor | None = None
    dz: Tensor | None = None


@dataclass
class Join:
    """out = relu(bn(y) + shortcut): none, s itself, or bn(s) behind the convolution `projection`."""

    conv: Conv
    y: Tensor
    out: Tensor
    s: Tensor | None = None
    projection: Conv | None = None

    @property
    def kind(self) -> int:
        """JOINED_ALONE, JOINED or JOINED_TWO."""
        return JOINED_ALONE if self.s is None else JOINED if self.projection is None else JOINED_TWO
