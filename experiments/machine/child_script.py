"""A script of this project as a process with a terminal of its own: its progress, its end, and why it failed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from experiments.machine.processes import leash
from experiments.store.files import ROOT

BAR = re.compile(r"(\d+)/(\d+) \[")  # a progress bar's epochs or windows
WINDOW = 24, 200  # lines and columns
PATIENCE = 5.0  # s from SIGTERM to SIGKILL


def run(
    arguments: Sequence[str], tell: Callable[[str], None], environment: Mapping[str, str] | None = None
) -> str | None:
    """Run a script to its end: the words after `python`, beside this environment's variables some more.

    None, or what its last line said where it failed. `tell` hears of its progress at least once a second; if it raises,
    the script is ended.
    """
    # A terminal of its own, as the scripts draw their progress on nothing else; without a size, they draw none.
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, WINDOW)
    process = subprocess.Popen(
        [*leash("TERM"), sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said: deque[str] = deque(maxlen=20)
    try:
        done = ""
        for piece in _pieces(ours):
            bar = BAR.search(piece)
            if bar:
                done = f", {bar[1]} of {bar[2]}"
            elif piece:
                said.append(piece)
            tell(done)
        status = process.wait()
    finally:
        _end(process)
        os.close(ours)
    if status == 0:
        return None
    own = [line for line in said if line.startswith(f"{Path(arguments[0]).stem}: ")]
    return ([*said, *own] or [f"ended with status {status}"])[-1]


def _pieces(terminal: int) -> Iterator[str]:
    """What a process writes to its terminal, by line, and an empty one each second without."""
    rest = b""
    while True:
        ready, _, _ = select.select([terminal], [], [], 1.0)
        if not ready:
            yield ""
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # how Linux says that nobody writes there any more
            data = b""
        if not data:
            if rest:
                yield rest.decode(errors="replace").strip()
            return
        *whole, rest = re.split(rb"[\r\n]+", rest + data)
        unended = [rest] if BAR.search(rest.decode(errors="replace")) else []  # a bar that waits for its next step
        yield from (line.decode(errors="replace").strip() for line in [*whole, *unended])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a job that still runs, and its learners with it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number) if number == signal.SIGKILL else process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
