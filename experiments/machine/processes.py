"""Processes that make up a job: started together, watched, and ended together when one of them fails."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from experiments.cli import RunError
from experiments.machine import settings, stalls
from experiments.machine.job_clock import STARTED

LINGER = 15.0  # s from SIGTERM to SIGKILL; horovodrun takes up to 5 to end its own processes
OWN_RANK = "DLPERF_RANK"  # the rank of a process that the job's script starts itself, in its environment
PREFIX = re.compile(r"^(\[[\d,]+\]<std(out|err)>: ?|\d+: )")  # the prefix that launchers give a learner's lines


def leash(signal_name: str) -> list[str]:
    """What to put before a command that gets this signal where this process is killed: util-linux's setpriv, if any."""
    return ["setpriv", f"--pdeathsig={signal_name}", "--"] if shutil.which("setpriv") else []


class Processes:
    """The processes of a job. Leaving the `with` block ends them, and all that they have started on this machine.

    They get SIGTERM, and SIGKILL after `linger` seconds. If this process is killed, they get the signal `orphaned`
    (needs util-linux's setpriv), once for each of its threads. A process on this machine that is stopped for
    `stall_timeout` seconds ends the job. Messages call it a `member`, with its rank from one of the variables `ranks`.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        linger: float = LINGER,
        orphaned: str = "KILL",
        *,
        stall_timeout: float = stalls.TIMEOUT,
        member: str = "learner",
        ranks: Sequence[str] = (OWN_RANK,),
    ) -> None:
        self._say, self._linger, self._stall_timeout = say, linger, stall_timeout
        self._leash = leash(orphaned)
        self._started: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self._launchers: set[int] = set()
        self._mark = secrets.token_hex(8)
        self._watch = stalls.Watch(self._mark, stall_timeout, member, ranks)
        self._watching = True
        self._began: tuple[float, float] | None = None
        self.seconds = 0.0  # from the start of the first process until `wait` saw the job's end

    def start(self, argv: Sequence[str], environment: dict[str, str]) -> None:
        """Start one, in a session of its own: Ctrl-C then reaches only this process, which ends the others."""
        self._began = self._began or (time.time(), time.perf_counter())
        here = settings.without_proxies(os.environ)
        own = {STARTED: repr(self._began[0]), stalls.MARK: self._mark, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [*self._leash, *argv],
            env=here | environment | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        self._started.append(process)
        self._readers.append(reader)
        if OWN_RANK not in environment:
            self._launchers.add(process.pid)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._say(PREFIX.sub("", line.rstrip()))

    def unwatch(self) -> None:
        """Stop watching for stopped processes: the job is ending, and horovodrun stops what it is about to end."""
        self._watching = False

    def wait(self) -> tuple[int, int] | None:
        """Wait for the end; returns the process that failed first and its exit status, None if none failed.

        Kills processes that have been stopped too long, and raises RunError.
        """
        while True:
            ended = [process.poll() for process in self._started]
            failed = [i for i, status in enumerate(ended) if status]
            if failed and self._watching and (stopped := self._watch.stopped(self._launchers)):
                # Peers may give up on a stopped process before the watch does: theirs is not the failure to report.
                raise self._stopped(stopped, "stopped, and its peers gave up waiting")
            if failed:
                # A killed process may bring down others, which end first: it is the one to blame.
                killed = [i for i in failed if (ended[i] or 0) < 0 or (ended[i] or 0) > 128]
                first = (killed or failed)[0]
                return first, ended[first] or 0
            if all(status == 0 for status in ended):
                self.seconds = time.perf_counter() - self._began[1] if self._began else 0.0
                return None
            if self._watching and (stopped := self._watch.overdue(self._launchers)):
                raise self._stopped(stopped, f"stopped for {self._stall_timeout:g} s")
            time.sleep(0.05)

    def _stopped(self, stopped: dict[str, int], how: str) -> RunError:
        """Kill the stopped processes; returns the error that names them."""
        stalls.kill([process.pid for process in stalls.of_job(self._mark, "T")])
        who = " and ".join(f"{name} (process {pid})" for name, pid in stopped.items())
        have = "has" if len(stopped) == 1 else "have"
        return RunError(f"{who} {have} been {how}; all others were stopped and nothing was written")

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for number, patience in ((signal.SIGTERM, self._linger), (signal.SIGKILL, None)):
            for process in self._started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                deadline = time.monotonic() + (patience or 0)
                for process in self._started:
                    process.wait(None if patience is None else max(0.0, deadline - time.monotonic()))
        stalls.end_all(self._mark)
        for reader in self._readers:
            reader.join(1)
