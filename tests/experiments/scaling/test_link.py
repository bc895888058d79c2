"""experiments.scaling.link: a link's latency and speed come back from the times of its all-reduces."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.scaling.link import fit_link

SIZES = 2.0 ** np.arange(10, 31)


def ring(learners: int, latency: float, per_byte: float) -> np.ndarray:
    """2(p−1) messages of a p-th of the bytes."""
    return 2 * (learners - 1) * (latency + SIZES / learners * per_byte)


@pytest.mark.parametrize("learners", [2, 3, 16])
@pytest.mark.parametrize(("latency", "per_byte"), [(1e-5, 5e-12), (1e-3, 1e-9), (0.0, 1e-9), (1e-4, 0.0)])
def test_a_link_is_recovered_from_its_all_reduces(learners: int, latency: float, per_byte: float) -> None:
    seconds = ring(learners, latency, per_byte)
    assert fit_link(SIZES, seconds, learners) == pytest.approx((latency, per_byte), rel=1e-6, abs=1e-18)


def test_a_link_is_recovered_from_noise() -> None:
    rng = np.random.default_rng(0)
    for latency, per_byte in [(2e-5, 5e-12), (1e-3, 1e-9)]:
        seconds = ring(4, latency, per_byte)
        noisy = seconds * np.exp(rng.normal(0, 0.05, len(SIZES)))
        assert fit_link(SIZES, noisy, 4) == pytest.approx((latency, per_byte), rel=0.06)


def test_a_fitted_link_is_the_best_that_is_not_negative() -> None:
    """Held against a search, on times that no link explains: growing faster than bytes, and falling."""
    for seconds in (SIZES**1.3, SIZES**-0.2, SIZES**0.5):
        latency, per_byte = fit_link(SIZES, seconds, 2)

        def loss(latency: float, per_byte: float, seconds: np.ndarray = seconds) -> float:
            return float((((2 * latency + SIZES * per_byte) / seconds - 1) ** 2).sum())

        best = loss(latency, per_byte)
        assert latency >= 0 and per_byte >= 0
        tiny = (1e-3 * max(latency, 1e-9), 1e-3 * max(per_byte, 1e-12))
        for da, db in [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)]:
            near = (latency + da * tiny[0], per_byte + db * tiny[1])
            assert min(near) < 0 or loss(*near) >= best


@pytest.mark.parametrize(
    ("sizes", "seconds", "learners"),
    [([1, 2], [1, 2], 1), ([8, 8], [1, 2], 2), ([1, 2], [0, 1], 2), ([1, -2], [1, 1], 2)],
)
def test_what_tells_no_link_is_refused(sizes: list[float], seconds: list[float], learners: int) -> None:
    with pytest.raises(ValueError, match=r"positive numbers|at least 2"):
        fit_link(sizes, seconds, learners)
