"""Projected speed and cost of more learners, from one learner's step and an all-reduce, measured by itself or given.

The method is that of `predictions.by_link`: a step of p learners is one learner's step plus a ring's all-reduce. The
value assumes that none of the all-reduce is hidden. The interval covers one learner's repetitions. Its upper end hides
as much of the all-reduce as the backward pass lasts; its lower end allows for the method's largest overestimate, on the
committed GPUs or for the folder's own larger jobs. The method ignores that cores of one host share its memory: there it
promises far too much, and the interval shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.cli import UsageError
from experiments.machine.device_names import short_name
from experiments.scaling import prices, published
from experiments.scaling.link import exposed_seconds, fit_link, ring_seconds
from experiments.scaling.series import (
    as_points,
    horovod_epochs,
    one_allocation,
    records,
    strategy_epochs,
    throughputs,
)
from experiments.store import epochs, parquet, suspicious

HOMEWORK_IMAGES = 10 * 60_000  # Problem 2's ten epochs of Fashion-MNIST
NETWORK = "ResNet-50"


@dataclass(frozen=True)
class Link:
    """An all-reduce's latency (s) and seconds a byte of each message, and where they come from."""

    alpha: float
    beta: float
    source: str
    given: bool = False  # not that of the measured jobs

    def seconds(self, learners: int, size: float) -> float:
        """Seconds of a ring's all-reduce of `size` bytes."""
        return ring_seconds(learners, size, self.alpha, self.beta)


@dataclass(frozen=True)
class Series:
    """Runs of one setting in one allocation: images/s of each repetition, by the number of learners."""

    name: str
    device: str
    allocation: str
    batch: float  # images of a learner in a step
    rates: dict[int, list[float]]


@dataclass(frozen=True)
class Projected:
    """The projection for a number of learners."""

    learners: int
    rate: float  # images/s
    low: float
    high: float
    efficiency: float
    hours: float  # of the homework's job
    cost: float | None  # USD
    measured: float | None  # images/s, where the folder has it


def series(results: Path) -> Series:
    """The most informative series: Problem 1's before Problem 2's weak one, GPUs, most sizes, most runs, the latest.

    Raises UsageError without one that has a single learner.
    """
    horovod, distributed = horovod_epochs(results), strategy_epochs(results)
    for rows, batch in ((horovod, "batch_size"), (distributed[distributed.scaling == "weak"], "per_learner_batch")):
        rows = one_allocation(rows[rows.hosts == 1])
        with_one = [own for _, own in rows.groupby(["series", batch]) if (own.learners == 1).any()]
        if with_one:
            best = max(with_one, key=_says)
            return _series(epochs.counted(best), batch)
    raise UsageError(f"{results} has no run of one learner; make some: python experiments/measure.py")


def _says(own: pd.DataFrame) -> tuple[bool, int, int, Any]:
    gpu = bool((own.device_kind == "gpu").all())
    return gpu, own.learners.nunique(), own.run_id.nunique(), own.started.max()


def _series(rows: pd.DataFrame, batch: str) -> Series:
    first = rows.iloc[0]
    rates: dict[int, list[float]] = {}
    for _, run in rows.groupby("run_id"):
        point = as_points(run, batch, float("nan"))
        rates.setdefault(int(point.learners.iloc[0]), []).append(float(point.images_per_second.iloc[0]))
    return Series(first.series, first.device, first.allocation, float(first[batch]), dict(sorted(rates.items())))


def measured_link(results: Path, allocation: str) -> Link | None:
    """The link of the largest all-reduce timed by itself on one host of that allocation; None without any."""
    timed = suspicious.trusted(parquet.read("allreduce", results), suspicious.find("allreduce", results))
    timed = timed[(timed.hosts == 1) & (timed.kind == "measured") & (timed.allocation == allocation)]
    if timed.empty:
        return None
    between = int(timed.learners.max())
    seconds = timed[timed.learners == between].groupby("bytes").seconds.median()
    if len(seconds) < 2:
        return None
    backend = {"nccl": "NCCL", "gloo": "Gloo"}[timed.backend.iloc[0]]
    return Link(*fit_link(seconds.index, seconds, between), f"{backend}'s all-reduce between {between}, measured")


def given_link(gbit: float) -> Link:
    """A network of that speed between learners, with no latency."""
    return Link(0.0, 8e-9 / gbit, f"a link of {gbit:g} Gbit/s, given", given=True)


def rate(one: float, batch: float, learners: int, communication: float, hidden: bool) -> float:
    """Images/s of a number of learners, each as fast as one that does `one` images/s alone."""
    step = batch / one
    return learners * batch / (step + (exposed_seconds(communication, step, hidden) if learners > 1 else 0.0))


def project(
    own: Series, link: Link, numbers: list[int], too_much: float = 0.0, price: float | None = None
) -> list[Projected]:
    """One learner as measured, then each number of learners. `too_much` is the method's largest relative overestimate
    elsewhere; the folder's own larger jobs are projected too, and can only raise it. Over a link that is given they say
    nothing, as they ran over another."""
    size = float(published.networks()[NETWORK][0])
    alone = own.rates[1]
    one = float(pd.Series(alone).median())
    seen = {p: float(pd.Series(rates).median()) for p, rates in own.rates.items() if p == 1 or not link.given}
    here = [rate(one, own.batch, p, link.seconds(p, size), hidden=False) / seen[p] - 1 for p in seen if p > 1]
    too_much = max([too_much, *here])
    found = []
    for p in sorted({1, *numbers, *seen}):
        time = link.seconds(p, size)
        value = rate(one, own.batch, p, time, hidden=False)
        low = rate(min(alone), own.batch, p, time, hidden=False) / (1 + (too_much if p > 1 else 0.0))
        high = rate(max(alone), own.batch, p, time, hidden=True)
        seconds = HOMEWORK_IMAGES / value
        cost = None if price is None else prices.cost(price, p, seconds)
        found.append(Projected(p, value, low, high, value / p / one, seconds / 3600, cost, seen.get(p)))
    return found


# ---- the method's errors elsewhere -----------------------------------------------------------------------------------


def on_committed(results: Path) -> pd.DataFrame:
    """The method's errors on the committed GPUs, by `scaling_fit`: device, learners, error (nothing hidden)."""
    rows = parquet.read("scaling_fit", results)
    rows = rows[rows.method == "link, nothing hidden"]
    device = rows.series.str.split(", ").str[1]
    return pd.DataFrame({"device": device, "learners": rows.learners, "error": rows.error})


def on_published(frame: pd.DataFrame) -> pd.DataFrame:
    """The method's errors on published clusters whose link is stated, from their one learner: series, learners, error.

    A ring that visits node after node sends every byte through a node's link once, however many learners the node has.
    """
    found = []
    points = throughputs(frame)
    points = points[points.link_gbit_per_second.notna() & points.gradient_bytes.notna()]
    for _, own in points.groupby(["series", "per_learner_batch"]):
        alone = own[own.learners == 1].images_per_second
        for point in records(own[own.learners > own.node_learners]) if len(alone) else ():
            learners = int(point.learners)
            time = given_link(point.link_gbit_per_second).seconds(learners, point.gradient_bytes)
            value = rate(float(alone.iloc[0]), point.per_learner_batch, learners, time, hidden=False)
            error = value / point.images_per_second - 1
            found.append({"series": point.series, "learners": learners, "error": error})
    return pd.DataFrame(found, columns=["series", "learners", "error"])


def errors_text(committed: pd.DataFrame, public: pd.DataFrame, own: list[Projected]) -> list[str]:
    """A line for each set of runs that can check the method: the range of predicted over measured."""
    here = pd.DataFrame({"error": [p.rate / p.measured - 1 for p in own if p.measured and p.learners > 1]})
    named = (
        (f"committed GPUs ({', '.join(sorted(set(map(_gpu, committed.device))))})", committed),
        ("published K80 clusters", public),
        ("this folder's own larger jobs", here),
    )
    return [f"{name}: {_errors(frame.error)}" for name, frame in named if len(frame)]


def _errors(errors: pd.Series) -> str:
    """Their range, in percent."""
    if len(errors) == 1:
        return f"{errors.iloc[0]:+.1%} (1 point)"
    return f"{errors.min():+.1%} to {errors.max():+.1%} ({len(errors)} points)"


def _gpu(device: str) -> str:
    return short_name(device).removeprefix("NVIDIA ")


def most_promised(committed: pd.DataFrame) -> float:
    """The method's largest relative overestimate."""
    return max(0.0, float(committed.error.max())) if len(committed) else 0.0
