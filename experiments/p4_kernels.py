"""Time and memory traffic of each kernel of Problem 4's fused training step, on a GPU.

    python experiments/p4_kernels.py --M 1 2 4 8 16 32 --data-dir ~/data --write

Some steps are launched kernel by kernel under PyTorch's profiler, which takes each kernel's time from the GPU. A step's
launches of one kernel are added up; the median over steps is shown with its range. derivations/roofline.py counts the
bytes, and a large copy on the same device gives the bandwidth: bytes over bandwidth is the least time in which a kernel
can move them. The kernels' sum is shown beside the time of a whole step, replayed as a graph as in training. A longer
step spends time between kernels; a shorter one overlaps kernels. --write stores a row for each kernel and M in
results/p4_kernels/.
"""

from __future__ import annotations

import re
import statistics
import sys
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

# Before PyTorch: this package removes variables that would pin threads.
from experiments.cli import Parser, RunError, UsageError, exit_status

# isort: split
import pandas as pd
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from derivations import roofline
from experiments.p4 import augment, cifar10, cuda_kernels, datasets, each_m, training
from experiments.p4.device_speed import bandwidth, now

EXPERIMENT = "p4_kernels"
ELEMENT_BYTES = 2  # bf16
LEAST_STEPS = 3
REPLAYS, WINDOWS = 20, 5
# Triton's kernels, by the names of their functions, and CUDA's templates, by their last argument.
TRITON = {
    "augment": "augmentation",
    "join": "join",
    "downsample_forward": "start of a stage",
    "head": "head",
    "downsample_backward": "start of a stage, backward",
    "optimise": "update",
    "finish": "running statistics",
}
CUDA = re.compile(r"::(forward|backward)<(\d+), (\d)>")
CONV1, CONV2 = "conv1, {} channels", "conv2, {} channels"
FORWARD = ["stem", CONV2, CONV1, CONV1, CONV1]  # by what is read, in the order of cuda_kernels.cu
BACKWARD = [  # by what becomes of the input's gradient, in the same order
    "stem, weight gradient",
    f"{CONV2}, backward",
    f"{CONV1}, backward",
    f"{CONV1}, backward",
]
LAST = "running statistics"  # of a step
HEADER = (
    f"{'M':>3}  {'kernel':32}  {'launches':>8}  {'ms a step: median (range)':>26}  {'share':>6}  {'MB a step':>9}  "
    f"{'of bandwidth':>12}"
)

Event = tuple[str, float]  # a kernel's name and its seconds


def table_name(launched: str) -> str | None:
    """The table's name of a kernel, by the demangled name that a profiler reports; None for one outside the step."""
    if found := CUDA.search(launched):
        function, channels, variant = found.groups()
        return (FORWARD if function == "forward" else BACKWARD)[int(variant)].format(channels)
    return TRITON.get(launched)


def profile(engine: Any, steps: int) -> list[Event]:
    """What the GPU ran in some steps that are launched kernel by kernel, in order of start."""
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            engine._launch_step()  # what the engine's graph replays; a graph's kernels have no order of their own
        torch.cuda.synchronize()
    events = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    events.sort(key=lambda event: event.time_range.start)
    return [(event.name, event.time_range.elapsed_us() / 1e6) for event in events]


def by_step(events: Iterable[Event], expected: dict[str, int]) -> list[dict[str, float]]:
    """Seconds by the table's names, for each step whose launches the profiler saw completely. The step's last kernel
    marks its end. Raises RunError for too few steps."""
    whole: list[dict[str, float]] = []
    seconds, launches = defaultdict[str, float](float), Counter[str]()
    for launched, duration in events:
        if (name := table_name(launched)) is None:
            continue
        seconds[name] += duration
        launches[name] += 1
        if name == LAST:
            if launches == expected:
                whole.append(dict(seconds))
            seconds, launches = defaultdict[str, float](float), Counter[str]()
    if len(whole) < LEAST_STEPS:
        raise RunError(
            f"the profiler saw {len(whole)} whole steps, and {LEAST_STEPS} are needed; may it trace kernels?"
        )
    return whole


def replay_seconds(engine: Any, start: Callable[[], None]) -> float:
    """Median over windows of the time of a step that is replayed as a graph."""
    times = []
    for _ in range(WINDOWS):
        start()
        began = now("cuda")
        for _ in range(REPLAYS):
            engine.step()
        times.append((now("cuda") - began) / REPLAYS)
    return statistics.median(times)


def rows(config: training.Config, steps: list[dict[str, float]], whole: float, speed: float) -> pd.DataFrame:
    """A row for each kernel, columns as in the store."""
    made = []
    for kernel in roofline.kernels(config.M * config.batch_size, ELEMENT_BYTES, each_m.DEPTH):
        seconds = [step[kernel.name] for step in steps]
        made.append(
            {
                "dataset": config.dataset,
                "M": config.M,
                "batch_size": config.batch_size,
                "kernel": kernel.name,
                "launches": kernel.launches,
                "seconds": statistics.median(seconds),
                "seconds_least": min(seconds),
                "seconds_most": max(seconds),
                "bytes": int(kernel.bytes),
                "copy_bandwidth": speed,
                "step_seconds": whole,
            }
        )
    return pd.DataFrame(made)


def measure(config: training.Config, data: cifar10.Cifar, steps: int, speed: float) -> tuple[pd.DataFrame, list[str]]:
    """The rows of one M, and the names of other kernels that the profiler saw."""
    engine = training.make_engine(config, data)
    samples, size = data.train_images.shape[:2]
    seed = augment.epoch_seed(config.seed, 1)
    shape = (samples, size, config.batch_size, config.M, config.augment, seed, torch.device("cuda"))
    draws = augment.draw_epoch(*shape)

    def start() -> None:
        engine.start_epoch(draws, training.LEARNING_RATE)

    whole = replay_seconds(engine, start)
    start()
    profile(engine, 1)  # a profiler's first events may be missing
    start()
    events = profile(engine, steps)
    expected = {kernel.name: kernel.launches for kernel in roofline.kernels(1, ELEMENT_BYTES, each_m.DEPTH)}
    others = sorted({name for name, _ in events if table_name(name) is None})
    return rows(config, by_step(events, expected), whole, speed), others


def table(frame: pd.DataFrame) -> list[str]:
    """A line for each kernel at one M, the slowest first, and one for all."""
    total, moved, first = frame["seconds"].sum(), frame["bytes"].sum(), frame.iloc[0]
    lines = []
    for row in frame.sort_values("seconds", ascending=False).to_dict("records"):
        times = "{:.3f} ({:.3f}–{:.3f})".format(*(1e3 * row[n] for n in ("seconds", "seconds_least", "seconds_most")))
        rate = row["bytes"] / row["seconds"] / row["copy_bandwidth"]
        lines.append(
            f"{row['M']:3d}  {row['kernel']:32}  {row['launches']:8d}  {times:>26}  {row['seconds'] / total:6.1%}  "
            f"{row['bytes'] / 1e6:9,.1f}  {rate:12.1%}"
        )
    both = f"{1e3 * total:.3f}; {1e3 * first['step_seconds']:.3f}"
    lines.append(
        f"{first['M']:3d}  {'all, and the step as a graph':32}  {frame['launches'].sum():8d}  "
        f"{both:>26}  {1:6.1%}  {moved / 1e6:9,.1f}  "
        f"{moved / first['step_seconds'] / first['copy_bandwidth']:12.1%}"
    )
    return lines


def parser() -> Parser:
    """The command line."""
    p = Parser(EXPERIMENT, __doc__)
    each_m.add_options(p)
    p.add_argument("--steps", type=int, default=20, help="that are profiled for each M (default 20)")
    return p


def configure(a: Namespace) -> list[training.Config]:
    """The training configuration at each M. Raises UsageError."""
    if not torch.cuda.is_available():
        raise UsageError("PyTorch sees no GPU here, and the times of its kernels are what this measures")
    if cuda_kernels.nvcc() is None:
        raise UsageError("the table is of the step with CUDA's kernels; install nvcc, CUDA's compiler")
    if a.steps < LEAST_STEPS:
        raise UsageError(f"--steps must be at least {LEAST_STEPS}, not {a.steps}")
    return each_m.configs(a, "bf16", "fused", "cuda")


def run(a: Namespace, say: Callable[[str], None]) -> None:
    """Measure, print, and store if asked. Raises UsageError and RunError."""
    configs = configure(a)
    store = each_m.store_for(EXPERIMENT, a, configs[0], {"steps": a.steps})
    data = datasets.load(a.data_dir, a.data)
    most = len(data.train_images) // a.batch_size
    if most < max(a.steps, REPLAYS):
        raise UsageError(f"an epoch has {most} steps of --batch-size {a.batch_size}, too few to measure")
    device, speed = training.device_name(configs[0]), bandwidth("cuda")
    say(f"{device}, {data.name}, copy {speed / 1e9:,.1f} GB/s")
    say(HEADER)
    for config in configs:
        started = datetime.now(UTC)
        with store.claimed(config) if store else nullcontext():
            with each_m.memory_for(config):
                frame, others = measure(config, data, a.steps, speed)
            log = each_m.shown(HEADER, table(frame) + [f"not of the step: {name}" for name in others], say)
            if store:
                say(str(store.write(frame, config, started, log)))
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
