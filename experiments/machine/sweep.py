"""Series of jobs: their order, the jobs that are left, the plan that is printed first, and the progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from experiments.cli import RunError, UsageError
from experiments.machine import allocation
from experiments.store import parquet
from experiments.store.claims import claimed
from experiments.store.provenance import Provenance, timed_id


class Config(Protocol):
    """A job of several learners, and where it runs."""

    @property
    def slug(self) -> str:
        """The readable part of the run's name."""
        ...

    def flat(self) -> dict[str, Any]:
        """All settings by name, `repeat` among them."""
        ...


C = TypeVar("C", bound=Config)


def alternating(variants: Callable[[int], Sequence[C]], repeats: int, first: int = 1) -> list[C]:
    """Jobs in the order to run them: all variants of a repetition, then those of the next in reverse, and so on.

    A drift of the machine's speed then affects all variants alike. `variants` makes the jobs of one repetition.
    """
    jobs: list[C] = []
    for number in range(first, first + repeats):
        these = list(variants(number))
        jobs += these if (number - first) % 2 == 0 else these[::-1]
    return jobs


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as its file has it."""
    return json.loads(json.dumps(config))


def fitting(configs: Sequence[C], check: Callable[[C], None]) -> list[C]:
    """The jobs that fit this machine; prints a line on standard error for each other kind of job.

    `check` raises UsageError for a job that is too large; so does this function if all of them are.
    """
    fit, refused = list[C](), dict[str, UsageError]()
    for config in configs:
        try:
            check(config)
            fit.append(config)
        except UsageError as error:
            refused[str(error)] = error
    if not fit:
        raise next(iter(refused.values()))
    for text in refused:
        tqdm.write(f"larger jobs left out: {text}", file=sys.stderr)
    return fit


def estimate(configs: Sequence[Config], earlier: Iterable[Provenance]) -> float | None:
    """Seconds that the jobs will take, by the median of earlier runs with the same settings but the repetition; None if
    a job has no such run."""
    known: dict[str, list[float]] = {}
    for origin in earlier:
        key = json.dumps(origin.config | {"repeat": 0}, sort_keys=True)
        known.setdefault(key, []).append((origin.ended - origin.started).total_seconds())
    keys = [json.dumps(_plain(config.flat()) | {"repeat": 0}, sort_keys=True) for config in configs]
    return sum(median(known[key]) for key in keys) if all(key in known for key in keys) else None


def _announce(
    configs: Sequence[Config],
    todo: Sequence[Config],
    earlier: Sequence[Provenance],
    skip_finished: bool,
    say: Callable[[str], None],
) -> None:
    """Announce the jobs, the time they will take, and whether some of them ran before in another allocation."""
    if skip_finished:
        here, wanted = allocation.current(), [_plain(config.flat()) for config in todo]
        others = sum(origin.where != here and origin.config in wanted for origin in earlier)
        if others:
            say(
                f"{others} of these jobs were run in another allocation; times are compared within one only, "
                "so the series starts anew"
            )
    if len(configs) > 1:
        seconds = estimate(todo, earlier) if todo else 0.0
        took = "of unknown length" if seconds is None else f"about {max(1, round(seconds / 60))} min"
        say(f"plan: {len(todo)} jobs, {took}; to go on after a stop: {allocation.TOKEN}={allocation.token()}")
        for config in todo:
            say(f"  {config.slug}")


def run_all(
    experiment: str,
    configs: Sequence[C],
    results: Path,
    run: Callable[[C], Path | None],
    *,
    skip_finished: bool,
    goes_on: bool,
) -> int:
    """Run the jobs and print the files that they wrote; returns the exit status.

    `skip_finished` leaves out jobs that this allocation has finished. With `goes_on`, the other jobs still run after
    one has failed; failures are named at once and again at the end, suspicious runs at the end. Raises UsageError, for
    example for a job that another process is running, and RunError for failed jobs.
    """

    def say(line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    def file(config: C) -> Path:
        return parquet.path_of(experiment, timed_id(config.slug, config.flat()), results)

    def done(config: C) -> bool:
        return parquet.finished(file(config), config.flat())

    todo = [config for config in configs if not (skip_finished and done(config))]
    for config in configs:
        if config not in todo:
            say(f"{config.slug}: finished before, skipped")
    _announce(configs, todo, parquet.origins(experiment, results), skip_finished, say)
    failed, stored = list[str](), list[Path]()
    for config in tqdm(todo, desc="jobs", unit="job", disable=True if len(todo) < 2 else None):
        try:
            with claimed(file(config)):
                path = run(config)
        except RunError as error:
            if not goes_on:
                raise
            failed.append(f"{config.slug}: {error}")
            say(f"{experiment}: {failed[-1]}")
            continue
        if path:
            stored.append(path)
            print(path, flush=True)
    from experiments.store import suspicious  # only now: what it loads is no source of the runs

    suspicious.warn(stored)
    if failed:
        raise RunError(f"{len(failed)} of {len(todo)} jobs failed: " + "; ".join(failed))
    return 0
