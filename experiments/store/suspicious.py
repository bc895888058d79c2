"""Runs that may be real but hardly are. They are stored and flagged, and answers leave them out until explained.

Suspicious is

- a rate above the roofline: more arithmetic, or more memory traffic, than the device is sold for (peaks.csv);
- an efficiency above 110 % of the learners' own baseline, one learner of the same allocation and setting;
- a run whose CPU quota was used up, so that it waited for time and not for its work.

A row in explained.csv, a run (or a pattern such as `gpu-weak-*`) and a sentence, lifts the flag: `make verify` and the
report then show the sentence. Efficiencies from 102 to 110 % are kept and need none.
"""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from derivations import imagenet_resnet, roofline
from experiments.store import epochs, parquet, timed_jobs
from experiments.store.files import RESULTS
from experiments.store.provenance import Provenance

MOST = 1.10  # of ideal
FLOP = 2 * 3  # a multiply-accumulate is two; the backward pass takes twice the forward's
DEPTH = 44  # of Problem 4's network, where a run doesn't say
ELEMENT_BYTES = {"bf16": 2, "fp32": 4, "tf32": 4}
# What one learner has no use for, so that its run is the baseline of jobs with any of these.
BETWEEN = ["learners", "workers", "hosts", "gbit", "launcher", "allreduce", "all_reduce", "communication"]
TIMED = [*epochs.MEMBER, "allreduce", "p2_input", "p4_cutout", "p4_kernels", "p4_split", "p4_throughput"]
EXPLAINED, PEAKS = (Path(__file__).with_name(name) for name in ("explained.csv", "peaks.csv"))


class Flag(NamedTuple):
    """A suspicious run, why it is, and the sentence that explains it; empty where nobody has."""

    run: str
    why: str
    explanation: str = ""


# ---- flags ---------------------------------------------------------------------------------------------------------


def of_jobs(jobs: pd.DataFrame) -> list[Flag]:
    """The suspicious ones of Problem 1's or 2's jobs (`timed_jobs.jobs`), which hold their own baselines."""
    return _flags([*_throttled(jobs), *_above_arithmetic(jobs), *_above_ideal(jobs)])


def of_run(rows: pd.DataFrame, origin: Provenance) -> list[Flag]:
    """The flags of a run of another experiment."""
    return _flags([*_throttled(rows), *_above_traffic(rows, origin)])


def of_epochs(rows: pd.DataFrame) -> list[Flag]:
    """As `of_jobs`, for an epoch frame (`epochs.read`)."""
    return of_jobs(timed_jobs.jobs(rows))


def find(experiment: str, results: Path = RESULTS) -> list[Flag]:
    """The suspicious runs of an experiment. Raises SchemaError."""
    files = parquet.files(results, experiment) if experiment in TIMED else []
    if files and experiment in epochs.MEMBER:
        return of_epochs(epochs.read(experiment, results))
    return [flag for run, rows in map(parquet.read_run, files) for flag in of_run(rows, run.provenance)]


def trusted(frame: pd.DataFrame, flags: Iterable[Flag]) -> pd.DataFrame:
    """The rows of all runs but those that are flagged and not explained."""
    unexplained = [flag.run for flag in flags if not flag.explanation]
    return frame[~frame.run_id.isin(unexplained)] if unexplained else frame


def warn(stored: Sequence[Path]) -> None:
    """One line on standard error for each flag of the runs that a script has stored, all of one experiment.

    Scripts import this module when they have measured everything: what it loads is no source of their numbers.
    """
    names = {path.stem for path in stored}
    for flag in find(stored[0].parent.name, stored[0].parents[1]) if stored else ():
        if flag.run in names:
            print(f"warning: {flag.run} is suspicious: {told(flag)}", file=sys.stderr)


def told(flag: Flag) -> str:
    """Why a run is flagged, and what becomes of it."""
    return f"{flag.why}; {flag.explanation or f'answers leave it out until {EXPLAINED.name} explains it'}"


def _flags(found: Iterable[tuple[str, str]]) -> list[Flag]:
    reasons = explanations()
    return [Flag(run, why, next((r for p, r in reasons if fnmatchcase(run, p)), "")) for run, why in found]


@functools.cache
def explanations(path: Path = EXPLAINED) -> tuple[tuple[str, str], ...]:
    """Patterns of explained runs, and the sentences."""
    with path.open(newline="", encoding="utf-8") as f:
        return tuple((row["run"], row["reason"]) for row in csv.DictReader(f))


@functools.cache
def peaks(path: Path = PEAKS) -> tuple[dict[str, str], ...]:
    """What devices can do at most: the table's rows."""
    with path.open(newline="", encoding="utf-8") as f:
        return tuple(csv.DictReader(f))


def _peak(device: str, what: str) -> float:
    """One device's (or core's) peak; infinite where the table doesn't know it."""
    row = next((row for row in peaks() if fnmatchcase(device, row["device"])), {})
    return float(row.get(what) or "inf")


@functools.cache  # sympy derives them layer by layer
def _macs() -> float:
    """ResNet-50's, of an image of 224 pixels."""
    return float(imagenet_resnet.macs())


@functools.cache
def _moved(element: int, depth: int, step: roofline.Step) -> int:
    """Bytes of an image and training step of Problem 4."""
    return int(roofline.bytes_per_image(element, depth, step))


# ---- what is suspicious --------------------------------------------------------------------------------------------


def _throttled(frame: pd.DataFrame) -> Iterable[tuple[str, str]]:
    if "throttled_periods" in frame:
        for run, periods in frame.drop_duplicates("run_id").set_index("run_id").throttled_periods.items():
            if pd.notna(periods) and periods > 0:
                yield str(run), f"its CPU quota was used up in {periods:g} periods, in which it waited"


def _above_arithmetic(jobs: pd.DataFrame) -> Iterable[tuple[str, str]]:
    """ResNet-50's multiply-accumulates shrink with the image's area."""
    of_224 = FLOP * _macs()  # pixels
    for job in jobs.to_dict("records"):
        network = str(job.get("network") or job.get("model"))
        if "resnet50" not in network.lower():
            continue
        each = of_224 * (job["image_size"] / imagenet_resnet.INPUT.h) ** 2
        cores = job["threads"] if job["device_kind"] == "cpu" else 1
        precision = "float32" if job["precision"] == "float32" else "mixed"
        most = job["learners"] * cores * _peak(job["device"], f"{precision}_flops") / each
        if job["rate"] > most:
            yield job["run_id"], f"{job['rate']:,.0f} images/s are above the roofline of {most:,.0f}"


def _above_ideal(jobs: pd.DataFrame) -> Iterable[tuple[str, str]]:
    known = jobs[jobs.allocation != ""]
    alike = [name for name in [*timed_jobs.WHERE, *timed_jobs.SETTING] if name in jobs and name not in BETWEEN]
    if known.empty:
        return
    group = known.groupby(alike, dropna=False).ngroup()
    baselines = known.rate[known.learners == 1].groupby(group).median()
    efficiencies = known.rate / (group.map(baselines) * known.learners)
    above = (known.learners > 1) & (efficiencies > MOST)
    for run, efficiency in zip(known.run_id[above], efficiencies[above], strict=True):
        yield run, f"an efficiency of {efficiency:.1%}, above {MOST:.0%} of ideal"


def _above_traffic(rows: pd.DataFrame, origin: Provenance) -> Iterable[tuple[str, str]]:
    """A training step of Problem 4 can't move its tensors faster than the memory does."""
    if "copy_bandwidth" in rows and "bytes_per_image" in rows:
        share = (rows.images_per_second * rows.bytes_per_image / rows.copy_bandwidth).max()
    elif origin.experiment in ("p4_cutout", "p4_split"):
        first = rows.iloc[0]
        step: roofline.Step = "fused" if first.engine == "fused" else "conventional"
        depth = origin.config.get("depth", DEPTH)
        moved = _moved(ELEMENT_BYTES[first.precision], depth, step)
        seconds = rows.train_seconds if "train_seconds" in rows else rows.seconds
        learners = rows.learners if "learners" in rows else 1
        share = (rows.images / seconds * moved / learners).max() / _peak(origin.device, "bytes_per_second")
    else:
        return
    if share > 1:
        yield origin.run_id, f"a rate above the roofline: its step would move {share:.2f} times what the memory can"
