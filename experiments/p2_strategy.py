"""Problem 2: strong and weak scaling with tf.distribute, ResNet-50 on Fashion-MNIST.

    python experiments/p2_strategy.py --learners 4 --scaling weak                      # 64 images a learner
    python experiments/p2_strategy.py --learners 4 --scaling strong                    # 256 images in all
    python experiments/p2_strategy.py --learners 1,2,4 --strategy mirrored,multiworker --scaling weak,strong --repeats 3
    python experiments/p2_strategy.py --device gpu --strategy mirrored --learners 2 --all-reduce nccl,hierarchical
    python experiments/p2_strategy.py --device gpu --learners 2 --image-size 224 --jit-compile
    python experiments/p2_strategy.py --learners 2 --communication ring,auto --hosts 2 --gbit 1
    python experiments/p2_strategy.py --sweep --scaling weak --steps-per-epoch 2 --no-evaluate

Options that take lists make one job of each combination. Workers are processes that the script starts on this machine
(or on emulated hosts). With TF_CONFIG set, or under srun with --launcher slurm, it starts only the worker that these
name, and the script of worker 0 writes the results. A row is a worker's execution (a call of TensorFlow), test, set-up
or end. The warm-up's updates are undone; its time, and that of the barrier after it, count as set-up.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import pandas as pd
from tqdm import tqdm

from experiments.cli import RunError, UsageError, exit_status
from experiments.machine import settings, supervision, sweep
from experiments.machine.device_names import device_name
from experiments.machine.hosts import Hosts
from experiments.machine.link_speed import Link
from experiments.machine.own_network import own_network, possible
from experiments.machine.processes import OWN_RANK, Processes
from experiments.p2 import fashion_mnist, placement, worker_job
from experiments.p2.placement import AssignedWorker
from experiments.p2.strategy_options import EXPERIMENT, LISTS, Config, arguments, series
from experiments.p2.worker_process import run_worker
from experiments.store import parquet
from experiments.store.claims import claimed
from experiments.store.files import check_writable, temporary_folder
from experiments.store.provenance import Code, provenance, timed_id

FIRST_PORT = 29500  # of workers on emulated hosts, where every port is free
# tf.distribute can bind its servers to no other address. CPU workers of one host get a separate network where one can
# be made. GPU workers don't: NCCL was not measured in one.
OPEN_PORTS = (
    "TensorFlow's workers listen on all addresses and trust who connects; on a network that others use, "
    "run them behind a firewall or on emulated hosts (--hosts 2, as root)"
)
LINGER = 1.0  # s until workers are killed: TensorFlow catches SIGTERM and carries on


def is_private(c: Config) -> bool:
    """Whether the job's workers, all started here, get a network of their own where this machine allows it."""
    return c.job.workers > 1 and c.hosts == 1 and c.job.device == "cpu"


def check_devices(c: Config) -> None:
    """Raise UsageError when this machine has too few cores or GPUs."""
    placement.devices(c.job, c.job.workers, c.oversubscribe)


class Finished(NamedTuple):
    """A finished job: all workers' reports (if worker 0 ran here), the emulated link, the workers' lines of output and
    the wall-clock time in seconds."""

    reports: list[dict[str, Any]]
    link: Link | None
    log: list[str]
    seconds: float


def launch(c: Config, report: Path, argv: list[str], stall_timeout: float, assigned: AssignedWorker | None) -> Finished:
    """Start all workers, or just an `assigned` one, and wait. Raises RunError."""
    workers, log = c.job.workers, list[str]()
    command = supervision.command(__file__, *argv, "--job", json.dumps(asdict(c.job)), "--report", str(report))
    everyone = placement.devices(c.job, workers, c.oversubscribe) if assigned is None else []
    started = dict(enumerate(everyone)) if assigned is None else {assigned.rank: assigned.devices}
    with ExitStack() as stack:
        silent = None if 0 in started else True
        bar = stack.enter_context(tqdm(total=c.job.epochs, desc=c.slug, unit="epoch", disable=silent))
        emulated = c.hosts > 1 and assigned is None
        hosts = stack.enter_context(Hosts(c.hosts, c.gbit, ssh=False)) if emulated else None
        link = hosts.measure() if hosts else None
        place = [hosts.names[i * c.hosts // workers] for i in range(workers)] if hosts else []
        if assigned:
            addresses = assigned.addresses
        elif hosts:
            addresses = [f"{hosts.addresses[host]}:{FIRST_PORT + i}" for i, host in enumerate(place)]
        else:
            addresses = placement.free_addresses(workers)

        def say(line: str) -> None:
            log.append(line)
            if line.startswith(supervision.EPOCH_LINE):
                bar.update()
            elif assigned and assigned.others and line == f"joined {assigned.rank}":  # all are there
                tqdm.write(f"{EXPERIMENT}: worker {assigned.rank} has joined the others", file=sys.stderr)

        processes = stack.enter_context(Processes(say, LINGER, stall_timeout=stall_timeout, member="worker"))
        with own_network() if assigned is None and is_private(c) else nullcontext():
            for i, its_devices in started.items():
                environment = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1")} | its_devices
                environment[OWN_RANK] = str(i)
                if workers > 1:
                    environment["TF_CONFIG"] = placement.as_tf_config(addresses, i)
                processes.start(hosts.command(place[i], command) if hosts else command, environment)
        failed = processes.wait()
    if failed is not None:
        index, status = failed
        if assigned:
            raise placement.assigned_failure(EXPERIMENT, assigned, status, log)
        where = f" at {addresses[index]}" if workers > 1 else ""
        raise supervision.failure(EXPERIMENT, f"worker {index}{where}", status, log)
    return Finished(read_reports(report, workers) if 0 in started else [], link, log, processes.seconds)


def read_reports(report: Path, workers: int) -> list[dict[str, Any]]:
    """All workers' reports, by rank. Raises RunError when one is missing."""
    reports = json.loads(report.read_bytes()) if report.exists() else []
    ranks = [one["rank"] for one in reports]
    if ranks != list(range(workers)):
        raise RunError(f"all {workers} workers ended well, but only ranks {ranks} reported; nothing was written")
    return reports


def as_rows(c: Config, done: Finished, assigned: bool = False) -> pd.DataFrame:
    """A row for each worker's set-up, executions, tests and end.

    Scripts that each start an `assigned` worker start at different times, by different clocks. The moment that their
    workers share is then the barrier at the end of the set-up, and the job starts when worker 0's script does.
    """
    j, rows = c.job, []
    images = j.steps_per_execution * j.effective_batch // j.workers
    tests = (
        len(fashion_mnist.synthetic().test_images)
        if c.dataset == "synthetic"
        else fashion_mnist.FILES["test_images"][1][0]
    )
    for report in done.reports:
        worker, end = report["rank"], done.reports[0]["set_up"] if assigned else report["set_up"]
        shift = end - report["set_up"]
        rows.append((worker, "set-up", 0, 0, 0.0, end, 0, None, None))
        for number, epoch in enumerate(report["epochs"]):
            marks = [mark + shift for mark in epoch["marks"]]
            for i, loss in enumerate(epoch["losses"]):
                seconds = marks[i + 1] - marks[i]
                rows.append((worker, "train", number + 1, i + 1, marks[i], seconds, images, loss, None))
            end = marks[-1]
            if j.evaluate:
                seconds = epoch["tested"] + shift - end
                hits = sum(other["epochs"][number]["correct"] for other in done.reports)
                rows.append((worker, "test", number + 1, 0, end, seconds, 0, None, hits / tests))
                end += seconds
        rows.append((worker, "end", 0, 0, end, done.seconds - end, 0, None, None))
    columns = ["worker", "phase", "epoch", "execution", "began", "seconds", "images", "loss", "test_accuracy"]
    frame = pd.DataFrame(rows, columns=columns).assign(
        network=j.network,
        dataset=c.dataset,
        device_kind=j.device,
        learner=c.learner,
        strategy=j.strategy,
        scaling=c.scaling,
        learners=j.learners,
        workers=j.workers,
        hosts=c.hosts,
        all_reduce=j.all_reduce or None,
        communication=j.communication or None,
        base=c.base,
        effective_batch=j.effective_batch,
        per_learner_batch=j.per_learner_batch,
        image_size=j.image_size,
        learning_rate=j.learning_rate,
        precision=j.precision,
        jit_compile=j.jit_compile,
        steps_per_execution=j.steps_per_execution,
        threads=j.threads,
        gbit=c.gbit,
        link_gbit=done.link.gbit if done.link else None,
        link_round_trip_us=done.link.round_trip_us if done.link else None,
        repeat=c.repeat,
        epochs_planned=j.epochs,
        whole_epochs=c.whole,
        parameters=done.reports[0]["parameters"],
        gradient_bytes=done.reports[0]["gradient_bytes"],
    )
    nullable = ["gbit", "link_gbit", "link_round_trip_us", "loss", "test_accuracy"]
    return frame.astype(dict.fromkeys(nullable, float))


def finish(c: Config, results: Path, done: Finished, rows: pd.DataFrame, started: datetime, code: Code) -> Path:
    """Write the results; returns their file."""
    first = done.reports[0]
    origin = provenance(
        EXPERIMENT,
        timed_id(c.slug, c.flat()),
        c.flat(),
        seed=c.job.seed,
        device=device_name(c.job.device),
        device_count=c.job.learners,
        started=started,
        code=code.and_sources(first["sources"]),
        versions=first["versions"],
    )
    return parquet.write(rows, origin, log="\n".join(done.log[-supervision.LOG_LINES :]) + "\n", results=results)


def summary(c: Config, rows: pd.DataFrame) -> str:
    """A job's rate and its last test in one line."""
    train = rows.assign(ended=rows.began + rows.seconds)[rows.phase == "train"]
    epochs = train.groupby(["epoch", "worker"])
    seconds = (epochs.ended.max() - epochs.began.min()).groupby("epoch").max()
    rate = c.job.steps * c.job.effective_batch / seconds
    accuracy = rows.test_accuracy.dropna()
    tested = f", test accuracy {accuracy.iloc[-1]:.2%}" if len(accuracy) else ""
    return f"{c.slug}: {rate.median():.1f} images/s ({rate.min():.1f} to {rate.max():.1f} over epochs){tested}"


def run(
    c: Config,
    a: argparse.Namespace,
    argv: list[str],
    say: Callable[[str], None],
    assigned: AssignedWorker | None = None,
) -> Path | None:
    """Run a job and write its results; returns their file. Raises UsageError and RunError.

    An `assigned` worker is the only one that runs here; only worker 0 writes results.
    """
    writes = assigned is None or assigned.rank == 0
    if writes:
        check_writable(parquet.path_of(EXPERIMENT, "", a.results).parent)
    fashion_mnist.load(a.data_dir, c.dataset)  # report bad data once, not in every worker
    started, code = datetime.now(UTC), Code.now()
    with temporary_folder(EXPERIMENT) as folder:
        done = launch(c, folder / "report.json", argv, a.stall_timeout, assigned)
    if not writes:
        return None
    rows = as_rows(c, done, assigned is not None)
    path = finish(c, a.results, done, rows, started, code)
    say(summary(c, rows))
    return path


def run_assigned(a: argparse.Namespace, argv: list[str], say: Callable[[str], None]) -> int:
    """Run the one worker that TF_CONFIG or Slurm names; the exit status. Raises UsageError and RunError."""
    # Workers can't agree on jobs to skip, since only worker 0 has the results, and the ports serve one job.
    own = {"--sweep": a.sweep, "--skip-finished": a.skip_finished, "--hosts": a.hosts > 1, "--repeats": a.repeats > 1}
    unfit = [option for option, chosen in own.items() if chosen]
    unfit += [f"--{name.replace('_', '-')} with several values" for name in LISTS if len(getattr(a, name) or []) > 1]
    if unfit:
        which = "--launcher slurm" if a.launcher == "slurm" else "TF_CONFIG"
        raise UsageError(f"{unfit[0]} is for workers that the script starts, but {which} names them; leave one out")
    (c,) = series(a)
    assigned = placement.assigned_worker(c.job, a.launcher, a.oversubscribe)
    hosts = len(set(map(placement.host_of, assigned.addresses)))
    c = replace(c, hosts=hosts)
    file = parquet.path_of(EXPERIMENT, timed_id(c.slug, c.flat()), a.results)
    with claimed(file) if assigned.rank == 0 else nullcontext():  # worker 0 writes
        path = run(c, a, argv, say, assigned)
    if path:
        print(path)
        from experiments.store import suspicious  # only now: what it loads is no source of the run

        suspicious.warn([path])
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 for a failed job, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM."""
    given = sys.argv[1:] if argv is None else argv
    a = arguments(__doc__).parse_args(given)

    def say(line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    def work() -> int:
        if a.report:
            job = worker_job.Job(**json.loads(a.job))
            return run_worker(EXPERIMENT, job, a.data, a.data_dir, a.join_timeout, a.report)
        if cleared := settings.clear():
            say(f"{EXPERIMENT}: removed from the environment: {', '.join(cleared)}")
        if a.launcher == "slurm" or "TF_CONFIG" in os.environ:
            return run_assigned(a, given, say)
        asked = series(a)
        several = a.sweep or len(asked) > 1
        configs = sweep.fitting(asked, check_devices)
        if any(c.job.workers > 1 and c.hosts == 1 and not (is_private(c) and possible()) for c in configs):
            say(f"warning: {OPEN_PORTS}")
        return sweep.run_all(
            EXPERIMENT,
            configs,
            a.results,
            lambda c: run(c, a, given, say),
            skip_finished=several or a.skip_finished,
            goes_on=several,
        )

    return exit_status(EXPERIMENT, work, "the workers were stopped, nothing of their job was written")


if __name__ == "__main__":
    sys.exit(main())
