"""The forward and backward passes as launches of the fused kernels: Triton's, or faster twins in CUDA C++."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from experiments.p4 import cuda_kernels, triton_backward, triton_forward
from experiments.p4.packing import CLASSES, STEM, Conv, Packed
from experiments.p4.resnet import ResNet

# What a backward kernel does with the gradient of its convolution's input.
PLAIN, INNER, BLOCK_END, BLOCK_END_TWO = range(4)


@dataclass
class Activations:
    """The tensors of one block for a batch, each (pixels, channels)."""

    y1: Tensor
    y2: Tensor
    out: Tensor
    shortcut: Tensor | None = None
    dz1: Tensor | None = None
    dz: Tensor | None = None
    d_shortcut: Tensor | None = None


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
}
# Blocks of a multiprocessor of the CUDA twins, by kernel and channels.
BLOCKS = {
    ("forward", 16): 6, ("forward", 32): 6, ("forward", 64): 6,
    ("backward", 16): 3, ("backward", 32): 3, ("backward", 64): 1,
}  # fmt: skip
SPLIT_FROM = 64  # from this width on the weight gradient is a kernel of its own, beside the input's gradient


class Passes(Packed):
    """The kernels of the two passes, for a batch of training images and for all test images."""

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
        self.train_net = self._allocate(batch, keep=True)
        self.test_net = self._allocate(len(test_images), keep=False)
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
                made.d_shortcut = self._tensor(images, conv1.size, conv1.c_in) if keep else None
            sets.append(made)
        return images, x, labels, y, a, sets

    def _grid(self, kind: str, conv: Conv, pixels: int) -> tuple[int, dict[str, int]]:
        tile, warps, per_processor = TILES[kind, max(conv.c_in, conv.c_out)]
        programs = min(triton.cdiv(pixels, tile), self.processors * per_processor)
        return programs, {"PIXELS": tile, "num_warps": warps, "num_stages": 1}

    def _convolve(self, conv: Conv, x: Tensor, y: Tensor, images: int, sums: Tensor, before: Conv | None) -> None:
        train = sums is self.sums
        pixels = images * conv.out_size**2
        x_norm = self._norm(before or conv, sums)
        count = images * conv.size**2 if train else 1.0
        y_sum, y_square, _, _ = self._norm(conv, sums)
        if self._has_cuda_twin(conv):
            blocks = min(self._tiles(conv, images), self.processors * BLOCKS["forward", conv.c_in])
            w, norm = self._taps(conv, self.packed[0]), None if before is None else x_norm
            cuda_kernels.forward(conv.c_in, x, w, y, norm, count, y_sum, y_square, train, images, blocks)
            return
        programs, tile = self._grid("forward", conv, pixels)
        triton_forward.conv_forward[(programs,)](
            x, self._taps(conv, self.weights), y, *x_norm, float(count), y_sum, y_square, pixels, S=conv.size,
            C_IN=conv.c_in, C_OUT=conv.c_out, K=conv.kernel, STRIDE=conv.stride, NORMALISE=before is not None,
            SUMS=train, **tile,
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
        stem = self.layers.stem
        self._convolve(stem, x, y, images, sums, None)
        self._join_kernel(stem, y, None, None, a, images, sums)
        h = a
        for (conv1, conv2, shortcut), act in zip(self.layers.blocks, sets, strict=True):
            self._convolve(conv1, h, act.y1, images, sums, None)
            self._convolve(conv2, act.y1, act.y2, images, sums, conv1)
            if shortcut is not None:
                assert act.shortcut is not None
                self._convolve(shortcut, h, act.shortcut, images, sums, None)
            if act is not sets[-1] or conv2 is not self.layers.blocks[-1][1]:
                self._join_kernel(conv2, act.y2, shortcut, h, act.out, images, sums, act.shortcut)
                h = act.out
        return h

    def _join_kernel(
        self, conv: Conv, y: Tensor, shortcut: Conv | None, x: Tensor | None, out: Tensor, images: int, sums: Tensor,
        projected: Tensor | None = None,
    ) -> None:  # fmt: skip
        pixels = images * conv.out_size**2
        tile = 4096 // conv.c_out
        count = pixels if sums is self.sums else 1.0
        kind = 2 if shortcut is not None else int(x is not None)
        source = projected if shortcut is not None else x
        triton_forward.join[(triton.cdiv(pixels, tile),)](
            y, *self._norm(conv, sums), y if source is None else source, *self._norm(shortcut or conv, sums),
            float(count), out, pixels, C=conv.c_out, SHORTCUT=kind, PIXELS=tile, num_warps=4,
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
            LOGITS=CLASSES, TRAIN=train,
        )  # fmt: skip

    def _backward(self) -> None:
        _, x, _, y, a, sets = self.train_net
        pairs = list(zip(self.layers.blocks, sets, strict=True))
        for i in range(len(pairs) - 1, -1, -1):
            (conv1, conv2, shortcut), act = pairs[i]
            assert act.dz is not None and act.dz1 is not None
            self._convolve_back(conv2, act.dz, act.y2, act.y1, act.dz1, INNER, conv1, act.y1)
            add = act.dz
            block_input = pairs[i - 1][1].out if i else a
            if shortcut is not None:
                assert act.shortcut is not None and act.d_shortcut is not None
                self._convolve_back(shortcut, act.dz, act.shortcut, block_input, act.d_shortcut, PLAIN)
                add = act.d_shortcut
            if i:
                (_, before, before_shortcut), previous = pairs[i - 1]
                end = BLOCK_END if before_shortcut is None else BLOCK_END_TWO
                assert previous.dz is not None
                self._convolve_back(
                    conv1, act.dz1, act.y1, block_input, previous.dz, end, before, previous.y2, add,
                    before_shortcut, previous.shortcut,
                )  # fmt: skip
            else:
                stem = self.layers.stem
                self._convolve_back(conv1, act.dz1, act.y1, a, self.stem_gradient, BLOCK_END, stem, y, add)
                self._stem_weights(stem, y, x)

    def _convolve_back(
        self, conv: Conv, dz: Tensor, y: Tensor, x: Tensor, dx: Tensor, end: int, before: Conv | None = None,
        x_raw: Tensor | None = None, add: Tensor | None = None, side: Conv | None = None, s_raw: Tensor | None = None,
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
            self._cuda_backward(stem, self.stem_gradient, y, x, self.stem_gradient, PLAIN)
        else:
            self._weights_kernel(stem, self.stem_gradient, y, x, None)

    def _cuda_backward(
        self, conv: Conv, dz: Tensor, y: Tensor, x: Tensor, dx: Tensor, end: int, before: Conv | None = None,
        x_raw: Tensor | None = None, add: Tensor | None = None, side: Conv | None = None, s_raw: Tensor | None = None,
    ) -> None:  # fmt: skip
        """cuda_kernels.cu's backward pass; there, PLAIN makes the gradient of the weights alone."""
        norm, side_norm = before or conv, side or before or conv
        y_sum, y_square, y_gamma, _ = self._norm(conv, self.sums)
        s_sum, s_square, _, _ = self._norm(side_norm, self.sums)
        tensors = (
            dz, y, y_sum, y_square, y_gamma, *self._norm_gradient(conv), self._taps(conv, self.packed[1]), x, dx,
            self._taps(conv, self.gradients), x if x_raw is None else x_raw, *self._norm(norm, self.sums),
            *self._norm_gradient(norm), dz if add is None else add, x if s_raw is None else s_raw, s_sum, s_square,
            *self._norm_gradient(side_norm),
        )  # fmt: skip
        blocks = min(self._tiles(conv, self.batch), self.processors * BLOCKS["backward", conv.c_in])
        cuda_kernels.backward(conv.c_in, end, tensors, float(self.batch * conv.size**2), self.batch, blocks)

    def _has_cuda_twin(self, conv: Conv) -> bool:
        same = conv.c_in == conv.c_out and conv.kernel == 3 and conv.stride == 1
        return self.use_cuda and same and conv.size * conv.c_in == 512

    @staticmethod
    def _tiles(conv: Conv, images: int) -> int:
        return images * conv.size // 8

    @staticmethod
    def _split(conv: Conv) -> bool:
        return conv.kernel == 3 and conv.c_out >= SPLIT_FROM

    def _input_kernel(
        self, conv: Conv, dz: Tensor, y: Tensor, x: Tensor, dx: Tensor, end: int, before: Conv | None = None,
        x_raw: Tensor | None = None, add: Tensor | None = None, side: Conv | None = None, s_raw: Tensor | None = None,
    ) -> None:  # fmt: skip
        pixels = self.batch * conv.size**2
        programs, tile = self._grid("backward", conv, pixels)
        norm, side_norm = before or conv, side or before or conv
        y_sum, y_square, y_gamma, _ = self._norm(conv, self.sums)
        s_sum, s_square, _, _ = self._norm(side_norm, self.sums)
        triton_backward.conv_backward[(programs,)](
            dz, y, y_sum, y_square, y_gamma, *self._norm_gradient(conv), float(self.batch * conv.out_size**2),
            self._taps(conv, self.weights), x, dx, self._taps(conv, self.gradients),
            x if x_raw is None else x_raw, *self._norm(norm, self.sums), *self._norm_gradient(norm), float(pixels),
            dz if add is None else add, x if s_raw is None else s_raw, s_sum, s_square,
            *self._norm_gradient(side_norm), pixels, S=conv.size, C_IN=conv.c_in, C_OUT=conv.c_out, K=conv.kernel,
            STRIDE=conv.stride, END=end, WEIGHTS=not self._split(conv), **tile,
        )  # fmt: skip

    def _weights_kernel(self, conv: Conv, dz: Tensor, y: Tensor, x: Tensor, before: Conv | None) -> None:
        pixels = self.batch * conv.size**2
        programs, tile = self._grid("weights", conv, pixels)
        y_sum, y_square, y_gamma, _ = self._norm(conv, self.sums)
        triton_backward.weight_gradient[(programs, 3)](
            dz, y, y_sum, y_square, y_gamma, *self._norm_gradient(conv), float(self.batch * conv.out_size**2), x,
            self._taps(conv, self.gradients), *self._norm(before or conv, self.sums), float(pixels), pixels,
            S=conv.size, C_IN=conv.c_in, C_OUT=conv.c_out, STRIDE=conv.stride, NORMALISE=before is not None, **tile,
        )  # fmt: skip

    def _beside(self) -> AbstractContextManager[object]:
        """Kernels launched inside run beside the main stream, which waits for them at the step's end."""
        if not self.on_gpu:
            return nullcontext()
        self.side.wait_stream(torch.cuda.current_stream())
        return torch.cuda.stream(self.side)
