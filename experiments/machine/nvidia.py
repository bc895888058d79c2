"""This machine's NVIDIA GPUs."""

from __future__ import annotations

import os

from experiments.cli import UsageError
from experiments.machine.device_names import physical_gpus


def gpus() -> list[str]:
    """This machine's GPUs by number, or as CUDA_VISIBLE_DEVICES names them; none without a driver."""
    all_of_them = [str(i) for i in range(len(physical_gpus()))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return all_of_them if visible is None else [name for name in visible.split(",") if name][: len(all_of_them)]


def check_gpus(learners: int, oversubscribe: bool) -> None:
    """Raise UsageError when this machine has too few GPUs for so many learners."""
    there = len(gpus())
    if not there:
        raise UsageError("--device gpu: this machine has no NVIDIA GPU; use --device cpu")
    if learners > there and not oversubscribe:
        raise UsageError(f"{learners} learners need as many GPUs, this machine has {there}; use fewer")
