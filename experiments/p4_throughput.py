"""Images/s of Problem 4's training step for each M, against three contenders, in one run on one machine.

    python experiments/p4_throughput.py --M 1 2 4 8 16 32 --data-dir ~/data --write

ours: the engine that p4_cutout.py would use here, bf16 on a GPU. compiled: PyTorch's compiler and one CUDA graph
(p4/compiled_engine.py), in the same precision. eager: the plain engine in fp32, without TF32. conventional: a
DataLoader with transforms on the CPU (p4/conventional_loop.py), in PyTorch's defaults, which let convolutions use TF32
on a GPU. They take turns, back and forth, a few windows at a time. Set-up (construction, compilation, tuning,
warm-up) is outside the windows; the longest is shown, since later turns may find kernels in a cache. A rate is the
median of its windows, with their range; a ratio is that of medians, with the range from ours' worst window over the
contender's best to its best over the worst. The roofline is the bandwidth of a copy on the device, measured here, over
the bytes that the contender's step moves (derivations/roofline.py). --write stores the windows of each M in
results/p4_throughput/.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

# Before PyTorch: this package removes variables that would pin threads.
from experiments.cli import Parser, UsageError, check_at_least, check_positive, exit_status

# isort: split
import pandas as pd
import torch

from derivations import roofline
from experiments.p4 import augment, cifar10, conventional_loop, datasets, each_m, training
from experiments.p4.compiled_engine import CompiledEngine
from experiments.p4.device_speed import bandwidth, now

EXPERIMENT = "p4_throughput"
CONTENDERS = ("ours", "compiled", "eager", "conventional")
WARM_UP_STEPS = 10
ELEMENT_BYTES = {"bf16": 2, "fp32": 4, "tf32": 4}
HEADER = (
    f"{'M':>3}  {'contender':12}  {'images/s: median (range)':>34}  {'ms/step':>9}  {'ours/it (range)':>22}  "
    f"{'of roofline':>11}  {'set-up, s':>9}"
)


@contextmanager
def convolutions(tf32: bool) -> Iterator[None]:
    """Let cuDNN search for its fastest kernels, with TF32 or without; its settings are put back afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32 = True, tf32
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before


def engine_rates(
    config: training.Config, data: cifar10.Cifar, windows: int, seconds: float
) -> tuple[float, list[float]]:
    """Set-up seconds, and augmented images/s in each window of about `seconds`, of an engine that trains as p4_cutout
    does, the draws of an epoch included."""
    start = now(config.device)
    engine = training.make_engine(config, data, CompiledEngine if config.engine == "compiled" else None)
    samples, size = data.train_images.shape[:2]
    steps, done = samples // config.batch_size, 0

    def train(n: int) -> float:
        """Seconds for the next n steps."""
        nonlocal done
        begin = now(config.device)
        for _ in range(n):
            epoch, step = divmod(done, steps)
            if step == 0:
                seed = augment.epoch_seed(config.seed, epoch + 1)
                shape = (samples, size, config.batch_size, config.M, config.augment, seed, torch.device(config.device))
                engine.start_epoch(augment.draw_epoch(*shape), training.LEARNING_RATE)
            engine.step()
            done += 1
        return now(config.device) - begin

    train(WARM_UP_STEPS)
    # A window is a fixed number of steps: reading the clock within it would make the device wait for the host.
    n = max(1, round(seconds * WARM_UP_STEPS / train(WARM_UP_STEPS)))
    setup = now(config.device) - start
    return setup, [n * config.M * config.batch_size / train(n) for _ in range(windows)]


def ratio(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """Ratio of medians a/b, then the least and the greatest that any two windows give."""
    return statistics.median(a) / statistics.median(b), min(a) / max(b), max(a) / min(b)


def spread(values: tuple[float, float, float], form: str) -> str:
    """A value and its range."""
    return "{:{f}} ({:{f}}–{:{f}})".format(*values, f=form)


def traffic(engine: str, precision: str) -> int:
    """Bytes that a step moves per image."""
    step: roofline.Step = "fused" if engine == "fused" else "conventional"
    return int(roofline.bytes_per_image(ELEMENT_BYTES[precision], each_m.DEPTH, step))


def measure(a: Namespace, ours: training.Config, data: cifar10.Cifar, speed: float) -> pd.DataFrame:
    """The windows of all contenders at one M, one row each, in the order measured; columns as in the store."""
    configs = {
        "ours": ours,
        "compiled": replace(ours, engine="compiled"),
        "eager": replace(ours, precision="fp32", engine="plain"),
    }
    window_seconds = a.seconds / (a.turns * a.windows)
    rows: list[dict[str, Any]] = []
    for turn in range(a.turns):
        for contender in CONTENDERS if turn % 2 == 0 else reversed(CONTENDERS):
            gc.collect()  # the last one's memory and worker processes
            with convolutions(tf32=contender == "conventional"):
                if contender == "conventional":
                    setup, engine, precision = None, "dataloader", "tf32" if ours.device == "cuda" else "fp32"
                    rates = conventional_loop.images_per_second(
                        data, ours.M, a.batch_size, ours.device, a.windows * window_seconds, a.workers, a.windows
                    )
                else:
                    engine, precision = configs[contender].engine, configs[contender].precision
                    setup, rates = engine_rates(configs[contender], data, a.windows, window_seconds)
            rows += [
                {
                    "dataset": data.name,
                    "M": ours.M,
                    "batch_size": a.batch_size,
                    "contender": contender,
                    "engine": engine,
                    "precision": precision,
                    "workers": a.workers if contender == "conventional" else None,
                    "turn": turn + 1,
                    "window": window,
                    "images_per_second": rate,
                    "setup_seconds": setup,
                    "copy_bandwidth": speed,
                    "bytes_per_image": traffic(engine, precision),
                }
                for window, rate in enumerate(rates, start=1)
            ]
    return pd.DataFrame(rows).astype({"workers": "Int64", "setup_seconds": "float64"})


def table(frame: pd.DataFrame) -> list[str]:
    """A line for each contender at one M."""
    rates = {contender: group.tolist() for contender, group in frame.groupby("contender")["images_per_second"]}
    lines = []
    for contender in CONTENDERS:
        rows, found = frame[frame["contender"] == contender], rates[contender]
        first, median, setup = rows.iloc[0], statistics.median(found), rows["setup_seconds"].max()
        ratios = "" if contender == "ours" else spread(ratio(rates["ours"], found), ".2f")
        lines.append(
            f"{first['M']:3d}  {contender:12}  {spread((median, min(found), max(found)), ',.0f'):>34}  "
            f"{1e3 * first['M'] * first['batch_size'] / median:9.2f}  {ratios:>22}  "
            f"{median * first['bytes_per_image'] / first['copy_bandwidth']:11.1%}  "
            f"{'' if pd.isna(setup) else f'{setup:.1f}':>9}"
        )
    return lines


def parser() -> Parser:
    """The command line."""
    p = Parser(EXPERIMENT, __doc__)
    each_m.add_options(p)
    p.add_argument("--seconds", type=float, default=6.0, help="of each contender's windows at each M (default 6)")
    p.add_argument("--turns", type=int, default=2, help="of each contender at each M (default 2)")
    p.add_argument("--windows", type=int, default=3, help="in a turn (default 3)")
    p.add_argument("--device", default="auto", help="auto | cpu | cuda (default auto)")
    p.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: one per core")
    return p


def configure(a: Namespace) -> list[training.Config]:
    """What ours trains at each M. Raises UsageError."""
    check_at_least(1, a, "windows", "turns")
    check_at_least(0, a, "workers")
    check_positive(a, "seconds")
    return each_m.configs(a, "auto", "auto", a.device)


def run(a: Namespace, say: Callable[[str], None]) -> None:
    """Measure, print, and store if asked. Raises UsageError."""
    configs = configure(a)
    settings = {"seconds": a.seconds, "turns": a.turns, "windows": a.windows, "workers": a.workers}
    store = each_m.store_for(EXPERIMENT, a, configs[0], settings, f"-{configs[0].device}")
    data = datasets.load(a.data_dir, a.data)
    if a.batch_size > len(data.train_images):
        raise UsageError(f"--batch-size {a.batch_size} is more than the {len(data.train_images)} training images")
    device, speed = training.device_name(configs[0]), bandwidth(configs[0].device)
    threads = "" if configs[0].device == "cuda" else f", {torch.get_num_threads()} threads"
    say(f"{device}{threads}, {a.workers} workers, {data.name}, copy {speed / 1e9:,.1f} GB/s")
    say(HEADER)
    for ours in configs:
        started = datetime.now(UTC)
        with store.claimed(ours) if store else nullcontext():
            with each_m.memory_for(ours):
                frame = measure(a, ours, data, speed)
            log = each_m.shown(HEADER, table(frame), say)
            if store:
                say(str(store.write(frame, ours, started, log)))
    if store:
        store.warn()


def main(arguments: list[str] | None = None, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> int:
    """Run the command line; 0 when done, 1 for a failed run, 2 for bad input, 130 for Ctrl-C."""
    a = parser().parse_args(arguments)

    def work() -> int:
        run(a, say)
        return 0

    return exit_status(EXPERIMENT, work, "what was stored before stays")


if __name__ == "__main__":
    sys.exit(main())
