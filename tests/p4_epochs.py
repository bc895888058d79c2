"""Hand-made runs of Problem 4 as its figures take them: an epoch frame."""

from __future__ import annotations

from typing import Any

import pandas as pd

from report.answers import Answer
from tests.frames import H100


def run(errors: list[float], m: int = 1, **other: Any) -> pd.DataFrame:
    """A run of Problem 4, a row an epoch: its validation errors in %. `drop` is the first epoch with a lower rate,
    `step` a training step's ms; an epoch has 100 steps of 64·M images and half a second of validation."""
    constant: dict[str, Any] = {
        "M": m,
        "augment": "cutout",
        "schedule": "authors",
        "precision": "bf16",
        "engine": "fused",
        "device": H100,
        "code": "today's",
        "allocation": "one",
        "seed": 0,
        "train_error": 0.1,
        "setup_seconds": 30.0,
        "epochs_planned": len(errors),
    }
    drop, step = other.pop("drop", 3), other.pop("step", 10.0)
    constant |= other
    name = "-".join(str(constant[key]) for key in ("augment", "M", "schedule", "precision", "epochs_planned", "seed"))
    rows = [
        {"epoch": e, "val_error": error / 100, "learning_rate": 0.1 if e < drop else 0.01, "steps": 100}
        | {"images": 6400 * m, "train_seconds": step / 10, "wall_seconds": e * (step / 10 + 0.5)}
        for e, error in enumerate(errors, 1)
    ]
    return pd.DataFrame(
        [constant | {"run_id": f"{name}-{constant['allocation']}-{constant['code']}"} | r for r in rows]
    )


def runs(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def seeds(errors: list[list[float]], m: int = 1, **other: Any) -> pd.DataFrame:
    """A run for each seed."""
    return runs(*(run(own, m, seed=seed, **other) for seed, own in enumerate(errors)))


def plain(found: Any) -> str:
    text = found.sentence if isinstance(found, Answer) else found
    assert isinstance(text, str)
    return text.replace("\u00a0", " ").replace("\u2060", "")


# Four epochs, the rate falls before the third. M = 2 is there at the drop, M = 1 never.
ONE = seeds([[9, 8, 7, 6.9], [9, 8, 7.1, 7.0], [9, 8, 7.2, 7.1]])
TWO = seeds([[9, 8, 6, 5.9], [9, 8, 5.5, 5.8], [9, 8, 5, 5.7]], 2, step=15.0)
FOUR = seeds([[9, 8, 6, 5.8], [9, 8, 5.5, 5.9], [9, 8, 5, 5.7]], 4, step=25.0)
BASIC = seeds([[12, 10, 8, 7.5], [12, 10, 8, 7.7], [12, 10, 7, 7.9]], augment="basic")
