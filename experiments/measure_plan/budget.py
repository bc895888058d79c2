"""Which jobs a budget of time holds: those that answer most in it, one repetition of everything before the second."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from experiments.cli import UsageError
from experiments.measure_plan.homework_jobs import Job, LeftOut


def span(seconds: float) -> str:
    """A time as a person says it: 40 s, 12 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def choose(
    jobs: Sequence[Job], repeats: int, budget: float | None, done: Set[tuple[str, ...]] = frozenset()
) -> tuple[list[Job], list[LeftOut]]:
    """The jobs in the order to run them, and those that the budget (s; None: no limit) has no room for.

    What answers most comes first: on a machine slower than its probe said, the budget ends before the rest. Every other
    repetition has them in reverse, so that a drift of the machine's speed falls on all alike. Jobs whose keys are done
    are neither run nor paid for again, and answer what they answer. Raises UsageError where the budget is too small for
    any and nothing is done.
    """
    left = float("inf") if budget is None else budget
    before = [job for job in jobs if job.key in done]
    first, out = list[Job](), list[LeftOut]()
    for series in _most_answers_first([job for job in jobs if job not in before], before):
        had = any(job.series == series[0].series for job in before)
        taken = _fitting(series, left, 1 if had else len(_least(series)))
        left -= sum(job.seconds for job in taken)
        first += taken
        out += [
            LeftOut(job.problem, job.what, f"about {span(job.seconds)} more than --budget holds")
            for job in series
            if job not in taken
        ]
    if jobs and not first and not before:
        least = min(sum(job.seconds for job in _least(series)) for series in _series(jobs))
        raise UsageError(f"--budget {span(budget or 0)} is too little: the first answer takes about {span(least)}")
    rounds = list(first)
    again = [job for job in [*before, *first] if job.repeat is not None]
    for number in range(2, repeats + 1):
        fitting, next_round = list[Job](), list[Job]()
        for series in _most_answers_first(again):
            numbered = [replace(job, repeat=number) for job in series]
            wanting = [job for job in numbered if job.key not in done]
            if sum(job.seconds for job in wanting) <= left:
                left -= sum(job.seconds for job in wanting)
                fitting += series
                next_round += wanting
        again = [job for job in again if job in fitting]
        rounds += next_round if number % 2 else next_round[::-1]
    return rounds, out


def _series(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs that answer something only together, in their order."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.series, []).append(job)
    return list(found.values())


def _most_answers_first(jobs: Sequence[Job], before: Sequence[Job] = ()) -> list[list[Job]]:
    """The series by the number of the homework's parts that each answers in a second and none before it did."""
    waiting, ordered = _series(jobs), list[list[Job]]()
    answered = {part for job in before for part in job.parts}

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


def _fitting(series: list[Job], left: float, least: int) -> list[Job]:
    """The first jobs of the series, as many as fit; none where they are fewer than compare anything."""
    taken = list[Job]()
    for job in series:
        if job.seconds > left:
            break
        left -= job.seconds
        taken.append(job)
    return taken if len(taken) >= least else []
