"""Jobs run one after the other, each as a process of its own: what was run before, the progress, and what failed."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

from experiments.cli import UsageError
from experiments.machine import allocation, child_script
from experiments.measure_plan.budget import choose, span
from experiments.measure_plan.homework_jobs import Job
from experiments.store import parquet
from experiments.store.files import write_atomically
from experiments.store.provenance import Provenance

GO = "measure.json"  # in the folder of results: the go that its runs belong to
FOLDERS = {"--results", "--data-dir"}  # options that change no number


def join_go(results: Path) -> None:
    """Give this process, and those that it starts, the token of the folder's go, so that a second call goes on.

    Raises UsageError for a damaged file.
    """
    path = results / GO
    if path.exists() and allocation.TOKEN not in os.environ:
        try:
            os.environ[allocation.TOKEN] = str(json.loads(path.read_text())["token"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is damaged; remove it to start anew, or name another --results") from error
    write_atomically(path, json.dumps({"token": allocation.token()}).encode())


# ---- what was run before --------------------------------------------------------------------------------------------


def _plain(words: Sequence[str]) -> tuple[str, ...]:
    """A command from its script on, without folders."""
    start = next((i for i, word in enumerate(words) if word.startswith("experiments/")), len(words))
    kept, skip = list[str](), False
    for word in words[start:]:
        if not skip and word not in FOLDERS:
            kept.append(word)
        skip = not skip and word in FOLDERS
    return tuple(kept)


def stored(results: Path) -> dict[tuple[str, ...], Provenance]:
    """The runs of this go in the folder, by their command; stale ones are as good as none."""
    here = allocation.current()
    found = {}
    for origin in parquet.origins(results=results):
        if origin.where == here and not origin.stale():
            found[_plain(shlex.split(origin.command))] = origin
    return found


def others(results: Path) -> str | None:
    """One line about runs in the folder that this version, or this go, can't go on with; None without any."""
    here = allocation.current()
    origins = parquet.origins(results=results)
    stale = {origin.git_commit[:7] for origin in origins if origin.stale()}
    if stale:
        return f"{results}: runs of another version ({', '.join(sorted(stale))}) are measured again"
    if any(origin.where != here for origin in origins):
        return f"{results}: runs of another boot or go stay as they are; times are compared within one only"
    return None


# ---- running --------------------------------------------------------------------------------------------------------


class Display:
    """One line that changes, on a terminal; elsewhere a line at each job's start and end."""

    def __init__(self) -> None:
        self.total, self._number, self._what = 0, 0, ""
        self._live = sys.stderr.isatty()

    def say(self, line: str) -> None:
        """A line that stays."""
        print(f"\r\x1b[K{line}" if self._live else line, file=sys.stderr, flush=True)

    def start(self, number: int, what: str, left: float) -> None:
        self._number, self._what = number, what
        if not self._live:
            self.say(self._line("", left))

    def progress(self, done: str, left: float) -> None:
        if self._live:
            print(f"\r\x1b[K{self._line(done, left)}", end="", file=sys.stderr, flush=True)

    def _line(self, done: str, left: float) -> str:
        ends = f"{datetime.now() + timedelta(seconds=left):%H:%M}"
        return f"[{self._number}/{self.total}] {self._what}{done}; {span(left)} left, ends about {ends}"


class Clock:
    """What jobs will take: as long as the same job took before, else by the estimate and how true those were so far."""

    def __init__(self, before: dict[tuple[str, ...], Provenance]) -> None:
        self._took: dict[tuple[str, ...], float] = {}
        self._ratios: list[float] = []
        for command, origin in before.items():
            self._took[_alike(command)] = (origin.ended - origin.started).total_seconds()

    def note(self, job: Job, seconds: float) -> None:
        """A job has ended."""
        self._took[job.words] = seconds
        self._ratios.append(seconds / job.seconds)

    def expects(self, job: Job) -> float:
        """Seconds of a job."""
        known = self._took.get(job.words)
        return job.seconds * (median(self._ratios) if self._ratios else 1.0) if known is None else known


def _alike(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command without its repetition."""
    if "--repeat" not in command:
        return command
    i = command.index("--repeat")
    return command[:i] + command[i + 2 :]


def run_all(
    chosen: Sequence[Job], results: Path, budget: float | None, jobs: Sequence[Job] = (), repeats: int = 1
) -> tuple[list[tuple[Job, str]], list[Job]]:
    """Run what the folder lacks; the jobs that failed, with the reason, and those that the budget ran out for.

    The plan's estimates are on the long side. What is left of the budget in the end goes to more of `jobs`, chosen with
    the times that were learnt.
    """
    sweep = Sweep(results, budget)
    seen = {job.key for job in chosen}
    estimates = {job.words: job.seconds for job in jobs}
    while chosen:
        sweep.run(chosen)
        timed = [replace(job, seconds=sweep.clock.expects(job)) for job in jobs]
        more = choose(timed, repeats, sweep.left(), seen)[0] if timed else []
        chosen = [replace(job, seconds=estimates[job.words]) for job in more]  # which the clock corrects, once
        seen |= {job.key for job in chosen}
    return sweep.failed, sweep.unstarted


class Sweep:
    """Jobs one after the other, until a time is over."""

    def __init__(self, results: Path, budget: float | None) -> None:
        self._results, self._before = results, stored(results)
        self._ends = float("inf") if budget is None else time.monotonic() + budget
        self._display, self._started = Display(), 0
        self.clock = Clock(self._before)
        self.failed, self.unstarted = list[tuple[Job, str]](), list[Job]()

    def left(self) -> float:
        """Seconds of the budget."""
        return self._ends - time.monotonic()

    def run(self, jobs: Sequence[Job]) -> None:
        """Run those that were not run before. The first job of all runs whatever the budget says."""
        todo = [job for job in jobs if job.key not in self._before]
        if len(todo) < len(jobs):
            self._display.say(f"{len(jobs) - len(todo)} of {len(jobs)} jobs were finished before")
        if self._started and todo:
            self._display.say(f"{span(self.left())} of the budget left: {len(todo)} more job{'s' * (len(todo) > 1)}")
        self._display.total += len(todo)
        for number, job in enumerate(todo):
            if self._started and self.clock.expects(job) > self.left():
                self.unstarted.append(job)
            else:
                self._run(job, todo[number:])

    def _run(self, job: Job, rest: Sequence[Job]) -> None:
        self._started += 1
        again = f", repetition {job.repeat}" if (job.repeat or 1) > 1 else ""
        self._display.start(self._started, job.what + again, sum(map(self.clock.expects, rest)))
        start = time.monotonic()

        def tell(done: str) -> None:
            here = max(0.0, self.clock.expects(job) - (time.monotonic() - start))
            self._display.progress(done, here + sum(map(self.clock.expects, rest[1:])))

        reason = child_script.run(job.arguments(self._results), tell)
        took = time.monotonic() - start
        if reason is None:
            self.clock.note(job, took)
            self._display.say(f"  {job.what}: done in {span(took)}")
        else:
            self.failed.append((job, reason))
            self._display.say(f"  {job.what}: failed after {span(took)}: {reason}")
