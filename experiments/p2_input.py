"""Does Problem 2's input pipeline keep up? The training step fed by the pipeline is timed against the same step on one
batch that stays on the device, in alternating windows of one process.

    python experiments/p2_input.py --device gpu --per-learner-batch 256 --write

--write stores the windows in results/p2_input/.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments.cli import Parser, UsageError, check_at_least, exit_status, path
from experiments.machine.device_names import device_name
from experiments.p2 import fashion_mnist, worker_job
from experiments.p2.join_timeout import JoinTimeout
from experiments.p2.worker import Worker
from experiments.store import parquet
from experiments.store.claims import claimed
from experiments.store.files import RESULTS, check_writable
from experiments.store.provenance import Code, provenance, run_id

EXPERIMENT = "p2_input"
GOAL = 0.95  # of the rate without a pipeline
CONTENDERS = {"fed": "input pipeline", "resident": "resident batch"}


def arguments() -> Parser:
    """The command line."""
    p = Parser(EXPERIMENT, __doc__)
    p.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    p.add_argument("--per-learner-batch", type=int, default=64, help="images a step (default 64)")
    p.add_argument("--steps", type=int, default=20, help="in a window (default 20)")
    p.add_argument("--windows", type=int, default=5, help="of each (default 5)")
    p.add_argument("--jit-compile", action="store_true", help="compile the gradients with XLA")
    p.add_argument("--network", choices=["resnet50", "tiny"], default="resnet50", help="tiny: next to no computation")
    p.add_argument("--data", choices=["fashion", "synthetic"], default="fashion")
    p.add_argument("--data-dir", type=path, help="folder with Fashion-MNIST (default: the one that DLPERF_DATA names)")
    p.add_argument("--write", action="store_true", help="store the windows")
    p.add_argument("--results", type=path, default=RESULTS, help="where --write stores (default results/)")
    return p


def window(step: Callable[[], object], steps: int, images: int) -> float:
    """Images per second over a number of steps."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * images / (time.perf_counter() - start)


def windows(a: argparse.Namespace, job: worker_job.Job, data: fashion_mnist.Fashion) -> pd.DataFrame:
    """The rates of both contenders, in alternating order."""
    began = time.perf_counter()
    worker = Worker(job, data, 0, JoinTimeout(60, [], "p2_input: "), lambda: time.perf_counter() - began)
    worker.warm_up()
    contenders = {"fed": worker.fed(), "resident": worker.resident()}
    for step in contenders.values():
        step()
    rows = []
    for turn in range(a.windows):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            rate = window(contenders[name], a.steps, a.per_learner_batch)
            rows.append({"contender": name, "window": turn + 1, "images_per_second": rate})
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> tuple[float, list[str]]:
    """The fed rate over the resident one, and the lines that say so."""
    rates = {name: frame[frame.contender == name].images_per_second for name in CONTENDERS}
    log = [f"{CONTENDERS[n]}: {r.median():,.1f} images/s ({r.min():,.1f} to {r.max():,.1f})" for n, r in rates.items()]
    fed, free = rates.values()
    ratio = float(fed.median() / free.median())
    verdict = "keeps up" if ratio >= GOAL else f"does not keep up, the goal is {GOAL:.0%}"
    spread = f"{fed.min() / free.max():.1%} to {fed.max() / free.min():.1%}"
    log.append(f"the pipeline {verdict}: {ratio:.1%} of the rate ({spread})")
    return ratio, log


def measure(a: argparse.Namespace) -> int:
    """Print rates and their ratio; 0 when the pipeline keeps up, 1 when it doesn't. Raises UsageError."""
    check_at_least(1, a, "per_learner_batch", "steps", "windows")
    started = datetime.now(UTC)
    code = Code.now() if a.write else None
    if a.write:
        check_writable(a.results / EXPERIMENT)
    data = fashion_mnist.load(a.data_dir, a.data)
    if a.per_learner_batch > len(data.train_images):
        raise UsageError(f"--per-learner-batch is more than the {len(data.train_images):,} images")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    steps = len(data.train_images) // a.per_learner_batch
    job = worker_job.Job(
        network=a.network,
        image_size=worker_job.PADDED,
        device=a.device,
        strategy="mirrored",
        all_reduce="default",
        communication="",
        learners=1,
        workers=1,
        effective_batch=a.per_learner_batch,
        epochs=2 + a.windows * a.steps // steps,
        steps=steps,
        steps_per_execution=1,
        threads=len(os.sched_getaffinity(0)),
        precision="float32",
        jit_compile=a.jit_compile,
        learning_rate=0.01,
        evaluate=False,
        seed=0,
    )
    common = {
        "network": job.network,
        "dataset": a.data,
        "device_kind": job.device,
        "per_learner_batch": a.per_learner_batch,
        "jit_compile": job.jit_compile,
        "threads": job.threads,
        "steps": a.steps,
    }
    config = common | {"windows": a.windows}
    xla = "-xla" if job.jit_compile else ""
    file = parquet.path_of(EXPERIMENT, run_id(f"{job.device}-{a.per_learner_batch}{xla}", config), a.results)
    with claimed(file) if a.write else nullcontext():
        frame = windows(a, job, data)
        ratio, log = summary(frame)
        print("\n".join(log))
        if a.write:
            origin = provenance(
                EXPERIMENT,
                file.stem,
                config,
                seed=job.seed,
                device=device_name(job.device),
                started=started,
                code=code,
            )
            print(parquet.write(frame.assign(**common), origin, log="\n".join(log) + "\n", results=a.results))
            from experiments.store import suspicious  # only now: what it loads is no source of the run

            suspicious.warn([file])
    return 0 if ratio >= GOAL else 1


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when the pipeline keeps up, 1 when it doesn't, 2 for bad input, 130 for Ctrl-C."""
    a = arguments().parse_args(argv)
    return exit_status(EXPERIMENT, lambda: measure(a), "what was stored before stays")


if __name__ == "__main__":
    sys.exit(main())
