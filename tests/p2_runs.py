"""Hand-made runs of Problem 2 as its figures take them, and the scaling model's rows for the K80."""

from __future__ import annotations

from typing import Any

import pandas as pd

from report.figures.strategy_runs import prepared
from tests.frames import H200, NOTHING, p2

VERSION_1: dict[str, Any] = {"began": NOTHING}


def job(seconds: list[float], learners: int = 1, scaling: str = "weak", **other: Any) -> pd.DataFrame:
    """A run of Problem 2 on GPUs: each epoch's seconds. An epoch has two `steps` of the homework's batches."""
    steps = other.pop("steps", 2)
    each = other.pop("each", 64 if scaling == "weak" else 256 // learners)
    accuracies = other.pop("accuracies", [NOTHING] * len(seconds))
    constant: dict[str, Any] = {
        "device_kind": "gpu",
        "device": H200,
        "strategy": "mirrored",
        "all_reduce": "default",
        "communication": None,
        "workers": 1,
        "image_size": 224,
        "jit_compile": True,
        "steps_per_execution": 1,
        "threads": 1,
        "gbit": NOTHING,
        "learners": learners,
        "scaling": scaling,
        "base": each if scaling == "weak" else each * learners,
        "per_learner_batch": each,
        "effective_batch": each * learners,
    } | other
    names = ("allocation", "device", "strategy", "all_reduce", "communication", "scaling", "base", "image_size")
    more = ("jit_compile", "precision", "steps_per_execution", "hosts", "gbit", "environment", "learners", "repeat")
    name = "-".join(str(constant.get(key)) for key in (*names, *more))
    frame = p2(seconds, **{"run_id": f"{name}-{len(seconds)}", **constant})
    images = steps * each * learners // constant["workers"]
    tested = frame.epoch.map(dict(enumerate(accuracies, 1)))
    frame = frame.assign(steps=steps, images=images)
    return frame.assign(images_per_second=images / frame.seconds, test_accuracy=tested)


def core(seconds: list[float], learners: int = 1, scaling: str = "weak", **other: Any) -> pd.DataFrame:
    """The same on CPU cores, a worker each."""
    cpu: dict[str, Any] = {
        "device_kind": "cpu",
        "device": "Intel(R) Xeon(R) Processor",
        "strategy": "multiworker",
        "all_reduce": None,
        "communication": "auto",
        "workers": learners,
        "image_size": 32,
        "jit_compile": False,
    }
    return job(seconds, learners, scaling, **(cpu | other))


def repeated(seconds: float, learners: int = 1, scaling: str = "weak", **other: Any) -> list[pd.DataFrame]:
    """Three runs of two epochs on GPUs, 1 % apart."""
    return [job([s * seconds] * 2, learners, scaling, repeat=r, **other) for r, s in enumerate((0.99, 1.0, 1.01), 1)]


def ten(seconds: float, learners: int = 1, scaling: str = "weak", **other: Any) -> pd.DataFrame:
    """A run of ten whole epochs: set-up takes 30 s, each test 2 s, and the end 1 s."""
    timing: dict[str, Any] = {
        "whole_epochs": True,
        "evaluation_seconds": 2.0,
        "job_seconds": 30 + 10 * (seconds + 2) + 1,
        "accuracies": [0.1 * epoch for epoch in range(1, 10)] + [0.85],
    }
    return job([seconds] * 10, learners, scaling, **(timing | other))


def runs(*frames: pd.DataFrame) -> pd.DataFrame:
    return prepared(pd.concat(frames, ignore_index=True))


def fitted(rates: dict[tuple[str, int], float]) -> pd.DataFrame:
    """Rows of `scaling_fit` that project the homework's jobs: images/s by kind of scaling and learners."""
    return pd.DataFrame(
        {
            "series": f"K80, {scaling} scaling",
            "method": "homework",
            "role": "projected",
            "learners": n,
            "per_learner_batch": 64.0 if scaling == "weak" else 256 / n,
            "predicted": rate,
            "low": 0.9 * rate,
            "high": 1.1 * rate,
            "run_id": "fit",
            "started": pd.Timestamp("2027-01-01T00:00Z"),
        }
        for (scaling, n), rate in rates.items()
    )


NONE = runs(job([1.0]).iloc[:0])
# Weak: 128 images in 100 s, 256 in 125 s. Strong: 512 in 400 s and in 320 s.
GPUS = [ten(100.0), ten(125.0, 2), ten(400.0, scaling="strong"), ten(320.0, 2, "strong")]
# An epoch of one core is 128 images in 2 s; of 16 on two hosts, 2048 in 8 s. Strong: 512 in 8 s and 4 s.
TWO_HOSTS: dict[str, Any] = {"hosts": 2, "gbit": 10.0}
CORES = [
    core([2.0] * 3),
    core([8.0] * 3, 16, **TWO_HOSTS),
    core([8.0] * 3, scaling="strong"),
    core([4.0] * 3, 16, "strong", **TWO_HOSTS),
]
BOTH = runs(*GPUS, *CORES)
K80 = fitted({("weak", n): 50.0 * n for n in (1, 2, 4, 8, 16)} | {("strong", n): 40.0 * n for n in (1, 2, 4, 8, 16)})
