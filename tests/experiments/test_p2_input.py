"""Problem 2's input benchmark runs, and refuses what it can't do in one line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import p2_input
from experiments.store import parquet


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
def test_both_contenders_are_timed_and_stored(tmp_path: Path) -> None:
    small = ["--network", "tiny", "--data", "synthetic", "--steps", "3", "--windows", "2"]
    keep = ["--write", "--results", str(tmp_path)]
    done = subprocess.run([sys.executable, p2_input.__file__, *small, *keep], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    first, second, verdict, stored = done.stdout.splitlines()
    assert first.startswith("input pipeline: ") and second.startswith("resident batch: ")
    assert ("keeps up" in verdict) == (done.returncode == 0)
    rows = parquet.read("p2_input", tmp_path)
    assert parquet.run(Path(stored)).rows == len(rows) == 4
    assert rows.contender.tolist() == ["resident", "fed", "fed", "resident"]  # each goes first once
    assert (rows.images_per_second > 0).all()
    rates = rows.groupby("contender").images_per_second.median()
    assert f"{rates.fed / rates.resident:.1%} of the rate" in verdict
    assert "experiments/p2/worker.py" in parquet.run(Path(stored)).provenance.sources
