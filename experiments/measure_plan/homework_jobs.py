"""The homework's jobs that a machine can do, each the command that a person would type, and why others are left out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from derivations import cifar_resnet, imagenet_resnet
from experiments.measure_plan.survey import Machine
from experiments.p1.horovod_options import SWEEP
from experiments.p4.wanted import ALL_M

FLOP = 2 * 3  # a multiply-accumulate is two; the backward pass takes twice the forward's
REACHED = 0.25  # the part of a float32 matrix product's speed that a training step reaches
REACHED_BF16 = 0.5  # on a GPU, Problem 4's step, which computes in bf16
LARGE = 40  # GiB of a GPU that takes the committed runs' batches
TRAINED_M = (1, 8)  # trained to the end on a GPU; throughput is measured for every M
P2_EPOCHS = {"cpu": (3, 2), "gpu": (3, 20)}  # and the steps of each


@dataclass(frozen=True)
class Job:
    """A job of the plan."""

    problem: int
    what: str
    parts: tuple[str, ...]  # of the homework, that need it
    words: tuple[str, ...]  # of the command, from the script on, without repetition and folder
    seconds: float  # that it takes, as far as the probe tells
    series: str  # jobs that answer something only together
    repeat: int | None = 1  # None: the script repeats by itself

    @property
    def experiment(self) -> str:
        """The name of its results."""
        return Path(self.words[0]).stem

    @property
    def key(self) -> tuple[str, ...]:
        """What tells a repetition of it from all other jobs: its command, wherever the results go."""
        return self.words if self.repeat is None else (*self.words, "--repeat", str(self.repeat))

    def arguments(self, results: Path) -> list[str]:
        """All words of the command after `python`."""
        return [*self.key, "--results", str(results)]

    def command(self, results: Path) -> str:
        """As a person types it."""
        return shlex.join(["python", *self.arguments(results)])


class LeftOut(NamedTuple):
    """Something of the homework that isn't measured, why, and what would change that."""

    problem: int
    what: str
    why: str


def sizes(machine: Machine) -> list[int]:
    """The numbers of learners that it has devices for."""
    return [learners for learners in SWEEP if learners <= machine.devices]


def plan(machine: Machine, problems: list[int]) -> tuple[list[Job], list[LeftOut]]:
    """One repetition of every job, and what is left out."""
    jobs, out = list[Job](), list[LeftOut]()
    for problem, make in ((1, _horovod), (2, _strategy), (4, _augmentation)):
        if problem in problems:
            found, missing = make(machine)
            jobs += found
            out += missing
    if 4 in problems and machine.device == "cpu" and problems != [4]:
        jobs = [job for job in jobs if job.problem != 4]
        out.append(LeftOut(4, "Throughput for each M", "minutes each on cores; --problems 4 measures it alone"))
    few = [n for n in SWEEP if n > machine.devices]
    if few and {1, 2} & set(problems):
        what = "GPU" if machine.device == "gpu" else "core"
        plural = "s" * (machine.devices > 1)
        why = f"a learner has a {what} of its own, and this machine has {machine.devices} {what}{plural}"
        out.append(LeftOut(min({1, 2} & set(problems)), f"{', '.join(map(str, few))} learners", why))
    return jobs, out


def _resnet50(machine: Machine, learners: int, images: int, pixels: int) -> float:
    """Seconds of training `images` on each of the learners' devices."""
    macs = float(imagenet_resnet.macs()) * (pixels / 224) ** 2
    return images * macs * FLOP / (1e9 * machine.speed.gflops * REACHED)


def _setup(machine: Machine, framework: str, learners: int, graphs: float = 1.0) -> float:
    """Seconds before the first step: processes that load the framework, and graphs that are traced and compiled."""
    together = max(1.0, 2 * learners / machine.cores)  # processes that start at the same time share the cores
    traced = graphs * (3 if machine.device == "cpu" else 1)  # by the learner's one core, or by all of a GPU's host
    return machine.speed.import_seconds[framework] * (1 + traced) * (0.5 + 0.5 * together) + 3


# ---- Problem 1, and the all-reduce by itself ------------------------------------------------------------------------


def _horovod(machine: Machine) -> tuple[list[Job], list[LeftOut]]:
    jobs, out = _curve(machine)
    gpu = machine.device == "gpu"
    usable = [name for name in (("torch", "tensorflow") if gpu else ("tensorflow", "torch"))
              if not machine.horovod[name] and (not gpu or name in machine.speed.sees_gpu)]  # fmt: skip
    if not usable:
        why = next(iter(dict.fromkeys(machine.horovod.values())), "").partition("; ")[0]  # what it says to do is below
        make = "make horovod" + (" TENSORFLOW='tensorflow[and-cuda]'" if gpu else "")
        return jobs, [*out, LeftOut(1, "Horovod's learners", f"{why or 'no framework sees the GPU'}; `{make}`")]
    batch, pixels = (256 if machine.gpu_gib >= LARGE else 32, 224) if gpu else (16, 64)
    words = ["--framework", usable[0], "--device", machine.device, "--batch-size", str(batch)]
    words += ["--epochs", "25", "--steps-per-epoch", "2", "--warm-up", "5"] if gpu else [
        "--image-size", "64", "--epochs", "5", "--steps-per-epoch", "2", "--warm-up", "2"]  # fmt: skip
    steps = 55 if gpu else 12
    for allreduce in (True, False):
        for n in sizes(machine):
            seconds = _setup(machine, usable[0], n) + _resnet50(machine, n, steps * batch, pixels)
            kind = [] if allreduce else ["--no-allreduce"]
            what = f"Horovod, {n} learner{'s' * (n > 1)}{'' if allreduce else ', independent'}"
            command = ("experiments/p1_horovod.py", "--learners", str(n), *words, *kind)
            series, parts = ("Horovod", ("1.1", "1.2", "1.3")) if allreduce else ("independent", ())
            jobs.append(Job(1, what, parts, command, seconds, series))
    return jobs, [*out, LeftOut(1, "Two hosts (1.4)", "the plan is for one; README.md has the command for two")]


def _curve(machine: Machine) -> tuple[list[Job], list[LeftOut]]:
    """The all-reduce by itself, which the prediction needs."""
    if "torch" not in machine.installed:
        return [], [LeftOut(1, "The all-reduce by itself", "PyTorch is not installed; `pip install torch`")]
    gpu = machine.device == "gpu"
    if gpu and "torch" not in machine.speed.sees_gpu:
        return [], [LeftOut(1, "The all-reduce by itself", "PyTorch sees no GPU; `pip install torch` with CUDA")]
    words = ["--backend", "nccl" if gpu else "gloo", "--max-bytes", str(1 << (30 if gpu else 27))]
    words += ["--windows", "3", "--window-seconds", "0.1"]
    jobs = [
        Job(1, f"All-reduce between {n}", ("link",), ("experiments/allreduce.py", "--learners", str(n), *words),
            10 + machine.speed.import_seconds["torch"], "curve")
        for n in sizes(machine)
        if n > 1
    ]  # fmt: skip
    return jobs, []


# ---- Problem 2 ------------------------------------------------------------------------------------------------------


def _strategy(machine: Machine) -> tuple[list[Job], list[LeftOut]]:
    gpu = machine.device == "gpu"
    if "tensorflow" not in machine.installed:
        package = "tensorflow[and-cuda]" if gpu else "tensorflow-cpu"
        return [], [LeftOut(2, "All of it", f"TensorFlow is not installed; `pip install '{package}'`")]
    if gpu and "tensorflow" not in machine.speed.sees_gpu:
        return [], [LeftOut(2, "All of it", "TensorFlow sees no GPU; `pip install 'tensorflow[and-cuda]'`")]
    jobs = []
    most = max(sizes(machine))
    kind = "mirrored" if gpu else "multiworker"
    for scaling, parts in (
        ("weak", ("2.1", "2.2", "2.3", "2.4")),
        ("strong", ("strong 2.1", "strong 2.2", "strong 2.3")),
    ):
        jobs += [_tf(machine, f"{scaling} scaling, {n}", scaling, parts, n, kind, "--scaling", scaling)
                 for n in sizes(machine)]  # fmt: skip
    out = []
    if most > 1:
        ways = ("nccl", "hierarchical", "one-device") if gpu else ("default", "hierarchical", "one-device")
        among = most if gpu else 2
        jobs += [
            _tf(machine, f"all-reduce {way}", "all-reduces", ("2.5",), among, "mirrored", "--all-reduce", way)
            for way in ways
        ]
    if gpu and most > 1:
        jobs += [
            _tf(machine, f"communication {way}", "communications", ("2.6",), 2, "multiworker", "--communication", way)
            for way in ("auto", "nccl", "ring")
        ]
    else:
        why = "needs two GPUs" if gpu else "needs two GPUs: between cores all three names are one ring"
        out.append(LeftOut(2, "AUTO, NCCL and RING (2.6)", why))
    if "fashion" not in machine.data:
        why = "no Fashion-MNIST, so images are synthetic; `python tools/get_fashion_mnist.py --download DIR`, then"
        out.append(LeftOut(2, "Accuracy", f"{why} `export DLPERF_DATA=DIR`"))
    return jobs, out


def _tf(machine: Machine, what: str, series: str, parts: tuple[str, ...], learners: int, kind: str, *words: str) -> Job:
    """A job of Problem 2: 64 images a learner, or 256 in all."""
    large = machine.device == "gpu" and machine.gpu_gib >= LARGE
    per_learner = 256 // learners if "strong" in words else 64
    epochs, steps = P2_EPOCHS[machine.device]
    given = ["--strategy", kind, "--learners", str(learners), "--device", machine.device, *words]
    if "fashion" not in machine.data:
        given += ["--data", "synthetic"]
        steps = min(steps, 5)  # 2,000 synthetic images
    given += ["--epochs", str(epochs), "--steps-per-epoch", str(steps), "--no-evaluate"]
    given += ["--image-size", "224", "--jit-compile"] if large else []
    work = _resnet50(machine, learners, (epochs * steps + 2) * per_learner, 224 if large else 32)
    seconds = _setup(machine, "tensorflow", learners if kind == "multiworker" else 1, 2.5) + work
    return Job(2, f"tf.distribute, {what}", parts, ("experiments/p2_strategy.py", *given), seconds, series)


# ---- Problem 4 ------------------------------------------------------------------------------------------------------


def _augmentation(machine: Machine) -> tuple[list[Job], list[LeftOut]]:
    gpu, data = machine.device == "gpu", "cifar10" if "cifar10" in machine.data else "synthetic"
    if "torch" not in machine.installed or (gpu and "torch" not in machine.speed.sees_gpu):
        why = "PyTorch sees no GPU" if "torch" in machine.installed else "PyTorch is not installed"
        return [], [LeftOut(4, "All of it", f"{why}; `pip install torch`")]
    device = "cuda" if gpu else "cpu"
    speed = 1e9 * machine.speed.gflops * (REACHED_BF16 if gpu else REACHED * machine.cores)
    jobs = [
        Job(4, f"Throughput, M = {m}", (), ("experiments/p4_throughput.py", "--M", str(m), "--data", data, "--device",
            device, "--seconds", "4", "--turns", "1", "--write"), (60 if gpu else 200), f"M{m}", None)
        for m in (ALL_M if gpu else ALL_M[:3])
    ]  # fmt: skip
    if not gpu:
        return jobs, [LeftOut(4, "Training ResNet-44", "takes days on cores; rent a GPU for an hour")]
    if data == "synthetic":
        why = "no CIFAR-10; `python tools/get_cifar10.py --download DIR`, then `export DLPERF_DATA=DIR`"
        return jobs, [LeftOut(4, "Training ResNet-44 (4.2, 4.3)", why)]
    macs = float(cifar_resnet.counts().macs)
    for m in TRAINED_M:
        seconds = 60 + 100 * 50_000 * m * macs * FLOP / speed
        kind = ("--augment", "basic") if m == 1 else ()
        words = ("experiments/p4_cutout.py", "--M", str(m), *kind, "--resume")
        jobs.append(Job(4, f"ResNet-44, M = {m}", ("4.2" if m == 1 else "4.3",), words, seconds, f"trained M{m}", None))
    return jobs, []
