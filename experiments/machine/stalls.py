"""A job's processes on this machine, found by a mark in their environment, and which of them have been stopped.

A stopped process (SIGSTOP, state T) neither works nor ends, and all others wait for it forever. Processes on other
hosts can't be seen from here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

MARK = "DLPERF_JOB"  # in the environment of every process of a job, with a value unique to the job
TIMEOUT = 30.0  # s that a process may be stopped, by default
LONGEST_PAUSE = 5.0  # s between two looks at all processes, which take 10 to 40 µs each
PROC = Path("/proc")


class Process(NamedTuple):
    """A process of a job."""

    pid: int
    started: int  # clock ticks since the boot; with the pid it identifies a process for good
    environment: dict[str, str]


def of_job(mark: str, state: str | None = None) -> Iterator[Process]:
    """The job's processes, zombies excepted; with a `state` (a letter, see proc(5)) only those in it."""
    wanted = f"{MARK}={mark}".encode()
    for entry in os.scandir(PROC):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            # The name, in brackets, may have spaces and brackets itself.
            fields = (PROC / entry.name / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] == "Z" or state not in (None, fields[0]):
                continue
            pairs = (PROC / entry.name / "environ").read_bytes().split(b"\0")
            if wanted in pairs:
                known = (pair.decode(errors="replace").partition("=") for pair in pairs)
                yield Process(int(entry.name), int(fields[19]), {name: value for name, _, value in known})


def end_all(mark: str, grace: float = 2.0, patience: float = 5.0) -> None:
    """Wait until no process of the job is left; those that don't end within `grace` seconds get SIGKILL."""
    began = time.monotonic()
    while left := [process.pid for process in of_job(mark)]:
        waited = time.monotonic() - began
        if waited > grace:
            kill(left)
        if waited > grace + patience:  # stuck in the kernel, where no signal ends it
            return
        time.sleep(0.05)


def kill(pids: Sequence[int]) -> None:
    """Send SIGKILL, which ends stopped processes too."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Watch:
    """Finds the processes of a job that have been stopped for `timeout` seconds in a row; call `overdue` regularly.

    A process is named as a `member` of the job with its rank, from one of the environment variables `ranks`. Processes
    without a rank, and those whose pids are in `launchers`, count as the launcher.
    """

    def __init__(self, mark: str, timeout: float, member: str, ranks: Sequence[str]) -> None:
        self._mark, self._timeout, self._member, self._ranks = mark, timeout, member, ranks
        self._pause = min(LONGEST_PAUSE, timeout / 5)
        self._looked = time.monotonic()
        self._stopped: dict[tuple[int, int], float] = {}  # for how long, by pid and start

    def overdue(self, launchers: Collection[int] = ()) -> dict[str, int]:
        """Names and pids of the processes stopped too long; looks at most every few seconds."""
        gap = time.monotonic() - self._looked
        if gap < self._pause:
            return {}
        self._looked += gap
        # A long gap means that this process was stopped itself: it saw nothing meanwhile.
        gap = min(gap, 2 * self._pause)
        found = {(process.pid, process.started): process for process in of_job(self._mark, "T")}
        self._stopped = {key: self._stopped[key] + gap if key in self._stopped else 0.0 for key in found}
        late = sorted((key[1], found[key]) for key, seconds in self._stopped.items() if seconds >= self._timeout)
        # nsenter stops itself when its child is stopped: of one rank, the younger process counts.
        return {self._called(process, launchers): process.pid for _, process in late}

    def stopped(self, launchers: Collection[int] = ()) -> dict[str, int]:
        """Names and pids of the processes that are stopped now."""
        now = sorted((process.started, process) for process in of_job(self._mark, "T"))
        return {self._called(process, launchers): process.pid for _, process in now}

    def _called(self, process: Process, launchers: Collection[int]) -> str:
        # A launcher started from a Slurm batch script inherits the script's rank.
        own = [] if process.pid in launchers else [process.environment.get(name) for name in self._ranks]
        rank = next((value for value in own if value is not None), None)
        return "the launcher" if rank is None else f"{self._member} {rank}"
