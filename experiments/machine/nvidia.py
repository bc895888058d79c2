"""This machine's NVIDIA GPUs."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess

from experiments.cli import UsageError


@functools.cache
def physical_gpus() -> tuple[str, ...]:
    """The UUIDs of all GPUs of this machine, whatever CUDA_VISIBLE_DEVICES says; none without a driver.

    Asked once a process: a sweep names its allocation several times a job, and the driver can take a second to answer.
    """
    if shutil.which("nvidia-smi") is None:
        return ()
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return tuple(re.findall(r"UUID: (GPU-[0-9a-f-]+)", listed.stdout))


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
