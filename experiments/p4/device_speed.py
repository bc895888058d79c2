"""A device's clock, and the bandwidth of its memory."""

from __future__ import annotations

import time

import torch

COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 28}
COPIES, REPEATS = 5, 5


def now(device: str) -> float:
    """The clock, once the device is idle."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bandwidth(device: str) -> float:
    """Bytes/s of a large copy on the device, read plus written: the best of a few."""
    source = torch.ones(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(1 + REPEATS):
        start = now(device)
        for _ in range(COPIES):
            target.copy_(source)
        times.append(now(device) - start)
    return 2 * COPIES * source.numel() / min(times[1:])
