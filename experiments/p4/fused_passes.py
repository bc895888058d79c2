"""The forward and backward passes as launches of the fused kernels: Triton's, or faster twins in CUDA C++."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
from torch import Tensor

from experiments.p4 import cuda_kernels, triton_backward, triton_downsample, triton_forward
from experiments.p4.activations import (
    BLOCK_END,
    BLOCK_END_TWO,
    INNER,
    JOINED_ALONE,
    NORMALISED,
    RAW,
    WEIGHTS_ONLY,
    Activations,
    Join,
)
from experiments.p4.packing import CLASSES, STEM, Conv, Packed
from experiments.p4.resnet import ResNet

EARLY_FROM = 9, 0  # the compute capability from which a kernel may start before the one that it waits for has ended


# Pixels of a tile, warps of a program and programs of a multiprocessor, by kernel and widest channel count.
# Chosen by tools/tune_tiles.py on an H100.
Tile = tuple[int, int, int]
TILES: dict[tuple[str, int], Tile] = {
    ("forward", 16): (128, 4, 8),
    ("forward", 32): (64, 4, 8),
    ("forward", 64): (64, 4, 4),
    ("backward", 16): (128, 4, 2),
    ("backward", 32): (64, 4, 2),
    ("backward", 64): (32, 8, 2),
    ("weights", 16): (128, 4, 1),
    ("weights", 32): (32, 4, 1),
    ("weights", 64): (128, 8, 1),
    ("downsample", 32): (128, 4, 8),
    ("downsample", 64): (32, 4, 4),
    ("downsample back", 32): (64, 4, 2),
    ("downsample back", 64): (64, 8, 1),
}
SPLIT_FROM = 64  # from this width on the weight gradient is a kernel of its own, beside the input's gradient


class Passes(Packed):
    """The kernels of the two passes, for a batch of training images and for all test images."""

    MAY_START_EARLY = True

    def __init__(
        self,
        model: ResNet,
        images: Tensor,
        labels: Tensor,
        test_images: Tensor,
        test_labels: Tensor,
        *,
        batch: int,
        hole: int,
        mean: Tensor,
        std: Tensor,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(model, images.device, dtype, batch, images.shape[1])
        self.hole, self.images, self.labels, self.mean, self.std = hole, images, labels, mean, std
        self.test_images, self.test_labels = test_images, test_labels
        self.on_gpu = self.device.type == "cuda"
        self.processors = torch.cuda.get_device_properties(self.device).multi_processor_count if self.on_gpu else 1
        self.use_cuda = self.on_gpu and dtype == torch.bfloat16 and cuda_kernels.nvcc() is not None
        self.early = (
            self.MAY_START_EARLY and self.on_gpu and torch.cuda.get_device_capability(self.device) >= EARLY_FROM
        )
        self.train_net = self._allocate(batch, keep=True)
        self.test_net = self._allocate(len(test_images), keep=False)
        self.forked = False  # whether kernels run beside the main stream
        if self.on_gpu:
            self.side = torch.cuda.Stream()

    def _tensor(self, images: int, size: int, channels: int) -> Tensor:
        return torch.empty(images * size * size, channels, dtype=self.dtype, device=self.device)

    def _allocate(self, images: int, keep: bool) -> tuple[int, Tensor, Tensor, Tensor, Tensor, list[Activations]]:
        """Buffers for a batch; without `keep` (validation) a stage's blocks share two sets in turn."""
        size, width = self.size, self.layers.stem.c_out
        x, y, a = self._tensor(images, size, STEM), self._tensor(images, size, width), self._tensor(images, size, width)
        labels = torch.zeros(images, dtype=torch.int32, device=self.device)
        if keep:
            self.stem_gradient = self._tensor(images, size, width)
        sets: list[Activations] = []
        for i, (conv1, conv2, shortcut) in enumerate(self.layers.blocks):
            if not keep and i >= 2 and self.layers.blocks[i - 2][0].c_in == conv1.c_out == conv1.c_in:
                sets.append(sets[i - 2])
                continue

            def make(conv: Conv = conv2) -> Tensor:
                return self._tensor(images, conv.out_size, conv.c_out)

            made = Activations(make(), make(), make())
            if keep:
                made.dz1, made.dz = make(), make()
            if shortcut is not None:
                made.shortcut = make()
            sets.append(made)
        return images, x, labels, y, a, sets

    def _grid(self, kind: str, conv: Conv, pixels: int) -> tuple[tuple[int], dict[str, Any]]:
        tile, warps, per_processor = TILES[kind, conv.c_out]
        programs = min(triton.cdiv(pixels, tile), self.processors * per_processor)
        return (programs,), {"PIXELS": tile, "num_warps": warps, "num_stages": 1, **self._start()}

    def _start(self) -> dict[str, bool]:
        """Whether a Triton kernel starts before the one that it waits for has ended."""
        return {"EARLY": True, "launch_pdl": True} if self.early else {"EARLY": False}

    def _convolve(
        self, conv: Conv, x: Tensor, y: Tensor, images: int, sums: Tensor, before: Conv | None = None,
        join: Join | None = None,
    ) -> None:  # fmt: skip
        """y = conv(x), the raw x normalised by the BatchNorm behind `before`, or made by `join` first."""
        train = sums is self.sums
        pixels = images * conv.size**2
        count = float(pixels) if train else 1.0
        y_sum, y_square, _, _ = self._norm(conv, sums)
        if self._has_cuda_twin(conv):
            kind, norm, side, s, out = RAW if before is None else NORMALISED, before or conv, conv, x, x
            if join is not None:
                kind, norm, side, out = join.kind, join.conv, join.projection or conv, join.out
                x, s = join.y, join.y if join.s is None else join.s
            cuda_kernels.forward(
                conv.c_in, kind, train, x, self._taps(conv, self.packed[0]), y, self._norm(norm, sums), s,
                self._norm(side, sums), out, count, y_sum, y_square, images,
                self.processors, self.early,
            )  # fmt: skip
            return
        if join is not None:
            self._join_kernel(join, images, sums)
        grid, tile = self._grid("forward", conv, pixels)
        triton_forward.conv_forward[grid](
            x, self._taps(conv, self.weights), y, *self._norm(before or conv, sums), count, y_sum, y_square, pixels,
            S=conv.size, C=conv.c_in, NORMALISE=before is not None, SUMS=train, **tile,
        )  # fmt: skip

    def _downsample(
        self, conv: Conv, projection: Conv, x: Tensor, y: Tensor, s: Tensor, images: int, sums: Tensor
    ) -> None:
        """y = conv(x) and s = projection(x), both with stride 2."""
        pixels = images * conv.out_size**2
        grid, tile = self._grid("downsample", conv, pixels)
        triton_downsample.downsample_forward[grid](
            x, self._taps(conv, self.weights), y, *self._norm(conv, sums)[:2], self._taps(projection, self.weights), s,
            *self._norm(projection, sums)[:2], pixels, S=conv.size, C_IN=conv.c_in, C_OUT=conv.c_out,
            SUMS=sums is self.sums, **tile,
        )  # fmt: skip

    def _forward(self, net: tuple, sums: Tensor, table: Tensor, step: Tensor, train: bool) -> Tensor:
        """Everything up to the head; returns the last block's input, which is the head's shortcut."""
        images, x, labels, y, a, sets = net
        data, data_labels = (self.images, self.labels) if train else (self.test_images, self.test_labels)
        tile = min(256, self.size**2)
        triton_forward.augment[(images, self.size**2 // tile)](
            data, data_labels, table, step, x, labels, images, self.mean, self.std, HOLE=self.hole if train else 0,
            S=self.size, C=STEM, PIXELS=tile,
        )  # fmt: skip
        self._convolve(self.layers.stem, x, y, images, sums)
        join = Join(self.layers.stem, y, a)
        for (conv1, conv2, projection), act in zip(self.layers.blocks, sets, strict=True):
            h = join.out
            if projection is None:
                self._convolve(conv1, h, act.y1, images, sums, join=join)
            else:
                assert act.shortcut is not None
                self._join_kernel(join, images, sums)
                self._downsample(conv1, projection, h, act.y1, act.shortcut, images, sums)
            self._convolve(conv2, act.y1, act.y2, images, sums, conv1)
            join = Join(conv2, act.y2, act.out, h if projection is None else act.shortcut, projection)
        return h

    def _join_kernel(self, join: Join, images: int, sums: Tensor) -> None:
        conv = join.conv
        pixels = images * conv.out_size**2
        tile = 4096 // conv.c_out
        count = float(pixels if sums is self.sums else 1)
        triton_forward.join[(triton.cdiv(pixels, tile),)](
            join.y, *self._norm(conv, sums), join.y if join.s is None else join.s,
            *self._norm(join.projection or conv, sums), count, join.out, pixels, C=conv.c_out,
            SHORTCUT=join.kind - JOINED_ALONE, PIXELS=tile, num_warps=4, **self._start(),
        )  # fmt: skip

    def _head_kernel(self, net: tuple, sums: Tensor, h: Tensor, metrics: Tensor, train: bool) -> None:
        images, _, labels, _, _, sets = net
        conv, last = self.layers.blocks[-1][1], sets[-1]
        pixels = conv.out_size**2
        g_gamma, g_beta = self._norm_gradient(conv)
        triton_forward.head[(min(images, 4 * self.processors),)](
            last.y2, *self._norm(conv, sums), float(images * pixels if train else 1), h, labels, self.fc_weight,
            self.fc_bias, last.dz if train else last.y2, g_gamma, g_beta, self.gradients[self.fc_at : self.bias_at],
            self.gradients[self.bias_at : self.gamma_at], metrics, images, self.classes, C=conv.c_out, PIXELS=pixels,
            LOGITS=CLASSES, TRAIN=train, **self._start(),
        )  # fmt: skip

    def _backward(self) -> None:
        _, x, _, y, a, sets = self.train_net
        pairs = list(zip(self.layers.blocks, sets, strict=True))
        for i in range(len(pairs) - 1, -1, -1):
            (conv1, conv2, projection), act = pairs[i]
            assert act.dz is not None and act.dz1 is not None
            self._convolve_back(conv2, act.dz, act.y2, act.y1, act.dz1, INNER, conv1, act.y1)
            if not i:
                stem = self.layers.stem
                self._convolve_back(conv1, act.dz1, act.y1, a, self.stem_gradient, BLOCK_END, stem, y, act.dz)
                self._stem_weights(stem, y, x)
                break
            (_, before, before_projection), previous = pairs[i - 1]
            if projection is not None:
                self._downsample_back(conv1, projection, act, before, previous)
                continue
            end = BLOCK_END if before_projection is None else BLOCK_END_TWO
            assert previous.dz is not None
            self._convolve_back(
                conv1, act.dz1, act.y1, previous.out, previous.dz, end, before, previous.y2, act.dz,
                before_projection, previous.shortcut,
            )  # fmt: skip

    def _downsample_back(
        self, conv: Conv, projection: Conv, act: Activations, before: Conv, previous: Activations
    ) -> None:
        """The gradients behind the block `previous`, which ends in the convolution `before`, and of both weights."""
        assert act.dz is not None and act.dz1 is not None and act.shortcut is not None and previous.dz is not None
        pixels = self.batch * conv.out_size**2
        grid, tile = self._grid("downsample back", conv, pixels)
        triton_downsample.downsample_backward[grid](
            act.dz1, act.y1, *self._norm(conv, self.sums)[:3], *self._norm_gradient(conv),
            self._taps(conv, self.weights), self._taps(conv, self.gradients),
            act.dz, act.shortcut, *self._norm(projection, self.sums)[:3], *self._norm_gradient(projection),
            self._taps(projection, self.weights), self._taps(projection, self.gradients), float(pixels),
            previous.out, previous.dz, previous.y2, *self._norm(before, self.sums)[:2], *self._norm_gradient(before),
            float(self.batch * conv.size**2), pixels, S=conv.size, C_IN=conv.c_in, C_OUT=conv.c_out, **tile,
        )  # fmt: skip

    def _convolve_back(
        self, conv: Conv, dz: Tensor, y: Tensor, x: Tensor, dx: Tensor, end: int, before: Conv, x_raw: Tensor,
        add: Tensor | None = None, side: Conv | None = None, s_raw: Tensor | None = None,
    ) -> None:  # fmt: skip
        if self._has_cuda_twin(conv):
            self._cuda_backward(conv, dz, y, x, dx, end, before, x_raw, add, side, s_raw)
            return
        if self._split(conv):
            with self._beside():
                self._weights_kernel(conv, dz, y, x, before if end == INNER else None)
        self._input_kernel(conv, dz, y, x, dx, end, before, x_raw, add, side, s_raw)

    def _stem_weights(self, stem: Conv, y: Tensor, x: Tensor) -> None:
        if self._has_cuda_twin(stem):
            self._cuda_backward(stem, self.stem_gradient, y, x, self.stem_gradient, WEIGHTS_ONLY)
        else:
            self._weights_kernel(stem, self.stem_gradient, y, x, None)

    def _cuda_backward(
        self, conv: Conv, dz: Tensor, y: Tensor, x: Tensor, dx: Tensor, end: int, before: Conv | None = None,
        x_raw: Tensor | None = None, add: Tensor | None = None, side: Conv | None = None, s_raw: Tensor | None = None,
    ) -> None:  # fmt: skip
        norm, side_norm = before or conv, side or before or conv
        y_sum, y_square, y_gamma, _ = self._norm(conv, self.sums)
        s_sum, s_square, _, _ = self._norm(side_norm, self.sums)
        tensors = (
            dz, y, y_sum, y_square, y_gamma, *self._norm_gradient(conv), self._taps(conv, self.packed[1]), x, dx,
            self._taps(conv, self.gradients), x if x_raw is None else x_raw, *self._norm(norm, self.sums),
            *self._norm_gradient(norm), dz if add is None else add, x if s_raw is None else s_raw, s_sum, s_square,
            *self._norm_gradient(side_norm),
        )  # fmt: skip
        pixels = float(self.batch * conv.size**2)
        cuda_kernels.backward(conv.c_in, end, tensors, pixels, self.batch, self.processors, self.early)

    def _has_cuda_twin(self, conv: Conv) -> bool:
        same = conv.c_in == conv.c_out and conv.kernel == 3 and conv.stride == 1
        return self.use_cuda and same and conv.size * conv.c_in == 512

    @staticmethod
    def _split(conv: Conv) -> bool:
        return conv.c_out >= SPLIT_FROM

    def _input_kernel(
        self, conv: Conv, dz: Tensor, y: Tensor, x: Tensor, dx: Tensor, end: int, before: Conv, x_raw: Tensor,
        add: Tensor | None = None, side: Conv | None = None, s_raw: Tensor | None = None,
    ) -> None:  # fmt: skip
        pixels = self.batch * conv.size**2
        grid, tile = self._grid("backward", conv, pixels)
        y_sum, y_square, y_gamma, _ = self._norm(conv, self.sums)
        s_sum, s_square, _, _ = self._norm(side or before, self.sums)
        triton_backward.conv_backward[grid](
            dz, y, y_sum, y_square, y_gamma, *self._norm_gradient(conv), float(pixels),
            self._taps(conv, self.weights), x, dx, self._taps(conv, self.gradients), x_raw,
            *self._norm(before, self.sums), *self._norm_gradient(before), float(pixels),
            dz if add is None else add, x if s_raw is None else s_raw, s_sum, s_square,
            *self._norm_gradient(side or before), pixels, S=conv.size, C=conv.c_in, END=end,
            WEIGHTS=not self._split(conv), **tile,
        )  # fmt: skip

    def _weights_kernel(self, conv: Conv, dz: Tensor, y: Tensor, x: Tensor, before: Conv | None) -> None:
        pixels = self.batch * conv.size**2
        (programs,), tile = self._grid("weights", conv, pixels)
        y_sum, y_square, y_gamma, _ = self._norm(conv, self.sums)
        triton_backward.weight_gradient[(programs, 3)](
            dz, y, y_sum, y_square, y_gamma, *self._norm_gradient(conv), float(pixels), x,
            self._taps(conv, self.gradients), *self._norm(before or conv, self.sums), float(pixels), pixels,
            S=conv.size, C=conv.c_in, NORMALISE=before is not None, **tile,
        )  # fmt: skip

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Kernels launched inside run beside the main stream, until `_rejoin`."""
        if not self.on_gpu:
            yield
            return
        early, self.early = self.early, False  # they wait for a stream, not for a kernel
        self.forked = True
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            yield
        self.early = early

    def _rejoin(self) -> dict[str, bool]:
        """Wait for the kernels beside the main stream; how a Triton kernel starts after that."""
        if not self.forked:
            return self._start()
        torch.cuda.current_stream().wait_stream(self.side)
        self.forked = False
        return {"EARLY": False}
