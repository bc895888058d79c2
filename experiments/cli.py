"""What scripts share of their command lines: readers and checks of options, errors, and the exit status."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn


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


def exit_status(
    script: str,
    work: Callable[[], int],
    interrupted: str = "nothing was written",
    unwritten: str = "earlier results are as they were",
) -> int:
    """What `work` gives; or 2 for bad input and files, 1 for a failed run, 130 for Ctrl-C, with one line that says why.

    The line ends with `interrupted` after Ctrl-C, and with `unwritten` where a file or folder could not be used.

    SIGTERM and SIGHUP unwind `work` like Ctrl-C; the process exits with 128 and their number.
    """

    def terminated(number: int, frame: object) -> None:
        sys.exit(128 + number)

    def say(what: object) -> None:
        print(f"{script}: {' '.join(str(what).split())}", file=sys.stderr)

    before = {number: signal.signal(number, terminated) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return work()
    except UsageError as error:
        say(error)
        return 2
    except OSError as error:
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
