"""The stored runs that earlier code has made."""

from __future__ import annotations

from experiments.store import parquet
from report import known_runs


def test_the_runs_of_earlier_code_are_those_that_say_so_of_themselves() -> None:
    known_runs.stale.cache_clear()  # another test may have asked where there are no results
    assert known_runs.stale() == {run.provenance.run_id for run in parquet.runs() if run.provenance.stale()}
