"""Problem 4: ResNet-44 on CIFAR-10 with cutout and batch augmentation (Hoffer et al. 2020, §4.1).

    python experiments/p4_cutout.py --M 8 --data-dir ~/data

trains once and writes results/p4_cutout/<run-id>.parquet, one row an epoch, and its log. A run that was stopped
continues with --resume from its last checkpoint, with the numbers that it would have had.
"""

from __future__ import annotations

import argparse
import gc
import io
import math
import sys
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from experiments import augment, cifar, schemas, store
from experiments.plain import PlainEngine
from experiments.resnet import seeded
from experiments.usage import RunError, UsageError, exit_status

EXPERIMENT = "p4_cutout"
CHECKPOINT_SECONDS = 30
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4
# Hoffer et al.'s regime: the rate falls tenfold after these epochs, of 200.
DROPS, DROPS_OF = (81, 122, 164), 200
PYTHON_TYPES = {pa.string(): str, pa.int64(): int, pa.float64(): float}
MAX_BATCH = 1 << 24  # images; below it no tensor's size overflows, and memory is what refuses
MAX_SEED = (1 << 63) - 1  # what PyTorch's generators and the store's integers hold
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class DivergedError(RunError):
    """Training went wrong numerically; the message names the epoch."""


@dataclass(frozen=True)
class Config:
    """What determines a run's numbers, and so its id. Device, engine and precision may be `auto` until `resolved`."""

    dataset: str
    augment: str
    M: int
    batch_size: int
    epochs: int
    schedule: str
    precision: str
    engine: str
    depth: int
    device: str
    seed: int

    @property
    def slug(self) -> str:
        """The readable part of the run id."""
        return (
            f"{self.dataset}-{self.augment}-M{self.M:02d}-e{self.epochs}-{self.schedule}-{self.precision}"
            f"-{self.device}-s{self.seed}"
        )


def learning_rate(epoch: int, schedule: str, epochs: int) -> float:
    """The rate of an epoch (1 is the first). `authors` drops after epochs 81, 122 and 164 whatever the run's length;
    `scaled` squeezes the same three drops into the run, after 40.5 %, 61 % and 82 % of it."""
    scale = epochs / DROPS_OF if schedule == "scaled" else 1.0
    return LEARNING_RATE * 0.1 ** sum(epoch - 1 >= drop * scale for drop in DROPS)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    p.add_argument("--data-dir", type=Path, help="folder with CIFAR-10 (default: the variable DLPERF_DATA)")
    p.add_argument("--results", type=Path, default=store.RESULTS, help="where results go (default results/)")
    p.add_argument("--checkpoints", type=Path, default=store.ROOT / "checkpoints", help="where checkpoints go")
    p.add_argument("--resume", action="store_true", help="continue from this run's checkpoint, if there is one")
    p.add_argument("--minutes", type=float, help="stop with a checkpoint at the first epoch's end after this long")
    return p


def resolved(asked: Config) -> Config:
    """What is asked for with each `auto` resolved. Raises UsageError, in terms of the options, for what can't run."""
    for name, low in (("M", 1), ("epochs", 1), ("batch_size", 1), ("seed", 0)):
        if getattr(asked, name) < low:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {low}, not {getattr(asked, name)}")
    if asked.seed > MAX_SEED:
        raise UsageError(f"--seed must be at most {MAX_SEED}, not {asked.seed}")
    if asked.M * asked.batch_size > MAX_BATCH:
        raise UsageError(f"--M times --batch-size must be at most {MAX_BATCH}, not {asked.M * asked.batch_size}")
    if asked.epochs > 100:
        raise UsageError(f"--epochs {asked.epochs}: the homework allows no run of more than 100 epochs")
    if asked.depth < 14 or (asked.depth - 2) % 6:
        raise UsageError(f"--depth must be 6n+2 with n ≥ 2 (14, 20, … 44, …), not {asked.depth}")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if asked.device == "auto" else asked.device
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device must be auto, cpu or cuda, not {asked.device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no GPU here; use --device cpu")
    engine = ("fused" if device == "cuda" else "plain") if asked.engine == "auto" else asked.engine
    if engine == "fused" and device == "cpu":
        raise UsageError("--engine fused needs a GPU; use --engine plain")
    precision = ("bf16" if device == "cuda" else "fp32") if asked.precision == "auto" else asked.precision
    return replace(asked, device=device, engine=engine, precision=precision)


def configure(a: argparse.Namespace) -> Config:
    """The run that the command line describes. Raises UsageError."""
    if a.minutes is not None and not 0 < a.minutes < math.inf:
        raise UsageError(f"--minutes must be positive and finite, not {a.minutes}")
    asked = Config(
        a.data, a.augment, a.M, a.batch_size, a.epochs, a.schedule, a.precision, a.engine, a.depth, a.device, a.seed
    )
    return resolved(asked)


def engine_class(c: Config) -> Any:
    """The configured engine's class. Raises UsageError without Triton."""
    if c.engine == "plain":
        return PlainEngine
    try:
        from experiments.fused import FusedEngine
    except ModuleNotFoundError as error:
        raise UsageError(f"--engine fused needs {error.name}, which is not installed; use --engine plain") from error
    return FusedEngine


def make_engine(c: Config, data: cifar.Cifar, kind: Any = None) -> Any:
    """The configured engine, or one of another class, compiled and warm, at the run's initial weights."""
    device = torch.device(c.device)

    def place(array: Any) -> Tensor:
        return torch.from_numpy(array).to(device)

    return (kind or engine_class(c))(
        seeded(c.depth, c.seed),
        place(data.train_images),
        place(data.train_labels),
        place(data.test_images),
        place(data.test_labels),
        batch=c.M * c.batch_size,
        steps=len(data.train_images) // c.batch_size,
        hole=augment.hole_side(c.augment),
        mean=torch.tensor(cifar.MEAN, device=device),
        std=torch.tensor(cifar.STD, device=device),
        dtype=DTYPES[c.precision],
        weight_decay=WEIGHT_DECAY,
        momentum=MOMENTUM,
    )


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
    store.write_atomically(path, buffer.getvalue())


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


def train_epoch(c: Config, engine: Any, samples: int, size: int, epoch: int) -> dict[str, Any]:
    """One epoch and its validation, as a results row without the run's own times."""

    def now() -> float:
        if c.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    rate = learning_rate(epoch, c.schedule, c.epochs)
    steps = samples // c.batch_size
    start = now()
    seed = augment.epoch_seed(c.seed, epoch)
    engine.start_epoch(
        augment.draw_epoch(samples, size, c.batch_size, c.M, c.augment, seed, torch.device(c.device)), rate
    )
    for _ in tqdm(range(steps), desc=f"epoch {epoch}", leave=False, disable=None, mininterval=0.5):
        engine.step()
    train_loss, train_error = engine.train_metrics()
    trained = now()
    val_loss, val_error = engine.evaluate()
    return {
        "dataset": c.dataset,
        "augment": c.augment,
        "M": c.M,
        "batch_size": c.batch_size,
        "precision": c.precision,
        "engine": c.engine,
        "schedule": c.schedule,
        "epochs_planned": c.epochs,
        "epoch": epoch,
        "learning_rate": rate,
        "steps": steps,
        "images": steps * c.batch_size * c.M,
        "train_loss": train_loss,
        "train_error": train_error,
        "val_loss": val_loss,
        "val_error": val_error,
        "train_seconds": trained - start,
        "val_seconds": now() - trained,
    }


def train(
    c: Config, data: cifar.Cifar, progress: Progress, state: dict[str, Tensor], path: Path, deadline: float
) -> bool:
    """Train on from `progress`, which grows, with checkpoints at `path`; False when the deadline (s on the clock of
    time.perf_counter) stopped it before the last epoch. Raises UsageError and DivergedError."""
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
        out_of_time = time.perf_counter() > deadline
        if time.perf_counter() - saved > CHECKPOINT_SECONDS or out_of_time:
            save_checkpoint(path, c, engine, progress)
            saved = time.perf_counter()
        if out_of_time:
            say(f"stopped after epoch {epoch} as asked; continue with --resume")
            return False
    try:
        save_checkpoint(path, c, engine, progress)  # should the results not get written, --resume only writes them
    except OSError as error:  # the results may lie on another disk
        print(f"p4_cutout: no checkpoint of the finished run: {error}", file=sys.stderr)
    return True


def largest_fit(c: Config, data: cifar.Cifar) -> int:
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


def take_step(c: Config, data: cifar.Cifar) -> None:
    """One step of a new engine."""
    engine = make_engine(c, data)
    samples, size = data.train_images.shape[:2]
    engine.start_epoch(augment.draw_epoch(samples, size, c.batch_size, c.M, c.augment, 0, torch.device(c.device)), 0.0)
    engine.step()
    engine.train_metrics()  # waits for the device


def device_name(c: Config) -> str:
    """What the run trains on."""
    return torch.cuda.get_device_name() if c.device == "cuda" else store.cpu_name()


def complete(c: Config, path: Path) -> bool:
    """Whether a results file holds this very run."""
    try:
        stored = store.run(path)
    except store.SchemaError:  # none, or one to be replaced
        return False
    return stored.provenance.config == vars(c) and stored.rows == c.epochs


def run(c: Config, a: argparse.Namespace) -> Path | None:
    """Train to the end, or to --minutes (then None); returns the results file. Raises UsageError."""
    deadline = time.perf_counter() + (math.inf if a.minutes is None else 60 * a.minutes)
    engine_class(c)  # imported now, so that its source is among the code's
    code = store.Code.now()
    name = store.run_id(c.slug, vars(c))
    path, checkpoint = store.path_of(EXPERIMENT, name, a.results), a.checkpoints / f"{name}.ckpt"
    progress, state = Progress(datetime.now(UTC).isoformat(), [], []), dict[str, Tensor]()
    if a.resume and checkpoint.exists():
        progress, state = load_checkpoint(checkpoint, c)
    elif a.resume and complete(c, path):
        print("p4_cutout: this run is complete, nothing to resume; its results:", file=sys.stderr)
        return path
    for folder in (path.parent, checkpoint.parent):
        store.check_writable(folder)
    if len(progress.rows) < c.epochs:
        data = cifar.load(a.data_dir, c.dataset)
        if c.batch_size > len(data.train_images):
            raise UsageError(f"--batch-size {c.batch_size} is more than the {len(data.train_images)} training images")
        finished = None
        with suppress(torch.OutOfMemoryError):  # behind it, nothing holds the engine any more
            finished = train(c, data, progress, state, checkpoint, deadline)
        if finished is None:
            fits = largest_fit(c, data)
            advice = f"--M {fits} does" if fits else "no smaller one does either; use a smaller --batch-size"
            raise UsageError(f"--M {c.M} does not fit this GPU's memory, {advice}")
        if not finished:
            return None
    origin = store.provenance(
        EXPERIMENT,
        name,
        vars(c),
        seed=c.seed,
        device=device_name(c),
        started=datetime.fromisoformat(progress.started),
        code=code,
    )
    store.write(pd.DataFrame(progress.rows), origin, log="\n".join(progress.log) + "\n", results=a.results)
    checkpoint.unlink(missing_ok=True)
    return path


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
