"""The results store: one tidy parquet file per run, the one schema module that writer and reader share.

`results/<experiment>/<run-id>.parquet` holds the measurement rows; the file's metadata holds the run's
`Provenance`; `<run-id>.log` beside it holds the raw log. Files are written whole or not at all.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experiments import usage
from experiments.usage import UsageError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
METADATA_KEY = b"dlperf"
GPU_LIBRARY = re.compile(r"lib(cublas|cudart|cudnn|nccl)\.so\.")
# The project's modules that every script loads and that no number depends on.
NO_NUMBERS = {Path(__file__).resolve(), Path(usage.__file__).resolve()}
# Changes of other sources that were read and found to leave the numbers of earlier runs as they are.
SAME_NUMBERS = Path(__file__).with_name("same_numbers.csv")


class SchemaError(UsageError):
    """A results file is corrupt or breaks its schema; the message names the file."""


class CommitError(UsageError, RuntimeError):
    """The code's commit can't be told; a RuntimeError as well, which is what earlier scripts expect."""


def column(name: str, kind: pa.DataType, unit: str, doc: str, nullable: bool = False) -> pa.Field:
    """A column with its unit and meaning, which travel in the parquet file."""
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "doc": doc})


SCHEMAS: dict[str, pa.Schema] = {
    "allreduce": pa.schema(
        [
            column("backend", pa.string(), "-", "of torch.distributed: nccl | gloo"),
            column("learners", pa.int64(), "learners", "p, processes that sum their vectors"),
            column("hosts", pa.int64(), "hosts", "that the learners are on, in turn"),
            column("device_kind", pa.string(), "-", "where the vectors are: gpu | cpu"),
            column("gbit", pa.float64(), "Gbit/s", "the most that a host sends; empty: no limit", nullable=True),
            column("threads", pa.int64(), "cores", "of a Gloo learner"),
            column("bytes", pa.int64(), "B", "n, size of the vector of float32"),
            column("window", pa.int64(), "-", "which measurement of this size, 1 is the first"),
            column("iterations", pa.int64(), "count", "all-reduces in the window, one after the other"),
            column("seconds", pa.float64(), "s", "of one all-reduce: the slowest learner's window over iterations"),
            column("algorithm_bandwidth", pa.float64(), "B/s", "n over seconds"),
            column("bus_bandwidth", pa.float64(), "B/s", "2(p−1)/p·n over seconds: what a ring's link carries"),
        ]
    ),
    "p1_horovod": pa.schema(
        [
            column("framework", pa.string(), "-", "tensorflow | torch"),
            column("model", pa.string(), "-", "where the network comes from: a package and its version, or a file"),
            column("device_kind", pa.string(), "-", "what a learner computes on: cpu (its cores) | gpu (one)"),
            column("learners", pa.int64(), "learners", "processes that train together, N"),
            column("hosts", pa.int64(), "hosts", "machines, or network namespaces, that they run on"),
            column("launcher", pa.string(), "-", "horovodrun | mpirun | slurm | none"),
            column("allreduce", pa.bool_(), "-", "gradients averaged; without it the learners are independent"),
            column("precision", pa.string(), "-", "float32 (GPUs: TF32 convolutions, the default) | mixed (bfloat16)"),
            column("batch_size", pa.int64(), "images", "per learner"),
            column(
                "effective_batch",
                pa.int64(),
                "images",
                "that one update averages: learners · batch_size, or batch_size",
            ),
            column("image_size", pa.int64(), "pixels", "side of the synthetic images"),
            column("threads", pa.int64(), "cores", "logical CPUs that a learner is pinned to"),
            column("cores", pa.string(), "-", "which ones"),
            column("gbit", pa.float64(), "Gbit/s", "what an emulated host may send; empty: not limited", nullable=True),
            column(
                "link_gbit", pa.float64(), "Gbit/s", "what its link was measured to do before the job", nullable=True
            ),
            column("link_round_trip_us", pa.float64(), "µs", "its round trip, measured likewise", nullable=True),
            column("repeat", pa.int64(), "-", "which repetition of the job, 1 is the first"),
            column("rank", pa.int64(), "-", "which learner, 0 is the first"),
            column("host", pa.int64(), "-", "its host, 0 is the first"),
            column("epochs_planned", pa.int64(), "epochs", "length of the job"),
            column("epoch", pa.int64(), "epochs", "which epoch, 1 is the first; all learners start it together"),
            column("steps", pa.int64(), "steps", "in this epoch"),
            column("images", pa.int64(), "images", "that this learner trained on in this epoch"),
            column("seconds", pa.float64(), "s", "that it took for them"),
            column("images_per_second", pa.float64(), "1/s", "images over seconds, of this learner"),
            column("step_p10", pa.float64(), "s", "10 % of this epoch's steps took less"),
            column("step_p50", pa.float64(), "s", "half of them took less"),
            column("step_p90", pa.float64(), "s", "90 % of them took less"),
            column("loss", pa.float64(), "nat", "cross-entropy of the epoch's last step, this learner's batch"),
            column("parameters", pa.int64(), "count", "trained numbers of the network"),
            column("gradient_bytes", pa.int64(), "byte", "what one all-reduce averages"),
            column("warm_up_steps", pa.int64(), "steps", "before the first epoch, not in any row's seconds"),
            column("setup_seconds", pa.float64(), "s", "from the learner's start to the end of its warm-up"),
        ]
    ),
    "p2_input": pa.schema(
        [
            column("network", pa.string(), "-", "resnet50 (Keras' ResNet50 of 10 classes) | tiny (tests)"),
            column("dataset", pa.string(), "-", "fashion (Fashion-MNIST) | synthetic (never shown as Fashion-MNIST)"),
            column("device_kind", pa.string(), "-", "what the learner computes on: cpu | gpu"),
            column("per_learner_batch", pa.int64(), "images", "a step"),
            column("jit_compile", pa.bool_(), "-", "gradients compiled by XLA"),
            column("threads", pa.int64(), "cores", "that the process could use"),
            column("steps", pa.int64(), "steps", "in a window"),
            column("contender", pa.string(), "-", "fed (by the input pipeline) | resident (a batch on the device)"),
            column("window", pa.int64(), "-", "which window of the contender, 1 is the first; they take turns"),
            column("images_per_second", pa.float64(), "1/s", "images trained on per second in this window"),
        ]
    ),
    "p2_strategy": pa.schema(
        [
            column("network", pa.string(), "-", "resnet50 (Keras' ResNet50 of 10 classes) | tiny (tests)"),
            column("dataset", pa.string(), "-", "fashion (Fashion-MNIST) | synthetic (never shown as Fashion-MNIST)"),
            column("device_kind", pa.string(), "-", "what a learner computes on: cpu | gpu"),
            column("learner", pa.string(), "-", "what a learner is"),
            column(
                "strategy", pa.string(), "-", "mirrored | multiworker: MirroredStrategy, MultiWorkerMirroredStrategy"
            ),
            column("scaling", pa.string(), "-", "strong (effective batch held) | weak (batch per learner held)"),
            column("learners", pa.int64(), "learners", "replicas of the network, N"),
            column("workers", pa.int64(), "processes", "that the learners are shared out to"),
            column("hosts", pa.int64(), "hosts", "machines, or network namespaces, that they run on"),
            column(
                "all_reduce", pa.string(), "-", "mirrored: default | nccl | hierarchical | one-device", nullable=True
            ),
            column("communication", pa.string(), "-", "multiworker: auto | nccl | ring", nullable=True),
            column("base", pa.int64(), "images", "weak: batch per learner; strong: effective batch"),
            column("effective_batch", pa.int64(), "images", "that one update averages"),
            column("per_learner_batch", pa.int64(), "images", "that a learner takes per step"),
            column("learning_rate", pa.float64(), "-", "proportional to the effective batch unless it was given"),
            column("precision", pa.string(), "-", "float32 | mixed_bfloat16"),
            column("jit_compile", pa.bool_(), "-", "gradients compiled by XLA"),
            column("steps_per_execution", pa.int64(), "steps", "that TensorFlow ran in one call"),
            column("threads", pa.int64(), "cores", "per CPU learner"),
            column("gbit", pa.float64(), "Gbit/s", "what an emulated host may send; empty: not limited", nullable=True),
            column(
                "link_gbit", pa.float64(), "Gbit/s", "what its link was measured to do before the job", nullable=True
            ),
            column("link_round_trip_us", pa.float64(), "µs", "its round trip, measured likewise", nullable=True),
            column("repeat", pa.int64(), "-", "which repetition of the job, 1 is the first"),
            column("worker", pa.int64(), "-", "whose row this is, 0 is the first"),
            column("epochs_planned", pa.int64(), "epochs", "length of the job"),
            column("whole_epochs", pa.bool_(), "-", "an epoch has all training images, but for a last part of a batch"),
            column("epoch", pa.int64(), "epochs", "which epoch, 1 is the first"),
            column("steps", pa.int64(), "steps", "in this epoch"),
            column("images", pa.int64(), "images", "that this worker's learners trained on in this epoch"),
            column("seconds", pa.float64(), "s", "that it took for them, tests excluded"),
            column("images_per_second", pa.float64(), "1/s", "images over seconds, of this worker"),
            column("step_p10", pa.float64(), "s", "10 % of this epoch's iterations took less"),
            column("step_p50", pa.float64(), "s", "half of them took less"),
            column("step_p90", pa.float64(), "s", "90 % of them took less"),
            column("train_loss", pa.float64(), "nat", "mean cross-entropy over this worker's images"),
            column(
                "test_accuracy",
                pa.float64(),
                "fraction",
                "share of the 10,000 test images classified rightly, all workers",
                nullable=True,
            ),
            column("evaluation_seconds", pa.float64(), "s", "that the test after this epoch took", nullable=True),
            column("parameters", pa.int64(), "count", "trained numbers of the network"),
            column("gradient_bytes", pa.int64(), "byte", "what one all-reduce sums"),
            column("setup_seconds", pa.float64(), "s", "from the worker's start to the end of its warm-up"),
        ]
    ),
    "p3_crosscheck": pa.schema(
        [
            column("net", pa.string(), "-", "network or module counted"),
            column(
                "quantity",
                pa.string(),
                "-",
                "what is counted: parameters = weights + biases (all vectors, BatchNorm's too); macs and flops of a "
                "forward pass; elementwise, the part of macs outside conv and fc layers; receptive_field",
            ),
            column("counter", pa.string(), "-", "who counted: derivation, torch, torch.flop_counter, fvcore, keras"),
            column("value", pa.int64(), "count", "the count (pixels for a receptive field)"),
            column("layers", pa.int64(), "layers", "receptive field: number N of stacked convolutions", nullable=True),
            column("kernel", pa.int64(), "pixels", "receptive field: filter size F", nullable=True),
        ]
    ),
    "p4_cutout": pa.schema(
        [
            column("dataset", pa.string(), "-", "cifar10, or synthetic (never shown as CIFAR-10)"),
            column("augment", pa.string(), "-", "none | basic (crop, flip) | cutout (basic, then cutout)"),
            column("M", pa.int64(), "instances", "instances of each sample in a batch"),
            column("batch_size", pa.int64(), "samples", "B, distinct samples in a batch"),
            column("precision", pa.string(), "-", "storage type of activations: bf16 | fp32"),
            column("engine", pa.string(), "-", "fused (Triton kernels) | plain (PyTorch autograd)"),
            column("schedule", pa.string(), "-", "learning-rate schedule: authors | scaled"),
            column("epochs_planned", pa.int64(), "epochs", "length of the run"),
            column("epoch", pa.int64(), "epochs", "epochs finished, 1 is the first"),
            column("learning_rate", pa.float64(), "-", "learning rate of this epoch"),
            column("steps", pa.int64(), "steps", "optimiser steps in this epoch"),
            column("images", pa.int64(), "images", "augmented images processed in this epoch, M·B·steps"),
            column("train_loss", pa.float64(), "nat", "mean cross-entropy over the epoch's augmented images"),
            column("train_error", pa.float64(), "fraction", "share of the epoch's augmented images misclassified"),
            column("val_loss", pa.float64(), "nat", "cross-entropy on the 10,000 original test images"),
            column("val_error", pa.float64(), "fraction", "share of the original test images misclassified"),
            column("train_seconds", pa.float64(), "s", "wall clock of this epoch's training steps"),
            column("val_seconds", pa.float64(), "s", "wall clock of this epoch's validation"),
            column("wall_seconds", pa.float64(), "s", "training and validation since the first step, set-up excluded"),
            column("setup_seconds", pa.float64(), "s", "compilation and warm-up before the first step, all pieces"),
        ]
    ),
    "p4_images": pa.schema(
        [
            column("dataset", pa.string(), "-", "cifar10, or synthetic (never shown as CIFAR-10)"),
            column("index", pa.int64(), "-", "which test image"),
            column("label", pa.string(), "-", "its class"),
            column("draw", pa.int64(), "-", "0 is the original, then the cutouts"),
            column("centre_y", pa.int64(), "pixels", "row of the hole's centre", nullable=True),
            column("centre_x", pa.int64(), "pixels", "column of the hole's centre", nullable=True),
            column("masked_share", pa.float64(), "fraction", "share of the image that the hole masks"),
            column("png", pa.binary(), "-", "the image as a PNG file"),
        ]
    ),
    "p4_masked_area": pa.schema(
        [
            column("length", pa.int64(), "pixels", "side of the hole before clipping"),
            column("side", pa.int64(), "pixels", "side of the image"),
            column("draws", pa.int64(), "count", "holes drawn"),
            column("mean_share", pa.float64(), "fraction", "mean masked share of the image"),
            column("standard_error", pa.float64(), "fraction", "standard error of the mean"),
        ]
    ),
    "p4_split": pa.schema(
        [
            column("dataset", pa.string(), "-", "cifar10, or synthetic (never shown as CIFAR-10)"),
            column("device_kind", pa.string(), "-", "what a learner is: cpu | gpu"),
            column("learners", pa.int64(), "learners", "that share a batch"),
            column("batch_norm", pa.string(), "-", "statistics: local, of a learner's part | synchronised, of all"),
            column("M", pa.int64(), "instances", "instances of each sample in all learners' batch"),
            column("batch_size", pa.int64(), "samples", "B, distinct samples in a batch"),
            column("precision", pa.string(), "-", "storage type of activations: bf16 | fp32"),
            column("engine", pa.string(), "-", "fused (Triton kernels) | plain (PyTorch autograd)"),
            column("repeat", pa.int64(), "-", "which repetition of the job"),
            column("epochs_planned", pa.int64(), "epochs", "length of the run"),
            column("epoch", pa.int64(), "epochs", "epochs finished, 1 is the first"),
            column("steps", pa.int64(), "steps", "optimiser steps in this epoch"),
            column("images", pa.int64(), "images", "augmented images of all learners in this epoch, M·B·steps"),
            column("train_loss", pa.float64(), "nat", "learner 0's mean cross-entropy over its part of the epoch"),
            column("val_loss", pa.float64(), "nat", "learner 0's cross-entropy on the original test images"),
            column("val_error", pa.float64(), "fraction", "share of them that learner 0 misclassifies"),
            column("seconds", pa.float64(), "s", "wall clock of this epoch's steps, the slowest learner's"),
            column("images_per_second", pa.float64(), "images/s", "images over seconds"),
            column("gradient_bytes", pa.int64(), "B", "averaged in a step, beside BatchNorm's statistics"),
            column("setup_seconds", pa.float64(), "s", "compilation and warm-up, the slowest learner's"),
        ]
    ),
    "p4_throughput": pa.schema(
        [
            column("dataset", pa.string(), "-", "cifar10, or synthetic (never shown as CIFAR-10)"),
            column("M", pa.int64(), "instances", "instances of each sample in a batch"),
            column("batch_size", pa.int64(), "samples", "B, distinct samples in a batch"),
            column("contender", pa.string(), "-", "ours | eager (plain engine, fp32) | conventional (DataLoader)"),
            column("engine", pa.string(), "-", "fused | plain | dataloader (eager PyTorch fed by worker processes)"),
            column("precision", pa.string(), "-", "bf16 | fp32 | tf32 (fp32 with TF32 convolutions)"),
            column("workers", pa.int64(), "processes", "conventional: of the DataLoader", nullable=True),
            column("turn", pa.int64(), "-", "which of the contender's turns, 1 is the first"),
            column("window", pa.int64(), "-", "which window of the turn, 1 is the first"),
            column("images_per_second", pa.float64(), "1/s", "augmented images trained on per second in this window"),
            column(
                "setup_seconds",
                pa.float64(),
                "s",
                "ours, eager: from construction to the end of warm-up",
                nullable=True,
            ),
            column("copy_bandwidth", pa.float64(), "B/s", "of a large copy on this device, bytes read plus written"),
            column("bytes_per_image", pa.int64(), "B", "what this contender's step moves, derivations/roofline.py"),
        ]
    ),
    "scaling_fit": pa.schema(
        [
            column("series", pa.string(), "-", "a measured or published curve, or a job of the homework"),
            column("network", pa.string(), "-", "the network trained"),
            column("method", pa.string(), "-", "curve | borrowed | bytes per … | homework: how it was predicted"),
            column("role", pa.string(), "-", "fitted | held out (observed, not seen by the fit) | projected"),
            column("learners", pa.int64(), "learners", "p, GPUs or processes that train together"),
            column("per_learner_batch", pa.float64(), "images", "b, where the source states it", nullable=True),
            column("unit", pa.string(), "-", "of the values: images/s | efficiency (fraction)"),
            column("observed", pa.float64(), "unit", "measured or published; empty for a projection", nullable=True),
            column("predicted", pa.float64(), "unit", "the model's value"),
            column("low", pa.float64(), "unit", "interval for a new measurement, lower end", nullable=True),
            column("high", pa.float64(), "unit", "its upper end; empty for a fitted point", nullable=True),
            column("error", pa.float64(), "fraction", "predicted over observed, less one", nullable=True),
            column("gradient_bytes", pa.float64(), "byte", "fp32 gradient; empty for underived nets", nullable=True),
            column("link_gbit_per_second", pa.float64(), "Gbit/s", "a node's link as its source says", nullable=True),
            column("form", pa.string(), "-", "likeliest growth: bandwidth | latency | tree", nullable=True),
            column("form_weight", pa.float64(), "fraction", "its weight among the three", nullable=True),
            column("freedom", pa.int64(), "points", "fitted points less parameters", nullable=True),
            column("compute_seconds", pa.float64(), "s/image", "computation c", nullable=True),
            column("overhead_seconds", pa.float64(), "s/step", "o, where batches tell it from c", nullable=True),
            column("exposed_seconds", pa.float64(), "s/image", "communication not hidden, at this p", nullable=True),
            column("bus_bytes_per_second", pa.float64(), "byte/s", "2(p−1)/p·n over its time", nullable=True),
            column("fit_points", pa.string(), "-", "learners of the fitted points, or what was borrowed"),
            column("source", pa.string(), "-", "where the observed values come from, or the projection's inputs"),
        ]
    ),
}


class Provenance(BaseModel):
    """Where a run's numbers come from. Times are UTC, ISO 8601."""

    model_config = ConfigDict(extra="forbid")

    experiment: str
    run_id: str
    kind: Literal["measured", "projected"]
    config: dict[str, Any]
    seed: int | None
    git_commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    git_dirty: bool
    sources: dict[str, str]  # path from the project root -> SHA-256 of its text
    source_hash: str
    command: str
    started: datetime
    ended: datetime
    host_kind: str
    host_cpu: str
    host_cores: int = Field(ge=1)
    device: str
    device_count: int = Field(ge=1)
    versions: dict[str, str]

    def changes(self, root: Path = ROOT) -> dict[str, list[str]]:
        """The sources that have changed, or are gone, since the run; with each why the run's numbers stay as they are,
        one reason for every change of it, or none where that isn't known. Early runs list sources without numbers."""
        numbers = {path: digest for path, digest in self.sources.items() if ROOT / path not in NO_NUMBERS}
        now = {path: _file_hash(root / path) for path in sorted(numbers)}
        return {path: _reasons(path, numbers[path], now[path]) for path in now if now[path] != numbers[path]}

    def stale(self, root: Path = ROOT) -> list[str]:
        """The sources that have changed since the run so that its numbers might be others."""
        return [path for path, reasons in self.changes(root).items() if not reasons]


@dataclass(frozen=True)
class Run:
    """One stored run: its file, provenance and number of rows."""

    path: Path
    provenance: Provenance
    rows: int


class Harmless(NamedTuple):
    """A change of a source, from one SHA-256 of its text to another, and why it leaves earlier numbers as they are."""

    source: str
    before: str
    after: str
    reason: str


@functools.cache
def harmless_changes(path: Path = SAME_NUMBERS) -> tuple[Harmless, ...]:
    """The changes that the file lists. Raises SchemaError for another form."""
    table = pd.read_csv(path, dtype=str)
    if list(table.columns) != list(Harmless._fields) or table.isna().any(axis=None):
        raise SchemaError(f"{path}: must have the columns {', '.join(Harmless._fields)}, and no empty cell")
    return tuple(Harmless(*row) for row in table.itertuples(index=False))


def _reasons(source: str, before: str, after: str) -> list[str]:
    """Why all changes of a source between two hashes are harmless; empty when one of them isn't known to be."""
    steps = {change.before: change for change in harmless_changes() if change.source == source}
    reasons: list[str] = []
    while before != after:
        if before not in steps:
            return []
        step = steps.pop(before)
        reasons.append(step.reason)
        before = step.after
    return reasons


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def loaded_sources() -> dict[str, str]:
    """Hashes of the project's own sources that this process runs: what could have changed the numbers.

    Those are its loaded modules and any file that a module names as its SOURCE, such as kernels in another language.
    """
    named = [getattr(m, name, None) for m in list(sys.modules.values()) for name in ("__file__", "SOURCE")]
    files = {Path(f).resolve() for f in named if isinstance(f, str | Path)} - NO_NUMBERS
    own = [f for f in files if f.is_relative_to(ROOT) and f.name != "__init__.py"]
    kept = [f for f in own if f.relative_to(ROOT).parts[0] in {"experiments", "derivations", "benchmarks"}]
    return {f.relative_to(ROOT).as_posix(): _file_hash(f) for f in sorted(kept)}


def git_state() -> tuple[str, bool]:
    """Commit and dirty flag; a copy without .git takes them from DLPERF_COMMIT=<40 hex digits>[-dirty].

    Raises CommitError when they can't be told, so ask before a long run. Results are left out of the dirty flag, as
    writing one run must not mark the next one dirty.
    """
    given = os.environ.get("DLPERF_COMMIT")
    if given:
        if not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", given):
            raise CommitError(f"DLPERF_COMMIT must be a commit of 40 hex digits, then maybe -dirty, not {given!r}")
        return given.removesuffix("-dirty"), given.endswith("-dirty")

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", ":!results"))
    except (OSError, subprocess.CalledProcessError) as error:
        raise CommitError(
            "cannot tell the git commit: run inside a git checkout, or set DLPERF_COMMIT=<commit>[-dirty]"
        ) from error


@dataclass(frozen=True)
class Code:
    """The code that a run's numbers come from; taken at the run's start, as files may be edited while it runs."""

    commit: str
    dirty: bool
    sources: dict[str, str]  # path from the project root -> SHA-256 of its text

    @classmethod
    def now(cls) -> Code:
        """The code as it is; import what the run needs before. Raises CommitError as `git_state` does."""
        return cls(*git_state(), loaded_sources())


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


def short_name(device: str) -> str:
    """A device's name for a table: `Intel(R) Xeon(R) Processor` is an Intel Xeon."""
    return device.replace("(R)", "").removesuffix(" Processor").removesuffix(" 80GB HBM3")


def library_versions(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Versions of Python, and of the libraries that matter to numbers and are loaded."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "torch", "triton", "tensorflow", "keras", "horovod", "fvcore"):
        if name in sys.modules:
            module = sys.modules[name]
            found[name] = str(getattr(module, "__version__", None) or importlib.metadata.version(name))
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["cuda"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and tensorflow.config.get_visible_devices("GPU"):
        # It may run with libraries of another CUDA than it was built for.
        found["tensorflow's cuda build"] = str(tensorflow.sysconfig.get_build_info().get("cuda_version"))
        mapped = {Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines()}
        found |= {name.partition(".so")[0]: name for name in sorted(mapped) if GPU_LIBRARY.match(name)}
    return found | dict(extra or {})


def run_id(slug: str, config: Mapping[str, Any]) -> str:
    """A readable name that depends on the configuration alone, so that running again replaces the file."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return f"{slug}-{digest[:8]}"


def provenance(
    experiment: str,
    run: str,
    config: dict[str, Any],
    *,
    seed: int | None,
    device: str,
    device_count: int = 1,
    started: datetime,
    code: Code | None = None,
    kind: Literal["measured", "projected"] = "measured",
    versions: Mapping[str, str] | None = None,
) -> Provenance:
    """Collect the provenance of a run that ends now, of the `code` that it started with (default: as it is now).

    Raises CommitError when the git commit can't be told.
    """
    code = code or Code.now()
    sources = loaded_sources() | code.sources  # a module that was imported later is there as it is now
    return Provenance(
        experiment=experiment,
        run_id=run,
        kind=kind,
        config=config,
        seed=seed,
        git_commit=code.commit,
        git_dirty=code.dirty,
        sources=sources,
        source_hash=hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest(),
        command=shlex.join(["python", *sys.orig_argv[1:]]),
        started=started,
        ended=datetime.now(UTC),
        host_kind=f"{platform.system()} {platform.machine()}",
        host_cpu=cpu_name(),
        host_cores=len(os.sched_getaffinity(0)),
        device=device,
        device_count=device_count,
        versions=library_versions(versions),
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Write the whole file or leave what was there."""
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write whole files, all or none: temporary files, fsync, and only then renames, fsync of the folders."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path)
            with temporary[path].open("wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        for path in files:
            temporary[path].replace(path)
    finally:
        for left in temporary.values():
            left.unlink(missing_ok=True)
    for parent in {path.parent for path in files}:
        folder = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers of this path that were killed."""
    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        writer = left.name.split(".")[-2]
        if writer.isdecimal() and not _alive(int(writer)):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def check_writable(folder: Path) -> None:
    """Make the folder and try to write there, before long work. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as f:
        f.write(b"x")


def path_of(experiment: str, run: str, results: Path = RESULTS) -> Path:
    """Where a run is stored."""
    return results / experiment / f"{run}.parquet"


def write(frame: pd.DataFrame, origin: Provenance, *, log: str | None = None, results: Path = RESULTS) -> Path:
    """Validate a run's rows and write them with their provenance, replacing an earlier run of the same id.

    Raises SchemaError when the rows do not fit the experiment's schema.
    """
    path = path_of(origin.experiment, origin.run_id, results)
    schema = _schema(origin.experiment, path)
    if not len(frame):
        raise SchemaError(f"{path}: a run must have rows")
    if set(frame.columns) != set(schema.names):
        wrong = ", ".join(sorted(set(frame.columns) ^ set(schema.names)))
        raise SchemaError(f"{path}: missing or unknown columns: {wrong}")
    try:
        table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
        _check_nulls(table)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise SchemaError(f"{path}: rows do not fit the schema: {error}") from error
    table = table.replace_schema_metadata({METADATA_KEY: origin.model_dump_json().encode()})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    files = {path: buffer.getvalue().to_pybytes()}
    write_together(files if log is None else files | {path.with_suffix(".log"): log.encode()})
    return path


def _schema(experiment: str, path: Path) -> pa.Schema:
    if experiment not in SCHEMAS:
        raise SchemaError(f"{path}: no schema for experiment '{experiment}'; known: {', '.join(sorted(SCHEMAS))}")
    return SCHEMAS[experiment]


def _check_nulls(table: pa.Table) -> None:
    for field in table.schema:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"column '{field.name}' has empty values")


def _load(path: Path) -> tuple[pa.Table, Provenance]:
    """Read and validate one file; SchemaError names it."""
    expected = _schema(path.parent.name, path)
    try:
        table = pq.read_table(path, partitioning=None)
        origin = Provenance.model_validate_json((table.schema.metadata or {})[METADATA_KEY])
    except KeyError:
        raise SchemaError(f"{path}: has no provenance; remove it or run the experiment again") from None
    except (pa.ArrowException, OSError, ValidationError) as error:
        raise SchemaError(f"{path}: cannot be read ({error}); remove it or run the experiment again") from error
    if not table.schema.equals(expected):
        raise SchemaError(f"{path}: columns or types break the schema of '{path.parent.name}'; run it again")
    if (origin.experiment, origin.run_id) != (path.parent.name, path.stem):
        raise SchemaError(f"{path}: its provenance names another run, {origin.experiment}/{origin.run_id}")
    if not table.num_rows:
        raise SchemaError(f"{path}: has no rows")
    try:
        _check_nulls(table)
    except ValueError as error:
        raise SchemaError(f"{path}: {error}") from error
    return table, origin


def run(path: Path) -> Run:
    """The stored run of one file. Raises SchemaError on a bad one, or none."""
    table, origin = _load(path)
    return Run(path, origin, table.num_rows)


def finished(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether a file holds the run with this very configuration, made by the sources as they are now."""
    try:
        stored = run(path)
    except SchemaError:  # none, or one to be replaced
        return False
    return stored.provenance.config == json.loads(json.dumps(config)) and not stored.provenance.stale()


def runs(results: Path = RESULTS) -> list[Run]:
    """All stored runs, ordered by experiment and run id. Raises SchemaError on a bad file."""
    return [run(path) for path in sorted(results.glob("*/*.parquet"))]


def read(experiment: str, results: Path = RESULTS) -> pd.DataFrame:
    """All runs of an experiment as one frame, with each row's provenance beside it.

    Adds run_id, kind, seed, device, device_count, host_cpu, host_cores and started to the schema's columns.
    Without results the frame is empty but has all columns. Raises SchemaError on a bad file.
    """
    origin_columns = ["run_id", "kind", "seed", "device", "device_count", "host_cpu", "host_cores", "started"]
    frames = []
    for path in sorted((results / experiment).glob("*.parquet")):
        table, origin = _load(path)
        frames.append(table.to_pandas().assign(**{name: getattr(origin, name) for name in origin_columns}))
    if frames:
        return pd.concat(frames, ignore_index=True)
    return (
        _schema(experiment, results / experiment)
        .empty_table()
        .to_pandas()
        .reindex(columns=[*SCHEMAS[experiment].names, *origin_columns])
    )
