"""Problem 4's training: the configuration of a run, the engine that it takes, and one epoch with its validation."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from experiments.cli import UsageError
from experiments.machine.device_names import cpu_name
from experiments.p4 import augment, cifar10
from experiments.p4.plain_engine import PlainEngine
from experiments.p4.resnet import seeded

EXPERIMENT = "p4_cutout"
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4
# Hoffer et al.'s regime: the rate falls tenfold after these epochs, of 200.
DROPS, DROPS_OF = (81, 122, 164), 200
MAX_BATCH = 1 << 24  # images; below it no tensor's size overflows, and memory is what refuses
MAX_SEED = (1 << 63) - 1  # what PyTorch's generators and the store's integers hold
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


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


def engine_class(c: Config) -> Any:
    """The configured engine's class. Raises UsageError without Triton."""
    if c.engine == "plain":
        return PlainEngine
    try:
        from experiments.p4.fused_engine import FusedEngine
    except ModuleNotFoundError as error:
        raise UsageError(f"--engine fused needs {error.name}, which is not installed; use --engine plain") from error
    return FusedEngine


def make_engine(c: Config, data: cifar10.Cifar, kind: Any = None) -> Any:
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
        mean=torch.tensor(cifar10.MEAN, device=device),
        std=torch.tensor(cifar10.STD, device=device),
        dtype=DTYPES[c.precision],
        weight_decay=WEIGHT_DECAY,
        momentum=MOMENTUM,
    )


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


def device_name(c: Config) -> str:
    """What the run trains on."""
    return torch.cuda.get_device_name() if c.device == "cuda" else cpu_name()
