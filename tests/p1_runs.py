"""Hand-made runs of Problem 1 as its figures take them, and what a test reads from a figure."""

from __future__ import annotations

from typing import Any

import pandas as pd

from report.answers import Answer, Missing
from report.figures.horovod_runs import prepared
from tests.frames import cpu, p1, sums

NO_STEPS = pd.DataFrame(columns=["run_id", "phase", "epoch", "step", "seconds"])
NO_SUMS = sums({}).reindex(columns=["backend", "learners", "hosts", "allocation", "run_id", "bytes", "seconds"])


def runs(*frames: pd.DataFrame, of_steps: pd.DataFrame = NO_STEPS) -> pd.DataFrame:
    return prepared(pd.concat(frames, ignore_index=True), of_steps)


def gpus(seconds: dict[int, float], repeats: int = 3, **other: Any) -> list[pd.DataFrame]:
    """Jobs of two epochs on GPUs: an epoch's seconds by number of learners. Repetitions are 1 % apart."""
    return [
        p1([s * (1 + 0.01 * (r - (repeats + 1) / 2))] * 2, learners=n, repeat=r, **other)
        for n, s in seconds.items()
        for r in range(1, repeats + 1)
    ]


def cores(seconds: dict[int, float], repeats: int = 3, **other: Any) -> list[pd.DataFrame]:
    """The same on cores, all repetitions alike."""
    return [cpu([s] * 2, learners=n, repeat=r, **other) for n, s in seconds.items() for r in range(1, repeats + 1)]


NONE = runs(p1([1.0]).iloc[:0])
BOTH = runs(*gpus({1: 1.0, 2: 1.05, 4: 1.1}), *cores({1: 2.0, 8: 2.5, 16: 4.0}))


def data(chart: Any) -> list[dict[str, Any]]:
    """All rows of a chart's data."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def lines(table: str) -> list[list[str]]:
    """A table's cells, header first."""
    plain = table.replace("\u2060", "").replace("\u00a0", " ")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in plain.splitlines()]
    return [rows[0], *rows[2:]]


def text(found: Answer | Missing) -> str:
    assert isinstance(found, Answer)
    return found.sentence.replace("\u00a0", " ")


def two_hosts(seconds: float, gbit: float, link: float, **other: Any) -> list[pd.DataFrame]:
    there: dict[str, Any] = {"hosts": 2, "launcher": "none", "gbit": gbit, "link_gbit": link}
    return cores({16: seconds}, **(there | other))


TWO_HOSTS = runs(
    *cores({8: 2.0, 16: 3.0}), *two_hosts(4.0, 10.0, 9.5), *two_hosts(6.0, 1.0, 0.95), *two_hosts(3.2, float("nan"), 40)
)
