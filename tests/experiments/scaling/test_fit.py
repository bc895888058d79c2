"""experiments.scaling.fit: known parameters come back, intervals cover, and what can't be fitted is refused."""

from __future__ import annotations

import numpy as np
import pytest

from derivations import scaling
from experiments.scaling import fit as sf

SMALL, LARGE = np.array([1.0, 2.0, 4.0]), np.array([8.0, 16.0])
ONES = np.ones(3)


def rates(form: str, learners: sf.Array, batches: sf.Array, c: float, o: float, s: float) -> sf.Array:
    return learners / (c + o / batches + s * sf.GROWTH[form](learners) / batches)


def test_growth_is_the_derivations() -> None:
    assert [float(f(8)) for f in sf.GROWTH.values()] == [2 * 7 / 8, 14, 6]
    assert list(sf.GROWTH) == list(scaling.growth())


@pytest.mark.parametrize("form", list(sf.GROWTH))
def test_exact_points_give_their_parameters_back(form: str) -> None:
    points = np.array([1.0, 2.0, 4.0, 8.0])
    result = sf.fit(points, np.ones(4), rates(form, points, np.ones(4), 2e-3, 0, 3e-4))
    assert result.best.name == form and result.best.weight > 0.95
    assert result.best.parameters == pytest.approx([2e-3, 3e-4])
    wanted = rates(form, LARGE, np.ones(2), 2e-3, 0, 3e-4)
    assert result.predict(LARGE, np.ones(2), form=form) == pytest.approx(wanted)


def test_the_rings_bandwidth_predicts() -> None:
    """1 image/s alone, then 2/(1 + 0.2) and 4/(1 + 0.3): k(p) = 2(p − 1)/p is 1 and 1.5, so s = 0.2. At 8: 7/4."""
    result = sf.fit(SMALL, ONES, np.array([1, 2 / 1.2, 4 / 1.3]))
    assert result.predict(np.array([8.0]), np.ones(1)) == pytest.approx(8 / (1 + 0.2 * 7 / 4))
    assert result.parts(np.array([8.0]), np.ones(1))[:, 0] == pytest.approx([1, 0, 0.35])


def test_batches_tell_overhead_from_computation() -> None:
    learners, batches = np.tile([1.0, 2.0, 4.0, 8.0], 2), np.repeat([64.0, 32.0], 4)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.002, 8))
    result = sf.fit(learners, batches, rates("bandwidth", learners, batches, 2e-2, 6e-2, 4e-2) * noise)
    assert result.overhead and result.freedom == 5 and result.best.name == "bandwidth"
    assert result.best.parameters == pytest.approx([2e-2, 6e-2, 4e-2], rel=0.15)
    assert 0.0005 < result.best.noise < 0.006
    compute, overhead, exposed = result.parts(np.array([4.0]), np.array([32.0]))[:, 0]
    assert 4 / (compute + overhead + exposed) == pytest.approx(result.predict(np.array([4.0]), np.array([32.0]))[0])


def test_communication_is_never_negative() -> None:
    result = sf.fit(SMALL, ONES, np.array([100.0, 203.0, 409.0]))  # better than ideal, by noise
    assert all((form.parameters >= 0).all() for form in result.forms)
    assert np.isfinite(result.predict(LARGE, np.ones(2))).all()
    assert (result.predict(LARGE, np.ones(2)) <= LARGE * 103).all()


def test_as_many_parameters_as_points_leave_no_interval() -> None:
    result = sf.fit(np.array([1.0, 2.0]), np.ones(2), np.array([100.0, 190.0]))
    assert result.freedom == 0 and np.isfinite(result.predict(LARGE, np.ones(2))).all()
    assert np.isnan(result.interval(LARGE, np.ones(2), np.random.default_rng(0))).all()


def test_extra_time_is_added_to_each_image() -> None:
    result = sf.fit(SMALL, ONES, SMALL / 2e-3)
    assert result.predict(LARGE, np.ones(2), extra=2e-3) == pytest.approx(LARGE / 4e-3)
    low, high = result.interval(LARGE, np.ones(2), np.random.default_rng(0), extra=2e-3, draws=100)
    assert (low <= LARGE / 4e-3 * 1.000001).all() and (high >= LARGE / 4e-3 * 0.999999).all()


def test_predictions_stay_finite_whatever_the_noise() -> None:
    result = sf.fit(SMALL, ONES, np.array([100.0, 120.0, 390.0]))  # hardly a scaling curve
    bounds = result.interval(LARGE, np.ones(2), np.random.default_rng(0))
    assert np.isfinite(bounds).all() and (bounds > 0).all() and (bounds[0] < bounds[1]).all()


@pytest.mark.parametrize("noise", [0.003, 0.02])
def test_intervals_cover_at_about_their_nominal_rate(noise: float) -> None:
    """Over truths drawn from the three forms; a binomial share of 240 at 80 % has a standard deviation of 2.6 %."""
    rng, inside, count = np.random.default_rng(1), np.zeros(2), 240
    for i in range(count):
        form = list(sf.GROWTH)[i % 3]
        lost = rng.uniform(0.02, 0.15)  # of the time at 4 learners
        s = lost / (1 - lost) / sf.GROWTH[form](4.0)
        seen, unseen = (rates(form, p, np.ones(len(p)), 1.0, 0.0, s) for p in (SMALL, LARGE))
        result = sf.fit(SMALL, ONES, seen * np.exp(rng.normal(0, noise, 3)))
        low, high = result.interval(LARGE, np.ones(2), rng, draws=200)
        again = unseen * np.exp(rng.normal(0, noise, 2))
        inside += (low <= again) & (again <= high)
    assert (inside / count > 0.7).all() and (inside / count < 0.92).all(), inside / count


def test_wider_levels_give_wider_intervals() -> None:
    result = sf.fit(SMALL, ONES, np.array([417.0, 821.0, 1623.0]))
    narrow, wide = (result.interval(LARGE, np.ones(2), np.random.default_rng(0), level=x) for x in (0.5, 0.95))
    assert (wide[0] < narrow[0]).all() and (wide[1] > narrow[1]).all()


@pytest.mark.parametrize(
    ("learners", "values", "message"),
    [
        ([1, 2], [1, np.nan], "positive numbers"),
        ([1, 2], [1, 0], "positive numbers"),
        ([1, 2], [1, np.inf], "positive numbers"),
        ([2, 4], [1, 2], "of 1 learner and of more"),
        ([1], [1], "two points are needed"),
        ([1, 1], [1, 1], "of 1 learner and of more"),
        ([1, 2, 4], [1, 1000, 1001], "no time is left to compute"),
    ],
)
def test_points_that_can_not_be_fitted(learners: list[float], values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sf.fit(np.array(learners, float), np.ones(len(learners)), np.array(values, float))
