"""This machine's NVIDIA GPUs."""

from __future__ import annotations

from experiments.cli import UsageError
from experiments.machine.device_names import no_gpu, visible_gpus


def gpus() -> list[str]:
    """This machine's GPUs by number, or as CUDA_VISIBLE_DEVICES names them; none without a driver."""
    return list(visible_gpus())


def check_gpus(learners: int, oversubscribe: bool) -> None:
    """Raise UsageError when this machine has too few GPUs for that many learners."""
    there = len(gpus())
    if not there:
        raise UsageError(f"--device gpu: {no_gpu()}")
    if learners > there and not oversubscribe:
        raise UsageError(f"{learners} learners need as many GPUs, this machine has {there}; use fewer")
