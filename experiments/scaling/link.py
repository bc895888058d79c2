"""A link's latency and speed from timed all-reduces, and the time of a ring over such a link."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from derivations.scaling import BACKWARD, alpha, beta, n, p, ring


def fit_link(sizes: ArrayLike, seconds: ArrayLike, learners: int) -> tuple[float, float]:
    """(α in s, β in s/byte), neither negative, of the ring nearest to all-reduces of (k,) bytes in (k,) seconds.

    Least squares of relative errors, as sizes span magnitudes. Raises ValueError for fewer than 2 learners or sizes,
    or values that are not positive.
    """
    x, y = np.asarray(sizes, float), np.asarray(seconds, float)
    if not (np.isfinite([x, y]).all() and (x > 0).all() and (y > 0).all()):
        raise ValueError("bytes and seconds must be positive numbers")
    if learners < 2 or len(np.unique(x)) < 2:
        raise ValueError("a link's latency and speed need at least 2 learners and 2 sizes")
    a, t = 1 / y, x / y  # factors of latency and seconds a byte in fitted over measured seconds
    normal = np.array([[a @ a, a @ t], [a @ t, t @ t]])
    wanted = np.array([a.sum(), t.sum()])
    # With two sizes the determinant is positive. If one parameter is negative, it is zero in the best allowed fit.
    latency, transfer = (normal[::-1, ::-1] * [[1, -1], [-1, 1]]) @ wanted / np.linalg.det(normal)
    if latency < 0:
        latency, transfer = 0.0, wanted[1] / normal[1, 1]
    elif transfer < 0:
        latency, transfer = wanted[0] / normal[0, 0], 0.0
    messages, share = (float(ring().coeff(symbol).subs({p: learners, n: 1})) for symbol in (alpha, beta))
    return float(latency / messages), float(transfer / share)


def ring_seconds(learners: int, size: float, latency: float, transfer: float) -> float:
    """Seconds of a ring's all-reduce of `size` bytes over links of α = latency (s) and β = transfer (s/byte)."""
    return float(ring().subs({p: learners, n: size, alpha: latency, beta: transfer}))


def exposed_seconds(communication: float, step: float, hidden: bool) -> float:
    """Seconds of communication that a step exposes: all of it, or if `hidden`, what the backward pass can't hide."""
    return max(0.0, communication - (float(BACKWARD) * step if hidden else 0.0))
