"""Predictions of a fit for points that it has not seen: held out, of other networks, of the homework's machines."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from derivations import scaling
from experiments.machine.device_names import short_name
from experiments.scaling import published
from experiments.scaling.fit import GROWTH, LEVEL, PREDICTS, Array, Fit, fit
from experiments.scaling.link import exposed_seconds, fit_link, ring_seconds
from experiments.scaling.series import Row, as_points, horovod_epochs, records, throughputs
from experiments.store import parquet, schemas, suspicious

EXPERIMENT = "scaling_fit"
FIT_UP_TO = 4
# The homework's jobs: up to 8 K80 in a node, two nodes, and Problem 2's effective batch.
HOMEWORK_LEARNERS = (1, 2, 4, 8, 16)
WEAK_BATCH, STRONG_BATCH = 64, 256


def row(method: str, role: str, point: Any, predicted: float, **more: Any) -> Row:
    """A row of the schema; columns that are not given are empty."""
    observed = getattr(point, "images_per_second", None)
    known = {name: getattr(point, name, None) for name in ("learners", "per_learner_batch", "gradient_bytes", "source")}
    known |= {"link_gbit_per_second": getattr(point, "link_gbit_per_second", None)}
    blank = {field.name: None for field in schemas.SCHEMAS[EXPERIMENT]}
    error = None if observed is None else predicted / observed - 1
    filled = {"series": point.series, "network": point.network, "unit": "images/s", "method": method, "role": role}
    return blank | filled | known | {"observed": observed, "predicted": predicted, "error": error} | more


def held_out(points: pd.DataFrame) -> pd.Series:
    """Whether a point is predicted: more than 4 learners (or than the second smallest number), and the largest."""
    numbers = sorted(set(points.learners))
    limit = max([FIT_UP_TO, *numbers[1:2]])
    return (points.learners > limit) | ((points.learners == numbers[-1]) & (len(numbers) > 1))


def arrays(points: pd.DataFrame) -> tuple[Array, Array]:
    """Learners and batches; where a series states no batch, its unit is the batch."""
    return points.learners.to_numpy(float), points.per_learner_batch.fillna(1.0).to_numpy(float)


def fitted(points: pd.DataFrame) -> Fit:
    """The fit of the points of a series that are not held out. Raises ValueError as `fit` does."""
    seen = points[~held_out(points)]
    return fit(*arrays(seen), seen.images_per_second.to_numpy(float))


def described(result: Fit, learners: Array, batches: Array, points: pd.DataFrame) -> list[Row]:
    """The model's parameters at each point, for the columns of the schema."""
    said = points.drop_duplicates(["learners", "per_learner_batch"])
    seen = ", ".join(f"{int(p)}" for p in sorted(set(said.learners[~held_out(said)])))
    size, stated = points.gradient_bytes.iloc[0], points.per_learner_batch.notna().all()
    rows = []
    for p, b, (compute, overhead, exposed) in zip(learners, batches, result.parts(learners, batches).T, strict=True):
        speed = 2 * (p - 1) / p * size / (exposed * b) if stated and exposed > 0 and not np.isnan(size) else None
        rows.append(
            {
                "form": PREDICTS,
                "form_weight": result.form(PREDICTS).weight,
                "freedom": result.freedom,
                "compute_seconds": float(compute),
                "overhead_seconds": float(overhead * b) if result.overhead else None,
                "exposed_seconds": float(exposed),
                "bus_bytes_per_second": speed,
                "fit_points": seen,
            }
        )
    return rows


def curve(points: pd.DataFrame, level: float, draws: int, rng: np.random.Generator) -> list[Row]:
    """Fit a series' small numbers of learners and predict all its points."""
    result, out = fitted(points), held_out(points)
    learners, batches = arrays(points)
    predicted = result.predict(learners, batches)
    bounds = np.full((2, len(points)), np.nan)
    bounds[:, out.to_numpy()] = result.interval(learners[out], batches[out], rng, level=level, draws=draws)
    more = described(result, learners, batches, points)
    rows = []
    for point, value, low, high, away, said in zip(records(points), predicted, *bounds, out, more, strict=True):
        interval = {"low": float(low), "high": float(high)} if away else {}
        rows.append(row("curve", "held out" if away else "fitted", point, float(value), **interval, **said))
    return rows


def choices(points: pd.DataFrame) -> list[Row]:
    """Predictions of the largest fitted points by each form, and by their mean time, fitted to the smaller ones alone.

    `fit.PREDICTS` was chosen by these errors. No held-out point takes part.
    """
    rows = []
    for _, own in points.groupby("series", sort=False):
        seen = own[~held_out(own)]
        few, last = (seen[keep] for keep in (seen.learners < seen.learners.max(), seen.learners == seen.learners.max()))
        if few.learners.nunique() < 2:
            continue
        result = fit(*arrays(few), few.images_per_second.to_numpy(float))
        learners, batches = arrays(last)
        times = {name: result.parts(learners, batches, name).sum(0) for name in GROWTH}
        times["mean"] = sum((form.weight * times[form.name] for form in result.forms), np.zeros(len(last)))
        said = ", ".join(f"{int(p)}" for p in sorted(set(few.learners)))
        for name, seconds in times.items():
            for point, rate in zip(records(last), learners / seconds, strict=True):
                rows.append(row(f"choice, {name}", "chosen on", point, float(rate), fit_points=said))
    return rows


def transfer(points: pd.DataFrame, lender: pd.DataFrame) -> list[Row]:
    """Computation from this series' one learner, exposed communication an image from all points of another precision.

    Assumes the same gradient bytes and images a learner in both.
    """
    alone, *others = records(points.sort_values("learners"))
    name = lender.series.iloc[0]
    lent = dict(zip(lender.learners, lender.learners / lender.images_per_second, strict=True))
    compute = 1 / float(alone.images_per_second)
    rows = [row("borrowed", "fitted", alone, float(alone.images_per_second), compute_seconds=compute, fit_points="1")]
    for point in others:
        exposed = max(0.0, lent[point.learners] - lent[1])
        predicted = point.learners / (compute + exposed)
        more = {"compute_seconds": compute, "exposed_seconds": exposed, "fit_points": f"1, and {name}"}
        rows.append(row("borrowed", "held out", point, predicted, **more))
    return rows


def by_link(results: Path) -> tuple[list[Row], list[str]]:
    """Problem 1's GPUs from one of them and the time of an all-reduce by itself, and the ids of the runs used.

    All were measured in one allocation. Nothing is fitted to a job of several. Where the all-reduce was not timed
    between as many GPUs, the link's latency and speed come from the largest number that was. Either nothing of the
    all-reduce is hidden, or as much as the backward pass lasts; the truth lies between, if a GPU among several computes
    as one alone does.
    """
    rows, timed = horovod_epochs(results), parquet.read("allreduce", results)
    timed = suspicious.trusted(timed, suspicious.find("allreduce", results))
    rows = rows[(rows.device_kind == "gpu") & (rows.hosts == 1)]
    timed = timed[(timed.backend == "nccl") & (timed.hosts == 1) & (timed.kind == "measured")]
    size = float(published.networks()["ResNet-50"][0])
    made: list[Row] = []
    runs: set[str] = set()
    for where, windows in timed.groupby("allocation"):
        own = rows[rows.allocation == where]
        if own.empty:
            continue
        for _, points in as_points(own, "batch_size", size).groupby(["series", "per_learner_batch"]):
            alone = points[points.learners == 1]
            for several in records(points[points.learners > 1]) if len(alone) else ():
                made += linked(several, float(alone.images_per_second.iloc[0]), windows)
                runs |= {*own.run_id, *windows.run_id}
    return made, sorted(runs)


def linked(several: Any, rate: float, windows: pd.DataFrame) -> list[Row]:
    """A point of several GPUs from one GPU's images/s and the all-reduces timed in its allocation."""
    numbers = set(windows.learners)
    between = int(several.learners if several.learners in numbers else max(numbers))
    windows = windows[windows.learners == between]
    seconds = windows.groupby("bytes").seconds.median()
    alpha, beta = fit_link(seconds.index, seconds, between)
    communication = ring_seconds(several.learners, several.gradient_bytes, alpha, beta)
    batch = several.per_learner_batch
    step = batch / rate
    made = []
    for hiding, hidden in (("nothing hidden", False), ("backward pass hides", True)):
        exposed = exposed_seconds(communication, step, hidden)
        more: Row = {"compute_seconds": step / batch, "exposed_seconds": exposed / batch}
        name = short_name(windows.device.iloc[0])
        more |= {"fit_points": f"1, and NCCL's all-reduce between {between} of {name}"}
        predicted = several.learners * batch / (step + exposed)
        made.append(row(f"link, {hiding}", "held out", several, predicted, **more))
    return made


def by_gradients(frame: pd.DataFrame, reference: str = "ResNet-101") -> list[Row]:
    """A network's efficiency from another's at as many learners, by the bytes of their gradients.

    The all-reduce takes time in proportion to bytes; its ratio to the computation decides. Computation is either in
    proportion to MACs or a P100's published time. Either nothing of the all-reduce is hidden, or as much as the
    backward pass lasts. All four are predicted, as the published efficiencies can't tell which holds.
    """
    known, seconds = published.networks(), published.p100_seconds(frame)
    work = {"MACs": {name: float(macs) for name, (_, macs) in known.items()}, "P100 seconds": seconds}
    rows = []
    for learners, points in frame[frame.unit == "efficiency"].groupby("learners"):
        base = points[points.network == reference]
        for point in records(points[points.network.isin(set(known)) & (points.network != reference)]):
            for measure, needed in work.items():
                if base.empty or not {point.network, reference} <= set(needed):
                    continue
                density = {name: known[name][0] / needed[name] for name in (point.network, reference)}
                ratio = density[point.network] / density[reference]
                for hiding, hidden in (("nothing hidden", 0.0), ("backward pass hides", float(scaling.BACKWARD))):
                    whole = 1 / float(base.value.iloc[0]) - 1 + hidden
                    predicted = 1 / (1 + max(0.0, whole * ratio - hidden))
                    efficiency = {"unit": "efficiency", "observed": point.value, "error": predicted / point.value - 1}
                    made = {
                        "gradient_bytes": float(known[point.network][0]),
                        "fit_points": f"{reference}: {learners:g}",
                    }
                    rows.append(
                        row(f"bytes per {measure}, {hiding}", "held out", point, predicted, **efficiency, **made)
                    )
    return rows


def homework(points: pd.DataFrame, level: float, draws: int, rng: np.random.Generator) -> list[Row]:
    """The homework's jobs on 1 to 16 K80, by `derivations.scaling.hierarchical`.

    Inside a node communication is what was fitted for its learners, so that of 16 is that of 8. Between two nodes as
    many rings as a node has learners share its link; nothing of them is taken to be hidden, and they have no latency.
    Weak scaling has 64 images a learner, strong scaling 256 in all.
    """
    node, cluster = points[points.series == published.K80_NODE], points[points.series == published.K80_CLUSTER]
    if node.empty or cluster.empty:
        return []
    result = fitted(node)
    inside, link = cluster.node_learners.iloc[0], cluster.link_gbit_per_second.iloc[0] * 1e9 / 8
    size, source = node.gradient_bytes.iloc[0], node.source.iloc[0] + "; " + cluster.source.iloc[0]
    outside = scaling.hierarchical() - scaling.hierarchical().subs(scaling.m, 1)
    shared = {scaling.n: size, scaling.beta_out: inside / link, scaling.alpha_out: 0, scaling.g: inside}
    rows = []
    learners = np.array(HOMEWORK_LEARNERS, float)
    nodes = np.ceil(learners / inside)
    local = learners / nodes
    between = np.array([float(outside.subs(shared | {scaling.m: int(m)})) for m in nodes])
    for name, batches in (
        (f"K80, weak scaling, {WEAK_BATCH} a learner", np.full(len(learners), float(WEAK_BATCH))),
        (f"K80, strong scaling, {STRONG_BATCH} in all", STRONG_BATCH / learners),
    ):
        extra = between / batches
        predicted = nodes * result.predict(local, batches, extra)
        low, high = nodes * result.interval(local, batches, rng, extra, level, draws)
        more = described(result, local, batches, node)
        for i, (p, b) in enumerate(zip(learners, batches, strict=True)):
            point = SimpleNamespace(series=name, network="ResNet-50", learners=p, per_learner_batch=b)
            made = more[i] | {"gradient_bytes": size, "source": source, "low": float(low[i]), "high": float(high[i])}
            made |= {"exposed_seconds": more[i]["exposed_seconds"] + float(extra[i]), "bus_bytes_per_second": None}
            made |= {"link_gbit_per_second": link * 8e-9 if nodes[i] > 1 else None}
            rows.append(row("homework", "projected", point, float(predicted[i]), **made))
    return rows


def predictions(
    frame: pd.DataFrame, extra: pd.DataFrame, level: float = LEVEL, draws: int = 2000, seed: int = 0
) -> list[Row]:
    """All rows, of published and of measured points; a series that can't be predicted is named on stderr."""
    rng = np.random.default_rng(seed)
    printed = throughputs(frame)
    points = printed if extra.empty else pd.concat([printed, extra], ignore_index=True)
    rows: list[Row] = []
    for name, own in points.groupby("series", sort=False):
        others = points[(points.setting == own.setting.iloc[0]) & (points.series != name)]
        lenders = [x for _, x in others.groupby("series") if set(own.learners) <= set(x.learners)]
        if len(own) == 2 and own.learners.min() == 1 and lenders:
            rows += transfer(own, lenders[0])
            continue
        try:
            rows += curve(own, level, draws, rng)
        except ValueError as error:
            print(f"scaling_fit: {name} is left out: {error}", file=sys.stderr)
    return rows + choices(printed) + by_gradients(frame) + homework(printed, level, draws, rng)
