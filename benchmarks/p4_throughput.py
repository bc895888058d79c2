"""Images/s of Problem 4's training step for each M, against two peers, in one run on one machine.

    python benchmarks/p4_throughput.py --M 1 2 4 8 16 32 --data-dir ~/data

ours: the engine that p4_cutout.py would use here, bf16 on a GPU. eager: the plain engine in fp32 (PyTorch's
defaults, TF32 convolutions included). conventional: a DataLoader with transforms on the CPU
(benchmarks/conventional.py). The three take turns, in alternating order; each figure is the median of all windows with
their range, set-up excluded. The roofline is the measured bandwidth of a device-to-device copy over the bytes that a
conventional step must move (derivations/roofline.py).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import torch

from benchmarks import conventional
from derivations import roofline
from experiments import augment, cifar, p4_cutout
from experiments.usage import UsageError

ROUNDS, WINDOWS = 2, conventional.WINDOWS
COPY_BYTES = 1 << 30


def now(device: str) -> float:
    """The clock, once the device is idle."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bandwidth(device: str) -> float:
    """Bytes/s of a large copy on the device, read plus written; the best of ten."""
    source = torch.empty(COPY_BYTES // 4 if device == "cpu" else COPY_BYTES, dtype=torch.uint8, device=device)
    source.random_()
    target = torch.empty_like(source)
    times = []
    for _ in range(11):
        start = now(device)
        target.copy_(source)
        times.append(now(device) - start)
    return 2 * source.numel() / min(times[1:])


def engine_rates(config: p4_cutout.Config, data: cifar.Cifar, seconds: float) -> tuple[float, list[float]]:
    """Set-up seconds, and augmented images/s in each window of an engine that trains as p4_cutout does."""
    start = now(config.device)
    engine = p4_cutout.make_engine(config, data)
    samples, size = data.train_images.shape[:2]
    epoch, steps = 0, samples // config.batch_size

    def step(done: int) -> None:
        nonlocal epoch
        if done % steps == 0:
            epoch += 1
            seed = augment.epoch_seed(config.seed, epoch)
            shape = (samples, size, config.batch_size, config.M, config.augment, seed, torch.device(config.device))
            engine.start_epoch(augment.draw_epoch(*shape), p4_cutout.LEARNING_RATE)
        engine.step()

    step(0)
    setup = now(config.device) - start
    done, rates = 1, []
    for _ in range(WINDOWS):
        start, first = now(config.device), done
        while done == first or now(config.device) - start < seconds / WINDOWS:
            for _ in range(10 if config.device == "cuda" else 1):
                step(done)
                done += 1
        rates.append((done - first) * config.M * config.batch_size / (now(config.device) - start))
    return setup, rates


def spread(values: list[float], form: str = "{:,.0f}") -> str:
    """Median and range."""
    return f"{form.format(statistics.median(values))} ({form.format(min(values))}–{form.format(max(values))})"


def ratios(a: list[float], b: list[float]) -> list[float]:
    """a/b window by window, in the order measured."""
    return [x / y for x, y in zip(a, b, strict=True)]


def measure(a: Namespace, m: int, data: cifar.Cifar, roof: float) -> str:
    """One line of the table."""
    options = Namespace(
        M=m, epochs=1, batch_size=a.batch_size, seed=0, augment="cutout", schedule="authors", device=a.device,
        precision="auto", engine="auto", depth=44, data=a.data, minutes=None,
    )  # fmt: skip
    ours = p4_cutout.configure(options)
    eager = p4_cutout.configure(Namespace(**(vars(options) | {"precision": "fp32", "engine": "plain"})))
    rates: dict[str, list[float]] = {"ours": [], "eager": [], "conventional": []}
    setups: list[float] = []

    def run(name: str) -> None:
        if name == "conventional":
            rates[name] += conventional.images_per_second(data, m, a.batch_size, ours.device, a.seconds, a.workers)
        else:
            setup, found = engine_rates(ours if name == "ours" else eager, data, a.seconds)
            rates[name] += found
            setups.extend([setup] if name == "ours" else [])

    order: list[str] = list(rates)
    for turn in range(ROUNDS):
        for name in order if turn % 2 == 0 else reversed(order):
            run(name)
    own = statistics.median(rates["ours"])
    return " | ".join(
        [
            f"{m:3d}",
            *(spread(rates[name]) for name in rates),
            spread(ratios(rates["ours"], rates["eager"]), "{:.1f}"),
            spread(ratios(rates["ours"], rates["conventional"]), "{:.1f}"),
            f"{1e3 * m * a.batch_size / own:.2f}",
            f"{own / roof:.1%}",
            spread(setups, "{:.1f}"),
        ]
    )


def main(arguments: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Measure and print. Returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--M", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--seconds", type=float, default=10.0, help="for each of a round's three measurements (default 10)")
    p.add_argument("--device", default="auto")
    p.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of the DataLoader")
    p.add_argument("--data", choices=("cifar10", "synthetic"), default="cifar10")
    p.add_argument("--data-dir", type=Path, help="folder with CIFAR-10 (default: the variable DLPERF_DATA)")
    a = p.parse_args(arguments)
    try:
        data = cifar.load(a.data_dir, a.data)
        device = "cuda" if a.device == "auto" and torch.cuda.is_available() else a.device.replace("auto", "cpu")
        speed = bandwidth(device)
        roof = float(roofline.images_per_second(speed, 2 if device == "cuda" else 4))
        name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
        say(f"{name}, {data.name}: copy {speed / 1e9:,.0f} GB/s, roofline {roof:,.0f} images/s")
        say("  M | ours, images/s | eager | conventional | ours/eager | ours/conv. | ms/step | of roofline | set-up, s")
        for m in a.M:
            say(measure(a, m, data, roof))
    except (UsageError, cifar.DataError) as error:
        print(f"p4_throughput: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
