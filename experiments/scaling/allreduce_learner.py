"""A learner of experiments/allreduce.py: times all-reduces of float32 by torch.distributed, and checks their sums."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from experiments.cli import RunError
from experiments.machine.cores import core_sets

ITEM = 4  # bytes of a float32
# Sums of these numbers, each times a rank, are exact in float32 for that many learners. Their count is prime, so that a
# learner that mixes up two pieces of a vector is noticed: no two are alike.
PATTERN, MOST_LEARNERS = 251, 256
TRIAL = 0.25  # share of a window that a trial must last to set a window's number of iterations


@dataclass(frozen=True)
class Config:
    """What determines a run's numbers, and so its id."""

    backend: str
    learners: int
    hosts: int
    gbit: float | None
    threads: int
    oversubscribe: bool
    min_bytes: int
    max_bytes: int
    windows: int
    window_seconds: float
    device: str
    environment: dict[str, str]  # variables that NCCL and Gloo read
    repeat: int

    @property
    def slug(self) -> str:
        """The readable part of the run id."""
        link = "" if self.gbit is None else f"-{self.gbit:g}gbit"
        return f"{self.backend}-p{self.learners:02d}-h{self.hosts}{link}-r{self.repeat}"

    @property
    def sizes(self) -> list[int]:
        """Bytes of the vectors, each twice the one before."""
        return [1 << k for k in range(self.min_bytes.bit_length() - 1, self.max_bytes.bit_length())]


# ---- one learner ---------------------------------------------------------------------------------------------------


def check_sum(vector: Tensor, rank: int, learners: int) -> None:
    """All-reduce numbers that depend on rank and place, and compare them with their sum. Raises RunError."""
    block = (torch.arange(PATTERN, dtype=torch.float32, device=vector.device) + 1).repeat(4096)
    for part in vector.split(len(block)):
        part.copy_(block[: len(part)] * (rank + 1))
    dist.all_reduce(vector)
    block *= learners * (learners + 1) // 2
    if not all(torch.equal(part, block[: len(part)]) for part in vector.split(len(block))):
        raise RunError(f"the all-reduce of {ITEM * len(vector)} bytes has a wrong sum")


def window(vector: Tensor, iterations: int) -> float:
    """Seconds of a number of all-reduces in a row, for the slowest learner; all learners get the same value."""

    def finish() -> None:
        if vector.is_cuda:
            torch.cuda.synchronize()

    dist.barrier()
    finish()
    start = time.perf_counter()
    for _ in range(iterations):
        dist.all_reduce(vector)
    finish()
    slowest = torch.tensor(time.perf_counter() - start, dtype=torch.float64, device=vector.device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return slowest.item()


def measure(size: int, windows: int, window_seconds: float, device: torch.device) -> Iterator[tuple[int, float]]:
    """For each window its iterations and the seconds of one of them, for vectors of ``size`` bytes. Raises RunError."""
    vector = torch.empty(size // ITEM, dtype=torch.float32, device=device)
    check_sum(vector, dist.get_rank(), dist.get_world_size())
    vector.zero_()  # zeros stay zeros however often they are summed
    iterations = 1
    while (seconds := window(vector, iterations)) < TRIAL * window_seconds:
        iterations *= 4
    iterations = max(1, round(iterations * window_seconds / seconds))
    for _ in range(windows):
        yield iterations, window(vector, iterations) / iterations


def learn(c: Config, rank: int, rendezvous: str, say: Callable[[dict[str, Any]], None]) -> None:
    """Measure all sizes with the other learners; rank 0 reports. Raises RunError and torch's own errors."""
    if c.backend == "gloo":
        os.sched_setaffinity(0, core_sets(c.learners, c.threads, c.oversubscribe)[rank])
        torch.set_num_threads(c.threads)
        device = torch.device("cpu")
    else:
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    # A file needs no free port, and the hosts share it.
    dist.init_process_group(
        c.backend,
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=c.learners,
        device_id=device if device.type == "cuda" else None,
    )
    for size in c.sizes:
        for number, (iterations, seconds) in enumerate(measure(size, c.windows, c.window_seconds, device), 1):
            if rank == 0:
                say({"bytes": size, "window": number, "iterations": iterations, "seconds": seconds})
    dist.destroy_process_group()
