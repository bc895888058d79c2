"""Does Problem 2's input pipeline keep up? Its training step fed by the pipeline, against the same step on one batch
that stays on the device, in one process, in alternating windows.

    python benchmarks/p2_input.py --device gpu --per-learner-batch 256
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments import fashion, strategy
from experiments.usage import UsageError, exit_status
from experiments.watch import Watch

GOAL = 0.95  # of the rate without a pipeline


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    p.add_argument("--per-learner-batch", type=int, default=64, help="images a step (default 64)")
    p.add_argument("--steps", type=int, default=20, help="in a window (default 20)")
    p.add_argument("--windows", type=int, default=5, help="of each (default 5)")
    p.add_argument("--jit-compile", action="store_true", help="compile the gradients with XLA")
    p.add_argument("--network", choices=["resnet50", "tiny"], default="resnet50", help="tiny: next to no computation")
    p.add_argument("--data", choices=["fashion", "synthetic"], default="fashion")
    p.add_argument("--data-dir", type=Path, help="folder with Fashion-MNIST (default: the one that DLPERF_DATA names)")
    return p


def window(step: Callable[[], object], steps: int, images: int) -> float:
    """Images per second over so many steps."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * images / (time.perf_counter() - start)


def measure(a: argparse.Namespace) -> int:
    """Print rates and their ratio; 0 when the pipeline keeps up, 1 when it doesn't. Raises UsageError."""
    for name in ("per_learner_batch", "steps", "windows"):
        if getattr(a, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(a, name)}")
    data = fashion.load(a.data_dir, a.data)
    if a.per_learner_batch > len(data.train_images):
        raise UsageError(f"--per-learner-batch is more than the {len(data.train_images):,} images")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    steps = len(data.train_images) // a.per_learner_batch
    job = strategy.Job(
        network=a.network,
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
    worker = strategy.Worker(job, data, 0, Watch(60, [], "p2_input: "))
    worker.warm_up()
    contenders = {"input pipeline": worker.fed(), "resident batch": worker.resident()}
    for step in contenders.values():
        step()
    rates = {name: [] for name in contenders}  # type: dict[str, list[float]]
    for turn in range(a.windows):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            rates[name].append(window(contenders[name], a.steps, a.per_learner_batch))
    for name, own in rates.items():
        print(f"{name}: {np.median(own):,.1f} images/s ({min(own):,.1f} to {max(own):,.1f})")
    fed, free = rates.values()
    ratio = np.median(fed) / np.median(free)
    verdict = "keeps up" if ratio >= GOAL else f"does not keep up, the goal is {GOAL:.0%}"
    print(f"the pipeline {verdict}: {ratio:.1%} of the rate ({min(fed) / max(free):.1%} to {max(fed) / min(free):.1%})")
    return 0 if ratio >= GOAL else 1


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when the pipeline keeps up, 1 when it doesn't, 2 for bad input, 130 for Ctrl-C."""
    a = arguments().parse_args(argv)
    return exit_status("p2_input", lambda: measure(a), "nothing is kept")


if __name__ == "__main__":
    sys.exit(main())
