"""The step-time model of derivations/scaling.py, fitted to throughputs, and intervals for its predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.optimize import nnls

from derivations import scaling

LEVEL = 0.8
# The form that predicts. Chosen once, on fitted points alone: fitted to the smaller of them, it came nearest to the
# largest (`predictions.choices` has the errors of each form and of their mean).
PREDICTS = "bandwidth"
# No throughput is printed or measured more exactly: a fit that passes through its points by luck proves nothing.
LEAST_NOISE = 1e-3
# Nor is any more uncertain: a single degree of freedom would allow absurdly large draws.
MOST_NOISE = 0.5
Array = NDArray[np.float64]
GROWTH = {name: sp.lambdify(scaling.p, expression, "numpy") for name, expression in scaling.growth().items()}


@dataclass(frozen=True)
class Form:
    """One form of communication, fitted."""

    name: str
    parameters: Array  # (c[, o], s), seconds
    noise: float  # relative standard deviation of a throughput; 0 without a degree of freedom
    weight: float


@dataclass(frozen=True)
class Fit:
    """A series' fit and its points, (n,) each: learners, images a learner in a step, images/s."""

    learners: Array
    batches: Array
    rates: Array
    overhead: bool  # whether o can be separated from c: batches differ, and there are enough points
    forms: tuple[Form, ...]

    @property
    def freedom(self) -> int:
        return len(self.rates) - len(self.forms[0].parameters)

    def form(self, name: str) -> Form:
        """One of the fitted forms."""
        return next(form for form in self.forms if form.name == name)

    @property
    def best(self) -> Form:
        """The form that explains the fitted points best."""
        return max(self.forms, key=lambda form: form.weight)

    def parts(self, learners: Array, batches: Array, form: str = PREDICTS) -> Array:
        """(3, n): seconds of computation, overhead and exposed communication an image."""
        parts = np.zeros((3, len(learners)))
        columns = (design(form, learners, batches, self.overhead) * self.form(form).parameters).T
        parts[[0, 1, 2] if self.overhead else [0, 2]] = columns
        return parts

    def predict(self, learners: Array, batches: Array, extra: Array | float = 0.0, form: str = PREDICTS) -> Array:
        """Images/s of all learners; ``extra`` seconds an image are added to what is fitted."""
        return learners / (self.parts(learners, batches, form).sum(0) + extra)

    def interval(
        self,
        learners: Array,
        batches: Array,
        rng: np.random.Generator,
        extra: Array | float = 0.0,
        level: float = LEVEL,
        draws: int = 2000,
    ) -> Array:
        """(2, n): the interval for a new measurement, by a parametric bootstrap; NaN without a degree of freedom.

        Each draw picks a form by its weight, and a noise that the residuals allow, σ̂·√(ν/χ²_ν): few degrees of freedom
        ν say little about it. It makes the fitted points anew, fits them, and adds a new measurement's noise.
        """
        if not self.freedom:
            return np.full((2, len(learners)), np.nan)
        times = np.empty((draws, len(learners)))
        for i, chosen in enumerate(rng.choice(len(self.forms), draws, p=[form.weight for form in self.forms])):
            form = self.forms[chosen]
            sigma = min(form.noise * np.sqrt(self.freedom / rng.chisquare(self.freedom)), MOST_NOISE)
            matrix = design(form.name, self.learners, self.batches, self.overhead)
            # Noise multiplies, so that no time becomes negative however large it is.
            again = solve(matrix, matrix @ form.parameters * np.exp(rng.normal(0, sigma, len(self.rates))))
            time = design(form.name, learners, batches, self.overhead) @ again + extra
            times[i] = time * np.exp(rng.normal(0, sigma, len(learners)))
        low, high = np.quantile(times, [(1 + level) / 2, (1 - level) / 2], axis=0)
        return np.stack([learners / low, learners / high])


def design(form: str, learners: Array, batches: Array, overhead: bool) -> Array:
    """(n, 2 or 3): the factors of c, of o where there is one, and of s."""
    columns = [np.ones(len(learners)), GROWTH[form](learners) / batches]
    return np.stack([columns[0], 1 / batches, columns[1]] if overhead else columns, axis=1)


def solve(matrix: Array, times: Array) -> Array:
    """The parameters, none negative, that minimise the squares of relative errors of (n,) seconds an image."""
    return nnls(matrix / times[:, None], np.ones(len(times)))[0]


def fit(learners: Array, batches: Array, rates: Array) -> Fit:
    """Fit images/s of p learners with b images each; one learner must be among them.

    Raises ValueError for too few points, values that are not positive, or points that leave no time to compute.
    """
    for name, values in (("learners", learners), ("batches", batches), ("throughputs", rates)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"{name} must be positive numbers")
    overhead = len(set(batches)) > 1 and len(rates) > 2
    size = 3 if overhead else 2
    if len(set(learners)) < 2 or 1 not in learners:
        raise ValueError("two points are needed, of 1 learner and of more, beside the largest")
    times, freedom = learners / rates, len(rates) - size
    fitted = []
    for name in GROWTH:
        matrix = design(name, learners, batches, overhead)
        parameters = solve(matrix, times)
        if not parameters[0]:
            raise ValueError("throughput grows so much faster than learners that no time is left to compute")
        squares = float(((times / (matrix @ parameters) - 1) ** 2).sum())
        # The marginal likelihood for unknown noise, except for constants that the forms share.
        weight = (squares + len(rates) * LEAST_NOISE**2) ** (-freedom / 2)
        fitted.append(Form(name, parameters, float(np.sqrt(squares / freedom)) if freedom else 0.0, weight))
    total = sum(form.weight for form in fitted)
    forms = tuple(Form(form.name, form.parameters, form.noise, form.weight / total) for form in fitted)
    return Fit(learners, batches, rates, overhead, forms)
