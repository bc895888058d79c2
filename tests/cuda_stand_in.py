"""What the kernels of cuda_kernels.cu compute, in PyTorch on any device, rounded to bf16 where they round."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn import grad as convolution_gradients

from experiments.p4.fused_passes import BLOCK_END, BLOCK_END_TWO, INNER, PLAIN
from experiments.p4.packing import Conv, Packed


def moments(total: Tensor, square: Tensor, count: float) -> tuple[Tensor, Tensor]:
    mean = total / count
    return mean, 1 / (square / count - mean * mean + 1e-5).sqrt()


def activated(x: Tensor, total: Tensor, square: Tensor, gamma: Tensor, beta: Tensor, count: float) -> Tensor:
    mean, rstd = moments(total, square, count)
    return (x.float() * (gamma * rstd) + (beta - mean * gamma * rstd)).relu().bfloat16()


def spread(flat: Tensor, images: int) -> Tensor:
    side = 512 // flat.shape[1]
    return flat.float().view(images, side, side, -1).permute(0, 3, 1, 2)


def gathered(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def unpacked(w: Tensor, channels: int, rows_are_inputs: bool) -> Tensor:
    conv = Conv(channels, channels, 3, 1, 512 // channels, weight=0, channel=0)
    taps = w.flatten()[Packed._pack_order(conv, rows_are_inputs).long()].float()
    return taps.view(3, 3, channels, channels).permute(3, 2, 0, 1)


def conv_forward(
    channels: int, normalise: int, sums: int, x: Tensor, w: Tensor, y: Tensor, x_sum: Tensor, x_square: Tensor,
    x_gamma: Tensor, x_beta: Tensor, count: float, y_sum: Tensor, y_square: Tensor, images: int, blocks: int,
) -> None:  # fmt: skip
    value = activated(x, x_sum, x_square, x_gamma, x_beta, count) if normalise else x
    y.copy_(gathered(F.conv2d(spread(value, images), unpacked(w, channels, True), padding=1)))
    if sums:
        y_sum += y.float().sum(0)
        y_square += y.float().square().sum(0)


def conv_backward(
    channels: int, end: int, dz: Tensor, y: Tensor, y_sum: Tensor, y_square: Tensor, y_gamma: Tensor, g_gamma: Tensor,
    g_beta: Tensor, w: Tensor, x: Tensor, dx: Tensor, dw: Tensor, x_raw: Tensor, x_sum: Tensor, x_square: Tensor,
    x_gamma: Tensor, x_beta: Tensor, gx_gamma: Tensor, gx_beta: Tensor, add: Tensor, s_raw: Tensor, s_sum: Tensor,
    s_square: Tensor, gs_gamma: Tensor, gs_beta: Tensor, count: float, images: int, blocks: int,
) -> None:  # fmt: skip
    mean, rstd = moments(y_sum, y_square, count)
    centred = dz.float() - g_beta / count - (y.float() - mean) * rstd * g_gamma / count
    grad = spread((centred * y_gamma * rstd).bfloat16(), images)
    value = activated(x, x_sum, x_square, x_gamma, x_beta, count) if end == INNER else x
    weight = unpacked(w, channels, False)
    by_weight = convolution_gradients.conv2d_weight(spread(value, images), list(weight.shape), grad, padding=1)
    dw += by_weight.permute(2, 3, 1, 0).flatten(0, 1)
    if end == PLAIN:
        return
    back = gathered(convolution_gradients.conv2d_input(list(grad.shape), weight, grad, padding=1))
    dx.copy_(torch.where(value > 0, back + add if end >= BLOCK_END else back, 0))
    norms = [(x_raw, x_sum, x_square, gx_gamma, gx_beta), (s_raw, s_sum, s_square, gs_gamma, gs_beta)]
    for raw, total, square, to_gamma, to_beta in norms if end == BLOCK_END_TWO else norms[:1]:
        mean, rstd = moments(total, square, count)
        to_gamma += (dx.float() * (raw.float() - mean) * rstd).sum(0)
        to_beta += dx.float().sum(0)


STAND_INS: dict[str, Callable[..., None]] = {"conv_forward": conv_forward, "conv_backward": conv_backward}
