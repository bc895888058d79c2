"""The rows of Problem 1's jobs: each learner's time line from the job's start to its end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pandas as pd

from experiments.cli import RunError
from experiments.machine.link_speed import Link
from experiments.p1.horovod_options import Config


def check_ranks(c: Config, reports: list[dict[str, Any]]) -> None:
    """Raise RunError unless exactly the planned learners have reported."""
    ranks = [report["rank"] for report in reports]
    if ranks != list(range(c.learners)):
        raise RunError(f"{c.learners} learners were planned, ranks {ranks} have reported; nothing was written")


def as_rows(c: Config, reports: list[dict[str, Any]], link: Link | None, seconds: float) -> pd.DataFrame:
    """A row for each learner's set-up, steps and end; `seconds` is the job's whole time.

    Raises RunError if a learner's clock differs so much from the script's that its time line doesn't fit into the job.
    """
    frames = []
    for report in reports:
        phases = pd.DataFrame(list(_time_line(report, seconds))).astype({"wait_seconds": float, "loss": float})
        if (phases.seconds < 0).any():
            raise RunError(
                f"learner {report['rank']} trained from {report['marks'][0][0]:.3f} to {report['marks'][-1][-1]:.3f} s "
                f"of a job of {seconds:.3f} s, says its host's clock; set that; nothing was written"
            )
        fixed = {
            "framework": c.job.framework,
            "model": report["model"],
            "device_kind": c.job.device,
            "learners": c.learners,
            "hosts": c.hosts,
            "launcher": c.launcher,
            "allreduce": c.job.allreduce,
            "compiled": c.job.compiled,
            "precision": c.job.precision,
            "batch_size": c.job.batch_size,
            "effective_batch": c.job.batch_size * (c.learners if c.job.allreduce else 1),
            "image_size": c.job.image_size,
            "threads": c.job.threads,
            "cores": ",".join(map(str, report["cores"])),
            "gbit": c.gbit,
            "link_gbit": link and link.gbit,
            "link_round_trip_us": link and link.round_trip_us,
            "repeat": c.repeat,
            "rank": report["rank"],
            "host": report["host"],
            "epochs_planned": c.job.epochs,
            "warm_up_steps": c.job.warm_up,
            "parameters": report["parameters"],
            "gradient_bytes": report["gradient_bytes"],
        }
        frames.append(phases.assign(images=c.job.batch_size * (phases.phase == "train"), **fixed))
    links = ("gbit", "link_gbit", "link_round_trip_us")
    return pd.concat(frames, ignore_index=True).astype({name: float for name in links})


def _time_line(report: dict[str, Any], end: float) -> Iterator[dict[str, Any]]:
    """A learner's phases in order, with their times."""

    def phase(name: str, began: float, ended: float, **more: Any) -> dict[str, Any]:
        empty = {"epoch": 0, "step": 0, "wait_seconds": None, "loss": None}
        return {"phase": name, "began": began, "seconds": ended - began} | empty | more

    marks = report["marks"]
    yield phase("set-up", 0.0, marks[0][0])
    for epoch, (times, losses, waits) in enumerate(zip(marks, report["losses"], report["waits"], strict=True), 1):
        for step, ((began, ended), loss, wait) in enumerate(zip(pairwise(times), losses, waits, strict=True), 1):
            yield phase("train", began, ended, epoch=epoch, step=step, loss=loss, wait_seconds=wait)
    yield phase("end", marks[-1][-1], end)


def rates(rows: pd.DataFrame) -> pd.Series:
    """Images per second of all learners together, by epoch."""
    train = rows[rows.phase == "train"].assign(ended=lambda frame: frame.began + frame.seconds)
    of_learners = train.groupby(["epoch", "rank"]).agg(
        images=("images", "sum"), began=("began", "min"), ended=("ended", "max")
    )
    return (of_learners.images / (of_learners.ended - of_learners.began)).groupby("epoch").sum()
