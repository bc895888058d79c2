"""Problem 2's command line: its options, their checks, and the jobs that they describe."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from experiments import cli
from experiments.cli import Placed, UsageError, path
from experiments.machine import stalls, sweep
from experiments.p2 import fashion_mnist, worker_job
from experiments.store.files import RESULTS

EXPERIMENT = "p2_strategy"
SWEEP = {"mirrored": [1, 2, 4, 8], "multiworker": [1, 2, 4, 8, 16]}
LISTS = ["learners", "scaling", "strategy", "all_reduce", "communication"]  # options that may have several values
RATE_AT_256 = 0.05  # learning rate of an effective batch of 256; proportional to the batch [Goyal et al. 2017]


@dataclass(frozen=True)
class Config(Placed):
    """A job and where it runs; equal configurations are the same run."""

    job: worker_job.Job
    scaling: str
    base: int  # weak: images per learner; strong: the effective batch
    dataset: str
    whole: bool  # an epoch has all training images except a last partial batch
    hosts: int
    gbit: float | None
    oversubscribe: bool
    repeat: int

    @property
    def slug(self) -> str:
        """The readable part of the run's name."""
        j = self.job
        how = j.all_reduce if j.strategy == "mirrored" else j.communication
        size = "" if j.image_size == worker_job.PADDED else f"-{j.image_size}px"
        where = f"-{self.hosts}hosts" + (f"-{self.gbit:g}gbit" if self.gbit else "") if self.hosts > 1 else ""
        what = f"{j.device}-{self.scaling}-{j.learners}x{j.per_learner_batch}{size}"
        return f"{what}-{j.strategy}-{how}{where}-r{self.repeat}"

    @property
    def learner(self) -> str:
        """The kind of device that a learner is."""
        if self.job.device == "gpu":
            return "GPU"
        if self.job.local == 1:
            return f"process pinned to {self.job.threads} cores" if self.job.threads > 1 else "process pinned to a core"
        return f"logical CPU of a process of {self.job.local * self.job.threads} cores and threads"


def arguments(description: str | None) -> cli.Parser:
    """The command line."""
    p = cli.Parser(EXPERIMENT, description)
    p.add_argument(
        "--scaling", type=cli.listed("weak", "strong"), default="weak", help="weak (default), strong, or both"
    )
    p.add_argument("--learners", type=cli.listed(), metavar="N,…", help="replicas of the network (default 1)")
    p.add_argument("--sweep", action="store_true", help="1, 2, 4, 8 (multiworker: 16) learners, as far as cores go")
    p.add_argument("--strategy", type=cli.listed(*SWEEP), default="multiworker", help="mirrored, multiworker (default)")
    p.add_argument("--workers", type=int, help="processes (default: mirrored 1, multiworker one for each learner)")
    p.add_argument(
        "--all-reduce",
        type=cli.listed("default", "nccl", "hierarchical", "one-device"),
        help="of mirrored: default, nccl, hierarchical, one-device",
    )
    p.add_argument("--communication", type=cli.listed("auto", "nccl", "ring"), help="of multiworker: auto, nccl, ring")
    p.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    p.add_argument("--base", type=int, default=64, help="weak scaling: images per learner and step (default 64)")
    p.add_argument("--effective-batch", type=int, default=256, help="strong scaling: images per step (default 256)")
    p.add_argument("--image-size", type=int, default=worker_job.PADDED, help="pixels, resized (default 32, padded)")
    p.add_argument("--epochs", type=int, default=10, help="default 10")
    p.add_argument("--steps-per-epoch", type=int, help="fewer than all images make, for timing (default: all)")
    p.add_argument("--evaluate", action=argparse.BooleanOptionalAction, default=True, help="test after every epoch")
    p.add_argument("--data", choices=["fashion", "synthetic"], default="fashion")
    p.add_argument("--data-dir", type=path, help="folder with Fashion-MNIST (default: the one that DLPERF_DATA names)")
    p.add_argument("--threads", type=int, default=1, help="cores that a CPU learner gets (default 1)")
    p.add_argument("--oversubscribe", action="store_true", help="let learners share cores or GPUs")
    p.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    p.add_argument("--jit-compile", action="store_true", help="compile the gradients with XLA")
    p.add_argument("--steps-per-execution", type=int, default=1, help="steps that TensorFlow runs in one call")
    p.add_argument("--learning-rate", type=float, help=f"default {RATE_AT_256} × effective batch / 256")
    p.add_argument("--hosts", type=int, default=1, help="emulate so many hosts on this machine (needs root)")
    p.add_argument("--gbit", type=float, help="Gbit/s that an emulated host may send (default: no limit)")
    p.add_argument("--launcher", choices=["local", "slurm"], default="local", help="slurm: a task of srun is a worker")
    p.add_argument("--join-timeout", type=float, default=120, help="s that workers wait for each other (default 120)")
    p.add_argument("--network", choices=["resnet50", "tiny"], default="resnet50", help="tiny: for tests")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--repeat", type=int, default=1, help="which repetition of the job; each has its own results")
    p.add_argument("--repeats", type=int, default=1, help="so many repetitions, from --repeat on (default 1)")
    p.add_argument(
        "--stall-timeout",
        type=float,
        default=stalls.TIMEOUT,
        metavar="S",
        help="end a job whose worker on this machine has been stopped (SIGSTOP) for so long (default %(default)g s)",
    )
    p.add_argument(
        "--skip-finished", action="store_true", help="do nothing where the results are there; several jobs do so"
    )
    p.add_argument("--results", type=path, default=RESULTS, help="folder for results")
    p.add_argument("--job", help=argparse.SUPPRESS)  # the job of a worker that this script started, in JSON
    p.add_argument("--report", type=path, help=argparse.SUPPRESS)  # where worker 0 writes its report
    return p


def check(a: argparse.Namespace) -> None:
    """Raise UsageError if any job of the command line is invalid."""
    names = ["base", "effective_batch", "epochs", "threads", "steps_per_execution", "hosts", "repeat", "repeats"]
    cli.check_at_least(1, a, *names, "learners", "workers")
    cli.check_positive(a, "join_timeout", "stall_timeout", "learning_rate")
    if a.image_size < worker_job.PADDED:
        raise UsageError(f"--image-size must be at least {worker_job.PADDED}, ResNet-50's least, not {a.image_size}")
    if not 0 <= a.seed < 2**31:
        raise UsageError(f"--seed must be 0 to {2**31 - 1}, not {a.seed}")
    if a.sweep and a.learners:
        raise UsageError("--sweep chooses the numbers of learners itself; leave --learners out, or --sweep")
    if "mirrored" in a.strategy and (a.workers or 1) > 1:
        raise UsageError("--strategy mirrored has one worker; use --strategy multiworker for more")
    if a.communication and "multiworker" not in a.strategy:
        raise UsageError("--communication is of --strategy multiworker; mirrored has --all-reduce")
    if a.all_reduce and "mirrored" not in a.strategy:
        raise UsageError("--all-reduce is of --strategy mirrored; multiworker has --communication")
    if a.gbit is not None and (a.hosts == 1 or not 0 < a.gbit < math.inf):
        raise UsageError("--gbit must be positive, and limits emulated hosts: give --hosts 2 with it")


def configure(a: argparse.Namespace, scaling: str, distribution: str, how: str, learners: int, repeat: int) -> Config:
    """One job of the command line; `how` its gradients are summed. Raises UsageError."""
    workers = a.workers or (learners if distribution == "multiworker" else 1)
    if learners % workers:
        raise UsageError(f"{learners} learners can't be shared out evenly to {workers} workers")
    effective = a.effective_batch if scaling == "strong" else a.base * learners
    if effective % learners:
        raise UsageError(f"--effective-batch {effective} can't be divided by {learners} learners")
    if a.hosts > workers:
        raise UsageError(f"--hosts {a.hosts} is more than the {workers} workers")
    samples = (
        fashion_mnist.FILES["train_images"][1][0]
        if a.data == "fashion"
        else len(fashion_mnist.synthetic().train_images)
    )
    most = samples // effective
    steps = most // a.steps_per_execution * a.steps_per_execution if a.steps_per_epoch is None else a.steps_per_epoch
    if not 1 <= steps <= most:
        raise UsageError(f"--steps-per-epoch must be 1 to {most} with {samples:,} images and batches of {effective}")
    if steps % a.steps_per_execution:
        raise UsageError(f"--steps-per-epoch {steps} is no multiple of --steps-per-execution {a.steps_per_execution}")
    job = worker_job.Job(
        network=a.network,
        image_size=a.image_size,
        device=a.device,
        strategy=distribution,
        all_reduce=how if distribution == "mirrored" else "",
        communication=how if distribution == "multiworker" else "",
        learners=learners,
        workers=workers,
        effective_batch=effective,
        epochs=a.epochs,
        steps=steps,
        steps_per_execution=a.steps_per_execution,
        threads=a.threads,
        precision=a.precision,
        jit_compile=a.jit_compile,
        learning_rate=a.learning_rate or RATE_AT_256 * effective / 256,
        evaluate=a.evaluate,
        seed=a.seed,
    )
    base = a.base if scaling == "weak" else a.effective_batch
    whole = a.steps_per_epoch is None
    return Config(job, scaling, base, a.data, whole, a.hosts, a.gbit, a.oversubscribe, repeat)


def sizes(a: argparse.Namespace, distribution: str) -> list[int]:
    """The numbers of learners to run with. Raises UsageError for a sweep without any."""
    if not a.sweep:
        return a.learners or [1]
    workers = max(1, a.workers or 1)
    # Sizes with fewer learners than hosts, or that the workers can't share equally, are left out.
    fit = [learners for learners in SWEEP[distribution] if learners >= a.hosts and learners % workers == 0]
    if not fit:
        every = ", ".join(map(str, SWEEP[distribution]))
        raise UsageError(f"--sweep: none of {every} learners suits {workers} workers on {a.hosts} hosts; use fewer")
    return fit


def series(a: argparse.Namespace) -> list[Config]:
    """All jobs of the command line, in the order to run them. Raises UsageError."""
    check(a)
    ways = {"mirrored": a.all_reduce or ["default"], "multiworker": a.communication or ["auto"]}

    def variants(repeat: int) -> list[Config]:
        return [
            configure(a, scaling, distribution, how, learners, repeat)
            for scaling in a.scaling
            for distribution in a.strategy
            for how in ways[distribution]
            for learners in sizes(a, distribution)
        ]

    return sweep.alternating(variants, a.repeats, a.repeat)
