"""A whole training step of a CIFAR ResNet as a few fused Triton kernels, replayed as one CUDA graph.

ResNet-44 on 32×32 images is bound by memory traffic for large batches and by kernel launches for small ones, so
the step reads and writes each tensor as rarely as BatchNorm's global statistics allow:

- a convolution stores its raw output and, in its epilogue, sums what BatchNorm needs; normalisation and ReLU are
  applied by the next kernel while it loads, so normalised activations between two convolutions never exist in
  memory;
- backward, one kernel forms BatchNorm's input gradient while loading, makes the gradients of the convolution's input
  and of its weights from the same loaded tile, applies the ReLU mask and sums what the BatchNorm before it needs;
- pooling, classifier, loss and their gradients are one kernel, the optimiser another.

Activations are NHWC in bf16 or fp32; sums, weights and gradients of weights are fp32. Everything that a step needs
lies on the device, so a step is a replay. Sums use fp32 atomics: two runs agree to rounding, not bit for bit.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from experiments import kernels
from experiments.augment import untouched
from experiments.resnet import Block, ResNet

BN_MOMENTUM = 0.1
CLASSES = 16  # logits are padded to 16; the padding is masked
STEM = 16  # image channels are padded to 16, the narrowest tile of the matrix units

# What a backward kernel does with the gradient of its convolution's input.
PLAIN, INNER, BLOCK_END, BLOCK_END_TWO = range(4)


@triton.jit
def _moments(total, square, count, c):
    """Mean and 1/σ of channels c from their sums."""
    mean = tl.load(total + c) / count
    variance = tl.load(square + c) / count - mean * mean
    return mean, 1 / tl.sqrt(tl.maximum(variance, 0.0) + 1e-5)


@triton.jit
def _augment(
    images, labels, table, step, x, batch_labels, batch, mean, std, HOLE: tl.constexpr, S: tl.constexpr,
    C: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0)
    row = table + (tl.load(step) * batch + n) * 6
    index = tl.load(row)
    p = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    c = tl.arange(0, C)
    h = p // S
    w = p % S
    y = h + tl.load(row + 1) - 4
    flipped = tl.load(row + 3) != 0
    v = tl.where(flipped, S - 1 - w, w) + tl.load(row + 2) - 4
    inside = (y >= 0) & (y < S) & (v >= 0) & (v < S)
    real = (c < 3)[None, :]
    at = images + ((index * S + y) * S + v)[:, None] * 3 + c[None, :]
    value = tl.load(at, mask=inside[:, None] & real, other=0).to(tl.float32)
    centre = tl.load(mean + c, mask=c < 3, other=0.0)
    scale = tl.load(std + c, mask=c < 3, other=1.0)
    value = (value / 255 - centre[None, :]) / scale[None, :]
    if HOLE > 0:
        cy = tl.load(row + 4)
        cx = tl.load(row + 5)
        cut = (h >= cy - HOLE // 2) & (h < cy + HOLE // 2) & (w >= cx - HOLE // 2) & (w < cx + HOLE // 2)
        value = tl.where(cut[:, None], 0.0, value)
    value = tl.where(real, value, 0.0)
    tl.store(x + (n * S * S + p)[:, None] * C + c[None, :], value.to(x.dtype.element_ty))
    if tl.program_id(1) == 0:
        tl.store(batch_labels + n, tl.load(labels + index).to(tl.int32))


@triton.jit
def _conv_forward(
    x, w, y, x_sum, x_square, x_gamma, x_beta, x_count, y_sum, y_square, pixels, S: tl.constexpr, C_IN: tl.constexpr,
    C_OUT: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, NORMALISE: tl.constexpr, SUMS: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """y = conv(x) as an implicit matrix product; x is first normalised and rectified where NORMALISE."""
    ci = tl.arange(0, C_IN)
    co = tl.arange(0, C_OUT)
    T: tl.constexpr = S // STRIDE
    if NORMALISE:
        mean, rstd = _moments(x_sum, x_square, x_count, ci)
        scale = tl.load(x_gamma + ci) * rstd
        shift = tl.load(x_beta + ci) - mean * scale
    total = tl.zeros([C_OUT], tl.float32)
    square = tl.zeros([C_OUT], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        n = p // (T * T)
        h0 = (p // T) % T * STRIDE - K // 2
        w0 = p % T * STRIDE - K // 2
        acc = tl.zeros([PIXELS, C_OUT], tl.float32)
        for tap in tl.static_range(K * K):
            h = h0 + tap // K
            v = w0 + tap % K
            ok = ((p < pixels) & (h >= 0) & (h < S) & (v >= 0) & (v < S))[:, None]
            a = tl.load(x + ((n * S + h) * S + v)[:, None] * C_IN + ci[None, :], mask=ok, other=0.0)
            if NORMALISE:
                a = tl.maximum(a.to(tl.float32) * scale[None, :] + shift[None, :], 0.0)
                a = tl.where(ok, a, 0.0).to(x.dtype.element_ty)
            b = tl.load(w + tap * C_IN * C_OUT + ci[:, None] * C_OUT + co[None, :])
            acc = tl.dot(a, b, acc, input_precision="tf32x3")
        out = acc.to(y.dtype.element_ty)
        tl.store(y + p[:, None] * C_OUT + co[None, :], out, mask=(p < pixels)[:, None])
        if SUMS:
            rounded = out.to(tl.float32)
            total += tl.sum(rounded, 0)
            square += tl.sum(rounded * rounded, 0)
    if SUMS:
        tl.atomic_add(y_sum + co, total)
        tl.atomic_add(y_square + co, square)


@triton.jit
def _join(
    y, y_sum, y_square, y_gamma, y_beta, s, s_sum, s_square, s_gamma, s_beta, count, out, pixels, C: tl.constexpr,
    SHORTCUT: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """out = relu(bn(y) + shortcut), the shortcut absent (0), s itself (1) or bn(s) (2)."""
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    c = tl.arange(0, C)
    at = p[:, None] * C + c[None, :]
    ok = (p < pixels)[:, None]
    mean, rstd = _moments(y_sum, y_square, count, c)
    scale = tl.load(y_gamma + c) * rstd
    shift = tl.load(y_beta + c) - mean * scale
    value = tl.load(y + at, mask=ok, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SHORTCUT > 0:
        other = tl.load(s + at, mask=ok, other=0.0).to(tl.float32)
        if SHORTCUT == 2:
            s_mean, s_rstd = _moments(s_sum, s_square, count, c)
            s_scale = tl.load(s_gamma + c) * s_rstd
            other = (other - s_mean[None, :]) * s_scale[None, :] + tl.load(s_beta + c)[None, :]
        value += other
    tl.store(out + at, tl.maximum(value, 0.0).to(out.dtype.element_ty), mask=ok)


@triton.jit
def _head(
    y, y_sum, y_square, gamma, beta, count, s, labels, fc_w, fc_b, dz, g_gamma, g_beta, g_w, g_b, metrics, images,
    classes, C: tl.constexpr, PIXELS: tl.constexpr, LOGITS: tl.constexpr, TRAIN: tl.constexpr,
):  # fmt: skip
    """Last block's join, average pooling, classifier, cross-entropy; when TRAIN their gradients, averaged over images.

    Adds the summed loss to metrics[0] and the number of misclassified images to metrics[1].
    """
    c = tl.arange(0, C)
    k = tl.arange(0, LOGITS)
    p = tl.arange(0, PIXELS)
    mean, rstd = _moments(y_sum, y_square, count, c)
    scale = tl.load(gamma + c)
    shift = tl.load(beta + c)
    w = tl.load(fc_w + c[:, None] * LOGITS + k[None, :])
    b = tl.load(fc_b + k)
    dw = tl.zeros([C, LOGITS], tl.float32)
    db = tl.zeros([LOGITS], tl.float32)
    s1 = tl.zeros([C], tl.float32)
    s2 = tl.zeros([C], tl.float32)
    loss = 0.0
    errors = 0.0
    for n in range(tl.program_id(0), images, tl.num_programs(0)):
        at = (n * PIXELS + p)[:, None] * C + c[None, :]
        normal = (tl.load(y + at).to(tl.float32) - mean[None, :]) * rstd[None, :]
        out = normal * scale[None, :] + shift[None, :] + tl.load(s + at).to(tl.float32)
        out = tl.maximum(out, 0.0)
        pooled = tl.sum(out, 0) / PIXELS
        logits = tl.where(k < classes, tl.sum(pooled[:, None] * w, 0) + b, -1e30)
        label = tl.load(labels + n)
        top = tl.max(logits, 0)
        e = tl.exp(logits - top)
        norm = tl.sum(e, 0)
        loss += tl.log(norm) + top - tl.sum(tl.where(k == label, logits, 0.0), 0)
        errors += tl.where(tl.argmax(logits, 0) == label, 0.0, 1.0)
        if TRAIN:
            d = (e / norm - tl.where(k == label, 1.0, 0.0)) / images
            dw += pooled[:, None] * d[None, :]
            db += d
            spread = tl.sum(w * d[None, :], 1) / PIXELS
            grad = tl.where(out > 0, spread[None, :], 0.0).to(dz.dtype.element_ty)
            tl.store(dz + at, grad)
            rounded = grad.to(tl.float32)
            s1 += tl.sum(rounded, 0)
            s2 += tl.sum(rounded * normal, 0)
    tl.atomic_add(metrics, loss)
    tl.atomic_add(metrics + 1, errors)
    if TRAIN:
        tl.atomic_add(g_w + c[:, None] * LOGITS + k[None, :], dw)
        tl.atomic_add(g_b + k, db)
        tl.atomic_add(g_beta + c, s1)
        tl.atomic_add(g_gamma + c, s2)


@triton.jit
def _bn_backward(y_sum, y_square, y_gamma, g_gamma, g_beta, count, c):
    """BatchNorm's backward pass is affine per channel: dy = a·dz + b·y + d (Ioffe & Szegedy 2015, §3)."""
    mean, rstd = _moments(y_sum, y_square, count, c)
    a = tl.load(y_gamma + c) * rstd
    b = -a * rstd * tl.load(g_gamma + c) / count
    d = -a * tl.load(g_beta + c) / count - b * mean
    return a, b, d


@triton.jit
def _output_gradient(
    dz, y, a, b, d, n, th, tv, ok, co, T: tl.constexpr, C_OUT: tl.constexpr, STRIDE: tl.constexpr
):  # fmt: skip
    """The gradient of the convolution's raw output at the positions th, tv (in input pixels), 0 where there is none."""
    if STRIDE == 2:
        ok = ok & (th % 2 == 0) & (tv % 2 == 0)
    h = th // STRIDE
    v = tv // STRIDE
    ok = (ok & (th >= 0) & (tv >= 0) & (h < T) & (v < T))[:, None]
    at = ((n * T + h) * T + v)[:, None] * C_OUT + co[None, :]
    g = tl.load(dz + at, mask=ok, other=0.0).to(tl.float32)
    raw = tl.load(y + at, mask=ok, other=0.0).to(tl.float32)
    return tl.where(ok, g * a[None, :] + (raw * b[None, :] + d[None, :]), 0.0).to(dz.dtype.element_ty)


@triton.jit
def _conv_backward(
    dz, y, y_sum, y_square, y_gamma, g_gamma, g_beta, y_count, w, x, dx, dw, x_raw, x_sum, x_square, x_gamma, x_beta,
    gx_gamma, gx_beta, x_count, add, s_raw, s_sum, s_square, gs_gamma, gs_beta, pixels, S: tl.constexpr,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, END: tl.constexpr,
    WEIGHTS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """From dz, the masked gradient behind the BatchNorm of y = conv(x): the gradients of x and of w.

    PLAIN stores the input's gradient as it is. INNER: x is the raw input of a BatchNorm and ReLU; the masked gradient
    is stored. BLOCK_END: x is a block's output; `add`, the gradient of the shortcut, is added and masked by x > 0.
    The last two also sum what that BatchNorm's backward pass needs, BLOCK_END_TWO for a shortcut's BatchNorm as well.
    """
    ci = tl.arange(0, C_IN)
    co = tl.arange(0, C_OUT)
    T: tl.constexpr = S // STRIDE
    a, b, d = _bn_backward(y_sum, y_square, y_gamma, g_gamma, g_beta, y_count, co)
    if END != 0:
        mean, rstd = _moments(x_sum, x_square, x_count, ci)
        s1 = tl.zeros([C_IN], tl.float32)
        s2 = tl.zeros([C_IN], tl.float32)
    if END == 1:
        gamma = tl.load(x_gamma + ci)
        beta = tl.load(x_beta + ci)
    if END == 3:
        s_mean, s_rstd = _moments(s_sum, s_square, x_count, ci)
        s3 = tl.zeros([C_IN], tl.float32)
    if WEIGHTS:
        dw0 = tl.zeros([C_IN, C_OUT], tl.float32)
        if K == 3:
            dw1 = tl.zeros([C_IN, C_OUT], tl.float32)
            dw2 = tl.zeros([C_IN, C_OUT], tl.float32)
            dw3 = tl.zeros([C_IN, C_OUT], tl.float32)
            dw4 = tl.zeros([C_IN, C_OUT], tl.float32)
            dw5 = tl.zeros([C_IN, C_OUT], tl.float32)
            dw6 = tl.zeros([C_IN, C_OUT], tl.float32)
            dw7 = tl.zeros([C_IN, C_OUT], tl.float32)
            dw8 = tl.zeros([C_IN, C_OUT], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        q = tile * PIXELS + tl.arange(0, PIXELS)
        ok = q < pixels
        n = q // (S * S)
        h = (q // S) % S
        v = q % S
        at = q[:, None] * C_IN + ci[None, :]
        value = tl.load(x + at, mask=ok[:, None], other=0.0)
        if END == 1:
            normal = (value.to(tl.float32) - mean[None, :]) * rstd[None, :]
            before = normal * gamma[None, :] + beta[None, :]
            positive = before > 0
            value = tl.where(ok[:, None] & positive, before, 0.0).to(x.dtype.element_ty)
        else:
            positive = value > 0
        acc = tl.zeros([PIXELS, C_IN], tl.float32)
        for tap in tl.static_range(K * K):
            grad = _output_gradient(
                dz, y, a, b, d, n, h + K // 2 - tap // K, v + K // 2 - tap % K, ok, co, T, C_OUT, STRIDE
            )
            transposed = tl.load(w + tap * C_IN * C_OUT + ci[None, :] * C_OUT + co[:, None])
            acc = tl.dot(grad, transposed, acc, input_precision="tf32x3")
            if WEIGHTS:
                if tap == 0:
                    dw0 = tl.dot(tl.trans(value), grad, dw0, input_precision="tf32x3")
                elif tap == 1:
                    dw1 = tl.dot(tl.trans(value), grad, dw1, input_precision="tf32x3")
                elif tap == 2:
                    dw2 = tl.dot(tl.trans(value), grad, dw2, input_precision="tf32x3")
                elif tap == 3:
                    dw3 = tl.dot(tl.trans(value), grad, dw3, input_precision="tf32x3")
                elif tap == 4:
                    dw4 = tl.dot(tl.trans(value), grad, dw4, input_precision="tf32x3")
                elif tap == 5:
                    dw5 = tl.dot(tl.trans(value), grad, dw5, input_precision="tf32x3")
                elif tap == 6:
                    dw6 = tl.dot(tl.trans(value), grad, dw6, input_precision="tf32x3")
                elif tap == 7:
                    dw7 = tl.dot(tl.trans(value), grad, dw7, input_precision="tf32x3")
                else:
                    dw8 = tl.dot(tl.trans(value), grad, dw8, input_precision="tf32x3")
        if END >= 2:
            acc += tl.load(add + at, mask=ok[:, None], other=0.0).to(tl.float32)
        if END != 0:
            acc = tl.where(positive, acc, 0.0)
        out = acc.to(dx.dtype.element_ty)
        tl.store(dx + at, out, mask=ok[:, None])
        if END != 0:
            rounded = tl.where(ok[:, None], out.to(tl.float32), 0.0)
            if END >= 2:
                normal = tl.load(x_raw + at, mask=ok[:, None], other=0.0).to(tl.float32)
                normal = (normal - mean[None, :]) * rstd[None, :]
            s1 += tl.sum(rounded, 0)
            s2 += tl.sum(rounded * normal, 0)
            if END == 3:
                normal = tl.load(s_raw + at, mask=ok[:, None], other=0.0).to(tl.float32)
                s3 += tl.sum(rounded * (normal - s_mean[None, :]) * s_rstd[None, :], 0)
    if END != 0:
        tl.atomic_add(gx_beta + ci, s1)
        tl.atomic_add(gx_gamma + ci, s2)
    if END == 3:
        tl.atomic_add(gs_beta + ci, s1)
        tl.atomic_add(gs_gamma + ci, s3)
    if WEIGHTS:
        to = dw + ci[:, None] * C_OUT + co[None, :]
        tl.atomic_add(to, dw0)
        if K == 3:
            tl.atomic_add(to + 1 * C_IN * C_OUT, dw1)
            tl.atomic_add(to + 2 * C_IN * C_OUT, dw2)
            tl.atomic_add(to + 3 * C_IN * C_OUT, dw3)
            tl.atomic_add(to + 4 * C_IN * C_OUT, dw4)
            tl.atomic_add(to + 5 * C_IN * C_OUT, dw5)
            tl.atomic_add(to + 6 * C_IN * C_OUT, dw6)
            tl.atomic_add(to + 7 * C_IN * C_OUT, dw7)
            tl.atomic_add(to + 8 * C_IN * C_OUT, dw8)


@triton.jit
def _weight_gradient(
    dz, y, y_sum, y_square, y_gamma, g_gamma, g_beta, y_count, x, dw, x_sum, x_square, x_gamma, x_beta, x_count, pixels,
    S: tl.constexpr, C_IN: tl.constexpr, C_OUT: tl.constexpr, STRIDE: tl.constexpr, NORMALISE: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """The weight gradient of a 3×3 convolution alone, one row of taps a program: wide layers' accumulators
    would not fit the registers beside the input's gradient, and the first layer needs no input gradient."""
    ci = tl.arange(0, C_IN)
    co = tl.arange(0, C_OUT)
    T: tl.constexpr = S // STRIDE
    row = tl.program_id(1)
    a, b, d = _bn_backward(y_sum, y_square, y_gamma, g_gamma, g_beta, y_count, co)
    if NORMALISE:
        mean, rstd = _moments(x_sum, x_square, x_count, ci)
        scale = tl.load(x_gamma + ci) * rstd
        shift = tl.load(x_beta + ci) - mean * scale
    dw0 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw1 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw2 = tl.zeros([C_IN, C_OUT], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        q = tile * PIXELS + tl.arange(0, PIXELS)
        ok = q < pixels
        n = q // (S * S)
        h = (q // S) % S
        v = q % S
        value = tl.load(x + q[:, None] * C_IN + ci[None, :], mask=ok[:, None], other=0.0)
        if NORMALISE:
            value = tl.maximum(value.to(tl.float32) * scale[None, :] + shift[None, :], 0.0)
            value = tl.where(ok[:, None], value, 0.0).to(x.dtype.element_ty)
        value = tl.trans(value)
        grad = _output_gradient(dz, y, a, b, d, n, h + 1 - row, v + 1, ok, co, T, C_OUT, STRIDE)
        dw0 = tl.dot(value, grad, dw0, input_precision="tf32x3")
        grad = _output_gradient(dz, y, a, b, d, n, h + 1 - row, v, ok, co, T, C_OUT, STRIDE)
        dw1 = tl.dot(value, grad, dw1, input_precision="tf32x3")
        grad = _output_gradient(dz, y, a, b, d, n, h + 1 - row, v - 1, ok, co, T, C_OUT, STRIDE)
        dw2 = tl.dot(value, grad, dw2, input_precision="tf32x3")
    to = dw + row * 3 * C_IN * C_OUT + ci[:, None] * C_OUT + co[None, :]
    tl.atomic_add(to, dw0)
    tl.atomic_add(to + C_IN * C_OUT, dw1)
    tl.atomic_add(to + 2 * C_IN * C_OUT, dw2)


@triton.jit
def _optimise(
    parameters, gradients, momenta, weights, packed, packed_size, order, rate, size, decayed, DECAY: tl.constexpr,
    MOMENTUM: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """SGD with momentum as PyTorch defines it; also casts the weights, as they are and twice packed for the matrix
    units, and clears the gradients for the next step."""
    i = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    ok = i < size
    value = tl.load(parameters + i, mask=ok)
    grad = tl.load(gradients + i, mask=ok) + tl.where(i < decayed, DECAY, 0.0) * value
    momentum = MOMENTUM * tl.load(momenta + i, mask=ok) + grad
    value -= tl.load(rate) * momentum
    tl.store(parameters + i, value, mask=ok)
    tl.store(momenta + i, momentum, mask=ok)
    cast = value.to(weights.dtype.element_ty)
    tl.store(weights + i, cast, mask=ok)
    tl.store(packed + tl.load(order + i, mask=ok), cast, mask=ok)
    tl.store(packed + packed_size + tl.load(order + packed_size + i, mask=ok), cast, mask=ok)
    tl.store(gradients + i, tl.zeros([ELEMENTS], tl.float32), mask=ok)


@triton.jit
def _finish(sums, counts, running, step, channels, MOMENTUM: tl.constexpr, CHANNELS: tl.constexpr):
    """Update BatchNorm's running statistics from the step's sums, clear the sums, count the step."""
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    ok = c < channels
    count = tl.load(counts + c, mask=ok, other=2.0)
    mean = tl.load(sums + c, mask=ok, other=0.0) / count
    variance = (tl.load(sums + channels + c, mask=ok, other=0.0) / count - mean * mean) * count / (count - 1)
    for_mean = running + c
    for_variance = running + channels + c
    tl.store(for_mean, (1 - MOMENTUM) * tl.load(for_mean, mask=ok) + MOMENTUM * mean, mask=ok)
    tl.store(for_variance, (1 - MOMENTUM) * tl.load(for_variance, mask=ok) + MOMENTUM * variance, mask=ok)
    tl.store(sums + c, tl.zeros([CHANNELS], tl.float32), mask=ok)
    tl.store(sums + channels + c, tl.zeros([CHANNELS], tl.float32), mask=ok)
    if tl.program_id(0) == 0:
        tl.store(step, tl.load(step) + 1)


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
        """Where kernels.cu wants each weight of a convolution laid out (k·k, C_in, C_out).

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
# Chosen by benchmarks/p4_kernels.py on an H100.
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
        self.use_cuda = self.on_gpu and dtype == torch.bfloat16 and kernels.nvcc() is not None
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
            kernels.forward(conv.c_in, x, w, y, norm, count, y_sum, y_square, train, images, blocks)
            return
        programs, tile = self._grid("forward", conv, pixels)
        _conv_forward[(programs,)](
            x, self._taps(conv, self.weights), y, *x_norm, float(count), y_sum, y_square, pixels, S=conv.size,
            C_IN=conv.c_in, C_OUT=conv.c_out, K=conv.kernel, STRIDE=conv.stride, NORMALISE=before is not None,
            SUMS=train, **tile,
        )  # fmt: skip

    def _forward(self, net: tuple, sums: Tensor, table: Tensor, step: Tensor, train: bool) -> Tensor:
        """Everything up to the head; returns the last block's input, which is the head's shortcut."""
        images, x, labels, y, a, sets = net
        data, data_labels = (self.images, self.labels) if train else (self.test_images, self.test_labels)
        tile = min(256, self.size**2)
        _augment[(images, self.size**2 // tile)](
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
        _join[(triton.cdiv(pixels, tile),)](
            y, *self._norm(conv, sums), y if source is None else source, *self._norm(shortcut or conv, sums),
            float(count), out, pixels, C=conv.c_out, SHORTCUT=kind, PIXELS=tile, num_warps=4,
        )  # fmt: skip

    def _head_kernel(self, net: tuple, sums: Tensor, h: Tensor, metrics: Tensor, train: bool) -> None:
        images, _, labels, _, _, sets = net
        conv, last = self.layers.blocks[-1][1], sets[-1]
        pixels = conv.out_size**2
        g_gamma, g_beta = self._norm_gradient(conv)
        _head[(min(images, 4 * self.processors),)](
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
        """kernels.cu's backward pass; there, PLAIN makes the gradient of the weights alone."""
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
        kernels.backward(conv.c_in, end, tensors, float(self.batch * conv.size**2), self.batch, blocks)

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
        _conv_backward[(programs,)](
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
        _weight_gradient[(programs, 3)](
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


class FusedEngine(Passes):
    """Trains and evaluates a `ResNet` on one device through fused kernels; the same interface as `PlainEngine`.

    images, test_images: (n, S, S, 3) uint8; labels: (n,) int64; all on `device`. `instances`·`batch_size` images
    make a step. Raises ValueError for a network whose last block has a projection shortcut (depth 8).
    """

    name = "fused"

    def __init__(
        self,
        model: ResNet,
        images: Tensor,
        labels: Tensor,
        test_images: Tensor,
        test_labels: Tensor,
        *,
        batch: int,
        steps: int,
        hole: int,
        mean: Tensor,
        std: Tensor,
        dtype: torch.dtype,
        weight_decay: float,
        momentum: float,
    ) -> None:
        data = (images, labels, test_images, test_labels)
        super().__init__(model, *data, batch=batch, hole=hole, mean=mean, std=std, dtype=dtype)
        self.weight_decay, self.momentum = weight_decay, momentum
        self.table = torch.zeros(steps, batch, 6, dtype=torch.int32, device=self.device)
        self.step_count = torch.zeros(1, dtype=torch.int32, device=self.device)
        self.rate = torch.zeros(1, device=self.device)
        self.metrics_buffer = torch.zeros(2, device=self.device)
        self.test_table = untouched(len(test_images), self.device)
        self.zero = torch.zeros(1, dtype=torch.int32, device=self.device)
        self.test_metrics = torch.zeros(2, device=self.device)
        self.step_graph: torch.cuda.CUDAGraph | None = None
        self.test_graph: torch.cuda.CUDAGraph | None = None
        if self.on_gpu:
            self._capture()

    def _launch_gradients(self) -> None:
        h = self._forward(self.train_net, self.sums, self.table, self.step_count, train=True)
        self._head_kernel(self.train_net, self.sums, h, self.metrics_buffer, train=True)
        self._backward()
        if self.on_gpu:
            torch.cuda.current_stream().wait_stream(self.side)

    def _launch_step(self) -> None:
        self._launch_gradients()
        size = self.parameters.numel()
        _optimise[(triton.cdiv(size, 1024),)](
            self.parameters, self.gradients, self.momenta, self.weights, self.packed, size, self.pack_order,
            self.rate, size, self.bias_at, DECAY=self.weight_decay, MOMENTUM=self.momentum, ELEMENTS=1024,
        )  # fmt: skip
        _finish[(triton.cdiv(self.channels, 128),)](
            self.sums, self.counts, self.running, self.step_count, self.channels, MOMENTUM=BN_MOMENTUM, CHANNELS=128
        )

    def _launch_test(self) -> None:
        self.test_metrics.zero_()
        self.test_sums[0].copy_(self.running[0])
        torch.addcmul(self.running[1], self.running[0], self.running[0], out=self.test_sums[1])
        h = self._forward(self.test_net, self.test_sums, self.test_table, self.zero, train=False)
        self._head_kernel(self.test_net, self.test_sums, h, self.test_metrics, train=False)

    def _capture(self) -> None:
        """Compile the kernels by one run of everything, put the state back, record both graphs."""
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._launch_step()
            self._launch_test()
        torch.cuda.current_stream().wait_stream(stream)
        self.step_graph, self.test_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.step_graph):
            self._launch_step()
        with torch.cuda.graph(self.test_graph):
            self._launch_test()
        torch.cuda.synchronize()
        self.load_state(before)
        self.metrics_buffer.zero_()
        self.step_count.zero_()

    def start_epoch(self, table: Tensor, rate: float) -> None:
        """Take an epoch's draws (steps, M·B, 6) and its learning rate."""
        self.table.copy_(table)
        self.step_count.zero_()
        self.rate.fill_(rate)
        self.metrics_buffer.zero_()

    def step(self) -> None:
        """The epoch's next optimiser step."""
        if self.step_graph is not None:
            self.step_graph.replay()
        else:
            self._launch_step()

    def train_metrics(self) -> tuple[float, float]:
        """Mean loss (nat) and error (fraction) over the images since the epoch's start."""
        images = max(1, int(self.step_count.item())) * self.batch
        loss, errors = self.metrics_buffer.tolist()
        return loss / images, errors / images

    def evaluate(self) -> tuple[float, float]:
        """Mean loss (nat) and error (fraction) on the untouched test images, by running statistics."""
        if self.test_graph is not None:
            self.test_graph.replay()
        else:
            self._launch_test()
        loss, errors = self.test_metrics.tolist()
        return loss / len(self.test_images), errors / len(self.test_images)

    def state(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold at an epoch's end."""
        return {"parameters": self.parameters, "momenta": self.momenta, "running": self.running}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`. Raises ValueError when it is another network's."""
        for name, tensor in self.state().items():
            if name not in state or state[name].shape != tensor.shape:
                raise ValueError(f"the state's '{name}' does not fit this network")
            tensor.copy_(state[name])
        self._cast()
        self.gradients.zero_()
        self.sums.zero_()
