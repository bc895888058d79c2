"""The command that makes a job of Problem 1 or 2, from what describes it: for chapters whose runs are missing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

# Columns of the rows, and the options that set them. What has its default isn't written.
P1 = {
    "framework": ("--framework", "tensorflow"),
    "device_kind": ("--device", "cpu"),
    "precision": ("--precision", "float32"),
    "batch_size": ("--batch-size", 32),
    "image_size": ("--image-size", 224),
    "threads": ("--threads", 1),
    "compiled": ("--compile", False),
}
P2 = {
    "strategy": ("--strategy", "multiworker"),
    "scaling": ("--scaling", "weak"),
    "device_kind": ("--device", "cpu"),
    "precision": ("--precision", "float32"),
    "image_size": ("--image-size", 32),
    "threads": ("--threads", 1),
    "jit_compile": ("--jit-compile", False),
    "steps_per_execution": ("--steps-per-execution", 1),
    "all_reduce": ("--all-reduce", "default"),
    "communication": ("--communication", "auto"),
}


def command(job: Mapping[Any, Any]) -> str:
    """The series that the job belongs to, run anew in one go: a single run made later would be in no series."""
    p2 = "strategy" in job
    words = ["python", f"experiments/{'p2_strategy' if p2 else 'p1_horovod'}.py"]
    emulated = _given(job, "hosts", 1) > 1
    words += ["--learners", f"{_given(job, 'learners', 1)}"] if emulated else ["--sweep"]
    words += ["--repeats", "3"]
    for name, (option, default) in (P2 if p2 else P1).items():
        value = _given(job, name, default)
        if value != default:
            words += [option] if value is True else [option, _plain(value)]
    if p2 and "base" in job:
        option, default = ("--effective-batch", 256) if job.get("scaling") == "strong" else ("--base", 64)
        words += [option, _plain(job["base"])] if job["base"] != default else []
    if job.get("allreduce") is False and not p2:
        words.append("--independent-too")
    if emulated:
        words += ["--hosts", _plain(job["hosts"])]
        words += ["--gbit", _plain(job["gbit"])] if _given(job, "gbit", None) is not None else []
    return shlex.join(words)


def _given(job: Mapping[Any, Any], name: str, default: Any) -> Any:
    """The value, as Python's own type; the default for none."""
    value = job.get(name, default)
    if value is None or value != value:
        return default
    return value.item() if hasattr(value, "item") else value


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) or hasattr(value, "item") else str(value)
