"""Hand-made rows of `scaling_fit`, with numbers that one can work out."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.scaling import published
from experiments.store import schemas
from report import show

NOTHING: dict[str, Any] = {field.name: None for field in schemas.SCHEMAS["scaling_fit"]}
NUMBERS = ["learners", "per_learner_batch", "observed", "predicted", "low", "high", "error", "gradient_bytes"]
NUMBERS += ["link_gbit_per_second", "compute_seconds", "overhead_seconds", "exposed_seconds", "bus_bytes_per_second"]
K80 = {"speed": 50.0}


def row(series: str, method: str, role: str, p: int, predicted: float, **more: Any) -> dict[str, Any]:
    """A row; its error follows from what was observed."""
    made = NOTHING | {"series": series, "method": method, "role": role, "learners": p, "predicted": predicted}
    made |= {"network": "ResNet-50", "unit": "images/s", "source": "a page", "run_id": "fit", "fit_points": "1, 2, 4"}
    made |= {"started": pd.Timestamp("2027-01-01T00:00Z")} | more
    return made | {"error": predicted / made["observed"] - 1 if made["observed"] else None}


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows, with numbers as numbers."""
    return pd.DataFrame(rows).astype(dict.fromkeys(NUMBERS, float)).astype({"learners": int})


def curve(
    series: str, rates: dict[int, float], held: dict[int, tuple[float, float]], **more: Any
) -> list[dict[str, Any]]:
    """A curve: fitted images/s by learners, then observed and predicted ones of held-out points."""
    seen = [row(series, "curve", "fitted", p, rate, observed=rate, **more) for p, rate in rates.items()]
    ahead = [row(series, "curve", "held out", p, new, observed=old, **more) for p, (old, new) in held.items()]
    return seen + ahead


def fitted() -> pd.DataFrame:
    """A published curve, a measured one of GPUs, both link predictions, and the K80's jobs.

    Published: 100, 180, 324 images/s: each doubling keeps 90 %. At 8 it is 600; the line says 648, the constant loss
    583.2, the model 630. Measured: 100 and 190 keep 95 %; at 4 it is 400, where the line says 380 and the loss 361.
    """
    node = {"gradient_bytes": 100e6, "bus_bytes_per_second": 2e9, "compute_seconds": 0.02, "overhead_seconds": 0.0}
    gpus = "Horovod torch, NVIDIA H200, 224 pixels"
    rows = curve("MXNet A", {1: 100.0, 2: 180.0, 4: 324.0}, {8: (600.0, 630.0)}, low=590.0, high=640.0)
    rows += curve(gpus, {1: 100.0, 2: 190.0}, {4: (400.0, 388.0)}, source="measured", per_learner_batch=64.0)
    k80_rates = {1: 50.0, 2: 98.0, 4: 192.0}
    rows += curve(published.K80_NODE, k80_rates, {8: (384.0, 380.16)}, per_learner_batch=64.0, **node)
    step: dict[str, Any] = {
        "compute_seconds": 0.01,
        "exposed_seconds": 0.0025,
        "per_learner_batch": 64.0,
        "observed": 160.0,
    }
    step |= {"fit_points": "1, and NCCL's all-reduce between 2 of NVIDIA H200"}
    rows.append(row(gpus, "link, nothing hidden", "held out", 2, 168.0, **step))
    rows.append(row(gpus, "link, backward pass hides", "held out", 2, 200.0, **step))
    for name, batches in (
        ("K80, weak scaling, 64 a learner", (64, 64)),
        ("K80, strong scaling, 256 in all", (256, 16)),
    ):
        for p, batch, rate in zip((1, 16), batches, (K80["speed"], 640.0), strict=True):
            job: dict[str, Any] = {
                "per_learner_batch": float(batch),
                "low": rate - 10,
                "high": rate + 10,
                "gradient_bytes": 100e6,
            }
            job |= {"link_gbit_per_second": 10.0 if p > 8 else None}
            rows.append(row(name, "homework", "projected", p, rate, **job))
    for method, new in (("bandwidth", 330.0), ("latency", 310.0), ("tree", 320.0), ("mean", 340.2)):
        rows.append(row("MXNet A", f"choice, {method}", "chosen on", 4, new, observed=324.0, fit_points="1, 2"))
    return frame(rows)


def drawn(chart: Any) -> list[dict[str, Any]]:
    """The rows that a chart draws, over all of its data. A missing chart fails here."""
    return [mark for data in show.specification(chart)["datasets"].values() for mark in data]


def cells(table: object) -> list[list[str]]:
    """A table's cells, without its rules."""
    lines = [line for line in str(table).replace("\u00a0", " ").replace("\u2060", "").splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:1] + lines[2:]]
