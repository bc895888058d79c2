"""Problem 1: Horovod's scaling, ResNet-50 on synthetic images, one process a learner.

    python experiments/p1_horovod.py --learners 4                       # 4 cores of this machine
    python experiments/p1_horovod.py --learners 4 --no-allreduce        # the same learners, independent
    python experiments/p1_horovod.py --sweep                            # 1, 2, 4, 8, 16 learners
    python experiments/p1_horovod.py --learners 1,2,4 --repeats 5 --independent-too   # 30 jobs, in turn
    python experiments/p1_horovod.py --learners 16 --hosts 2 --gbit 10  # on two emulated hosts, 10 Gbit/s between them
    python experiments/p1_horovod.py --learners 16 --device gpu -H node1:8,node2:8

The images per learner are the same for every number of learners: this is weak scaling. Learners start each epoch
together. Rows cover each learner's time from the job's start to its end: the set-up including the warm-up, every step,
and the time after the last one. The gap between two epochs' steps is the barrier.

Variables such as HOROVOD_RANK, which would override a learner's place, are removed from the environment. Others that
Horovod and its libraries read, such as HOROVOD_FUSION_THRESHOLD, reach the learners, are stored with the results and
give the run another id. A learner stopped on this machine ends the job (--stall-timeout). A learner stopped on another
host can't be seen: the job waits for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from tqdm import tqdm

from experiments import cli
from experiments.cli import RunError, exit_status
from experiments.machine import cores, nvidia, settings, supervision, sweep
from experiments.machine.device_names import device_name
from experiments.machine.hosts import Hosts
from experiments.machine.job_clock import job_start
from experiments.machine.link_speed import Link
from experiments.p1 import horovod_launch, horovod_options, learner
from experiments.p1.horovod_options import Config, check_devices, configure
from experiments.p1.learner_rows import as_rows, check_ranks, rates
from experiments.store import parquet
from experiments.store.files import check_writable, temporary_folder, write_atomically
from experiments.store.provenance import Code, library_versions, loaded_sources, provenance, timed_id

EXPERIMENT = "p1_horovod"


def arguments() -> cli.Parser:
    """The command line."""
    return horovod_options.arguments(__doc__)


def run_learner(c: Config, report: Path, pin: str) -> int:
    """Run one learner in a process that a launcher started; returns its exit status. Raises UsageError."""
    horovod_launch.join(horovod_launch.spec(c.slots), c.learners)
    began = job_start()
    rank, local = int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_LOCAL_RANK"])
    place, all_here = (rank, c.learners) if pin == "rank" else (local, int(os.environ["HOROVOD_LOCAL_SIZE"]))
    if c.job.device == "cpu":
        # Before a framework is loaded, so that all its threads inherit it.
        os.sched_setaffinity(0, cores.core_sets(all_here, c.job.threads, c.oversubscribe)[place])
    else:
        visible = nvidia.gpus()
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[place % len(visible)]

    def say(line: str) -> None:
        if rank == 0:
            print(line, flush=True)

    try:
        reports = learner.train(c.job, c.learners, began, say)
    except Exception as error:
        traceback.print_exc()
        # Horovod's own error says only that another learner is gone.
        if type(error).__name__ == "HorovodInternalError" or "Horovod has been shut down" in str(error):
            time.sleep(1)  # launchers blame the first process that ends
        else:
            print(f"{EXPERIMENT}: learner {rank}: {type(error).__name__}: {supervision.first_line(error)}", flush=True)
        return 1
    if rank == 0:
        reports[0] |= {"versions": library_versions(), "sources": loaded_sources()}
        reports[0]["device"] = device_name(c.job.device)  # the machine that starts the job may have no GPU
        write_atomically(report, json.dumps(reports).encode())
    return 0


def job(
    c: Config, report: Path, argv: list[str], stall_timeout: float
) -> tuple[list[dict[str, Any]], Link | None, horovod_launch.Finished]:
    """Launch all learners; returns reports by rank, the emulated link and the finished job. Raises RunError."""
    own = ["--learners", str(c.learners), "--repeat", str(c.repeat), f"--{'' if c.job.allreduce else 'no-'}allreduce"]
    pin = ["--pin", "rank"] if c.emulated else []
    command = supervision.command(__file__, *argv, *own, "--report", str(report), *pin)
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=c.job.epochs, desc=c.slug, unit="epoch", disable=None))
        hosts = stack.enter_context(Hosts(len(c.slots), c.gbit, ssh=False)) if c.emulated else None
        link = hosts.measure() if hosts else None

        def say(line: str) -> None:
            if line.startswith(supervision.EPOCH_LINE):
                bar.update()

        done = horovod_launch.launch(EXPERIMENT, command, c.learners, c.launcher, c.slots, say, hosts, stall_timeout)
    if not report.exists():
        raise RunError("the learners ended without a report; nothing was written: " + (done.log or ["no output"])[-1])
    reports = json.loads(report.read_bytes())
    check_ranks(c, reports)
    return reports, link, done


def run(c: Config, a: argparse.Namespace, argv: list[str], say: Callable[[str], None]) -> Path:
    """Run a job and write its results; returns their file. Raises UsageError and RunError."""
    name = timed_id(c.slug, c.flat())
    path = parquet.path_of(EXPERIMENT, name, a.results)
    check_writable(path.parent)
    code = Code.now()
    started = datetime.now(UTC)
    with temporary_folder(EXPERIMENT) as folder:
        reports, link, done = job(c, folder / "report.json", argv, a.stall_timeout)
    rows = as_rows(c, reports, link, done.seconds)
    origin = provenance(
        EXPERIMENT,
        name,
        c.flat(),
        seed=c.job.seed,
        device=reports[0]["device"],
        device_count=c.learners,
        started=started,
        code=code.and_sources(reports[0]["sources"]),
        versions=reports[0]["versions"],
    )
    parquet.write(rows, origin, log="\n".join(done.log[-supervision.LOG_LINES :]) + "\n", results=a.results)
    rate = rates(rows)
    say(f"{c.slug}: {rate.median():.2f} images/s ({rate.min():.2f} to {rate.max():.2f} over epochs)")
    return path


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 for a failed job, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM."""
    given = sys.argv[1:] if argv is None else argv
    a = arguments().parse_args(given)

    def say(line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    def work() -> int:
        if a.report:
            return run_learner(configure(a, (a.learners or [1])[0]), a.report, a.pin)
        if removed := settings.clear():
            say(f"{EXPERIMENT}: removed from the environment: {', '.join(removed)}")
        configs, several = horovod_options.series(a)
        horovod_launch.check_horovod(a.framework)
        if several:
            configs = sweep.fitting(configs, check_devices)
        else:
            check_devices(configs[0])
        for c in configs:
            if not c.emulated:
                horovod_launch.check_reachable(c.slots, c.launcher)
        return sweep.run_all(
            EXPERIMENT,
            configs,
            a.results,
            lambda c: run(c, a, given, say),
            skip_finished=several or a.skip_finished,
            goes_on=several,
        )

    return exit_status(EXPERIMENT, work, "the learners were stopped, nothing was written")


if __name__ == "__main__":
    sys.exit(main())
