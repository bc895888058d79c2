"""What a run's rows must have in common with each other and with its provenance, if they are of one real run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from experiments.store.epochs import MEMBER
from experiments.store.provenance import Provenance

CLOSE = 1e-6  # relative: what sums and quotients of doubles may differ by


def implausible(rows: pd.DataFrame, origin: Provenance) -> Iterator[str]:
    """What can't be so, in a sentence each. `rows` are one run's, as `parquet.read` gives them."""
    experiment = origin.experiment
    yield from _of_device(rows, origin)
    if "phase" in rows:
        yield from _time_lines(rows, origin)
    elif "epoch" in rows:
        yield from _epochs(rows, experiment)
    if {"images", "seconds", "images_per_second"} <= set(rows.columns):
        yield from _differ(
            rows.images_per_second, rows.images / rows.seconds, "images_per_second", "images over seconds"
        )
    if "effective_batch" in rows:
        yield from _batches(rows)
    yield from {
        "allreduce": _all_reduces,
        "p3_crosscheck": _counts,
        "p4_cutout": _training,
        "scaling_ahead": _fits,
        "scaling_fit": _fits,
    }.get(experiment, lambda _: iter(()))(rows)


def _differ(found: pd.Series, should: pd.Series, name: str, what: str, most: float = CLOSE) -> Iterator[str]:
    left, right = found.to_numpy(float), should.to_numpy(float)  # without pandas, as there are thousands of calls
    wrong = np.abs(left - right) > most * np.abs(right) + 1e-12
    if wrong.any():
        place = int(wrong.argmax())
        yield f"row {place + 1}: {name} is {found.iloc[place]:.8g}, but {what} {should.iloc[place]:.8g}"


def _of_device(rows: pd.DataFrame, origin: Provenance) -> Iterator[str]:
    """A learner on a CPU computes on the host's processor, one on a GPU on none."""
    kinds = set(rows.device_kind) if "device_kind" in rows else set()
    own = origin.device in (origin.host_cpu, "cpu")
    if kinds == {"gpu" if own else "cpu"}:
        yield f"its rows are of a {kinds.pop()}, its device is {origin.device}"
    given = origin.config.get("device")
    if given not in (None, "cpu", "gpu", "cuda", origin.device):
        yield f"its configuration names the device {given}, its provenance {origin.device}"


def _time_lines(rows: pd.DataFrame, origin: Provenance) -> Iterator[str]:
    """Members' phases follow each other without overlap, from the job's start to an end that all share."""
    member = MEMBER[origin.experiment]
    step = "step" if "step" in rows else "execution"
    members = rows["learners" if member == "rank" else "workers"].iloc[0]
    if sorted(set(rows[member])) != list(range(members)):
        yield f"not all of {members} have rows: only {member} {', '.join(map(str, sorted(set(rows[member]))))}"
    steps = rows[rows.phase == "train"].groupby([member, "epoch"])[step]
    counts = steps.size()
    if counts.nunique() > 1 or (counts != steps.max()).any():
        yield "not all members and epochs have the same steps"
    if set(rows.epoch) != set(range(int(rows.epochs_planned.iloc[0]) + 1)):
        yield f"not all of {rows.epochs_planned.iloc[0]} epochs have rows"
    ordered = rows[[member, "began"]].assign(ended_at=rows.began + rows.seconds)
    ordered = ordered.sort_values([member, "began"], kind="stable")
    overlap = (ordered.began - ordered.groupby(member).ended_at.shift()) < -CLOSE
    if overlap.any():
        yield f"row {ordered.index[overlap.to_numpy()][0] + 1}: it begins before what came before it has ended"
    ends = ordered.groupby(member).ended_at.max()
    if ends.max() - ends.min() > CLOSE * ends.max():
        yield f"the members end at different times, {ends.min():.3f} and {ends.max():.3f} s"
    lasted = (origin.ended - origin.started).total_seconds()
    if ends.max() > lasted + 1:
        yield f"its rows last {ends.max():.1f} s, the run from {origin.started} to {origin.ended} {lasted:.1f} s"


def _epochs(rows: pd.DataFrame, experiment: str) -> Iterator[str]:
    member = MEMBER.get(experiment)
    for name, own in rows.groupby(member) if member else [(None, rows)]:
        if sorted(own.epoch) != list(range(1, len(own) + 1)) or len(own) != own.epochs_planned.iloc[0]:
            whose = f"{member} {name!s} has" if member else "it has"
            yield f"{whose} {len(own)} of {own.epochs_planned.iloc[0]} epochs"
    if "step_p50" in rows:
        if ((rows.step_p10 > rows.step_p50) | (rows.step_p50 > rows.step_p90)).any():
            yield "steps' percentiles are not in order"
        if (rows.steps * rows.step_p10 > 1.01 * rows.seconds).any():
            yield "epochs are shorter than their steps"


def _batches(rows: pd.DataFrame) -> Iterator[str]:
    """Images are the learners' batches, times the steps where rows are of epochs."""
    local = rows.learners // rows.workers if "workers" in rows else 1
    batch = rows.per_learner_batch if "per_learner_batch" in rows else rows.batch_size
    steps = rows.steps if "steps" in rows else rows.get("steps_per_execution", 1) * (rows.phase == "train")
    yield from _differ(rows.images, batch * local * steps, "images", "batches times steps")


def _all_reduces(rows: pd.DataFrame) -> Iterator[str]:
    plain = rows.bytes / rows.seconds
    yield from _differ(rows.algorithm_bandwidth, plain, "algorithm_bandwidth", "bytes over seconds")
    ring = 2 * (rows.learners - 1) / rows.learners * plain
    yield from _differ(rows.bus_bandwidth, ring, "bus_bandwidth", "2(p−1)/p times bytes over seconds")


def _counts(rows: pd.DataFrame) -> Iterator[str]:
    """Those who count the same thing agree, once what some count beside layers is taken off."""
    what = ["net", "quantity", "layers", "kernel"]
    beside = rows[rows.quantity == "elementwise"].set_index(["net", "counter"]).value
    rows = rows[rows.quantity != "elementwise"]
    more = [beside.get((row.net, row.counter), 0) * (row.quantity == "macs") for row in rows.itertuples()]
    rows = rows.assign(value=rows.value - pd.Series(more, rows.index))
    for name, own in rows.groupby(what, dropna=False):
        if own.value.nunique() > 1:
            said = ", ".join(f"{row.counter} {row.value}" for row in own.itertuples())
            yield f"counts of {name[0]}'s {name[1]} differ: {said}"


def _training(rows: pd.DataFrame) -> Iterator[str]:
    rows = rows.sort_values("epoch")
    yield from _differ(rows.images, rows["M"] * rows.batch_size * rows.steps, "images", "M·B·steps")
    wall = (rows.train_seconds + rows.val_seconds).cumsum()
    yield from _differ(rows.wall_seconds, wall, "wall_seconds", "the sum of epochs' seconds", 0.02)
    hits = 10_000 * rows.val_error
    yield from _differ(hits, hits.round(), "val_error × 10,000", "images are whole, such as")


def _fits(rows: pd.DataFrame) -> Iterator[str]:
    known = rows[rows.error.notna() & rows.observed.notna()]
    should = known.predicted / known.observed - 1
    wrong = (known.error - should).abs() > CLOSE
    if wrong.any():
        yield f"the error of {known[wrong].series.iloc[0]} is not predicted over observed, less one"
    if (rows.low > rows.high).any():
        yield "an interval's lower end is above its upper one"
