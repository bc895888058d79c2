"""The processes that a job has started, found by what is in their command lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def started_for(results: Path, option: str) -> Iterator[tuple[int, list[bytes], dict[bytes, bytes]]]:
    """Process id, words of the command line and environment of all that have both the folder and the option in it."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if str(results).encode() in words and option.encode() in words:
            yield int(entry.name), words, dict(pair.split(b"=", 1) for pair in environment if b"=" in pair)
