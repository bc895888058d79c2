"""Checkpoints of Problem 4's runs: written whole or not at all, and read with suspicion."""

from __future__ import annotations

import io
import math
import sys
import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.cli import UsageError
from experiments.p4.training import EXPERIMENT, Config
from experiments.store import schemas
from experiments.store.files import write_atomically

PYTHON_TYPES = {pa.string(): str, pa.int64(): int, pa.float64(): float}


@dataclass
class Progress:
    """A run up to its last whole epoch: what a checkpoint holds beside the configuration and the engine's state."""

    started: str  # ISO 8601
    rows: list[dict[str, Any]]
    log: list[str]

    def check(self, epochs: int) -> None:
        """Raise ValueError or TypeError where a checkpoint's values are not what this script writes."""
        datetime.fromisoformat(self.started)
        if not isinstance(self.log, list) or not all(isinstance(line, str) for line in self.log):
            raise TypeError("its log is not a list of lines")
        if not isinstance(self.rows, list) or not all(isinstance(row, dict) for row in self.rows):
            raise TypeError("its rows are not a list of rows")
        if [row.get("epoch") for row in self.rows] != list(range(1, len(self.rows) + 1)) or len(self.rows) > epochs:
            raise ValueError(f"its rows are not epochs of a run of {epochs}")
        for row in self.rows:
            if row.keys() != set(schemas.SCHEMAS[EXPERIMENT].names):
                raise ValueError(f"epoch {row['epoch']} lacks a column, or has one too many")
            for column in schemas.SCHEMAS[EXPERIMENT]:
                value = row[column.name]
                if type(value) is not PYTHON_TYPES[column.type] or (type(value) is float and not math.isfinite(value)):
                    raise ValueError(f"epoch {row['epoch']} has {column.name} = {value!r}")


def save_checkpoint(path: Path, c: Config, engine: Any, progress: Progress) -> None:
    """Write all that the run needs to go on after its last whole epoch, atomically."""
    buffer = io.BytesIO()
    state = {name: tensor.detach().cpu() for name, tensor in engine.state().items()}
    torch.save({"config": vars(c), "state": state, **vars(progress)}, buffer)
    write_atomically(path, buffer.getvalue())


def save_or_warn(path: Path, c: Config, engine: Any, progress: Progress) -> None:
    """As `save_checkpoint`, but a full disk costs the checkpoint alone: the one before stays, and the run goes on."""
    try:
        save_checkpoint(path, c, engine, progress)
    except OSError as error:
        line = f"{EXPERIMENT}: warning: no checkpoint after epoch {len(progress.rows)}, the run goes on: {error}"
        tqdm.write(line, file=sys.stderr)


def load_checkpoint(path: Path, c: Config) -> tuple[Progress, dict[str, Tensor]]:
    """The run so far and the engine's state. Raises UsageError."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load compares no checksums
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        saved = torch.load(path, weights_only=True, map_location="cpu")
        config, state = saved.pop("config"), saved.pop("state")
        progress = Progress(**saved)
        progress.check(c.epochs)
        if not isinstance(config, dict) or not isinstance(state, dict):
            raise TypeError("its configuration or state is not a dictionary")
        if not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise TypeError("its state does not consist of tensors")
    except Exception as error:  # what reading a damaged pickle raises is not listed anywhere
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path}: not a whole checkpoint ({reason}); remove it to start afresh") from error
    if config != vars(c):
        other = ", ".join(f"{k}={config.get(k)}" for k, v in vars(c).items() if config.get(k) != v)
        raise UsageError(f"{path}: belongs to another configuration ({other}); remove it or change the command")
    return progress, state
