"""What scripts share of their command lines: readers and checks of options, errors, and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import experiments

# A help text has characters that not every terminal knows.
if isinstance(sys.stdout, TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")


class UsageError(ValueError):
    """The command can't run as asked; the message is one line that says what was wrong and what to do. Exit code 2."""


class RunError(RuntimeError):
    """The command was fine, the run failed; the message says how. Exit code 1."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line that names the script."""

    def __init__(self, script: str, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._script = script

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with status 2."""
        self.exit(2, f"{self._script}: {message}\n")


@dataclass(frozen=True)
class Placed:
    """A configuration: a job, which has settings of its own, and where it runs."""

    job: Any

    def flat(self) -> dict[str, Any]:
        """All settings by name."""
        rest = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "job"}
        return asdict(self.job) | rest


def path(text: str) -> Path:
    """A reader of files and folders. A shell leaves the ~ of --results=~/here as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None


def listed(*choices: str) -> Callable[[str], list[Any]]:
    """A reader of comma-separated choices, or of whole numbers where there are none; each once."""

    def read(text: str) -> list[Any]:
        found: list[Any] = []
        for part in text.split(","):
            if choices and part not in choices:
                raise argparse.ArgumentTypeError(f"'{part}' is none of {', '.join(choices)}")
            try:
                value = part if choices else int(part)
            except ValueError:
                raise argparse.ArgumentTypeError(f"'{part}' is no whole number") from None
            if value in found:
                raise argparse.ArgumentTypeError(f"{part} is named twice")
            found.append(value)
        return found

    return read


def _given(options: object, name: str) -> list[Any]:
    """An option's values: those of a list, or one, or none where it was left out."""
    value = getattr(options, name)
    return value if isinstance(value, list) else [] if value is None else [value]


def check_at_least(low: int, options: object, *names: str) -> None:
    """Raise UsageError unless all values of these options are at least so large."""
    for name in names:
        for value in _given(options, name):
            if value < low:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {low}, not {value}")


def check_positive(options: object, *names: str) -> None:
    """Raise UsageError unless all values of these options are positive and finite."""
    for name in names:
        for value in _given(options, name):
            if not 0 < value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} must be positive and finite, not {value:g}")


class Terminated(SystemExit):
    """A signal ends the script."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class WatchedOutput:
    """Standard output that remembers why it failed, lest a full disk that it goes to be taken for the results'."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.problem: OSError | None = None

    def _try(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except OSError as error:
            self.problem = error
            # What is still in the buffer goes nowhere, or the interpreter's end would fail of it again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._inner.fileno())
            raise

    def write(self, text: str) -> Any:
        """As a file's."""
        return self._try(lambda: self._inner.write(text))

    def flush(self) -> None:
        """As a file's."""
        self._try(self._inner.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def exit_status(
    script: str,
    work: Callable[[], int],
    interrupted: str = "nothing was written",
    unwritten: str = "earlier results are as they were",
) -> int:
    """What `work` gives; or 2 for bad input and files, 1 for a failed run, 130 for Ctrl-C, with one line that says why.

    The line ends with `interrupted` after Ctrl-C, and with `unwritten` where a file or folder could not be used.

    SIGTERM and SIGHUP unwind `work` like Ctrl-C, with such a line; the process exits with 128 and their number.
    """

    def terminated(number: int, frame: object) -> None:
        raise Terminated(number)

    def say(what: object) -> None:
        print(f"{script}: {' '.join(str(what).split())}", file=sys.stderr)

    if experiments.UNPINNED:
        say(f"taken out of the environment, as it pins threads: {', '.join(experiments.UNPINNED)}")
        experiments.UNPINNED.clear()  # said once, where a script calls this more than once
    output: Any = WatchedOutput(sys.stdout)
    before = {number: signal.signal(number, terminated) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with contextlib.redirect_stdout(output):
            status = work()
            output.flush()
        return status
    except Terminated as error:
        say(f"ended by {signal.Signals(error.number).name}; {interrupted}")
        raise
    except UsageError as error:
        say(error)
        return 2
    except OSError as error:
        if output.problem is not None:
            say(f"standard output: {output.problem}; what was written before is kept")
            return 1
        say(f"{error}; {unwritten}")
        return 2
    except RunError as error:
        say(error)
        return 1
    except KeyboardInterrupt:
        say(f"interrupted; {interrupted}")
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
