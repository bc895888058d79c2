"""A Horovod learner: one of the N processes of Problem 1's jobs.

Every learner has a copy of the network and its own synthetic images, made once. A step computes the gradients of its
own batch, averages them over all learners with an all-reduce [Sergeev & Del Balso 2018], and updates the weights. With
`allreduce` off nothing is averaged: the same learners run side by side, independently, which gives the upper bound that
shared hardware sets.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.p1.frameworks import FRAMEWORKS, Framework, Job, Step


def digest(weights: list[np.ndarray]) -> str:
    """A hash of the weights, bit for bit."""
    joined = hashlib.sha256()
    for weight in weights:
        joined.update(np.ascontiguousarray(weight).tobytes())
    return joined.hexdigest()


def _all_reports(learner: Framework, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every learner's report, by rank: one line of JSON each, as bytes in one all-gather."""
    line = json.dumps(report).encode() + b"\n"
    gathered = learner.gather(np.frombuffer(line, np.uint8))
    return [json.loads(text) for text in gathered.tobytes().decode().splitlines()]


def train(job: Job, learners: int, began: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run the job as one of its `learners`; returns the reports of all, by rank.

    A report has `marks` (epochs, steps + 1): the start of an epoch and the end of each of its steps, in seconds since
    the job's start, which was at `began` on this process's time.perf_counter. It also has `losses` and `waits` (epochs,
    steps), the `digest` of the weights and facts about the learner. All learners start an epoch together; the first
    epoch starts after everyone's warm-up. `say` gets a line after each epoch. Raises RuntimeError for an unplanned
    number of learners, a loss that is not finite, or weights that differ although gradients were averaged.
    """

    def now() -> float:
        return time.perf_counter() - began

    learner = FRAMEWORKS[job.framework](job, learners)
    for _ in range(job.warm_up):
        learner.step()
    marks: list[list[float]] = []
    steps: list[list[Step]] = []
    for epoch in range(1, job.epochs + 1):
        learner.gather(np.zeros(1, np.uint8))  # a barrier
        marks.append([now()])
        steps.append([])
        for _ in range(job.steps_per_epoch):
            steps[-1].append(learner.step())
            marks[-1].append(now())
        loss = steps[-1][-1].loss
        if not math.isfinite(sum(step.loss for step in steps[-1])):
            raise RuntimeError(f"the loss is not finite after epoch {epoch}")
        rate = job.batch_size * job.steps_per_epoch / (marks[-1][-1] - marks[-1][0])
        say(f"epoch {epoch} of {job.epochs}: loss {loss:.4f}, {rate:,.2f} images/s a learner")
    weights = learner.weights()
    reports = _all_reports(
        learner,
        {
            "rank": learner.rank,
            "host": int(os.environ.get("HOROVOD_CROSS_RANK", 0)),
            "cores": sorted(os.sched_getaffinity(0)),
            "model": learner.model,
            "parameters": sum(weight.size for weight in weights),
            "gradient_bytes": sum(weight.nbytes for weight in weights),
            "marks": marks,
            "losses": [[step.loss for step in epoch_steps] for epoch_steps in steps],
            "waits": [[step.wait_seconds for step in epoch_steps] for epoch_steps in steps],
            "digest": digest(weights),
        },
    )
    if job.allreduce and len({report["digest"] for report in reports}) > 1:
        raise RuntimeError("the learners end with different weights, so their gradients were not averaged")
    return reports
