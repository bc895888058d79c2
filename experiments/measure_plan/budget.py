"""Which jobs a budget of time holds: those that answer most in it, one repetition of everything before the second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments.cli import UsageError
from experiments.measure_plan.homework_jobs import Job, LeftOut


def span(seconds: float) -> str:
    """A time as a person says it: 40 s, 12 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def choose(jobs: Sequence[Job], repeats: int, budget: float | None) -> tuple[list[Job], list[LeftOut]]:
    """The jobs in the order to run them, and those that the budget (s; None: no limit) has no room for.

    What answers most comes first: on a machine slower than its probe said, the budget ends before the rest. Every other
    repetition has them in reverse, so that a drift of the machine's speed falls on all alike. Raises UsageError where
    the budget is too small for any.
    """
    left = float("inf") if budget is None else budget
    first, out = list[Job](), list[LeftOut]()
    for series in _most_answers_first(jobs):
        taken = _fitting(series, left)
        left -= sum(job.seconds for job in taken)
        first += taken
        out += [
            LeftOut(job.problem, job.what, f"about {span(job.seconds)} more than --budget holds")
            for job in series
            if job not in taken
        ]
    if jobs and not first:
        least = min(sum(job.seconds for job in _least(series)) for series in _series(jobs))
        raise UsageError(f"--budget {span(budget or 0)} is too little: the first answer takes about {span(least)}")
    rounds = list(first)
    again = [job for job in first if job.repeat is not None]
    for number in range(2, repeats + 1):
        next_round = []
        for series in _most_answers_first(again):
            if sum(job.seconds for job in series) <= left:
                left -= sum(job.seconds for job in series)
                next_round += series
        again = [job for job in again if job in next_round]
        ordered = again if number % 2 else again[::-1]
        rounds += [replace(job, repeat=number) for job in ordered]
    return rounds, out


def _series(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs that answer something only together, in their order."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.series, []).append(job)
    return list(found.values())


def _most_answers_first(jobs: Sequence[Job]) -> list[list[Job]]:
    """The series by the number of the homework's parts that each answers in a second and none before it did."""
    waiting, ordered, answered = _series(jobs), list[list[Job]](), set[str]()

    def worth(series: list[Job]) -> float:
        new = {part for job in series for part in job.parts} - answered
        return (len(new) + 0.01) / sum(job.seconds for job in series)

    while waiting:
        best = max(waiting, key=worth)
        waiting.remove(best)
        ordered.append(best)
        answered |= {part for job in best for part in job.parts}
    return ordered


def _least(series: list[Job]) -> list[Job]:
    """The fewest jobs that compare anything."""
    return series[:2]


def _fitting(series: list[Job], left: float) -> list[Job]:
    """The first jobs of the series, as many as fit; none where they would compare nothing."""
    taken = list[Job]()
    for job in series:
        if job.seconds > left:
            break
        left -= job.seconds
        taken.append(job)
    return taken if len(taken) >= len(_least(series)) else []
