"""Which values a stored row may have, and what tells a run's rows apart: checked at writing and at reading."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pandas as pd
import pyarrow as pa

# What tells a run's rows apart, by experiment; columns that a version lacks are left out.
KEYS: dict[str, list[str]] = {
    "allreduce": ["bytes", "window"],
    "p1_horovod": ["rank", "phase", "epoch", "step"],
    "p2_input": ["contender", "window"],
    "p2_strategy": ["worker", "phase", "epoch", "execution"],
    "p3_crosscheck": ["net", "quantity", "counter", "layers", "kernel"],
    "p4_cutout": ["epoch"],
    "p4_images": ["index", "draw"],
    "p4_kernels": ["M", "kernel"],
    "p4_masked_area": ["length", "side"],
    "p4_split": ["epoch"],
    "p4_throughput": ["M", "contender", "turn", "window"],
    "scaling_ahead": ["series", "method", "role", "learners", "per_learner_batch"],
    "scaling_fit": ["series", "method", "role", "learners", "per_learner_batch", "unit"],
}
# No number but these may be below zero: a relative error, and the lower end of an interval.
SIGNED = {"error": -1.0, "low": float("-inf")}
# Counts that begin with one, as do a training's epochs.
FROM_ONE = frozenset({
    "M", "base", "batch_size", "bytes", "draws", "effective_batch", "epochs_planned", "gradient_bytes", "hosts",
    "image_size", "iterations", "launches", "learners", "length", "parameters", "per_learner_batch", "repeat",
    "side", "steps", "steps_per_execution", "threads", "turn", "window", "workers"
})  # fmt: skip
RATES = frozenset({"images_per_second", "algorithm_bandwidth", "bus_bandwidth", "copy_bandwidth"})
# A column's value, and the column that it stays below.
BELOW = {"rank": "learners", "worker": "workers", "host": "hosts"}
PHASES = {"set-up": False, "train": True, "test": True, "end": False}  # and whether they are an epoch's
# No name in a row has these; a page would take some of them for its own.
MARKUP = re.compile(r"[\x00-\x1f\x7f<>`{}$\[\]*\\]")

Problem = tuple[int, str]  # the row's position, and what is wrong with it
Where = Callable[..., Iterator[Problem]]


def first_problem(rows: pd.DataFrame, experiment: str, schema: pa.Schema) -> Problem | None:
    """The first row that no run can have, and why; None where all are possible.

    Rows of several runs are told apart by a column `run_id`.
    """
    return next(_problems(rows, experiment, schema), None)


def _problems(rows: pd.DataFrame, experiment: str, schema: pa.Schema) -> Iterator[Problem]:
    def where(wrong: pd.Series, what: str, *names: str) -> Iterator[Problem]:
        if wrong.any():
            place = int(wrong.to_numpy().argmax())
            given = ", ".join(f"{name} {rows[name].iloc[place]}" for name in names)
            yield place, f"{given}: {what}"

    for field in schema:
        values = rows[field.name]
        if pa.types.is_string(field.type):
            names = values.astype("category")
            bad = [name for name in names.cat.categories if MARKUP.search(name)]
            yield from where(names.isin(bad), "no name has markup or control characters", field.name)
        elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            yield from where(values.isna() & (not field.nullable), "is not a number", field.name)
            yield from where(values.abs() == float("inf"), "must be finite", field.name)
            least = SIGNED.get(field.name, float(field.name in FROM_ONE))
            yield from where(values < least, f"must be at least {least:g}", field.name)
            if field.name in RATES:
                yield from where(values == 0, "no rate is zero", field.name)
            if field.metadata[b"unit"] == b"fraction" and field.name not in SIGNED:
                yield from where(values > 1, "a fraction is at most 1", field.name)
    for name, most in BELOW.items():
        if {name, most} <= set(schema.names):
            yield from where(rows[name] >= rows[most], f"{name} begins with 0", name, most)
    if "epochs_planned" in schema.names:
        yield from where(rows.epoch > rows.epochs_planned, "more epochs than planned", "epoch", "epochs_planned")
        yield from _of_phases(rows, schema, where)
    key = [name for name in KEYS[experiment] if name in schema.names]
    of_run = ["run_id"] if "run_id" in rows else []
    yield from where(rows.duplicated([*of_run, *key]), "the row is there twice", *key)


def _of_phases(rows: pd.DataFrame, schema: pa.Schema, where: Where) -> Iterator[Problem]:
    """Epochs begin with 1; phases that belong to none have 0, and so have their steps."""
    if "phase" not in schema.names:
        yield from where(rows.epoch < 1, "the first epoch is 1", "epoch")
        return
    yield from where(~rows.phase.isin(list(PHASES)), f"phases are {', '.join(PHASES)}", "phase")
    step = next(name for name in ("step", "execution") if name in schema.names)
    yield from where((rows.epoch > 0) != rows.phase.map(PHASES), "epochs begin with 1, others are 0", "phase", "epoch")
    yield from where((rows[step] > 0) != (rows.phase == "train"), "steps begin with 1, others are 0", "phase", step)
