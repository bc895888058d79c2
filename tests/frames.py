"""Hand-made epoch frames, as `experiments.store.epochs.read` gives them, for what compares runs and draws them."""

from __future__ import annotations

from typing import Any

import pandas as pd

H100, H200, XEON = "NVIDIA H100 80GB HBM3", "NVIDIA H200", "Intel(R) Xeon(R) Processor"
NOTHING = float("nan")
P1: dict[str, Any] = {
    "framework": "torch",
    "model": "resnet50.py",
    "device_kind": "gpu",
    "learners": 1,
    "hosts": 1,
    "launcher": "horovodrun",
    "allreduce": True,
    "compiled": False,
    "precision": "float32",
    "batch_size": 64,
    "image_size": 224,
    "threads": 1,
    "gbit": NOTHING,
    "link_gbit": NOTHING,
    "repeat": 1,
    "parameters": 25_557_032,
    "gradient_bytes": 102_228_128,
    "kind": "measured",
    "allocation": "one",
    "device": H200,
    "device_count": 1,
    "started": pd.Timestamp("2027-01-01T00:00Z"),
    "environment": "{}",
}
CPU: dict[str, Any] = {
    "framework": "tensorflow",
    "model": "keras 3.12 ResNet50",
    "device_kind": "cpu",
    "batch_size": 16,
    "image_size": 64,
    "device": XEON,
}


def p1(
    seconds: list[float] | list[list[float]],
    *,
    steps: int = 2,
    began: float = 20.0,
    setup: float = 20.0,
    job: float | None = None,
    wait: float = NOTHING,
    **other: Any,
) -> pd.DataFrame:
    """A run of Problem 1: each epoch's seconds, of all learners alike or of each (a list for each epoch)."""
    constant = P1 | other
    n = constant["learners"]
    constant["effective_batch"] = constant["batch_size"] * (n if constant["allreduce"] else 1)
    name = "-".join(
        str(constant[key])
        for key in ("allocation", "framework", "precision", "batch_size", "compiled", "allreduce", "hosts", "gbit")
    )
    constant["run_id"] = f"{name}-{n}-r{constant['repeat']}-{constant['device'][-4:]}"
    rows = []
    total = 0.0
    for epoch, of_all in enumerate(seconds, 1):
        each = of_all if isinstance(of_all, list) else [of_all] * n
        assert len(each) == n
        images = steps * constant["batch_size"]
        rows += [
            {
                "rank": rank,
                "epoch": epoch,
                "steps": steps,
                "images": images,
                "began": began + total,
                "seconds": s,
                "images_per_second": images / s,
                "wait_seconds": wait,
            }
            for rank, s in enumerate(each)
        ]
        total += max(each)
    timing = {"epochs_planned": len(seconds), "setup_seconds": setup, "job_seconds": job or setup + total + 1}
    return pd.DataFrame([constant | timing | row for row in rows])


def cpu(seconds: list[float] | list[list[float]], **other: Any) -> pd.DataFrame:
    """A run of Problem 1 on cores, by TensorFlow."""
    return p1(seconds, **(CPU | other))


def p2(seconds: list[float], *, began: float = 20.0, **other: Any) -> pd.DataFrame:
    """A run of Problem 2, of one worker or more that take the same seconds."""
    constant: dict[str, Any] = {
        "network": "resnet50",
        "dataset": "fashion",
        "device_kind": "cpu",
        "learner": "core",
        "strategy": "multiworker",
        "scaling": "weak",
        "learners": 2,
        "workers": 2,
        "hosts": 1,
        "communication": "auto",
        "base": 64,
        "per_learner_batch": 64,
        "image_size": 32,
        "precision": "float32",
        "threads": 1,
        "whole_epochs": False,
        "repeat": 1,
        "kind": "measured",
        "allocation": "one",
        "device": XEON,
        "run_id": f"p2-{other.get('learners', 2)}-r{other.get('repeat', 1)}",
        "setup_seconds": 30.0,
        "job_seconds": 100.0,
        "evaluation_seconds": NOTHING,
        "wait_seconds": NOTHING,
        "epochs_planned": len(seconds),
        "started": pd.Timestamp("2027-01-01T00:00Z"),
        "environment": "{}",
    } | other
    images = 2 * 64 * constant["learners"] // constant["workers"]
    return pd.DataFrame(
        constant
        | {"worker": worker, "epoch": epoch, "steps": 2, "images": images, "began": began, "seconds": s}
        | {"images_per_second": images / s}
        for epoch, s in enumerate(seconds, 1)
        for worker in range(constant["workers"])
    )


def steps(of: pd.DataFrame, seconds: list[list[list[float]]]) -> pd.DataFrame:
    """Rows of version 2 for a run: its steps' seconds by epoch, step and learner, and a set-up, which is no step."""
    run_id = of.run_id.iloc[0]
    rows = [
        {"run_id": run_id, "phase": "train", "epoch": epoch, "step": step, "rank": rank, "seconds": s}
        for epoch, of_epoch in enumerate(seconds, 1)
        for step, of_step in enumerate(of_epoch, 1)
        for rank, s in enumerate(of_step)
    ]
    set_up = {"run_id": run_id, "phase": "set-up", "epoch": 0, "step": 0, "rank": 0, "seconds": 99.0}
    return pd.DataFrame([set_up, *rows])


def sums(seconds: dict[int, float], **other: Any) -> pd.DataFrame:
    """All-reduces by themselves: seconds by bytes."""
    constant = {"backend": "gloo", "learners": 2, "hosts": 1, "allocation": "one", "run_id": "sum-1", "window": 1}
    return pd.DataFrame(constant | other | {"bytes": size, "seconds": s} for size, s in seconds.items())
