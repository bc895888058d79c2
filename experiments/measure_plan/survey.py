"""What a machine has, and how fast it is: asked of the system and, by a short probe, of the libraries themselves."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from experiments.cli import UsageError
from experiments.machine import nvidia
from experiments.machine.cores import siblings
from experiments.machine.device_names import device_name
from experiments.machine.processes import leash
from experiments.p1.horovod_launch import check_horovod

PROBE_SECONDS = 120  # until a library that hangs counts as one that sees no GPU


@dataclass(frozen=True)
class Speed:
    """The probe's findings."""

    gflops: float  # of float32 products, on one core or one GPU
    import_seconds: dict[str, float]  # what a process needs before it can build a network, for each framework
    sees_gpu: tuple[str, ...] = ()  # frameworks that can use the GPUs


@dataclass(frozen=True)
class Machine:
    """What the plan depends on."""

    device: str  # cpu or gpu: what a learner is
    name: str
    cores: int
    devices: int  # the most learners, a core or a GPU each
    gpu_gib: float  # memory of the smallest GPU; 0 without one
    installed: tuple[str, ...]  # of tensorflow, torch
    horovod: dict[str, str]  # for each framework why Horovod can't run it; empty where it can
    data: tuple[str, ...]  # of fashion, cifar10
    speed: Speed

    def text(self) -> str:
        """One line."""
        what = f"{self.devices} × {self.name}" if self.device == "gpu" else f"{self.cores} cores, {self.name}"
        data = ", ".join(self.data) or "none: images are synthetic"
        return f"{what}; {', '.join(self.installed) or 'neither TensorFlow nor PyTorch'}; data: {data}"


def survey(device: str | None, probe: Sequence[str]) -> Machine:
    """Look at this machine; `probe` is the command that prints `Speed` as JSON. Raises UsageError for a GPU that isn't.

    Without a `device` learners have GPUs where there are some, cores otherwise.
    """
    gpus = nvidia.gpus()
    if device == "gpu":
        nvidia.check_gpus(1, oversubscribe=False)
    device = device or ("gpu" if gpus else "cpu")
    cores = len(siblings())
    installed = tuple(name for name in ("tensorflow", "torch") if util.find_spec(name))
    return Machine(
        device,
        device_name(device),
        cores,
        len(gpus) if device == "gpu" else cores,
        _gpu_gib() if device == "gpu" else 0.0,
        installed,
        {name: _refusal(name) for name in ("tensorflow", "torch")},
        _data(),
        _ask([*probe, device], min(os.sched_getaffinity(0)) if device == "cpu" else None),
    )


def _refusal(framework: str) -> str:
    """Why Horovod can't run the framework; empty where it can."""
    try:
        check_horovod(framework)
    except UsageError as error:
        return str(error)
    return ""


def _data() -> tuple[str, ...]:
    """The data sets that are where DLPERF_DATA points: by their presence, as each job checks them."""
    place = os.environ.get("DLPERF_DATA")
    if not place:
        return ()
    files = {path.name for path in Path(place).rglob("*")} if Path(place).is_dir() else {Path(place).name}
    marks = {"fashion": "train-images-idx3-ubyte", "cifar10": "cifar"}
    return tuple(name for name, mark in marks.items() if any(file.startswith(mark) for file in files))


def _gpu_gib() -> float:
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    sizes = subprocess.run(query, capture_output=True, text=True).stdout.split()
    return min(map(float, sizes), default=0.0) / 1024


def _ask(command: Sequence[str], core: int | None) -> Speed:
    """The probe's answer. In a process of its own, so that no library of it stays. Raises UsageError where it fails.

    It has the one core from its start, as a learner has: a library that sees two starts two threads, which then wait
    for each other on one.
    """

    def pin() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    try:
        leashed = [*leash("KILL"), *command]
        done = subprocess.run(leashed, capture_output=True, text=True, timeout=PROBE_SECONDS, preexec_fn=pin)
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        raise UsageError(f"the probe of this machine failed ({type(error).__name__}); name a --device") from error
    return Speed(found["gflops"], found["import_seconds"], tuple(found["sees_gpu"]))


def probe(device: str) -> Speed:
    """Load the frameworks that are there, as a job does, and time products of matrices for a moment.

    On cores in the process's own time: other programs, or files that are read for the first time, would make the plan
    of hours out of minutes.
    """
    took, sees = dict[str, float](), list[str]()
    if util.find_spec("tensorflow"):
        began = time.process_time()
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            sees.append("tensorflow")
        took["tensorflow"] = time.process_time() - began
    if util.find_spec("torch"):
        began = time.process_time()
        import torch

        if torch.cuda.is_available():
            sees.append("torch")
        took["torch"] = time.process_time() - began
    return Speed(_gpu_gflops(sees) if device == "gpu" and sees else _core_gflops(), took, tuple(sees))


def _core_gflops(side: int = 512, seconds: float = 0.3) -> float:
    import numpy as np

    a = np.ones((side, side), np.float32)
    a @ a  # the library sets itself up
    begin, products = time.process_time(), 0
    while time.process_time() - begin < seconds:
        a @ a
        products += 1
    return products * 2 * side**3 / (time.process_time() - begin) / 1e9


def _gpu_gflops(sees: Sequence[str], side: int = 4096, products: int = 50) -> float:
    if "torch" in sees:
        import torch

        x = torch.ones(side, side, device="cuda")
        (x @ x).sum().item()
        begin = time.perf_counter()
        for _ in range(products):
            y = x @ x
        y.sum().item()
    else:
        import tensorflow as tf

        x = tf.ones((side, side))
        float(tf.reduce_sum(x @ x))
        begin = time.perf_counter()
        for _ in range(products):
            y = x @ x
        float(tf.reduce_sum(y))
    return products * 2 * side**3 / (time.perf_counter() - begin) / 1e9
