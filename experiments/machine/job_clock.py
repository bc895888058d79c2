"""A job's clock: it starts when the job's first process is started."""

from __future__ import annotations

import os
import time

from experiments.cli import UsageError

STARTED = "DLPERF_JOB_STARTED"  # when the job's first process was started, in seconds since 1970


def job_start() -> float:
    """In a process that `Processes` started: the job's start on this process's time.perf_counter. Raises UsageError.

    Other hosts' clocks are taken to agree with that of the starting one.
    """
    if STARTED not in os.environ:
        raise UsageError("a process of a job that doesn't know the job's start; start the job without --report")
    return time.perf_counter() - (time.time() - float(os.environ[STARTED]))
