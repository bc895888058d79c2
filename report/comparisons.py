"""The one rule by which runs of Problems 1, 2 and 4 are compared. Whatever it does not allow raises `Incomparable`.

- Times and rates are compared only within one allocation, one device model and one setting. The setting is everything
  that describes a job except what a comparison varies on purpose (its axis), the repetition, the seed and the placement
  on cores. A run whose allocation is unknown is compared with nothing.
- Run times are compared between jobs of the same length; rates and seconds of a step between jobs of any length.
- Errors and epoch counts depend on no host: `pooled` takes them over allocations of one device model, code and setting.
- Repetitions count within their allocation. Their median is the value. With three or more on both sides the interval
  is the 95 % bootstrap interval of that median (or of what is made of medians); with fewer it is the range of what
  single runs would have given, and `verdict` has no word for it.
- An efficiency above 102 % is kept and flagged. A run that is suspicious (`experiments.store.suspicious`: an efficiency
  above 110 %, a rate above the roofline, a CPU quota that was used up) is left out until somebody has explained it.
- The first epoch counts, with one exception: version-1 rows of Problem 2 with several workers. No barrier followed the
  warm-up there, so their first epoch holds what a worker waited for the others, and is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.store import parquet, suspicious, timed_jobs
from experiments.store.files import RESULTS
from experiments.store.timed_jobs import RATES, SETTING, TIMES, WHERE
from report.commands import command
from report.estimates import Estimate, estimate, exactly
from report.used import remembered, selects


class Incomparable(ValueError):
    """These runs may not be compared. The message says why; `command` makes the missing run, where one is missing."""

    def __init__(self, message: str, command: str | None = None) -> None:
        super().__init__(message + (f"; make it with: {command}" if command else ""))
        self.command = command


# ---- jobs ----------------------------------------------------------------------------------------------------------


def jobs(epochs: pd.DataFrame) -> pd.DataFrame:
    """`timed_jobs.jobs` of an epoch frame, but for suspicious runs that nobody has explained."""
    found = timed_jobs.jobs(epochs)
    return suspicious.trusted(found, suspicious.of_jobs(found))


def trusted(experiment: str, results: Path = RESULTS) -> pd.DataFrame:
    """The rows of an experiment (`parquet.read`), but for suspicious runs that nobody has explained."""
    return suspicious.trusted(parquet.read(experiment, results), suspicious.find(experiment, results))


def select(jobs: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The jobs with these values; None selects those without one, as a link's speed that isn't limited."""
    kept = pd.Series(True, jobs.index)
    for name, value in values.items():
        kept &= jobs[name].isna() if value is None else jobs[name] == value
    return jobs[kept]


def series(jobs: pd.DataFrame, axis: str | Sequence[str] = "learners") -> Iterator[pd.DataFrame]:
    """The jobs that may be compared with each other along the axis, one frame after the other, in a fixed order."""
    names = _names(axis)
    fixed = [name for name in [*WHERE, *SETTING] if name in jobs and name not in names]
    alone = jobs.run_id.where(jobs.allocation == "", "")  # of unknown allocation: with nothing
    for _, group in jobs.groupby([*fixed, alone.rename("alone")], dropna=False, sort=True) if len(jobs) else ():
        yield group.sort_values([*names, "repeat"])


@selects
@remembered
def main(jobs: pd.DataFrame, axis: str | Sequence[str] = "learners") -> pd.DataFrame:
    """Of series that differ only in where they ran, the host's settings included, the one to show: most values of the
    axis, then most runs, then the latest. The others' jobs are left out; they are never pooled with it."""
    names = _names(axis)
    chosen: dict[Any, tuple[Any, pd.DataFrame]] = {}
    for one in series(jobs, axis):
        described = [name for name in _fixed(one, names) if name != "environment"]
        setting = tuple(None if pd.isna(v) else v for v in (one[n].iloc[0] for n in described))
        rank = (len(one[names].drop_duplicates()), len(one), one.started.max())
        if setting not in chosen or rank > chosen[setting][0]:
            chosen[setting] = rank, one
    return pd.concat([one for _, one in chosen.values()]) if chosen else jobs


def _names(axis: str | Sequence[str]) -> list[str]:
    return [axis] if isinstance(axis, str) else list(axis)


def _fixed(jobs: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [name for name in SETTING if name in jobs and name not in names]


# ---- ratios ---------------------------------------------------------------------------------------------------------


def ratio(
    jobs: pd.DataFrame, *, of: Mapping[str, Any], to: Mapping[str, Any], value: str = "rate", ideal: float | None = None
) -> Estimate:
    """The jobs selected by `of` over those selected by `to`, in a rate or time of `jobs`.

    `of` and `to` have the same keys, the axis; in all else that describes them the selected jobs must agree. With
    `ideal` the result is the part of that ratio: an efficiency. Raises Incomparable.
    """
    part = 1.0 if ideal is None else ideal
    return estimate(lambda a, b: a / b / part, *_sides(jobs, of, to, value), ideal=ideal)


def difference(
    jobs: pd.DataFrame, *, of: Mapping[str, Any], to: Mapping[str, Any], value: str = "step_seconds"
) -> Estimate:
    """As `ratio`, but the jobs selected by `of` less those selected by `to`."""
    return estimate(lambda a, b: a - b, *_sides(jobs, of, to, value))


def _sides(jobs: pd.DataFrame, of: Mapping[str, Any], to: Mapping[str, Any], value: str) -> list[np.ndarray]:
    """Both sides' repetitions of a rate or time. Raises Incomparable unless they may be compared."""
    if set(of) != set(to) or value not in [*RATES, *TIMES]:
        raise ValueError(f"a comparison needs the same keys on both sides and a known value, not {of}, {to}, {value}")
    sides = []
    for wanted in (of, to):
        side = select(jobs, **wanted)
        if side.empty:
            named = ", ".join(f"{name} = {value}" for name, value in wanted.items())
            like = jobs.iloc[0].to_dict() if len(jobs) else {}
            raise Incomparable(f"there is no run with {named}", command(like | dict(wanted)))
        sides.append(side)
    _check(pd.concat(sides), list(of), value)
    numbers = [side[value].to_numpy(dtype=float) for side in sides]
    if any(np.isnan(side).any() for side in numbers):
        raise Incomparable(f"{value} was not recorded in all of these runs")
    return numbers


def _check(jobs: pd.DataFrame, axis: Sequence[str], value: str) -> None:
    """Raise Incomparable unless all jobs agree in all but the axis."""
    if (jobs.allocation == "").any():
        named = ", ".join(jobs.run_id[jobs.allocation == ""])
        raise Incomparable(f"the allocation of {named} is unknown")
    same = [*WHERE, *_fixed(jobs, axis)]
    if value in ("job_seconds", "setup_seconds"):
        same.append("version")  # which measured them in another way
    for name in same:
        if not _alike(jobs[name].tolist()):
            raise Incomparable(f"{name} differs: {_listed(jobs[name].drop_duplicates())}")
    if value in ("train_seconds", "job_seconds", "evaluation_seconds"):
        lengths = {length(job) for job in jobs.to_dict("records")}
        if len(lengths) > 1:
            raise Incomparable("run times need jobs of one length, not " + " and ".join(sorted(lengths)))


def _alike(values: list[Any]) -> bool:
    """Whether all values are one, or none. As a list: thousands of columns of a few rows are looked at."""
    if pd.isna(values[0]):
        return all(map(pd.isna, values))
    return all(not pd.isna(value) and value == values[0] for value in values)


def _listed(values: pd.Series) -> str:
    return " and ".join(
        "none" if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v) for v in values.sort_values()
    )


def length(job: Mapping[Any, Any]) -> str:
    """A job's length in words: equal for jobs whose run times may be compared."""
    if job.get("whole_epochs", False):
        return f"{job['epochs']} epochs of all images"
    return f"{job['epochs']} epochs of {job['steps'] / job['epochs']:g} steps"


# ---- frames --------------------------------------------------------------------------------------------------------


def spread(jobs: pd.DataFrame, axis: str | Sequence[str] = "learners", value: str = "rate") -> pd.DataFrame:
    """For each series and value of the axis: `value` (the median over repetitions), low and high (their range),
    repetitions, and what describes the job."""
    names = _names(axis)
    rows = []
    for one in series(jobs, names):
        for _, group in one.groupby(names, dropna=False):
            numbers = group[value]
            rows.append(
                group.iloc[0].to_dict()
                | {"value": numbers.median(), "low": numbers.min(), "high": numbers.max(), "repetitions": len(group)}
            )
    return pd.DataFrame(rows, columns=[*jobs.columns, "value", "low", "high", "repetitions"])


def relative(jobs: pd.DataFrame, axis: str | Sequence[str] = "learners", base: Any = 1) -> pd.DataFrame:
    """For each series and value of the axis what `spread` gives, and the rate over that at the `base`: speedup and
    efficiency (speedup over the ideal, axis / base), each with _low and _high, `estimate` (the efficiency's) and
    `above_ideal`.

    The axis may have further names that vary along with the first, such as hosts. Raises Incomparable where a series
    has no job at the base, or several kinds of them.
    """
    names = _names(axis)
    rows = []
    for one in series(jobs, names):
        points = spread(one, names).to_dict("records")
        at_base = [point for point in points if point[names[0]] == base]
        if len(at_base) != 1:
            what = f"no run with {names[0]} = {base}" if not at_base else f"several kinds of {names[0]} = {base}"
            like = points[0] | {names[0]: base}
            raise Incomparable(f"{what} in allocation {like['allocation'] or 'unknown'}", command(like))
        for point in points:
            of, to = ({name: _or_none(p[name]) for name in names} for p in (point, at_base[0]))
            ideal = point[names[0]] / base
            e = exactly(1.0, point["repetitions"], ideal=1.0) if of == to else ratio(one, of=of, to=to, ideal=ideal)
            rows.append(
                point
                | {"speedup": e.value * ideal, "speedup_low": e.low * ideal, "speedup_high": e.high * ideal}
                | {"efficiency": e.value, "efficiency_low": e.low, "efficiency_high": e.high}
                | {"estimate": e, "above_ideal": e.flagged}
            )
    return pd.DataFrame(rows)


def _or_none(value: Any) -> Any:
    return None if pd.isna(value) else value


def pooled(runs: pd.DataFrame, value: str, setting: Sequence[str]) -> Estimate:
    """The median of errors or epoch counts over runs of any allocation, by columns `device`, `code` and the setting.

    `code` tells apart the sources that made the runs. Raises Incomparable where one of these differs, or nothing ran.
    """
    if runs.empty:
        raise Incomparable("there is no run to pool")
    for name in ["device", "code", *setting]:
        if len(values := runs[name].drop_duplicates()) > 1:
            raise Incomparable(f"{name} differs: {_listed(values)}")
    return estimate(lambda median: median, runs[value])
