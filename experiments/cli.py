"""What a script says to the person who typed its command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


class UsageError(ValueError):
    """The command can't run as asked; the message is one line that says what was wrong and what to do. Exit code 2."""


class RunError(RuntimeError):
    """The command was fine, the run failed; the message says how. Exit code 1."""


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
