"""The start of a stage in Triton: its 3×3 convolution of stride 2 and the 1×1 projection, one kernel each way.

Forward, the projection reads what the middle tap reads. Backward, an input pixel is of one of four classes, by the
parity of its row and its column, among which the nine taps are shared out: 1, 2, 2 and 4. The projection's gradient
reaches the first class alone. So a tile of output pixels, with the row and the column behind it, makes the gradients
of four input pixels for each of its own, and no tap is multiplied in vain.
"""

from __future__ import annotations

import triton
import triton.language as tl

from experiments.p4.triton_backward import bn_backward
from experiments.p4.triton_forward import moments, wait_for_grid


@triton.jit
def downsample_forward(
    x, w, y, y_sum, y_square, w_side, side, side_sum, side_square, pixels, S: tl.constexpr, C_IN: tl.constexpr,
    C_OUT: tl.constexpr, SUMS: tl.constexpr, EARLY: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """y = conv3×3(x) and side = conv1×1(x), both with stride 2, for `pixels` output pixels."""
    wait_for_grid(EARLY)
    ci = tl.arange(0, C_IN)
    co = tl.arange(0, C_OUT)
    T: tl.constexpr = S // 2
    total = tl.zeros([C_OUT], tl.float32)
    square = tl.zeros([C_OUT], tl.float32)
    total_side = tl.zeros([C_OUT], tl.float32)
    square_side = tl.zeros([C_OUT], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        n = p // (T * T)
        h0 = (p // T) % T * 2 - 1
        v0 = p % T * 2 - 1
        acc = tl.zeros([PIXELS, C_OUT], tl.float32)
        acc_side = tl.zeros([PIXELS, C_OUT], tl.float32)
        for tap in tl.static_range(9):
            h = h0 + tap // 3
            v = v0 + tap % 3
            ok = ((p < pixels) & (h >= 0) & (v >= 0))[:, None]  # the last taps stay inside, as S is even
            a = tl.load(x + ((n * S + h) * S + v)[:, None] * C_IN + ci[None, :], mask=ok, other=0.0)
            b = tl.load(w + tap * C_IN * C_OUT + ci[:, None] * C_OUT + co[None, :])
            acc = tl.dot(a, b, acc, input_precision="tf32x3")
            if tap == 4:
                b = tl.load(w_side + ci[:, None] * C_OUT + co[None, :])
                acc_side = tl.dot(a, b, acc_side, input_precision="tf32x3")
        at = p[:, None] * C_OUT + co[None, :]
        out = acc.to(y.dtype.element_ty)
        out_side = acc_side.to(y.dtype.element_ty)
        tl.store(y + at, out, mask=(p < pixels)[:, None])
        tl.store(side + at, out_side, mask=(p < pixels)[:, None])
        if SUMS:
            rounded = out.to(tl.float32)
            total += tl.sum(rounded, 0)
            square += tl.sum(rounded * rounded, 0)
            rounded = out_side.to(tl.float32)
            total_side += tl.sum(rounded, 0)
            square_side += tl.sum(rounded * rounded, 0)
    if SUMS:
        tl.atomic_add(y_sum + co, total)
        tl.atomic_add(y_square + co, square)
        tl.atomic_add(side_sum + co, total_side)
        tl.atomic_add(side_square + co, square_side)


@triton.jit
def raw_gradient(dz, y, a, b, d, at, ok):
    """The gradient of a convolution's raw output from the one behind its BatchNorm, 0 where not ok."""
    g = tl.load(dz + at, mask=ok, other=0.0).to(tl.float32)
    raw = tl.load(y + at, mask=ok, other=0.0).to(tl.float32)
    return tl.where(ok, g * a[None, :] + (raw * b[None, :] + d[None, :]), 0.0).to(dz.dtype.element_ty)


@triton.jit
def into(acc, grad, w, tap, ci, co, C_IN: tl.constexpr, C_OUT: tl.constexpr):
    """acc + grad · (the tap's weights, transposed)."""
    transposed = tl.load(w + tap * C_IN * C_OUT + ci[None, :] * C_OUT + co[:, None])
    return tl.dot(grad, transposed, acc, input_precision="tf32x3")


@triton.jit
def masked(acc, value, dx, x_raw, at, ok, mean, rstd):
    """Store the input's gradient where the input is positive; its sums over the tile, alone and with the normalised."""
    out = tl.where(value > 0, acc, 0.0).to(dx.dtype.element_ty)
    tl.store(dx + at, out, mask=ok)
    rounded = tl.where(ok, out.to(tl.float32), 0.0)
    normal = (tl.load(x_raw + at, mask=ok, other=0.0).to(tl.float32) - mean[None, :]) * rstd[None, :]
    return tl.sum(rounded, 0), tl.sum(rounded * normal, 0)


@triton.jit
def downsample_backward(
    dz, y, y_sum, y_square, y_gamma, g_gamma, g_beta, w, dw, dz_side, side, side_sum, side_square, side_gamma, gs_gamma,
    gs_beta, w_side, dw_side, y_count, x, dx, x_raw, x_sum, x_square, gx_gamma, gx_beta, x_count, pixels,
    S: tl.constexpr, C_IN: tl.constexpr, C_OUT: tl.constexpr, EARLY: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """From the gradients behind both BatchNorms: the masked gradient of x, a block's output, and of both weights.

    Also sums what the backward pass of the BatchNorm before x needs. `pixels` counts output pixels.
    """
    wait_for_grid(EARLY)
    ci = tl.arange(0, C_IN)
    co = tl.arange(0, C_OUT)
    T: tl.constexpr = S // 2
    a, b, d = bn_backward(y_sum, y_square, y_gamma, g_gamma, g_beta, y_count, co)
    a_side, b_side, d_side = bn_backward(side_sum, side_square, side_gamma, gs_gamma, gs_beta, y_count, co)
    mean, rstd = moments(x_sum, x_square, x_count, ci)
    s1 = tl.zeros([C_IN], tl.float32)
    s2 = tl.zeros([C_IN], tl.float32)
    dws = tl.zeros([C_IN, C_OUT], tl.float32)
    dw0 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw1 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw2 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw3 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw4 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw5 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw6 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw7 = tl.zeros([C_IN, C_OUT], tl.float32)
    dw8 = tl.zeros([C_IN, C_OUT], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        n = p // (T * T)
        i = (p // T) % T
        j = p % T
        ok = (p < pixels)[:, None]
        below = ok & (i + 1 < T)[:, None]
        right = ok & (j + 1 < T)[:, None]
        at = p[:, None] * C_OUT + co[None, :]
        here = raw_gradient(dz, y, a, b, d, at, ok)
        g_side = raw_gradient(dz_side, side, a_side, b_side, d_side, at, ok)
        g_right = raw_gradient(dz, y, a, b, d, at + C_OUT, right)
        g_below = raw_gradient(dz, y, a, b, d, at + T * C_OUT, below)
        g_both = raw_gradient(dz, y, a, b, d, at + (T + 1) * C_OUT, below & right)
        zero = tl.zeros([PIXELS, C_IN], tl.float32)
        first = ((n * S + 2 * i) * S + 2 * j)[:, None] * C_IN + ci[None, :]

        # Row 2i, column 2j: the middle tap, and the projection.
        value = tl.load(x + first, mask=ok, other=0.0)
        acc = into(into(zero, here, w, 4, ci, co, C_IN, C_OUT), g_side, w_side, 0, ci, co, C_IN, C_OUT)
        dw4 = tl.dot(tl.trans(value), here, dw4, input_precision="tf32x3")
        dws = tl.dot(tl.trans(value), g_side, dws, input_precision="tf32x3")
        t1, t2 = masked(acc, value, dx, x_raw, first, ok, mean, rstd)
        s1 += t1
        s2 += t2

        # Row 2i, column 2j + 1: the middle row's outer taps.
        value = tl.load(x + first + C_IN, mask=ok, other=0.0)
        acc = into(into(zero, here, w, 5, ci, co, C_IN, C_OUT), g_right, w, 3, ci, co, C_IN, C_OUT)
        dw5 = tl.dot(tl.trans(value), here, dw5, input_precision="tf32x3")
        dw3 = tl.dot(tl.trans(value), g_right, dw3, input_precision="tf32x3")
        t1, t2 = masked(acc, value, dx, x_raw, first + C_IN, ok, mean, rstd)
        s1 += t1
        s2 += t2

        # Row 2i + 1, column 2j: the middle column's outer taps.
        value = tl.load(x + first + S * C_IN, mask=ok, other=0.0)
        acc = into(into(zero, here, w, 7, ci, co, C_IN, C_OUT), g_below, w, 1, ci, co, C_IN, C_OUT)
        dw7 = tl.dot(tl.trans(value), here, dw7, input_precision="tf32x3")
        dw1 = tl.dot(tl.trans(value), g_below, dw1, input_precision="tf32x3")
        t1, t2 = masked(acc, value, dx, x_raw, first + S * C_IN, ok, mean, rstd)
        s1 += t1
        s2 += t2

        # Row 2i + 1, column 2j + 1: the four corners.
        value = tl.load(x + first + (S + 1) * C_IN, mask=ok, other=0.0)
        acc = into(into(zero, here, w, 8, ci, co, C_IN, C_OUT), g_right, w, 6, ci, co, C_IN, C_OUT)
        acc = into(into(acc, g_below, w, 2, ci, co, C_IN, C_OUT), g_both, w, 0, ci, co, C_IN, C_OUT)
        dw8 = tl.dot(tl.trans(value), here, dw8, input_precision="tf32x3")
        dw6 = tl.dot(tl.trans(value), g_right, dw6, input_precision="tf32x3")
        dw2 = tl.dot(tl.trans(value), g_below, dw2, input_precision="tf32x3")
        dw0 = tl.dot(tl.trans(value), g_both, dw0, input_precision="tf32x3")
        t1, t2 = masked(acc, value, dx, x_raw, first + (S + 1) * C_IN, ok, mean, rstd)
        s1 += t1
        s2 += t2
    tl.atomic_add(gx_beta + ci, s1)
    tl.atomic_add(gx_gamma + ci, s2)
    to = ci[:, None] * C_OUT + co[None, :]
    tl.atomic_add(dw_side + to, dws)
    tl.atomic_add(dw + to, dw0)
    tl.atomic_add(dw + to + 1 * C_IN * C_OUT, dw1)
    tl.atomic_add(dw + to + 2 * C_IN * C_OUT, dw2)
    tl.atomic_add(dw + to + 3 * C_IN * C_OUT, dw3)
    tl.atomic_add(dw + to + 4 * C_IN * C_OUT, dw4)
    tl.atomic_add(dw + to + 5 * C_IN * C_OUT, dw5)
    tl.atomic_add(dw + to + 6 * C_IN * C_OUT, dw6)
    tl.atomic_add(dw + to + 7 * C_IN * C_OUT, dw7)
    tl.atomic_add(dw + to + 8 * C_IN * C_OUT, dw8)
