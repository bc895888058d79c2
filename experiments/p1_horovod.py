"""Problem 1: Horovod's scaling, ResNet-50 on synthetic images, one process a learner.

    python experiments/p1_horovod.py --learners 4                       # 4 cores of this machine
    python experiments/p1_horovod.py --learners 4 --no-allreduce        # the same learners, independent
    python experiments/p1_horovod.py --sweep                            # 1, 2, 4, 8, 16 learners
    python experiments/p1_horovod.py --learners 16 --hosts 2 --gbit 10  # on two emulated hosts, 10 Gbit/s between them
    python experiments/p1_horovod.py --learners 16 --device gpu -H node1:8,node2:8

The images per learner are the same for every number of learners: this is weak scaling. Learners start an epoch
together; its rows say what each of them did, and in which time. Steps before the first epoch (--warm-up) are in no row.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments import cores, jobs, launch, learner, store
from experiments.hosts import Hosts, Link
from experiments.usage import RunError, UsageError, exit_status

EXPERIMENT = "p1_horovod"
SWEEP = [1, 2, 4, 8, 16]
JOB_FIELDS = [field.name for field in fields(learner.Job)]


@dataclass(frozen=True)
class Config:
    """A job and where it runs; equal configurations are the same run."""

    job: learner.Job
    learners: int
    launcher: str
    slots: dict[str, int]  # learners by host, in order
    emulated: bool  # the hosts are network namespaces of this machine
    gbit: float | None
    oversubscribe: bool
    repeat: int

    def flat(self) -> dict[str, Any]:
        """All settings by name."""
        rest = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "job"}
        return asdict(self.job) | rest

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
        kind = "" if self.job.allreduce else "-independent"
        link = f"-{self.gbit:g}gbit" if self.gbit else ""
        where = f"-{self.hosts}hosts{link}" if self.hosts > 1 else ""
        return f"{self.job.framework}-{self.job.device}-{self.learners}{where}{kind}-r{self.repeat}"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--learners", type=int, default=1, help="processes that train together (default 1)")
    p.add_argument("--sweep", action="store_true", help="1, 2, 4, 8, 16 learners, as far as cores or GPUs go")
    p.add_argument("--framework", choices=list(learner.FRAMEWORKS), default="tensorflow")
    p.add_argument("--launcher", choices=launch.LAUNCHERS, help="default horovodrun, on emulated hosts none")
    p.add_argument("-H", dest="spec", metavar="HOST:SLOTS,…", help="hosts and their slots (default: this machine)")
    p.add_argument("--hosts", type=int, default=1, help="emulate so many hosts on this machine (needs root)")
    p.add_argument("--gbit", type=float, help="Gbit/s that an emulated host may send (default: no limit)")
    p.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="a learner has cores, or one GPU")
    p.add_argument("--precision", choices=["float32", "mixed"], default="float32", help="mixed: bfloat16 activations")
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
    p.add_argument("--repeat", type=int, default=1, help="which repetition of the job; each has its own results")
    p.add_argument(
        "--skip-finished", action="store_true", help="do nothing where the results are there; --sweep does so"
    )
    p.add_argument("--results", type=Path, default=store.RESULTS, help="folder for results")
    p.add_argument("--report", type=Path, help=argparse.SUPPRESS)  # this process is a learner; rank 0 reports there
    p.add_argument("--pin", choices=["rank", "local"], default="local", help=argparse.SUPPRESS)
    return p


def configure(a: argparse.Namespace, learners: int) -> Config:
    """The run that the command line describes, for that many learners. Raises UsageError."""
    names = ["learners", "hosts", "batch_size", "epochs", "steps_per_epoch", "threads", "repeat"]
    for name, value in [("learners", learners), *((name, getattr(a, name)) for name in names[1:])]:
        if value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
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
        raise UsageError("--hosts goes with --launcher none; for another launcher use experiments/hosts.py and -H")
    emulated = a.hosts > 1
    if emulated:
        each = -(-learners // a.hosts)
        slots = {f"host{i}": each for i in range(1, a.hosts + 1)}
    else:
        slots = {"localhost": learners} if a.spec is None else launch.parse_hosts(a.spec, learners)
    job = learner.Job(**{name: getattr(a, name) for name in JOB_FIELDS})
    launcher = a.launcher or ("none" if emulated else "horovodrun")
    return Config(job, learners, launcher, slots, emulated, a.gbit, a.oversubscribe, a.repeat)


def check_devices(c: Config) -> None:
    """Raise UsageError when this machine has too few cores or GPUs for the learners that it gets."""
    own = [count for host, count in zip(c.slots, c.placed(), strict=True) if launch.is_own(host)]
    here = c.learners if c.emulated else sum(own)
    if not here:
        return  # learners check their own machines
    if c.job.device == "cpu":
        cores.core_sets(here, c.job.threads, c.oversubscribe)
    else:
        jobs.check_gpus(here, c.oversubscribe)


def be_learner(c: Config, report: Path, pin: str) -> int:
    """Do one learner's part in a process that a launcher started; its exit status. Raises UsageError."""
    launch.join(launch.spec(c.slots), c.learners)
    rank, local = int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_LOCAL_RANK"])
    place, all_here = (rank, c.learners) if pin == "rank" else (local, int(os.environ["HOROVOD_LOCAL_SIZE"]))
    if c.job.device == "cpu":
        # Before a framework is loaded, so that all its threads inherit it.
        os.sched_setaffinity(0, cores.core_sets(all_here, c.job.threads, c.oversubscribe)[place])
    else:
        visible = jobs.gpus()
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[place % len(visible)]

    def say(line: str) -> None:
        if rank == 0:
            print(line, flush=True)

    try:
        reports = learner.train(c.job, STARTED, say)
    except Exception as error:
        traceback.print_exc()
        # What Horovod raises says only that another learner is gone.
        if type(error).__name__ == "HorovodInternalError" or "Horovod has been shut down" in str(error):
            time.sleep(1)  # launchers blame who ends first
        else:
            print(f"{EXPERIMENT}: learner {rank}: {type(error).__name__}: {jobs.first_line(error)}", flush=True)
        return 1
    if rank == 0:
        reports[0] |= {"versions": store.library_versions(), "sources": store.loaded_sources()}
        reports[0]["device"] = jobs.device_name(c.job.device)  # the starting machine may have none
        store.write_atomically(report, json.dumps(reports).encode())
    return 0


def as_rows(c: Config, reports: list[dict[str, Any]], link: Link | None) -> pd.DataFrame:
    """A row for each learner and epoch."""
    rows = []
    for report in reports:
        for epoch, steps in enumerate(report["step_seconds"]):
            seconds, images = report["epoch_seconds"][epoch], len(steps) * c.job.batch_size
            p10, p50, p90 = np.quantile(steps, [0.1, 0.5, 0.9])
            rows.append(
                {
                    "framework": c.job.framework,
                    "model": report["model"],
                    "device_kind": c.job.device,
                    "learners": c.learners,
                    "hosts": c.hosts,
                    "launcher": c.launcher,
                    "allreduce": c.job.allreduce,
                    "precision": c.job.precision,
                    "batch_size": c.job.batch_size,
                    "effective_batch": c.job.batch_size * (c.learners if c.job.allreduce else 1),
                    "image_size": c.job.image_size,
                    "threads": c.job.threads,
                    "cores": ",".join(map(str, report["cores"])),
                    "gbit": c.gbit,
                    "link_gbit": link and link.gbit,
                    "link_round_trip_us": link and link.round_trip_us,
                    "repeat": c.repeat,
                    "rank": report["rank"],
                    "host": report["host"],
                    "epochs_planned": c.job.epochs,
                    "epoch": epoch + 1,
                    "steps": len(steps),
                    "images": images,
                    "seconds": seconds,
                    "images_per_second": images / seconds,
                    "step_p10": p10,
                    "step_p50": p50,
                    "step_p90": p90,
                    "loss": report["losses"][epoch][-1],
                    "parameters": report["parameters"],
                    "gradient_bytes": report["gradient_bytes"],
                    "warm_up_steps": c.job.warm_up,
                    "setup_seconds": report["setup_seconds"],
                }
            )
    return pd.DataFrame(rows).astype({name: float for name in ("gbit", "link_gbit", "link_round_trip_us")})


def job(c: Config, report: Path, argv: list[str]) -> tuple[list[dict[str, Any]], Link | None, list[str]]:
    """Launch all learners; their reports by rank, the emulated link, and what they printed. Raises RunError."""
    pin = ["--pin", "rank"] if c.emulated else []
    command = jobs.command(__file__, *argv, "--learners", str(c.learners), "--report", str(report), *pin)
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=c.job.epochs, desc=c.slug, unit="epoch", disable=None))
        hosts = stack.enter_context(Hosts(len(c.slots), c.gbit, ssh=False)) if c.emulated else None
        link = hosts.measure() if hosts else None

        def say(line: str) -> None:
            if line.startswith(jobs.EPOCH_LINE):
                bar.update()

        log = launch.launch(EXPERIMENT, command, c.learners, c.launcher, c.slots, say, hosts)
    if not report.exists():
        raise RunError("the learners ended without a report; nothing was written: " + (log or ["no output"])[-1])
    return json.loads(report.read_bytes()), link, log


def run(c: Config, results: Path, argv: list[str], say: Callable[[str], None]) -> Path:
    """Run a job and write its results; returns their file. Raises UsageError and RunError."""
    check_devices(c)
    name = store.run_id(c.slug, c.flat())
    path = store.path_of(EXPERIMENT, name, results)
    store.check_writable(path.parent)
    code = store.Code.now()
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix=f"{EXPERIMENT}-") as folder:
        reports, link, log = job(c, Path(folder) / "report.json", argv)
    origin = store.provenance(
        EXPERIMENT,
        name,
        c.flat(),
        seed=c.job.seed,
        device=reports[0]["device"],
        device_count=c.learners,
        started=started,
        code=store.Code(code.commit, code.dirty, code.sources | reports[0]["sources"]),
        versions=reports[0]["versions"],
    )
    rows = as_rows(c, reports, link)
    store.write(rows, origin, log="\n".join(log[-jobs.LOG_LINES :]) + "\n", results=results)
    rate = rows.groupby("epoch").images_per_second.sum()
    say(f"{c.slug}: {rate.median():.2f} images/s ({rate.min():.2f} to {rate.max():.2f} over epochs)")
    return path


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 for a failed job, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM."""
    given = sys.argv[1:] if argv is None else argv
    a = arguments().parse_args(given)

    def work() -> int:
        if a.report:
            return be_learner(configure(a, a.learners), a.report, a.pin)
        sizes = [a.learners]
        if a.sweep:
            slots = max(SWEEP) if a.spec is None else sum(launch.parse_hosts(a.spec, 1).values())
            sizes = [learners for learners in SWEEP if a.hosts <= learners <= slots]
            if not sizes:
                raise UsageError(f"--sweep has no size with {a.hosts} hosts; its sizes are {SWEEP}")
        configs = [configure(a, learners) for learners in sizes]
        launch.check_horovod(a.framework)
        again = a.sweep or a.skip_finished
        for c in jobs.pending(EXPERIMENT, configs, a.results, check_devices, sweep=a.sweep, skip_finished=again):
            if not c.emulated:
                launch.check_reachable(c.slots, c.launcher)
            print(run(c, a.results, given, lambda line: tqdm.write(line, file=sys.stderr)))
        return 0

    return exit_status(EXPERIMENT, work, "the learners were stopped, nothing was written")


if __name__ == "__main__":
    sys.exit(main())
