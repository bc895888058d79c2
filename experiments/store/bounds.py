"""Which values a stored row may have, and what tells a run's rows apart: checked at writing and at reading."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

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
FROM_ZERO = {("p4_throughput", "workers")}  # a DataLoader without workers loads by itself
RATES = frozenset({"images_per_second", "algorithm_bandwidth", "bus_bandwidth", "copy_bandwidth"})
# A column's value, and the column that it stays below.
BELOW = {"rank": "learners", "worker": "workers", "host": "hosts"}
PHASES = {"set-up": False, "train": True, "test": True, "end": False}  # and whether they are an epoch's
# No name in a row has these; a page would take some of them for its own.
MARKUP = re.compile(r"[\x00-\x1f\x7f<>`{}$\[\]*\\]")

Problem = tuple[int, str]  # the row's position, and what is wrong with it


def first_problem(table: pa.Table, experiment: str) -> Problem | None:
    """The first row that no run of the experiment can have, and why; None where all are possible."""
    return next(_problems(table, experiment), None)


def _problems(table: pa.Table, experiment: str) -> Iterator[Problem]:
    def where(wrong: pa.ChunkedArray, what: str, *names: str) -> Iterator[Problem]:
        if pc.any(wrong).as_py():
            place = pc.index(wrong, True).as_py()
            given = ", ".join(f"{name} {table[name][place].as_py()}" for name in names)
            yield place, f"{given}: {what}"

    for field in table.schema:
        name, values = field.name, table[field.name]
        if pa.types.is_string(field.type):
            bad = [text for text in pc.unique(values).to_pylist() if text is not None and MARKUP.search(text)]
            if bad:
                yield from where(pc.is_in(values, pa.array(bad)), "no name has markup or control characters", name)
        elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            if pa.types.is_floating(field.type):
                yield from where(pc.invert(pc.is_finite(values)), "is not a finite number", name)
            from_one = name in FROM_ONE and (experiment, name) not in FROM_ZERO
            least = SIGNED.get(name, float(from_one))
            exact = int(least) if pa.types.is_integer(field.type) else least  # a double holds no whole number above 2⁵³
            yield from where(pc.less(values, exact), f"must be at least {least:g}", name)
            if name in RATES:
                yield from where(pc.equal(values, 0.0), "no rate is zero", name)
            if (field.metadata or {}).get(b"unit") == b"fraction" and name not in SIGNED:
                yield from where(pc.greater(values, 1.0), "a fraction is at most 1", name)
    names = set(table.column_names)
    for name, most in BELOW.items():
        if {name, most} <= names:
            yield from where(pc.greater_equal(table[name], table[most]), f"{name} begins with 0", name, most)
    if "epochs_planned" in names:
        late = pc.greater(table["epoch"], table["epochs_planned"])
        yield from where(late, "more epochs than planned", "epoch", "epochs_planned")
    if "phase" in names:
        phase, step = table["phase"], "step" if "step" in names else "execution"
        of_epoch = pc.is_in(phase, pa.array([name for name, epoch in PHASES.items() if epoch]))
        yield from where(pc.invert(pc.is_in(phase, pa.array(list(PHASES)))), f"phases are {', '.join(PHASES)}", "phase")
        wrong = pc.not_equal(pc.greater(table["epoch"], 0), of_epoch)
        yield from where(wrong, "epochs begin with 1, other phases have 0", "phase", "epoch")
        wrong = pc.not_equal(pc.greater(table[step], 0), pc.equal(phase, "train"))
        yield from where(wrong, "steps begin with 1, other phases have 0", "phase", step)
    elif "epoch" in names:
        yield from where(pc.less(table["epoch"], 1), "the first epoch is 1", "epoch")
    key = [name for name in KEYS[experiment] if name in names]
    if table.group_by(key).aggregate([]).num_rows < table.num_rows:
        twice = pa.array(table.select(key).to_pandas().duplicated())
        yield from where(twice, "the row is there twice", *key)
