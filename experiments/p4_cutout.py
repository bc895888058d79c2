"""Problem 4: ResNet-44 on CIFAR-10 with cutout and batch augmentation (Hoffer et al. 2020, §4.1).

    python experiments/p4_cutout.py --M 8 --data-dir ~/data

trains once and writes results/p4_cutout/<run-id>.parquet, one row an epoch, and its log. A run that was stopped
continues with --resume from its last checkpoint, with the numbers that it would have had.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

# Before PyTorch: this package takes out of the environment what would pin threads.
from experiments.cli import Parser, RunError, UsageError, check_positive, exit_status, path

# isort: split
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.p4 import augment, cifar10, datasets
from experiments.p4.checkpoint import Progress, load_checkpoint, save_checkpoint, save_or_warn
from experiments.p4.training import (
    DTYPES,
    EXPERIMENT,
    Config,
    device_name,
    engine_class,
    make_engine,
    resolved,
    train_epoch,
)
from experiments.store import parquet
from experiments.store.claims import claimed
from experiments.store.files import RESULTS, ROOT, check_writable
from experiments.store.provenance import Code, provenance, run_id

CHECKPOINT_SECONDS = 30


class DivergedError(RunError):
    """Training went wrong numerically; the message names the epoch."""


def arguments() -> Parser:
    """The command line."""
    p = Parser(EXPERIMENT, __doc__)
    p.add_argument("--M", type=int, default=1, help="instances of each sample in a batch (default 1)")
    p.add_argument("--epochs", type=int, default=100, help="at most 100, as the homework asks (default 100)")
    p.add_argument("--batch-size", type=int, default=64, help="distinct samples in a batch, B (default 64)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--augment", choices=augment.KINDS, default="cutout")
    p.add_argument("--schedule", choices=("authors", "scaled"), default="authors")
    p.add_argument("--device", default="auto", help="auto | cpu | cuda (default auto)")
    p.add_argument("--precision", choices=("auto", *DTYPES), default="auto", help="auto: bf16 on a GPU, else fp32")
    p.add_argument("--engine", choices=("auto", "fused", "plain"), default="auto", help="auto: fused on a GPU")
    p.add_argument("--depth", type=int, default=44, help="6n+2 layers (default 44)")
    p.add_argument("--data", choices=("cifar10", "synthetic"), default="cifar10")
    p.add_argument("--data-dir", type=path, help="folder with CIFAR-10 (default: the variable DLPERF_DATA)")
    p.add_argument("--results", type=path, default=RESULTS, help="where results go (default results/)")
    p.add_argument("--checkpoints", type=path, help="where checkpoints go (default: checkpoints/, or in --results)")
    p.add_argument("--resume", action="store_true", help="continue from this run's checkpoint, if there is one")
    p.add_argument("--minutes", type=float, help="stop with a checkpoint at the first epoch's end after this long")
    return p


def configure(a: argparse.Namespace) -> Config:
    """The run that the command line describes. Raises UsageError."""
    check_positive(a, "minutes")
    asked = Config(
        a.data, a.augment, a.M, a.batch_size, a.epochs, a.schedule, a.precision, a.engine, a.depth, a.device, a.seed
    )
    return resolved(asked)


def train(
    c: Config, data: cifar10.Cifar, progress: Progress, state: dict[str, Tensor], path: Path, deadline: float
) -> bool:
    """Train on from `progress`, which grows, with checkpoints at `path`; False when the deadline (s on the clock of
    time.perf_counter) stopped it before the last epoch. A checkpoint that can't be written costs a warning, but at the
    deadline the epochs so far: then OSError. Raises UsageError and DivergedError as well."""
    rows = progress.rows
    samples, size = data.train_images.shape[:2]
    begun, set_up = datetime.now(UTC), time.perf_counter()
    engine = make_engine(c, data)
    if rows:
        try:
            engine.load_state(state)
        except ValueError as error:
            raise UsageError(f"{path}: {error}; remove it to start afresh") from error
    if c.device == "cuda":
        torch.cuda.synchronize()
    setup = time.perf_counter() - set_up + (rows[-1]["setup_seconds"] if rows else 0.0)
    wall = rows[-1]["wall_seconds"] if rows else 0.0

    def say(line: str) -> None:
        progress.log.append(line)
        tqdm.write(line, file=sys.stderr)

    say(f"{begun:%Y-%m-%dT%H:%M:%SZ} {path.stem} on {device_name(c)}, set-up {setup:.1f} s, from epoch {len(rows) + 1}")
    saved = time.perf_counter()
    for epoch in range(len(rows) + 1, c.epochs + 1):
        row = train_epoch(c, engine, samples, size, epoch)
        if not math.isfinite(row["train_loss"] + row["val_loss"]):
            raise DivergedError(f"the loss is not finite after epoch {epoch}; nothing was written")
        wall += row["train_seconds"] + row["val_seconds"]
        rows.append(row | {"wall_seconds": wall, "setup_seconds": setup})
        say(
            f"epoch {epoch:3d}  lr {row['learning_rate']:.4f}  train {row['train_loss']:.4f} "
            f"{row['train_error']:.2%}  val {row['val_loss']:.4f} {row['val_error']:.2%}  "
            f"{row['images'] / row['train_seconds']:,.0f} images/s  {wall:.1f} s"
        )
        if epoch == c.epochs:
            break
        if time.perf_counter() > deadline:
            save_checkpoint(path, c, engine, progress)
            say(f"stopped after epoch {epoch} as asked; continue with --resume")
            return False
        if time.perf_counter() - saved > CHECKPOINT_SECONDS:
            save_or_warn(path, c, engine, progress)
            saved = time.perf_counter()
    save_or_warn(path, c, engine, progress)  # should the results not get written, --resume only writes them
    return True


def largest_fit(c: Config, data: cifar10.Cifar) -> int:
    """The largest power of two below M whose engine takes a step in this GPU's memory, 0 if none does."""
    m = 1 << (c.M - 1).bit_length() >> 1
    while m:
        gc.collect()
        torch.cuda.empty_cache()
        try:
            take_step(replace(c, M=m), data)
            return m
        except torch.OutOfMemoryError:
            m //= 2
    return 0


def take_step(c: Config, data: cifar10.Cifar) -> None:
    """One step of a new engine."""
    engine = make_engine(c, data)
    samples, size = data.train_images.shape[:2]
    engine.start_epoch(augment.draw_epoch(samples, size, c.batch_size, c.M, c.augment, 0, torch.device(c.device)), 0.0)
    engine.step()
    engine.train_metrics()  # waits for the device


def complete(c: Config, path: Path) -> bool:
    """Whether a results file holds this very run."""
    try:
        stored = parquet.run(path)
    except parquet.SchemaError:  # none, or one to be replaced
        return False
    return stored.provenance.config == vars(c) and stored.rows == c.epochs


def run(c: Config, a: argparse.Namespace) -> Path | None:
    """Train to the end, or to --minutes (then None); returns the results file. Raises UsageError."""
    deadline = time.perf_counter() + (math.inf if a.minutes is None else 60 * a.minutes)
    engine_class(c)  # imported now, so that its source is among the code's
    code = Code.now()
    name = run_id(c.slug, vars(c))
    folder = a.checkpoints or (ROOT if a.results == RESULTS else a.results) / "checkpoints"
    path, checkpoint = parquet.path_of(EXPERIMENT, name, a.results), folder / f"{name}.ckpt"
    if a.resume and not checkpoint.exists() and complete(c, path):
        print("p4_cutout: this run is complete, nothing to resume; its results:", file=sys.stderr)
        return path
    check_writable(checkpoint.parent)
    with claimed(path):
        progress, state = Progress(datetime.now(UTC).isoformat(), [], []), dict[str, Tensor]()
        if a.resume and checkpoint.exists():
            progress, state = load_checkpoint(checkpoint, c)
        if len(progress.rows) < c.epochs and not train_on(c, a.data_dir, progress, state, checkpoint, deadline):
            return None
        origin = provenance(
            EXPERIMENT,
            name,
            vars(c),
            seed=c.seed,
            device=device_name(c),
            started=datetime.fromisoformat(progress.started),
            code=code,
        )
        parquet.write(pd.DataFrame(progress.rows), origin, log="\n".join(progress.log) + "\n", results=a.results)
        checkpoint.unlink(missing_ok=True)
    from experiments.store import suspicious  # only now: what it loads is no source of the run

    suspicious.warn([path])
    return path


def train_on(
    c: Config,
    data_dir: Path | None,
    progress: Progress,
    state: dict[str, Tensor],
    checkpoint: Path,
    deadline: float,
) -> bool:
    """As `train`, once the data is there. Raises UsageError, also where the GPU's memory is too small for M."""
    data = datasets.load(data_dir, c.dataset)
    if c.batch_size > len(data.train_images):
        raise UsageError(f"--batch-size {c.batch_size} is more than the {len(data.train_images)} training images")
    finished = None
    with suppress(torch.OutOfMemoryError):  # behind it, nothing holds the engine any more
        finished = train(c, data, progress, state, checkpoint, deadline)
    if finished is None:
        fits = largest_fit(c, data)
        advice = f"--M {fits} does" if fits else "no smaller one does either; use a smaller --batch-size"
        raise UsageError(f"--M {c.M} does not fit this GPU's memory, {advice}")
    return finished


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done or stopped as asked, 1 for a failed run, 2 for bad input, 130 for Ctrl-C."""
    a = arguments().parse_args(argv)

    def work() -> int:
        try:
            path = run(configure(a), a)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
                raise
            raise UsageError(f"--M {a.M} does not fit this machine's memory; use a smaller --M") from error
        if path is not None:
            print(path)
        return 0

    return exit_status(
        EXPERIMENT,
        work,
        "continue with --resume from the last checkpoint",
        "earlier results are as they were, --resume goes on from the last checkpoint, if any",
    )


if __name__ == "__main__":
    sys.exit(main())
