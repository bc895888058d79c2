"""What a script says to the person who typed its command line."""

from __future__ import annotations


class UsageError(ValueError):
    """The command can't run as asked; the message is one line that says what was wrong and what to do. Exit code 2."""


class RunError(RuntimeError):
    """The command was fine, the run failed; the message says how. Exit code 1."""
