"""Fit the step-time model of derivations/scaling.py to throughputs, and predict points that the fit has not seen.

    python experiments/scaling_fit.py                       published series, and measured ones of Problems 1 and 2
    python experiments/scaling_fit.py --references my.csv   any series in the same form

A learner that computes b images in a step spends on each of them

    τ(p, b) = c + o/b + s·k(p)/b        seconds,        and p learners do p/τ images a second.

c, o and s ≥ 0 are fitted: computation, overhead and exposed communication. Throughputs can't tell what is hidden from
what is fast, so s is what neither hides. How communication grows, k(p), depends on the cost that dominates it, which
few points can't tell either: a ring's bandwidth, a ring's latency or a tree (`derivations.scaling.growth`). All three
are fitted and weighted by how well they explain the fitted points; a prediction is their mean, its interval a bootstrap
over both noise and forms.

The points of up to 4 learners are fitted, and a series' largest is always predicted. A series of 1 and N learners alone
borrows its exposed communication from one on the same machine in another precision. Nothing is fitted for GPUs whose
all-reduce was timed by itself (experiments/allreduce.py): one GPU's step and that time predict the step of several.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import numpy as np
import pandas as pd
import scipy
import sympy as sp
from numpy.typing import NDArray
from scipy.optimize import nnls

from derivations import scaling
from experiments import epochs, published, schemas, store
from experiments.usage import UsageError, exit_status

EXPERIMENT = "scaling_fit"
# What all inputs are brought to; `setting` is what series have in common that differ in precision alone.
POINTS = ["series", "setting", "network", "learners", "per_learner_batch", "images_per_second", "gradient_bytes"]
POINTS += ["node_learners", "link_gbit_per_second", "source"]
FIT_UP_TO = 4
LEVEL = 0.8
# No throughput is printed or measured more exactly, so a fit that passes through its points by luck proves nothing.
LEAST_NOISE = 1e-3
# Nor is any this uncertain: one degree of freedom alone would allow draws beyond all numbers.
MOST_NOISE = 0.5
# The homework's jobs: up to 8 K80 in a node, two nodes, and Problem 2's effective batch.
HOMEWORK_LEARNERS = (1, 2, 4, 8, 16)
WEAK_BATCH, STRONG_BATCH = 64, 256

Array = NDArray[np.float64]
Row = dict[str, Any]
GROWTH = {name: sp.lambdify(scaling.p, expression, "numpy") for name, expression in scaling.growth().items()}


# ---- the model -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """One form of communication, fitted."""

    name: str
    parameters: Array  # (c[, o], s), seconds
    noise: float  # relative standard deviation of a throughput; 0 where no point is left over
    weight: float


@dataclass(frozen=True)
class Fit:
    """A series' points, (n,) each, and what they say: learners, images a learner in a step, images/s."""

    learners: Array
    batches: Array
    rates: Array
    overhead: bool  # whether o can be told from c: batches differ, and there are points enough
    forms: tuple[Form, ...]

    @property
    def freedom(self) -> int:
        return len(self.rates) - len(self.forms[0].parameters)

    @property
    def best(self) -> Form:
        """The form that explains the fitted points best."""
        return max(self.forms, key=lambda form: form.weight)

    def parts(self, learners: Array, batches: Array) -> Array:
        """(3, n): seconds of computation, overhead and exposed communication an image, mean over forms."""
        parts = np.zeros((3, len(learners)))
        for form in self.forms:
            columns = (design(form.name, learners, batches, self.overhead) * form.parameters).T
            parts[[0, 1, 2] if self.overhead else [0, 2]] += form.weight * columns
        return parts

    def predict(self, learners: Array, batches: Array, extra: Array | float = 0.0) -> Array:
        """Images/s of all learners; ``extra`` seconds an image are added to what is fitted."""
        return learners / (self.parts(learners, batches).sum(0) + extra)

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

        Each draw takes a form by its weight and a noise that its residuals allow, σ̂·√(ν/χ²_ν), as few degrees of
        freedom ν say little about it; makes the fitted points anew, fits them, and adds a new measurement's noise.
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
    """(n, 2 or 3): what multiplies c, o where there is one, and s."""
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
        # The marginal likelihood of unknown noise, but for constants that the forms share.
        weight = (squares + len(rates) * LEAST_NOISE**2) ** (-freedom / 2)
        fitted.append(Form(name, parameters, float(np.sqrt(squares / freedom)) if freedom else 0.0, weight))
    total = sum(form.weight for form in fitted)
    forms = tuple(Form(form.name, form.parameters, form.noise, form.weight / total) for form in fitted)
    return Fit(learners, batches, rates, overhead, forms)


# ---- inputs --------------------------------------------------------------------------------------------------------


def throughputs(frame: pd.DataFrame) -> pd.DataFrame:
    """The published throughputs as plain points."""
    rates = frame[frame.unit == "images/s"].rename(columns={"value": "images_per_second"})
    sizes = {name: float(size) for name, (size, _) in published.networks().items()}
    setting = rates[["framework", "network", "machine"]].agg(" ".join, axis=1)
    return rates.assign(gradient_bytes=rates.network.map(sizes), setting=setting)[POINTS]


def _measured(rows: pd.DataFrame, batch: str, size: float) -> pd.DataFrame:
    """Median over epochs of what all learners of a run did in the time of the slowest, as plain points."""
    named = rows.assign(per_learner_batch=rows[batch].astype(float))
    keys = ["series", "learners", "per_learner_batch"]
    whole = named.groupby([*keys, "run_id", "epoch"], as_index=False).agg(
        images=("images", "sum"), seconds=("seconds", "max")
    )
    whole["images_per_second"] = whole.images / whole.seconds
    points = whole.groupby(keys, as_index=False).images_per_second.median()
    more: Row = {"setting": points.series, "network": "ResNet-50", "gradient_bytes": size, "source": "measured"}
    return points.assign(**more, node_learners=np.nan, link_gbit_per_second=np.nan)[POINTS]


def one_allocation(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each series that come from one allocation, as rates compare within one only.

    The one with the most sizes, then with the most runs, then the latest.
    """
    if rows.empty:
        return rows
    alike = rows.groupby(["series", "allocation"])
    rank = alike.agg(sizes=("learners", "nunique"), runs=("run_id", "nunique"), started=("started", "max"))
    best = rank.sort_values(list(rank.columns)).reset_index().drop_duplicates("series", keep="last")
    return rows.merge(best[["series", "allocation"]], on=["series", "allocation"])


def _horovod(results: Path) -> pd.DataFrame:
    """Problem 1's epochs of learners that average, with the name of their series."""
    rows = epochs.read("p1_horovod", results)
    rows = rows[(rows.kind == "measured") & rows.allreduce.astype(bool)]
    names = []
    for row in records(rows):
        how = (", mixed precision" if row.precision == "mixed" else "") + (", compiled" if row.compiled else "")
        device = store.short_name(row.device)
        names.append(f"Horovod {row.framework}, {device}, {row.image_size} pixels{how}")
    return rows.assign(series=names)


def _distributed(results: Path) -> pd.DataFrame:
    """Problem 2's epochs, with the name of their series."""
    rows = epochs.read("p2_strategy", results)
    rows = rows[rows.kind == "measured"]
    names = []
    for row in records(rows):
        how = row.all_reduce if row.strategy == "mirrored" else row.communication
        setting = row.precision + (", XLA" if row.jit_compile else "")
        setting += f", {row.steps_per_execution} steps a call" if row.steps_per_execution > 1 else ""
        device, size = store.short_name(row.device), "" if row.image_size == 32 else f", {row.image_size} pixels"
        names.append(f"tf.distribute {row.strategy} {how}, {row.scaling}, {device}{size}, {setting}")
    return rows.assign(series=names)


def measured(results: Path) -> tuple[pd.DataFrame, list[str]]:
    """The points that Problems 1 and 2 have measured, and the ids of their runs; empty where there are none."""
    frames, runs = [], []
    horovod, distributed = one_allocation(_horovod(results)), one_allocation(_distributed(results))
    if len(horovod):
        # Where learners ran on more hosts than they need, a curve has the fewest.
        alike = horovod.groupby(["framework", "device_kind", "batch_size", "image_size", "learners"])
        horovod = horovod[horovod.hosts == alike.hosts.transform("min")]
        frames.append(_measured(horovod, "batch_size", float(published.networks()["ResNet-50"][0])))
    if len(distributed):
        # The homework's jobs of more than 8 learners have two hosts.
        extra = (distributed.hosts - 1 - (distributed.learners > 8)).abs()
        distributed = distributed[extra == extra.groupby([distributed.series, distributed.learners]).transform("min")]
        # Its ResNet-50 has another classifier, so its gradient is not the derived one.
        frames.append(_measured(distributed, "per_learner_batch", np.nan))
    runs = sorted({*horovod.run_id, *distributed.run_id})
    return (pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=POINTS)), runs


# ---- predictions ---------------------------------------------------------------------------------------------------


def records(frame: pd.DataFrame) -> list[Any]:
    """The frame's rows, with its columns as attributes."""
    return list(frame.itertuples(index=False))


def row(method: str, role: str, point: Any, predicted: float, **more: Any) -> Row:
    """A row of the schema; what is not given is empty."""
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
                "form": result.best.name,
                "form_weight": result.best.weight,
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


def transfer(points: pd.DataFrame, lender: pd.DataFrame) -> list[Row]:
    """Computation from this series' one learner, exposed communication an image from all points of another precision.

    That takes gradient bytes and images a learner to be the same in both.
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

    All were measured in one allocation. Nothing is fitted to a job of several. Either nothing of the all-reduce is
    hidden, or as much as the backward pass lasts; the truth lies between, if a GPU among several computes as one alone
    does.
    """
    rows, timed = _horovod(results), store.read("allreduce", results)
    rows = rows[(rows.device_kind == "gpu") & (rows.hosts == 1)]
    timed = timed[(timed.backend == "nccl") & (timed.hosts == 1) & (timed.kind == "measured")]
    size = float(published.networks()["ResNet-50"][0])
    made: list[Row] = []
    runs: set[str] = set()
    for where, learners in sorted({*zip(timed.allocation, timed.learners, strict=True)}):
        windows = timed[(timed.allocation == where) & (timed.learners == learners)]
        device = windows.device.iloc[0]
        seconds = windows.groupby("bytes").seconds.median()
        alpha, beta = scaling.fit_link(seconds.index, seconds, learners)
        link = {scaling.p: learners, scaling.n: size, scaling.alpha: alpha, scaling.beta: beta}
        communication = float(scaling.ring().subs(link))
        own = rows[(rows.allocation == where) & rows.learners.isin([1, learners])]
        if own.empty:
            continue
        runs |= {*own.run_id, *windows.run_id}
        for _, points in _measured(own, "batch_size", size).groupby(["series", "per_learner_batch"]):
            if set(points.learners) != {1, learners}:
                continue
            alone, several = records(points.sort_values("learners"))
            batch = several.per_learner_batch
            step = batch / alone.images_per_second
            for hiding, hidden in (("nothing hidden", 0.0), ("backward pass hides", float(scaling.BACKWARD) * step)):
                exposed = max(0.0, communication - hidden)
                more = {"compute_seconds": step / batch, "exposed_seconds": exposed / batch}
                more |= {"fit_points": f"1, and NCCL's all-reduce between {learners} of {store.short_name(device)}"}
                predicted = learners * batch / (step + exposed)
                made.append(row(f"link, {hiding}", "held out", several, predicted, **more))
    return made, sorted(runs)


def by_gradients(frame: pd.DataFrame, reference: str = "ResNet-101") -> list[Row]:
    """A network's efficiency from another's at as many learners, by the bytes of their gradients.

    The all-reduce takes a time in proportion to bytes. What it takes beside the computation decides, and that is either
    in proportion to MACs or what a P100 was published to need; either nothing of the all-reduce is hidden, or as much
    as the backward pass lasts. All four are predicted, as the published efficiencies can't tell which holds.
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
    """The homework's jobs on 1 to 16 K80, by the fit of one node and, for two of them, a ring over the node's link.

    Nothing of that ring is taken to be hidden. Weak scaling has 64 images a learner, strong scaling 256 in all.
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
    between = np.array([float(outside.subs(shared | {scaling.m: int(m)})) for m in nodes])
    for name, batches in (
        (f"K80, weak scaling, {WEAK_BATCH} a learner", np.full(len(learners), float(WEAK_BATCH))),
        (f"K80, strong scaling, {STRONG_BATCH} in all", STRONG_BATCH / learners),
    ):
        extra = between / batches
        predicted = result.predict(learners, batches, extra)
        low, high = result.interval(learners, batches, rng, extra, level, draws)
        more = described(result, learners, batches, node)
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
    return rows + by_gradients(frame) + homework(printed, level, draws, rng)


# ---- command line --------------------------------------------------------------------------------------------------


def run(path: Path, level: float, draws: int, seed: int, results: Path) -> Path:
    """Fit, predict and write; a fit of the same name replaces that of earlier inputs.

    Raises UsageError for bad input, store.SchemaError for bad results.
    """
    if not 0 < level < 1 or draws < 100:
        raise UsageError("--level must lie between 0 and 1, and --draws be at least 100")
    code = store.Code.now()
    started = datetime.now(UTC)
    frame = published.load(path)
    extra, runs = measured(results)
    linked, link_runs = by_link(results)
    frame_rows = pd.DataFrame(predictions(frame, extra, level, draws, seed) + linked)
    if frame_rows.empty:
        raise UsageError(f"{path}: nothing can be predicted; a series needs 1 learner and two larger numbers of them")
    frame_rows = frame_rows.astype({"learners": "int64", "freedom": "Int64"})
    settings = {"references": path.name, "level": level, "draws": draws, "seed": seed}
    # What was fitted is part of the configuration, and so of the id.
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config: dict[str, Any] = settings | {"references_sha256": digest, "measured_runs": sorted({*runs, *link_runs})}
    name = store.run_id(path.stem, config)
    origin = store.provenance(
        EXPERIMENT,
        name,
        config,
        seed=seed,
        device="cpu",
        started=started,
        code=code,
        kind="projected",
        versions={"scipy": scipy.__version__},
    )
    shown = ["series", "method", "role", "learners", "per_learner_batch", "observed", "predicted", "low", "high"]
    log = frame_rows[[*shown, "error"]].to_string(index=False) + "\n"
    print(log, end="")
    written = store.write(frame_rows, origin, log=log, results=results)
    for old in set(written.parent.glob("*.parquet")) - {written}:
        earlier = store.run(old).provenance.config
        if {key: earlier.get(key) for key in settings} == settings:
            # The same fit of what the inputs were before: two of them would be read as one result.
            old.unlink()
            old.with_suffix(".log").unlink(missing_ok=True)
    return written


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--references", type=Path, default=published.SOURCE, metavar="CSV", help="published series to fit"
    )
    parser.add_argument("--level", type=float, default=LEVEL, help="coverage of the intervals (default %(default)s)")
    parser.add_argument("--draws", type=int, default=2000, help="bootstrap draws (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=store.RESULTS, help="folder of the results store")
    a = parser.parse_args(argv)

    def work() -> int:
        print(run(a.references, a.level, a.draws, a.seed, a.results))
        return 0

    return exit_status("scaling_fit", work, "earlier results are as they were")


if __name__ == "__main__":
    sys.exit(main())
