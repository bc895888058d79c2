"""How a script starts itself again as a learner, and how it reports a learner that failed."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from experiments.cli import RunError

EPOCH_LINE = "epoch "  # how the progress of a job's first process starts
ROOTS = re.compile(r"\d+ root error\(s\) found\.|\(\d+\).*:")  # TensorFlow's headings of several errors
LOG_LINES = 400  # of a job's output that are kept at most


def command(script: str, *arguments: str) -> list[str]:
    """The command that starts this very script again, in this interpreter."""
    return [sys.executable, *(["-P"] if sys.flags.safe_path else []), str(Path(script).resolve()), *arguments]


def first_line(error: BaseException) -> str:
    """The cause in an error's message, which TensorFlow may hide below headings and an indented stack trace."""
    heading = ("Graph execution error:", "Detected at node", "Detected unsupported operations")
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(heading)]
    told = [line for line in lines if not line.startswith((" ", "\t")) and not ROOTS.fullmatch(line)]
    return next(iter(told or lines), "no reason given").strip()


def ended(status: int) -> str:
    """How a process ended."""
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def failure(experiment: str, who: str, status: int, log: Sequence[str]) -> RunError:
    """The error for a process that ended a job: how it ended and, in brackets, the first reason that a process of the
    experiment or ssh gave, or else the last line."""
    own = [line for line in log if line.startswith(f"{experiment}: ")]
    ssh = [line for line in log if line.startswith("ssh: ")]
    if not ssh:  # horovodrun puts a heading above ssh's message about a host
        ssh = [" ".join(pair) for pair in pairwise(log) if pair[0].startswith("ssh not successful for host ")]
    said = own or ssh
    # A process killed or stopped from outside logs no cause; the last lines are its peers', which lost it.
    if not said and (0 <= status < 128 or status == -signal.SIGABRT):
        said = [line for line in log if any(map(str.isalnum, line))][-1:]
    why = f" ({said[0].strip()})" if said else ""
    return RunError(f"{who} {ended(status)}; all others were stopped and nothing was written{why}")
