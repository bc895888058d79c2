"""The probe of a machine's speed: a core's own, whatever else runs there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from experiments.cli import UsageError
from experiments.measure_plan import survey

# Prints its cores in place of a speed.
CORES = "import json, os; print(json.dumps(dict(gflops=0, import_seconds=len(os.sched_getaffinity(0)), sees_gpu=[])))"


def test_the_probe_of_a_core_has_that_core_alone_from_its_start() -> None:
    """NumPy's products start a thread for each core that they see: two on one core are ten times slower than one."""
    core = min(os.sched_getaffinity(0))
    assert survey._ask([sys.executable, "-c", CORES], core).import_seconds == 1
    assert survey._ask([sys.executable, "-c", CORES], None).import_seconds == len(os.sched_getaffinity(0))


def test_a_probe_that_fails_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"the probe of this machine failed \(IndexError\); name a --device"):
        survey._ask([sys.executable, "-c", ""], None)


def test_data_is_found_where_the_variable_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "train-images-idx3-ubyte.gz").touch()
    monkeypatch.setenv("DLPERF_DATA", str(tmp_path))
    assert survey._data() == ("fashion",)
