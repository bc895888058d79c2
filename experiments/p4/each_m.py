"""What the scripts that measure a training step for several M share: options, what is trained, and storing each M."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from experiments.cli import UsageError, path
from experiments.p4 import training
from experiments.store import parquet
from experiments.store.claims import claimed
from experiments.store.files import RESULTS, check_writable
from experiments.store.provenance import Code, provenance, timed_id

DEPTH = 44


def add_options(p: argparse.ArgumentParser) -> None:
    """The options that say what is trained, and what becomes of the rows."""
    p.add_argument("--M", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    p.add_argument("--batch-size", type=int, default=64, help="distinct samples in a batch, B (default 64)")
    p.add_argument("--data", choices=("cifar10", "synthetic"), default="cifar10")
    p.add_argument("--data-dir", type=path, help="folder with CIFAR-10 (default: the variable DLPERF_DATA)")
    p.add_argument("--write", action="store_true", help="store the rows of each M when they are done")
    p.add_argument("--results", type=path, default=RESULTS, help="where --write stores (default results/)")


def configs(a: Namespace, precision: str, engine: str, device: str) -> list[training.Config]:
    """What is trained at each M, in the options' order. Raises UsageError."""
    if len(set(a.M)) < len(a.M):
        raise UsageError(f"--M needs different numbers, not {' '.join(map(str, a.M))}")
    asked = training.Config(a.data, "cutout", 0, a.batch_size, 1, "authors", precision, engine, DEPTH, device, seed=0)
    return [training.resolved(replace(asked, M=m)) for m in a.M]


@contextmanager
def memory_for(config: training.Config) -> Iterator[None]:
    """Raise UsageError where the GPU's memory is too small for an M."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UsageError(f"--M {config.M} does not fit this GPU's memory; use smaller ones") from None


@dataclass(frozen=True)
class Store:
    """Where the rows of each M go with --write."""

    experiment: str
    results: Path
    device: str
    code: Code
    kind: str  # what a run's name says beside data and M
    settings: dict[str, Any]  # of all runs, beside what is trained
    written: list[Path] = field(default_factory=list)

    def claimed(self, c: training.Config) -> AbstractContextManager[None]:
        """The claim on one M's file, before it is measured. Raises UsageError."""
        return claimed(parquet.path_of(self.experiment, self._name(c), self.results))

    def write(self, frame: pd.DataFrame, c: training.Config, started: datetime, log: str) -> Path:
        """Store one M's rows; the file."""
        origin = provenance(
            self.experiment,
            self._name(c),
            vars(c) | self.settings,
            seed=c.seed,
            device=self.device,
            started=started,
            code=self.code,
        )
        self.written.append(parquet.write(frame, origin, log=log, results=self.results))
        return self.written[-1]

    def warn(self) -> None:
        """Say which of the stored runs are suspicious, once all are measured."""
        from experiments.store import suspicious  # only now: what it loads is no source of the runs

        suspicious.warn(self.written)

    def _name(self, c: training.Config) -> str:
        return timed_id(f"{c.dataset}-M{c.M:02d}{self.kind}", vars(c) | self.settings)


def store_for(
    experiment: str, a: Namespace, first: training.Config, settings: dict[str, Any], kind: str = ""
) -> Store | None:
    """The store that --write asks for, before anything is measured. Raises UsageError where it can't be used."""
    training.engine_class(first)  # imported now, so that its source is among the code's
    if not a.write:
        return None
    try:
        code = Code.now()
    except RuntimeError as error:
        raise UsageError(str(error)) from error
    check_writable(a.results / experiment)
    return Store(experiment, a.results, training.device_name(first), code, kind, settings)


def shown(header: str, lines: Sequence[str], say: Callable[[str], None]) -> str:
    """Print the lines of one M; the log that is stored with its rows."""
    for line in lines:
        say(line)
    return "\n".join([header, *lines]) + "\n"
