"""Problem 1's jobs: what the command line asks for, and where the learners of a job run."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields

from experiments import cli
from experiments.cli import Placed, UsageError, path
from experiments.machine import cores, nvidia, stalls, sweep
from experiments.p1 import frameworks, horovod_launch
from experiments.store.files import RESULTS

SWEEP = [1, 2, 4, 8, 16]
JOB_FIELDS = [field.name for field in fields(frameworks.Job)]


@dataclass(frozen=True)
class Config(Placed):
    """A job and where it runs; equal configurations are the same run."""

    job: frameworks.Job
    learners: int
    launcher: str
    slots: dict[str, int]  # learners by host, in order
    emulated: bool  # the hosts are network namespaces of this machine
    gbit: float | None
    oversubscribe: bool
    repeat: int

    @property
    def hosts(self) -> int:
        """How many hosts have learners."""
        return sum(1 for count in self.placed() if count)

    def placed(self) -> list[int]:
        """Learners on each host."""
        left, counts = self.learners, []
        for slots in self.slots.values():
            counts.append(min(left, slots))
            left -= counts[-1]
        return counts

    @property
    def slug(self) -> str:
        """The readable part of the run's name."""
        kind = ("-compiled" if self.job.compiled else "") + ("" if self.job.allreduce else "-independent")
        link = f"-{self.gbit:g}gbit" if self.gbit else ""
        where = f"-{self.hosts}hosts{link}" if self.hosts > 1 else ""
        return f"{self.job.framework}-{self.job.device}-{self.learners}{where}{kind}-r{self.repeat}"


def arguments(description: str | None) -> cli.Parser:
    """The command line."""
    p = cli.Parser("p1_horovod", description)
    p.add_argument("--learners", type=cli.listed(), metavar="N,…", help="processes that train together (default 1)")
    p.add_argument("--sweep", action="store_true", help="1, 2, 4, 8, 16 learners, as far as cores or GPUs go")
    p.add_argument("--repeats", type=int, default=1, help="repetitions of every job (default 1)")
    p.add_argument("--independent-too", action="store_true", help="after each job the same one without all-reduce")
    p.add_argument("--framework", choices=list(frameworks.FRAMEWORKS), default="tensorflow")
    p.add_argument("--launcher", choices=horovod_launch.LAUNCHERS, help="default horovodrun, on emulated hosts none")
    p.add_argument("-H", dest="spec", metavar="HOST:SLOTS,…", help="hosts and their slots (default: this machine)")
    p.add_argument("--hosts", type=int, default=1, help="emulate so many hosts on this machine (needs root)")
    p.add_argument("--gbit", type=float, help="Gbit/s that an emulated host may send (default: no limit)")
    p.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="a learner has cores, or one GPU")
    p.add_argument("--precision", choices=["float32", "mixed"], default="float32", help="mixed: bfloat16 activations")
    p.add_argument("--compile", dest="compiled", action="store_true", help="compile the network: torch.compile, XLA")
    p.add_argument("--allreduce", action=argparse.BooleanOptionalAction, default=True, help="off: independent learners")
    p.add_argument("--batch-size", type=int, default=32, help="images a learner takes per step (default 32)")
    p.add_argument("--image-size", type=int, default=224, help="pixels (default 224)")
    p.add_argument("--epochs", type=int, default=25, help="default 25")
    p.add_argument("--steps-per-epoch", type=int, default=10, help="default 10")
    p.add_argument("--warm-up", type=int, default=3, help="steps before the first epoch (default 3)")
    p.add_argument("--threads", type=int, default=1, help="cores that a learner is pinned to (default 1)")
    p.add_argument("--oversubscribe", action="store_true", help="let learners share cores or GPUs")
    p.add_argument("--model", dest="network", choices=["resnet50", "tiny"], default="resnet50", help="tiny: for tests")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--repeat", type=int, default=1, help="number of the first repetition; each has its own results")
    p.add_argument(
        "--skip-finished",
        action="store_true",
        help="do nothing where this allocation has the results; always so for several jobs",
    )
    p.add_argument(
        "--stall-timeout",
        type=float,
        default=stalls.TIMEOUT,
        metavar="S",
        help="end a job whose learner on this machine has been stopped (SIGSTOP) for so long (default %(default)g s)",
    )
    p.add_argument("--results", type=path, default=RESULTS, help="folder for results")
    p.add_argument("--report", type=path, help=argparse.SUPPRESS)  # this process is a learner; rank 0 reports there
    p.add_argument("--pin", choices=["rank", "local"], default="local", help=argparse.SUPPRESS)
    return p


def configure(a: argparse.Namespace, learners: int, repeat: int | None = None, allreduce: bool | None = None) -> Config:
    """The run that the command line describes, for that many learners; others may be given too. Raises UsageError."""
    repeat = a.repeat if repeat is None else repeat
    cli.check_at_least(1, a, "learners", "hosts", "batch_size", "epochs", "steps_per_epoch", "threads", "repeat")
    cli.check_positive(a, "stall_timeout")
    if a.image_size < 32:
        raise UsageError(f"--image-size must be at least 32, ResNet-50's total stride, not {a.image_size}")
    if a.warm_up < 0:
        raise UsageError(f"--warm-up must not be negative, but is {a.warm_up}")
    if not 0 <= a.seed < 2**31:
        raise UsageError(f"--seed must be 0 to {2**31 - 1}, not {a.seed}")
    if a.gbit is not None and (a.hosts == 1 or not 0 < a.gbit < math.inf):
        raise UsageError("--gbit must be positive, and limits emulated hosts: give --hosts 2 with it")
    if a.spec is not None and a.hosts > 1:
        raise UsageError("-H names real hosts and --hosts emulates them; give one of them")
    if a.hosts > learners:
        raise UsageError(f"--hosts {a.hosts} is more than the {learners} learners")
    if a.hosts > 1 and (a.launcher or "none") != "none":
        raise UsageError("--hosts goes with --launcher none; for another launcher use tools/emulate_hosts.py and -H")
    emulated = a.hosts > 1
    if emulated:
        each = -(-learners // a.hosts)
        slots = {f"host{i}": each for i in range(1, a.hosts + 1)}
    else:
        slots = {"localhost": learners} if a.spec is None else horovod_launch.parse_hosts(a.spec, learners)
    given = {name: getattr(a, name) for name in JOB_FIELDS}
    job = frameworks.Job(**given | ({} if allreduce is None else {"allreduce": allreduce}))
    launcher = a.launcher or ("none" if emulated else "horovodrun")
    return Config(job, learners, launcher, slots, emulated, a.gbit, a.oversubscribe, repeat)


def sizes(a: argparse.Namespace) -> list[int]:
    """The numbers of learners that the command line asks for. Raises UsageError."""
    if not a.sweep:
        return a.learners or [1]
    if a.learners:
        raise UsageError("--sweep has its own numbers of learners; leave out --learners, or --sweep")
    slots = max(SWEEP) if a.spec is None else sum(horovod_launch.parse_hosts(a.spec, 1).values())
    numbers = [learners for learners in SWEEP if a.hosts <= learners <= slots]
    if not numbers:
        raise UsageError(f"--sweep has no size with {a.hosts} hosts; its sizes are {SWEEP}")
    return numbers


def series(a: argparse.Namespace) -> tuple[list[Config], bool]:
    """The runs that the command line asks for, in their order, and whether it names several. Raises UsageError."""
    cli.check_at_least(1, a, "repeats")
    if a.independent_too and not a.allreduce:
        raise UsageError("--independent-too compares with all-reduce; leave out --no-allreduce")
    numbers = sizes(a)
    kinds = [True, False] if a.independent_too else [a.allreduce]

    def variants(repeat: int) -> list[Config]:
        return [configure(a, learners, repeat, allreduce) for learners in numbers for allreduce in kinds]

    several = a.sweep or len(numbers) > 1 or a.repeats > 1 or a.independent_too
    return sweep.alternating(variants, a.repeats, a.repeat), several


def check_devices(c: Config) -> None:
    """Raise UsageError when this machine has too few cores or GPUs for the learners that it gets."""
    own = [count for host, count in zip(c.slots, c.placed(), strict=True) if horovod_launch.is_own(host)]
    here = c.learners if c.emulated else sum(own)
    if not here:
        return  # learners check their own machines
    if c.job.device == "cpu":
        cores.core_sets(here, c.job.threads, c.oversubscribe)
    else:
        nvidia.check_gpus(here, c.oversubscribe)
