"""A CIFAR ResNet's numbers in flat buffers, laid out as the fused kernels read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from experiments.p4.resnet import Block, ResNet

CLASSES = 16  # logits are padded to 16; the padding is masked
STEM = 16  # image channels are padded to 16, the narrowest tile of the matrix units


@dataclass(frozen=True)
class Conv:
    """A convolution and the BatchNorm behind it: where its numbers lie in the packed buffers."""

    c_in: int
    c_out: int
    kernel: int
    stride: int
    size: int  # side of the input in pixels
    weight: int  # offset in the packed parameters, laid out (k·k, C_in, C_out)
    channel: int  # offset in the packed channels

    @property
    def out_size(self) -> int:
        """Side of the output in pixels."""
        return self.size // self.stride

    @property
    def weights(self) -> int:
        """Number of packed weights."""
        return self.kernel**2 * self.c_in * self.c_out


@dataclass
class Layers:
    """A network's convolutions: the stem, then (conv1, conv2, shortcut or None) of each block."""

    stem: Conv
    blocks: list[tuple[Conv, Conv, Conv | None]] = field(default_factory=list)

    def all(self) -> list[Conv]:
        """Every convolution, in packing order."""
        return [self.stem, *(c for block in self.blocks for c in block if c is not None)]


class Packed:
    """A network's numbers in flat buffers: convolutions, classifier, BatchNorm scales, shifts; decayed ones first.

    Raises ValueError for a network whose last block has a projection shortcut (depth 8).
    """

    def __init__(self, model: ResNet, device: torch.device, dtype: torch.dtype, batch: int, size: int) -> None:
        self.device, self.dtype, self.batch, self.size = device, dtype, batch, size
        self.classes = model.fc.out_features
        self._pack(model)

    def _pack(self, model: ResNet) -> None:
        weight = channel = 0

        def place(c_in: int, c_out: int, kernel: int, stride: int, size: int) -> Conv:
            nonlocal weight, channel
            conv = Conv(c_in, c_out, kernel, stride, size, weight, channel)
            weight, channel = weight + conv.weights, channel + c_out
            return conv

        size = self.size
        self.layers = Layers(place(STEM, model.conv.out_channels, 3, 1, size))
        modules: list[tuple[Any, Any]] = [(model.conv, model.bn)]
        for block in model.blocks:
            assert isinstance(block, Block)
            c_in, c_out, stride = block.conv1.in_channels, block.conv1.out_channels, block.conv1.stride[0]
            conv1, conv2 = place(c_in, c_out, 3, stride, size), place(c_out, c_out, 3, 1, size // stride)
            modules += [(block.conv1, block.bn1), (block.conv2, block.bn2)]
            shortcut = None
            if len(block.shortcut):
                shortcut = place(c_in, c_out, 1, stride, size)
                modules.append((block.shortcut[0], block.shortcut[1]))
            self.layers.blocks.append((conv1, conv2, shortcut))
            size //= stride
        if self.layers.blocks[-1][2] is not None:
            raise ValueError("the fused engine needs a last block with an identity shortcut: a depth of at least 14")
        self.modules = modules
        self.channels = channel
        self.fc_at, self.width = weight, model.fc.in_features
        self.bias_at = weight + self.width * CLASSES
        self.gamma_at = self.bias_at + CLASSES
        self.beta_at = self.gamma_at + channel
        total = self.beta_at + channel

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        self.parameters, self.gradients, self.momenta = zeros(total), zeros(total), zeros(total)
        self.weights, self.packed = zeros(total, dtype=self.dtype), zeros(2, total, dtype=self.dtype)
        self.running, self.sums, self.test_sums = zeros(2, channel), zeros(2, channel), zeros(2, channel)
        order = torch.arange(total, dtype=torch.int32).repeat(2, 1)
        for conv in self.layers.all():
            here = slice(conv.weight, conv.weight + conv.weights)
            order[0, here] = conv.weight + self._pack_order(conv, rows_are_inputs=True)
            order[1, here] = conv.weight + self._pack_order(conv, rows_are_inputs=False)
        self.pack_order = order.to(self.device)
        counts = [torch.full((c.c_out,), float(self.batch * c.out_size**2)) for c in self.layers.all()]
        self.counts = torch.cat(counts).to(self.device)
        self._read(model)

    def _read(self, model: ResNet) -> None:
        """Copy the model's numbers into the packed buffers."""
        self.parameters.zero_()
        for conv, (module, norm) in zip(self.layers.all(), self.modules, strict=True):
            taps = module.weight.detach().permute(2, 3, 1, 0).reshape(conv.kernel**2, -1, conv.c_out)
            self._taps(conv)[:, : taps.shape[1]].copy_(taps)
            here = slice(conv.channel, conv.channel + conv.c_out)
            self.gamma[here].copy_(norm.weight.detach())
            self.beta[here].copy_(norm.bias.detach())
            self.running[0, here].copy_(norm.running_mean)
            self.running[1, here].copy_(norm.running_var)
        self.fc_weight[:, : self.classes].copy_(model.fc.weight.detach().T)
        self.fc_bias[: self.classes].copy_(model.fc.bias.detach())
        self.momenta.zero_()
        self.gradients.zero_()
        self.sums.zero_()
        self._cast()

    def _cast(self) -> None:
        self.weights.copy_(self.parameters)
        for packed, order in zip(self.packed, self.pack_order, strict=True):
            packed[order.long()] = self.weights

    @staticmethod
    def _pack_order(conv: Conv, rows_are_inputs: bool) -> Tensor:
        """Where cuda_kernels.cu wants each weight of a convolution laid out (k·k, C_in, C_out).

        The second operand of mma.m16n8k16 has rows k and columns n; lane 4·(n mod 8) + (k mod 8)/2 holds of each
        16×16 tile eight weights side by side: by n's half, k's half and k's parity. Forward, k is C_in and n is
        C_out; backward the other way round.
        """
        tap, c_in, c_out = torch.meshgrid(
            torch.arange(conv.kernel**2), torch.arange(conv.c_in), torch.arange(conv.c_out), indexing="ij"
        )
        k, n = (c_in, c_out) if rows_are_inputs else (c_out, c_in)
        columns = (conv.c_out if rows_are_inputs else conv.c_in) // 16
        rows = (conv.c_in if rows_are_inputs else conv.c_out) // 16
        tile = (tap * rows + k // 16) * columns + n // 16
        lane = n % 8 * 4 + k % 8 // 2
        return ((tile * 32 + lane) * 8 + n % 16 // 8 * 4 + k % 16 // 8 * 2 + k % 2).flatten().int()

    def _taps(self, conv: Conv, buffer: Tensor | None = None) -> Tensor:
        flat = (self.parameters if buffer is None else buffer)[conv.weight : conv.weight + conv.weights]
        return flat.view(conv.kernel**2, conv.c_in, conv.c_out)

    @property
    def gamma(self) -> Tensor:
        """All BatchNorm scales."""
        return self.parameters[self.gamma_at : self.beta_at]

    @property
    def beta(self) -> Tensor:
        """All BatchNorm shifts."""
        return self.parameters[self.beta_at :]

    @property
    def fc_weight(self) -> Tensor:
        """The classifier, (features, padded classes)."""
        return self.parameters[self.fc_at : self.bias_at].view(self.width, CLASSES)

    @property
    def fc_bias(self) -> Tensor:
        """The classifier's bias, padded."""
        return self.parameters[self.bias_at : self.gamma_at]

    def gradient(self, conv: Conv) -> Tensor:
        """The packed gradient of a convolution's weights, (k·k, C_in, C_out); for tests."""
        return self._taps(conv, self.gradients)

    def _norm(self, conv: Conv, sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(sum, square, γ, β) of the BatchNorm behind a convolution."""
        here = slice(conv.channel, conv.channel + conv.c_out)
        return sums[0, here], sums[1, here], self.gamma[here], self.beta[here]

    def _norm_gradient(self, conv: Conv) -> tuple[Tensor, Tensor]:
        """The gradients of γ and β, which are also the sums that BatchNorm's backward pass needs."""
        gamma, beta = self.gamma_at + conv.channel, self.beta_at + conv.channel
        return self.gradients[gamma : gamma + conv.c_out], self.gradients[beta : beta + conv.c_out]
