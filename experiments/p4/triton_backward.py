"""The backward pass of a CIFAR ResNet in Triton, and the update: gradients, SGD, BatchNorm's running statistics."""

from __future__ import annotations

import triton
import triton.language as tl

from experiments.p4.triton_forward import moments, wait_for_grid


@triton.jit
def bn_backward(y_sum, y_square, y_gamma, g_gamma, g_beta, count, c):
    """BatchNorm's backward pass is affine per channel: dy = a·dz + b·y + d (Ioffe & Szegedy 2015, §3)."""
    mean, rstd = moments(y_sum, y_square, count, c)
    a = tl.load(y_gamma + c) * rstd
    b = -a * rstd * tl.load(g_gamma + c) / count
    d = -a * tl.load(g_beta + c) / count - b * mean
    return a, b, d


@triton.jit
def output_gradient(dz, y, a, b, d, n, h, v, ok, c, S: tl.constexpr, C: tl.constexpr):
    """The gradient of the convolution's raw output at the positions h, v, 0 where there is none."""
    ok = (ok & (h >= 0) & (v >= 0) & (h < S) & (v < S))[:, None]
    at = ((n * S + h) * S + v)[:, None] * C + c[None, :]
    g = tl.load(dz + at, mask=ok, other=0.0).to(tl.float32)
    raw = tl.load(y + at, mask=ok, other=0.0).to(tl.float32)
    return tl.where(ok, g * a[None, :] + (raw * b[None, :] + d[None, :]), 0.0).to(dz.dtype.element_ty)


@triton.jit
def conv_backward(
    dz, y, y_sum, y_square, y_gamma, g_gamma, g_beta, y_count, w, x, dx, dw, x_raw, x_sum, x_square, x_gamma, x_beta,
    gx_gamma, gx_beta, x_count, add, s_raw, s_sum, s_square, gs_gamma, gs_beta, pixels, S: tl.constexpr,
    C: tl.constexpr, END: tl.constexpr, WEIGHTS: tl.constexpr, EARLY: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """From dz, the masked gradient behind the BatchNorm of y = conv3×3(x): the gradients of x and of w.

    INNER: x is the raw input of a BatchNorm and ReLU; the masked gradient is stored. BLOCK_END: x is a block's output;
    `add`, the gradient of the shortcut, is added and masked by x > 0. Both also sum what that BatchNorm's backward pass
    needs, BLOCK_END_TWO for a shortcut's BatchNorm as well.
    """
    wait_for_grid(EARLY)
    ci = tl.arange(0, C)
    co = tl.arange(0, C)
    a, b, d = bn_backward(y_sum, y_square, y_gamma, g_gamma, g_beta, y_count, co)
    mean, rstd = moments(x_sum, x_square, x_count, ci)
    s1 = tl.zeros([C], tl.float32)
    s2 = tl.zeros([C], tl.float32)
    if END == 1:
        gamma = tl.load(x_gamma + ci)
        beta = tl.load(x_beta + ci)
    if END == 3:
        s_mean, s_rstd = moments(s_sum, s_square, x_count, ci)
        s3 = tl.zeros([C], tl.float32)
    if WEIGHTS:
        dw0 = tl.zeros([C, C], tl.float32)
        dw1 = tl.zeros([C, C], tl.float32)
        dw2 = tl.zeros([C, C], tl.float32)
        dw3 = tl.zeros([C, C], tl.float32)
        dw4 = tl.zeros([C, C], tl.float32)
        dw5 = tl.zeros([C, C], tl.float32)
        dw6 = tl.zeros([C, C], tl.float32)
        dw7 = tl.zeros([C, C], tl.float32)
        dw8 = tl.zeros([C, C], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        q = tile * PIXELS + tl.arange(0, PIXELS)
        ok = q < pixels
        n = q // (S * S)
        h = (q // S) % S
        v = q % S
        at = q[:, None] * C + ci[None, :]
        value = tl.load(x + at, mask=ok[:, None], other=0.0)
        if END == 1:
            normal = (value.to(tl.float32) - mean[None, :]) * rstd[None, :]
            before = normal * gamma[None, :] + beta[None, :]
            positive = before > 0
            value = tl.where(ok[:, None] & positive, before, 0.0).to(x.dtype.element_ty)
        else:
            positive = value > 0
        acc = tl.zeros([PIXELS, C], tl.float32)
        for tap in tl.static_range(9):
            grad = output_gradient(dz, y, a, b, d, n, h + 1 - tap // 3, v + 1 - tap % 3, ok, co, S, C)
            transposed = tl.load(w + tap * C * C + ci[None, :] * C + co[:, None])
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
        acc = tl.where(positive, acc, 0.0)
        out = acc.to(dx.dtype.element_ty)
        tl.store(dx + at, out, mask=ok[:, None])
        rounded = tl.where(ok[:, None], out.to(tl.float32), 0.0)
        if END >= 2:
            normal = tl.load(x_raw + at, mask=ok[:, None], other=0.0).to(tl.float32)
            normal = (normal - mean[None, :]) * rstd[None, :]
        s1 += tl.sum(rounded, 0)
        s2 += tl.sum(rounded * normal, 0)
        if END == 3:
            normal = tl.load(s_raw + at, mask=ok[:, None], other=0.0).to(tl.float32)
            s3 += tl.sum(rounded * (normal - s_mean[None, :]) * s_rstd[None, :], 0)
    tl.atomic_add(gx_beta + ci, s1)
    tl.atomic_add(gx_gamma + ci, s2)
    if END == 3:
        tl.atomic_add(gs_beta + ci, s1)
        tl.atomic_add(gs_gamma + ci, s3)
    if WEIGHTS:
        to = dw + ci[:, None] * C + co[None, :]
        tl.atomic_add(to, dw0)
        tl.atomic_add(to + 1 * C * C, dw1)
        tl.atomic_add(to + 2 * C * C, dw2)
        tl.atomic_add(to + 3 * C * C, dw3)
        tl.atomic_add(to + 4 * C * C, dw4)
        tl.atomic_add(to + 5 * C * C, dw5)
        tl.atomic_add(to + 6 * C * C, dw6)
        tl.atomic_add(to + 7 * C * C, dw7)
        tl.atomic_add(to + 8 * C * C, dw8)


@triton.jit
def weight_gradient(
    dz, y, y_sum, y_square, y_gamma, g_gamma, g_beta, y_count, x, dw, x_sum, x_square, x_gamma, x_beta, x_count, pixels,
    S: tl.constexpr, C: tl.constexpr, NORMALISE: tl.constexpr, EARLY: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """The weight gradient of a 3×3 convolution alone, one row of taps a program: wide layers' accumulators
    would not fit the registers beside the input's gradient, and the first layer needs no input gradient."""
    wait_for_grid(EARLY)
    ci = tl.arange(0, C)
    co = tl.arange(0, C)
    row = tl.program_id(1)
    a, b, d = bn_backward(y_sum, y_square, y_gamma, g_gamma, g_beta, y_count, co)
    if NORMALISE:
        mean, rstd = moments(x_sum, x_square, x_count, ci)
        scale = tl.load(x_gamma + ci) * rstd
        shift = tl.load(x_beta + ci) - mean * scale
    dw0 = tl.zeros([C, C], tl.float32)
    dw1 = tl.zeros([C, C], tl.float32)
    dw2 = tl.zeros([C, C], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        q = tile * PIXELS + tl.arange(0, PIXELS)
        ok = q < pixels
        n = q // (S * S)
        h = (q // S) % S
        v = q % S
        value = tl.load(x + q[:, None] * C + ci[None, :], mask=ok[:, None], other=0.0)
        if NORMALISE:
            value = tl.maximum(value.to(tl.float32) * scale[None, :] + shift[None, :], 0.0)
            value = tl.where(ok[:, None], value, 0.0).to(x.dtype.element_ty)
        value = tl.trans(value)
        grad = output_gradient(dz, y, a, b, d, n, h + 1 - row, v + 1, ok, co, S, C)
        dw0 = tl.dot(value, grad, dw0, input_precision="tf32x3")
        grad = output_gradient(dz, y, a, b, d, n, h + 1 - row, v, ok, co, S, C)
        dw1 = tl.dot(value, grad, dw1, input_precision="tf32x3")
        grad = output_gradient(dz, y, a, b, d, n, h + 1 - row, v - 1, ok, co, S, C)
        dw2 = tl.dot(value, grad, dw2, input_precision="tf32x3")
    to = dw + row * 3 * C * C + ci[:, None] * C + co[None, :]
    tl.atomic_add(to, dw0)
    tl.atomic_add(to + C * C, dw1)
    tl.atomic_add(to + 2 * C * C, dw2)


@triton.jit
def optimise(
    parameters, gradients, momenta, weights, packed, packed_size, order, rate, size, decayed, DECAY: tl.constexpr,
    MOMENTUM: tl.constexpr, EARLY: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """SGD with momentum as PyTorch defines it; also casts the weights, as they are and twice packed for the matrix
    units, and clears the gradients for the next step."""
    wait_for_grid(EARLY)
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
def finish(
    sums, counts, running, step, channels, MOMENTUM: tl.constexpr, EARLY: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """Update BatchNorm's running statistics from the step's sums, clear the sums, count the step."""
    wait_for_grid(EARLY)
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
