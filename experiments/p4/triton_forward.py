"""The forward pass of a CIFAR ResNet in Triton: augmentation, convolutions, joins of blocks, head and loss."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def wait_for_grid(EARLY: tl.constexpr):
    """Where the kernel starts before the one that it waits for has ended: wait for that, let the one behind start."""
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def moments(total, square, count, c):
    """Mean and 1/σ of channels c from their sums."""
    mean = tl.load(total + c) / count
    variance = tl.load(square + c) / count - mean * mean
    return mean, 1 / tl.sqrt(tl.maximum(variance, 0.0) + 1e-5)


@triton.jit
def augment(
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
def conv_forward(
    x, w, y, x_sum, x_square, x_gamma, x_beta, x_count, y_sum, y_square, pixels, S: tl.constexpr, C: tl.constexpr,
    NORMALISE: tl.constexpr, SUMS: tl.constexpr, EARLY: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """y = conv3×3(x) as an implicit matrix product; x is first normalised and rectified where NORMALISE."""
    wait_for_grid(EARLY)
    ci = tl.arange(0, C)
    co = tl.arange(0, C)
    if NORMALISE:
        mean, rstd = moments(x_sum, x_square, x_count, ci)
        scale = tl.load(x_gamma + ci) * rstd
        shift = tl.load(x_beta + ci) - mean * scale
    total = tl.zeros([C], tl.float32)
    square = tl.zeros([C], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        p = tile * PIXELS + tl.arange(0, PIXELS)
        n = p // (S * S)
        h0 = (p // S) % S - 1
        v0 = p % S - 1
        acc = tl.zeros([PIXELS, C], tl.float32)
        for tap in tl.static_range(9):
            h = h0 + tap // 3
            v = v0 + tap % 3
            ok = ((p < pixels) & (h >= 0) & (h < S) & (v >= 0) & (v < S))[:, None]
            a = tl.load(x + ((n * S + h) * S + v)[:, None] * C + ci[None, :], mask=ok, other=0.0)
            if NORMALISE:
                a = tl.maximum(a.to(tl.float32) * scale[None, :] + shift[None, :], 0.0)
                a = tl.where(ok, a, 0.0).to(x.dtype.element_ty)
            b = tl.load(w + tap * C * C + ci[:, None] * C + co[None, :])
            acc = tl.dot(a, b, acc, input_precision="tf32x3")
        out = acc.to(y.dtype.element_ty)
        tl.store(y + p[:, None] * C + co[None, :], out, mask=(p < pixels)[:, None])
        if SUMS:
            rounded = out.to(tl.float32)
            total += tl.sum(rounded, 0)
            square += tl.sum(rounded * rounded, 0)
    if SUMS:
        tl.atomic_add(y_sum + co, total)
        tl.atomic_add(y_square + co, square)


@triton.jit
def join(
    y, y_sum, y_square, y_gamma, y_beta, s, s_sum, s_square, s_gamma, s_beta, count, out, pixels, C: tl.constexpr,
    SHORTCUT: tl.constexpr, EARLY: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """out = relu(bn(y) + shortcut), the shortcut absent (0), s itself (1) or bn(s) (2)."""
    wait_for_grid(EARLY)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    c = tl.arange(0, C)
    at = p[:, None] * C + c[None, :]
    ok = (p < pixels)[:, None]
    mean, rstd = moments(y_sum, y_square, count, c)
    scale = tl.load(y_gamma + c) * rstd
    shift = tl.load(y_beta + c) - mean * scale
    value = tl.load(y + at, mask=ok, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SHORTCUT > 0:
        other = tl.load(s + at, mask=ok, other=0.0).to(tl.float32)
        if SHORTCUT == 2:
            s_mean, s_rstd = moments(s_sum, s_square, count, c)
            s_scale = tl.load(s_gamma + c) * s_rstd
            other = (other - s_mean[None, :]) * s_scale[None, :] + tl.load(s_beta + c)[None, :]
        value += other
    tl.store(out + at, tl.maximum(value, 0.0).to(out.dtype.element_ty), mask=ok)


@triton.jit
def head(
    y, y_sum, y_square, gamma, beta, count, s, labels, fc_w, fc_b, dz, g_gamma, g_beta, g_w, g_b, metrics, images,
    classes, C: tl.constexpr, PIXELS: tl.constexpr, LOGITS: tl.constexpr, TRAIN: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Last block's join, average pooling, classifier, cross-entropy; when TRAIN their gradients, averaged over images.

    Adds the summed loss to metrics[0] and the number of misclassified images to metrics[1].
    """
    wait_for_grid(EARLY)
    c = tl.arange(0, C)
    k = tl.arange(0, LOGITS)
    p = tl.arange(0, PIXELS)
    mean, rstd = moments(y_sum, y_square, count, c)
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
