"""A worker process of Problem 2: trains its part, and worker 0 reports for all.

It prints `joined RANK` once all workers are there, and the reason if it fails. Worker 0 also prints its set-up's laps
and its epochs.
"""

from __future__ import annotations

import json
import math
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.machine import supervision
from experiments.machine.job_clock import job_start
from experiments.p2 import fashion_mnist, worker_job
from experiments.p2.join_timeout import JoinTimeout
from experiments.p2.placement import PINNED, cluster
from experiments.p2.worker import Worker
from experiments.store.files import write_atomically
from experiments.store.provenance import library_versions, loaded_sources


def job_clock() -> Callable[[], float]:
    """A clock of seconds since the job's start. Raises UsageError in a process that was started by hand."""
    began = job_start()
    return lambda: time.perf_counter() - began


def train(
    job: worker_job.Job,
    data: fashion_mnist.Fashion,
    rank: int,
    watch: JoinTimeout,
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> tuple[Worker, float, list[dict[str, Any]]]:
    """Train to the end; returns the worker, the time when its set-up ended, and its epochs.

    Times are the `clock`'s. `say` gets a line on the set-up and one after each epoch. Raises RuntimeError when the
    loss is not finite.
    """
    worker = Worker(job, data, rank, watch, clock)
    say("joined")
    worker.warm_up()
    set_up = clock()
    say(f"set-up: {worker.laps}")
    epochs = []
    for number in range(1, job.epochs + 1):
        epoch = worker.epoch()
        loss, seconds = float(np.mean(epoch["losses"])), epoch["marks"][-1] - epoch["marks"][0]
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss is not finite after epoch {number}")
        epochs.append(epoch)
        rate = job.steps * job.effective_batch / seconds
        say(f"{supervision.EPOCH_LINE}{number} of {job.epochs}: loss {loss:.4f}, {rate:,.1f} images/s")
    return worker, set_up, epochs


def run_worker(
    experiment: str, job: worker_job.Job, dataset: str, data_dir: Path | None, join_timeout: float, report: Path
) -> int:
    """Run one worker; returns its exit status. Worker 0 writes the report. Raises UsageError."""
    clock = job_clock()
    if PINNED in os.environ:  # before TensorFlow is loaded, so that all its threads inherit it
        os.sched_setaffinity(0, map(int, os.environ[PINNED].split(",")))
    addresses, rank = cluster(os.environ["TF_CONFIG"], job.workers) if "TF_CONFIG" in os.environ else ([""], 0)
    data = fashion_mnist.load(data_dir, dataset)

    def say(line: str) -> None:
        if line == "joined":
            print(f"{line} {rank}", flush=True)
        elif rank == 0:
            print(line, flush=True)

    others = [address for i, address in enumerate(addresses) if i != rank]
    watch = JoinTimeout(join_timeout, others, f"{experiment}: worker {rank}: ")
    try:
        worker, set_up, epochs = train(job, data, rank, watch, clock, say)
        mine = {"rank": rank, "digest": worker.digest(), "set_up": set_up, "epochs": epochs}
        mine |= {"parameters": worker.parameters, "gradient_bytes": worker.gradient_bytes}
        gathered = [json.loads(text) for text in worker.all_gather_bytes(json.dumps(mine).encode())]
        reports = sorted(gathered, key=lambda report: report["rank"])
        if len({report["digest"] for report in reports}) > 1:
            raise RuntimeError("the workers end with different weights, so their gradients were not summed")
    except Exception as error:
        traceback.print_exc()
        # TensorFlow's error for a lost peer says only that another worker is gone.
        lost = type(error).__name__ in {"UnavailableError", "AbortedError", "CancelledError"}
        print(
            f"{'' if lost else experiment + ': '}worker {rank}: {type(error).__name__}: "
            f"{supervision.first_line(error)}",
            flush=True,
        )
        return 1
    if rank == 0:
        reports[0] |= {"versions": library_versions(), "sources": loaded_sources()}
        write_atomically(report, json.dumps(reports).encode())
    return 0
