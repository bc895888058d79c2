"""A job's processes tell the time since the job's start."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from experiments.machine import job_clock, processes


def test_a_process_knows_its_jobs_start() -> None:
    say = "from experiments.machine import job_clock; import time; print(time.perf_counter() - job_clock.job_start())"
    said: list[str] = []
    before = time.perf_counter()
    with processes.Processes(said.append) as job:
        job.start([sys.executable, "-c", say], {"PYTHONPATH": str(Path(processes.__file__).parents[2])})
        assert job.wait() is None
        assert 0 < job.seconds <= time.perf_counter() - before
    assert 0 < float(said[0]) < job.seconds


def test_a_process_that_no_job_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(job_clock.STARTED, raising=False)
    with pytest.raises(ValueError, match="doesn't know the job's start; start the job without --report"):
        job_clock.job_start()
