"""Problem 4's batch of M·B images split over several GPUs: how much faster is a step, with which BatchNorm?

    python experiments/p4_split.py --learners 1                               # the baseline
    python experiments/p4_split.py --learners 2                               # half of the instances on each GPU
    python experiments/p4_split.py --learners 2 --batch-norm synchronised     # statistics over the whole batch

Learners are processes on this machine. They train as experiments/p4_cutout.py does, on the same draws, for a few
epochs: this measures speed, not accuracy. Each validates on all test images with its own running statistics; the
results are learner 0's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

# Before PyTorch: this package removes variables that would pin threads.
from experiments.cli import Parser, RunError, UsageError, check_at_least, exit_status, path

# isort: split
import pandas as pd
import torch
import torch.distributed as dist
from tqdm import tqdm

from experiments.machine import nvidia, supervision, sweep
from experiments.machine.device_names import device_name
from experiments.machine.processes import Processes
from experiments.p4 import cifar10, datasets, plain_engine
from experiments.p4.training import DTYPES, make_engine, resolved, train_epoch
from experiments.p4.training import Config as Training
from experiments.p4.training import engine_class as engine_class_of_one
from experiments.store import parquet
from experiments.store.files import RESULTS, check_writable, temporary_folder, write_atomically
from experiments.store.provenance import Code, library_versions, loaded_sources, provenance, timed_id

EXPERIMENT = "p4_split"
BATCH_NORMS = ("local", "synchronised")
LINGER = 1.0  # s until learners are killed; they leave nothing to clean up


@dataclass(frozen=True)
class Config:
    """What determines a run's numbers, and so its id."""

    training: Training
    learners: int
    batch_norm: str
    repeat: int

    def flat(self) -> dict[str, Any]:
        """All settings by name."""
        return asdict(self.training) | {
            "learners": self.learners, "batch_norm": self.batch_norm, "repeat": self.repeat
        }  # fmt: skip

    @property
    def slug(self) -> str:
        """The readable part of the run's name."""
        t = self.training
        return f"{t.dataset}-{t.device}-M{t.M:02d}-{t.precision}-{self.learners}-{self.batch_norm}-r{self.repeat}"


def arguments() -> Parser:
    """The command line."""
    p = Parser(EXPERIMENT, __doc__)
    p.add_argument("--learners", type=int, default=2, help="GPUs that share a batch (default 2)")
    p.add_argument("--batch-norm", choices=BATCH_NORMS, default="local", help="what its statistics are taken over")
    p.add_argument("--M", type=int, default=32, help="instances of each sample in all learners' batch (default 32)")
    p.add_argument("--batch-size", type=int, default=64, help="distinct samples in a batch, B (default 64)")
    p.add_argument("--epochs", type=int, default=5, help="default 5")
    p.add_argument("--depth", type=int, default=44, help="6n+2 layers (default 44)")
    p.add_argument("--precision", choices=("auto", *DTYPES), default="auto", help="auto: bf16 on GPUs")
    p.add_argument("--device", default="auto", help="auto | cpu | cuda (default auto)")
    p.add_argument("--data", choices=("cifar10", "synthetic"), default="cifar10")
    p.add_argument("--data-dir", type=path, help="folder with CIFAR-10 (default: the variable DLPERF_DATA)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--repeat", type=int, default=1, help="which repetition; each has its own results")
    p.add_argument("--skip-finished", action="store_true", help="do nothing where the results are there")
    p.add_argument("--results", type=path, default=RESULTS, help="folder for results")
    p.add_argument("--rank", type=int, help=argparse.SUPPRESS)  # this process is a learner
    p.add_argument("--folder", type=path, help=argparse.SUPPRESS)  # where learners meet, and learner 0 reports
    return p


def configure(a: argparse.Namespace) -> Config:
    """The run that the command line describes. Raises UsageError."""
    check_at_least(1, a, "learners", "repeat")
    asked = Training(
        a.data, "cutout", a.M, a.batch_size, a.epochs, "authors", a.precision, "auto", a.depth, a.device, a.seed
    )
    shared = resolved(asked)
    if shared.M % a.learners:
        raise UsageError(f"--M {shared.M} instances can't be shared out evenly to {a.learners} learners")
    if a.learners == 1 and a.batch_norm == "synchronised":
        raise UsageError("--batch-norm synchronised needs at least 2 learners: one has the whole batch")
    if a.batch_norm == "synchronised" and shared.device == "cpu":
        raise UsageError("--batch-norm synchronised needs GPUs; use --batch-norm local")
    return Config(shared, a.learners, a.batch_norm, a.repeat)


def check_devices(c: Config) -> None:
    """Raise UsageError when this machine has too few GPUs."""
    if c.training.device == "cuda":
        nvidia.check_gpus(c.learners, oversubscribe=False)


# ---- a learner -----------------------------------------------------------------------------------------------------


def engine_class(c: Config) -> Any:
    """The class of a learner's engine. Raises UsageError without Triton."""
    if c.learners == 1:
        return engine_class_of_one(c.training)
    try:
        from experiments.p4 import split_engine
    except ModuleNotFoundError as error:
        raise UsageError(f"several learners need {error.name}, which is not installed") from error
    if c.training.engine == "plain":
        return split_engine.PlainSplit
    return split_engine.SynchronisedSplit if c.batch_norm == "synchronised" else split_engine.FusedSplit


def train(c: Config, data: cifar10.Cifar, rank: int, folder: Path) -> dict[str, Any]:
    """Train with the other learners; returns this one's report. Raises RunError and torch's own errors."""
    began = time.perf_counter()
    if c.learners > 1:
        gpu = torch.device("cuda", 0) if c.training.device == "cuda" else None
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=c.learners,
            device_id=gpu,
        )
    if c.training.device == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // c.learners))
    # A learner's engine has its share of the instances.
    engine = make_engine(replace(c.training, M=c.training.M // c.learners), data, engine_class(c))
    setup = time.perf_counter() - began
    samples, size = data.train_images.shape[:2]
    rows = []
    for epoch in range(1, c.training.epochs + 1):
        row = train_epoch(c.training, engine, samples, size, epoch)
        if not math.isfinite(row["train_loss"] + row["val_loss"]):
            raise RunError(f"the loss is not finite after epoch {epoch}")
        rows.append(row)
        if rank == 0:
            rate = row["images"] / row["train_seconds"]
            print(f"{supervision.EPOCH_LINE}{epoch}: train {row['train_loss']:.4f}, {rate:,.0f} images/s", flush=True)
    if isinstance(engine, plain_engine.PlainEngine):
        weights = [p.detach() for p in engine.model.parameters()]
    else:
        weights = [engine.parameters]
    joined = b"".join(weight.cpu().numpy().tobytes() for weight in weights)
    return {
        "rank": rank,
        "digest": hashlib.sha256(joined).hexdigest(),
        "gradient_bytes": len(joined),
        "setup_seconds": setup,
        "epochs": rows,
    }


def run_learner(c: Config, a: argparse.Namespace) -> int:
    """Run one learner in a process that this script started; returns its exit status."""
    try:
        report = train(c, datasets.load(a.data_dir, c.training.dataset), a.rank, a.folder)
        reports = [report]
        if c.learners > 1:
            reports = [{} for _ in range(c.learners)]
            dist.all_gather_object(reports, report)
            if len({r["digest"] for r in reports}) > 1:
                raise RunError("the learners end with different weights, so their gradients were not averaged")
    except Exception as error:
        traceback.print_exc()
        print(f"{EXPERIMENT}: learner {a.rank}: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
        os._exit(1)  # destructors may wait for other learners
    if a.rank == 0:
        reports[0] |= {"versions": library_versions(), "sources": loaded_sources()}
        write_atomically(a.folder / "report.json", json.dumps(reports).encode())
    if c.learners > 1:
        dist.barrier()
        dist.destroy_process_group()
    return 0


# ---- all learners --------------------------------------------------------------------------------------------------


def launch(c: Config, folder: Path, argv: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Start all learners and wait; returns their reports and their output. Raises RunError."""
    log: list[str] = []
    bar = tqdm(total=c.training.epochs, desc=c.slug, unit="epoch", disable=None)

    def say(line: str) -> None:
        log.append(line)
        if line.startswith(supervision.EPOCH_LINE):
            bar.update()

    with bar, Processes(say, LINGER) as processes:
        for rank in range(c.learners):
            own = ["--rank", str(rank), "--folder", str(folder)]
            environment = {"CUDA_VISIBLE_DEVICES": nvidia.gpus()[rank]} if c.training.device == "cuda" else {}
            processes.start(supervision.command(__file__, *argv, *own), environment)
        failed = processes.wait()
    if failed is not None:
        raise supervision.failure(EXPERIMENT, f"learner {failed[0]}", failed[1], log)
    return json.loads((folder / "report.json").read_bytes()), log


def as_rows(c: Config, reports: list[dict[str, Any]]) -> pd.DataFrame:
    """A row for each epoch: learner 0's, with the time of the slowest learner."""
    rows = []
    for number, own in enumerate(reports[0]["epochs"]):
        kept = {name: own[name] for name in ("epoch", "steps", "images", "train_loss", "val_loss", "val_error")}
        seconds = max(report["epochs"][number]["train_seconds"] for report in reports)
        rows.append(
            {
                "dataset": c.training.dataset,
                "device_kind": "gpu" if c.training.device == "cuda" else "cpu",
                "learners": c.learners,
                "batch_norm": c.batch_norm,
                "M": c.training.M,
                "batch_size": c.training.batch_size,
                "precision": c.training.precision,
                "engine": c.training.engine,
                "repeat": c.repeat,
                "epochs_planned": c.training.epochs,
                **kept,
                "seconds": seconds,
                "images_per_second": own["images"] / seconds,
                "gradient_bytes": reports[0]["gradient_bytes"],
                "setup_seconds": max(report["setup_seconds"] for report in reports),
            }
        )
    return pd.DataFrame(rows)


def run(c: Config, a: argparse.Namespace, argv: list[str], say: Callable[[str], None]) -> Path:
    """Run a job and write its results; returns their file. Raises UsageError and RunError."""
    name = timed_id(c.slug, c.flat())
    check_writable(parquet.path_of(EXPERIMENT, name, a.results).parent)
    datasets.load(a.data_dir, c.training.dataset)  # report bad data once, not in every learner
    started, code = datetime.now(UTC), Code.now()
    with temporary_folder(EXPERIMENT) as folder:
        reports, log = launch(c, folder, argv)
    origin = provenance(
        EXPERIMENT,
        name,
        c.flat(),
        seed=c.training.seed,
        device=device_name("gpu" if c.training.device == "cuda" else "cpu"),
        device_count=c.learners,
        started=started,
        code=replace(code, sources=code.sources | reports[0]["sources"]),
        versions=reports[0]["versions"],
    )
    rows = as_rows(c, reports)
    path = parquet.write(rows, origin, log="\n".join(log[-supervision.LOG_LINES :]) + "\n", results=a.results)
    rate = rows.images_per_second
    say(f"{c.slug}: {rate.median():,.0f} images/s ({rate.min():,.0f} to {rate.max():,.0f} over epochs)")
    return path


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 for a failed job, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM."""
    given = sys.argv[1:] if argv is None else argv
    a = arguments().parse_args(given)

    def work() -> int:
        c = configure(a)
        if a.rank is not None:
            return run_learner(c, a)
        check_devices(c)

        def once(c: Config) -> Path:
            return run(c, a, given, lambda line: tqdm.write(line, file=sys.stderr))

        return sweep.run_all(EXPERIMENT, [c], a.results, once, skip_finished=a.skip_finished, goes_on=False)

    return exit_status(EXPERIMENT, work, "the learners were stopped, nothing was written")


if __name__ == "__main__":
    sys.exit(main())
