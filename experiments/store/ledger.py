"""The ledger of changes that leave the numbers of earlier runs as they are: same_numbers.csv.

A row says that `source`, with the SHA-256 `before`, became `becomes` with the SHA-256 `after`, and why that changes no
number. A file that was renamed has another path in `becomes`. A file that was split has a row for each part, and a run
that it made is current only where every part leads to a file that is there now. `tools/prove_move.py` writes the rows
of files that were only moved and deletes rows that no stored run needs; the tests prove all moves again.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.cli import UsageError

# No number depends on these: storing and judging results, supervising processes, reading options, naming devices. No
# run records them now, and none that did is stale for their sake. The last line has their former names, in early runs.
NO_NUMBERS = frozenset(
    f"experiments/{name}.py"
    for name in (
        *("cli", "store/files", "store/ledger", "store/parquet", "store/provenance", "store/schemas"),
        *("store/bounds", "store/checksums", "store/claims", "store/evidence", "store/logs", "store/plausible"),
        *("store/suspicious", "store/timed_jobs", "store/timelines"),
        *("machine/allocation", "machine/cpu_quota", "machine/device_names", "machine/processes", "machine/settings"),
        *("machine/stalls", "machine/supervision", "machine/sweep", "p1/horovod_options", "p2/strategy_options"),
        *("store", "usage"),
    )
)
LEDGER = Path(__file__).with_name("same_numbers.csv")


class Change(NamedTuple):
    """A change of a source, from one path and SHA-256 of its text to others, and why earlier numbers stay."""

    source: str
    before: str
    becomes: str
    after: str
    reason: str


class LedgerError(UsageError):
    """The ledger has another form; the message names the file."""


def file_hash(path: Path) -> str:
    """SHA-256 of a source's text with Unix line ends, whatever git made of them; empty where there is none."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest() if path.is_file() else ""


@functools.cache
def read(path: Path) -> tuple[Change, ...]:
    """The rows of a ledger. Raises LedgerError for another form."""
    try:
        with path.open(newline="", encoding="utf-8") as f:
            head, *rows = list(csv.reader(f)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise LedgerError(f"{path}: cannot be read ({error}); restore it") from error
    if head != list(Change._fields) or not all(len(row) == len(head) and all(row) for row in rows):
        raise LedgerError(f"{path}: must have the columns {', '.join(Change._fields)}, and no empty cell")
    table = [Change(*row) for row in rows]
    if len({change[:4] for change in table}) < len(table):
        raise LedgerError(f"{path}: a change is listed twice")
    return tuple(table)


def changes() -> tuple[Change, ...]:
    """The project's rows. Raises LedgerError."""
    return read(LEDGER)


def write(table: Iterable[Change]) -> None:
    """Replace the project's rows."""
    with LEDGER.open("w", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows([Change._fields, *table])
    read.cache_clear()


_indexed: tuple[tuple[Change, ...], dict[tuple[str, str], list[Change]]] = ((), {})


def _starts() -> dict[tuple[str, str], list[Change]]:
    """The rows by the source that they start from; made again only where the table is another one."""
    global _indexed
    table = changes()
    if table is not _indexed[0]:
        found: dict[tuple[str, str], list[Change]] = {}
        for change in table:
            found.setdefault((change.source, change.before), []).append(change)
        _indexed = table, found
    return _indexed[1]


def _is_current(node: tuple[str, str], root: Path) -> bool:
    """Whether a source, (path, SHA-256), is as it was, or no number depends on it."""
    return node[0] in NO_NUMBERS or file_hash(root / node[0]) == node[1]


def reasons(source: str, digest: str, root: Path) -> list[str]:
    """Why all changes of a source since it had this hash are harmless; empty when one of them isn't known to be."""
    starts = _starts()

    def follow(node: tuple[str, str], behind: frozenset[tuple[str, str]]) -> list[str] | None:
        if _is_current(node, root):
            return []
        if node in behind or node not in starts:
            return None
        found: list[str] = []
        for change in starts[node]:
            rest = follow((change.becomes, change.after), behind | {node})
            if rest is None:
                return None
            found += [change.reason, *rest]
        return found

    return list(dict.fromkeys(follow((source, digest), frozenset()) or []))


def _led_to(sources: Iterable[tuple[str, str]], root: Path) -> set[tuple[str, str]]:
    """These sources, (path, SHA-256), and all that harmless changes made of them; without those that are current."""
    starts, seen = _starts(), set[tuple[str, str]]()
    todo = list(sources)
    while todo:
        node = todo.pop()
        if node in seen or _is_current(node, root):
            continue
        seen.add(node)
        todo += [(change.becomes, change.after) for change in starts.get(node, [])]
    return seen


def latest(source: str, digest: str, root: Path) -> set[tuple[str, str]]:
    """The last sources, (path, SHA-256), to which harmless changes lead from this one; without those that are current.

    Runs with the same latest sources were made by the same code, though today's may be another.
    """
    return {node for node in _led_to([(source, digest)], root) if node not in _starts()}


def needed(sources: Iterable[tuple[str, str]], root: Path) -> list[Change]:
    """The rows that lead from these sources, (path, SHA-256), to what is there now, in the ledger's order."""
    seen = _led_to(sources, root)
    return [change for change in changes() if (change.source, change.before) in seen]
