"""The stored runs, and which of their sources have changed since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from experiments.store import parquet
from experiments.store.parquet import Run
from experiments.store.provenance import changes

STATES = ["current", "same numbers", "stale"]


@dataclass(frozen=True)
class Known:
    """A run, and which of its sources have changed since; with each the reasons why its numbers stay as they are."""

    run: Run
    changes: dict[str, list[str]]

    @property
    def status(self) -> str:
        """One of STATES."""
        return "current" if not self.changes else "same numbers" if all(self.changes.values()) else "stale"


def known(runs: Iterable[Run]) -> list[Known]:
    """The runs with their sources' changes, which take long to find: each source is read and hashed."""
    runs = list(runs)
    found = changes(run.provenance for run in runs)
    return [Known(run, own) for run, own in zip(runs, found, strict=True)]


@cache
def stale() -> frozenset[str]:
    """The ids of the stored runs whose sources have changed since in ways that could change numbers."""
    return frozenset(one.run.provenance.run_id for one in known(parquet.runs()) if one.status == "stale")
