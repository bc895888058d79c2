"""A job's clock: it starts when the job's first process is started."""

from __future__ import annotations

import os
import time

from experiments.cli import UsageError

STARTED = "DLPERF_JOB_STARTED"  # when the job's first process was started, in seconds since 1970


def job_start() -> float:
    """The job's start on this process's time.perf_counter; for processes that `Processes` started. Raises UsageError.

    Assumes that other hosts' clocks agree with that of the starting host.
    """
    if STARTED not in os.environ:
        raise UsageError("a process of a job that doesn't know the job's start; start the job without --report")
    return time.perf_counter() - (time.time() - float(os.environ[STARTED]))
