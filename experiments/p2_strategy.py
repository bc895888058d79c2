"""Problem 2: strong and weak scaling with tf.distribute, ResNet-50 on Fashion-MNIST.

    python experiments/p2_strategy.py --learners 4 --scaling weak                      # 64 images a learner
    python experiments/p2_strategy.py --learners 4 --scaling strong                    # 256 images in all
    python experiments/p2_strategy.py --strategy mirrored --learners 2 --all-reduce hierarchical
    python experiments/p2_strategy.py --learners 2 --communication ring --hosts 2 --gbit 1
    python experiments/p2_strategy.py --sweep --scaling weak --steps-per-epoch 2 --no-evaluate

Workers are processes, started here on this machine (or on emulated hosts); a worker of its own is this script with
TF_CONFIG set, or under srun with --launcher slurm, and then worker 0 writes the results. Updates of the warm-up are
taken back, its time is `setup_seconds` and in no epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
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

import pandas as pd
from tqdm import tqdm

from experiments import cores, fashion, jobs, store, strategy
from experiments.hosts import Hosts, Link
from experiments.launch import Processes
from experiments.usage import UsageError, exit_status
from experiments.watch import Watch

EXPERIMENT = "p2_strategy"
SWEEP = {"mirrored": [1, 2, 4, 8], "multiworker": [1, 2, 4, 8, 16]}
RATE_AT_256 = 0.05  # learning rate of an effective batch of 256; proportional to the batch [Goyal et al. 2017]
FIRST_PORT = 29500  # of workers on emulated hosts, where every port is free
LINGER = 1.0  # s until workers are killed; TensorFlow catches SIGTERM and goes on, and workers leave nothing behind


@dataclass(frozen=True)
class Config:
    """A job and where it runs; equal configurations are the same run."""

    job: strategy.Job
    scaling: str
    base: int  # weak: images per learner; strong: the effective batch
    dataset: str
    whole: bool  # an epoch has all training images, but for a last part of a batch
    hosts: int
    gbit: float | None
    oversubscribe: bool
    repeat: int

    def flat(self) -> dict[str, Any]:
        """All settings by name."""
        rest = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "job"}
        return asdict(self.job) | rest

    @property
    def slug(self) -> str:
        """The readable part of the run's name."""
        j = self.job
        how = j.all_reduce if j.strategy == "mirrored" else j.communication
        where = f"-{self.hosts}hosts" + (f"-{self.gbit:g}gbit" if self.gbit else "") if self.hosts > 1 else ""
        return f"{j.device}-{self.scaling}-{j.learners}x{j.per_learner_batch}-{j.strategy}-{how}{where}-r{self.repeat}"

    @property
    def learner(self) -> str:
        """What a learner is."""
        if self.job.device == "gpu":
            return "GPU"
        if self.job.local == 1:
            return f"process pinned to {self.job.threads} cores" if self.job.threads > 1 else "process pinned to a core"
        return f"logical CPU of a process of {self.job.local * self.job.threads} cores and threads"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scaling", choices=["weak", "strong"], default="weak")
    p.add_argument("--learners", type=int, default=1, help="replicas of the network (default 1)")
    p.add_argument("--sweep", action="store_true", help="1, 2, 4, 8 (multiworker: 16) learners, as far as cores go")
    p.add_argument("--strategy", choices=list(SWEEP), default="multiworker")
    p.add_argument("--workers", type=int, help="processes (default: mirrored 1, multiworker one for each learner)")
    p.add_argument("--all-reduce", choices=["default", "nccl", "hierarchical", "one-device"], help="of mirrored")
    p.add_argument("--communication", choices=["auto", "nccl", "ring"], help="of multiworker")
    p.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    p.add_argument("--base", type=int, default=64, help="weak scaling: images per learner and step (default 64)")
    p.add_argument("--effective-batch", type=int, default=256, help="strong scaling: images per step (default 256)")
    p.add_argument("--epochs", type=int, default=10, help="default 10")
    p.add_argument("--steps-per-epoch", type=int, help="fewer than all images make, for timing (default: all)")
    p.add_argument("--evaluate", action=argparse.BooleanOptionalAction, default=True, help="test after every epoch")
    p.add_argument("--data", choices=["fashion", "synthetic"], default="fashion")
    p.add_argument("--data-dir", type=Path, help="folder with Fashion-MNIST (default: the one that DLPERF_DATA names)")
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
    p.add_argument(
        "--skip-finished", action="store_true", help="do nothing where the results are there; --sweep does so"
    )
    p.add_argument("--results", type=Path, default=store.RESULTS, help="folder for results")
    p.add_argument("--report", type=Path, help=argparse.SUPPRESS)  # of a worker that was started here
    return p


def configure(a: argparse.Namespace, learners: int) -> Config:
    """The run that the command line describes, for that many learners. Raises UsageError."""
    workers = a.workers or (learners if a.strategy == "multiworker" else 1)
    named = [("learners", learners), ("workers", workers if a.workers is None else a.workers)]
    names = ["base", "effective_batch", "epochs", "threads", "steps_per_execution", "hosts", "repeat"]
    for name, value in [*named, *((name, getattr(a, name)) for name in names)]:
        if value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if not 0 <= a.seed < 2**31:
        raise UsageError(f"--seed must be 0 to {2**31 - 1}, not {a.seed}")
    if not 0 < a.join_timeout < math.inf:
        raise UsageError(f"--join-timeout must be positive, not {a.join_timeout:g}")
    if a.strategy == "mirrored":
        if workers > 1:
            raise UsageError("--strategy mirrored has one worker; use --strategy multiworker for more")
        if a.communication:
            raise UsageError("--communication is of --strategy multiworker; mirrored has --all-reduce")
    elif a.all_reduce:
        raise UsageError("--all-reduce is of --strategy mirrored; multiworker has --communication")
    if learners % workers:
        raise UsageError(f"{learners} learners can't be shared out evenly to {workers} workers")
    effective = a.effective_batch if a.scaling == "strong" else a.base * learners
    if effective % learners:
        raise UsageError(f"--effective-batch {effective} can't be divided by {learners} learners")
    if a.hosts > workers:
        raise UsageError(f"--hosts {a.hosts} is more than the {workers} workers")
    if a.gbit is not None and (a.hosts == 1 or not 0 < a.gbit < math.inf):
        raise UsageError("--gbit must be positive, and limits emulated hosts: give --hosts 2 with it")
    if a.learning_rate is not None and not 0 < a.learning_rate < math.inf:
        raise UsageError(f"--learning-rate must be positive, not {a.learning_rate:g}")
    samples = fashion.FILES["train_images"][1][0] if a.data == "fashion" else len(fashion.synthetic().train_images)
    most = samples // effective
    steps = most // a.steps_per_execution * a.steps_per_execution if a.steps_per_epoch is None else a.steps_per_epoch
    if not 1 <= steps <= most:
        raise UsageError(f"--steps-per-epoch must be 1 to {most} with {samples:,} images and batches of {effective}")
    if steps % a.steps_per_execution:
        raise UsageError(f"--steps-per-epoch {steps} is no multiple of --steps-per-execution {a.steps_per_execution}")
    job = strategy.Job(
        network=a.network,
        device=a.device,
        strategy=a.strategy,
        all_reduce=(a.all_reduce or "default") if a.strategy == "mirrored" else "",
        communication=(a.communication or "auto") if a.strategy == "multiworker" else "",
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
    base = a.base if a.scaling == "weak" else a.effective_batch
    whole = a.steps_per_epoch is None
    return Config(job, a.scaling, base, a.data, whole, a.hosts, a.gbit, a.oversubscribe, a.repeat)


def check_devices(c: Config) -> None:
    """Raise UsageError when this machine has too few cores or GPUs."""
    if c.job.device == "cpu":
        cores.core_sets(c.job.workers, c.job.threads * c.job.local, c.oversubscribe)
    else:
        jobs.check_gpus(c.job.learners, oversubscribe=False)


# ---- a worker ------------------------------------------------------------------------------------------------------


def cluster(workers: int) -> tuple[list[str], int]:
    """The workers' addresses and which of them this process is, from TF_CONFIG. Raises UsageError."""
    text = os.environ["TF_CONFIG"]
    try:
        config = json.loads(text)
        addresses, task = config["cluster"]["worker"], config["task"]
        kind, index = task["type"], task["index"]
        if not isinstance(index, int) or not all(isinstance(address, str) and ":" in address for address in addresses):
            raise TypeError("addresses must be host:port and an index a number")
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f'TF_CONFIG is not {{"cluster": {{"worker": [addresses]}}, "task": {{"type": "worker", "index": i}}}} '
            f"({type(error).__name__}: {error}); correct or unset it"
        ) from error
    if kind != "worker" or set(config["cluster"]) != {"worker"}:
        raise UsageError(f"TF_CONFIG: all tasks must be workers, this one is a '{kind}'")
    if len(addresses) != workers:
        raise UsageError(f"TF_CONFIG names {len(addresses)} workers, --workers says {workers}; make them agree")
    if not 0 <= index < len(addresses):
        raise UsageError(f"TF_CONFIG: there is no worker {index} among {len(addresses)}")
    return addresses, index


def config_from_slurm(workers: int) -> None:
    """Set TF_CONFIG from Slurm's variables. Raises UsageError outside of srun."""
    if "SLURM_PROCID" not in os.environ:
        raise UsageError("--launcher slurm: no SLURM_PROCID here; start the script with srun, a task for each worker")
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver({"worker": workers}, auto_set_gpu=False)
    task = {"type": "worker", "index": int(os.environ["SLURM_PROCID"])}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": resolver.cluster_spec().as_dict(), "task": task})


def be_worker(c: Config, a: argparse.Namespace) -> int:
    """Do one worker's part; its exit status. Worker 0 writes a report, or the results. Raises UsageError."""
    addresses, rank = cluster(c.job.workers) if "TF_CONFIG" in os.environ else (["localhost:0"], 0)
    started, code = datetime.now(UTC), store.Code.now()
    data = fashion.load(a.data_dir, c.dataset)
    log: list[str] = []

    def say(line: str) -> None:
        log.append(line)
        if line == "joined":
            print(f"{line} {rank}", flush=True)
        elif rank == 0 or not line.startswith(jobs.EPOCH_LINE):
            prefix = "" if line.startswith(jobs.EPOCH_LINE) else f"{EXPERIMENT}: worker {rank}: "
            print(f"{prefix}{line}", flush=True)

    others = [address for i, address in enumerate(addresses) if i != rank]
    watch = Watch(a.join_timeout, others, f"{EXPERIMENT}: worker {rank}: ")
    try:
        worker, epochs, setup = strategy.train(c.job, data, rank, watch, STARTED, say)
        mine = {"rank": rank, "digest": worker.digest(), "setup_seconds": setup, "epochs": epochs}
        mine |= {"parameters": worker.parameters, "gradient_bytes": worker.gradient_bytes}
        reports = [json.loads(text) for text in worker.everyone(json.dumps(mine).encode())]
        if len({report["digest"] for report in reports}) > 1:
            raise RuntimeError("the workers end with different weights, so their gradients were not summed")
    except Exception as error:
        traceback.print_exc()
        # What TensorFlow raises for a lost peer says only that somebody else is gone.
        lost = type(error).__name__ in {"UnavailableError", "AbortedError", "CancelledError"}
        print(
            f"{'' if lost else EXPERIMENT + ': '}worker {rank}: {type(error).__name__}: {first_line(error)}", flush=True
        )
        return 1
    if rank == 0:
        reports[0] |= {"versions": store.library_versions(), "sources": store.loaded_sources()}
        if a.report:
            store.write_atomically(a.report, json.dumps(reports).encode())
        else:
            print(finish(c, a.results, reports, None, started, code, log))
    return 0


def first_line(error: BaseException) -> str:
    """What is wrong, of a message that TensorFlow may have spread over many lines below a heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and line != "Graph execution error:"), "no reason given")


# ---- the launcher --------------------------------------------------------------------------------------------------


def free_addresses(count: int) -> list[str]:
    """So many addresses of this machine that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]


def launch(c: Config, report: Path, argv: list[str]) -> tuple[list[dict[str, Any]], Link | None, list[str]]:
    """Start all workers and wait; their reports, the emulated link, and what they printed. Raises RunError."""
    workers, log = c.job.workers, list[str]()
    own = ["--learners", str(c.job.learners), "--workers", str(workers), "--report", str(report)]
    command = jobs.command(__file__, *argv, *own)
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=c.job.epochs, desc=c.slug, unit="epoch", disable=None))
        hosts = stack.enter_context(Hosts(c.hosts, c.gbit, ssh=False)) if c.hosts > 1 else None
        link = hosts.measure() if hosts else None
        place = [hosts.names[i * c.hosts // workers] for i in range(workers)] if hosts else []
        if hosts:
            addresses = [f"{hosts.addresses[host]}:{FIRST_PORT + i}" for i, host in enumerate(place)]
        else:
            addresses = free_addresses(workers)

        def say(line: str) -> None:
            log.append(line)
            if line.startswith(jobs.EPOCH_LINE):
                bar.update()

        processes = stack.enter_context(Processes(say, LINGER))
        cpus = cores.core_sets(workers, c.job.threads * c.job.local, c.oversubscribe) if c.job.device == "cpu" else []
        for i in range(workers):
            environment = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1")}
            if workers > 1:
                task = {"type": "worker", "index": i}
                environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
            if cpus:
                environment[PINNED] = ",".join(map(str, cpus[i]))
            else:
                mine = jobs.gpus()[i * c.job.local : (i + 1) * c.job.local]
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
            processes.start(hosts.command(place[i], command) if hosts else command, environment)
        failed = processes.wait()
    if failed is not None:
        index, status = failed
        where = f" at {addresses[index]}" if workers > 1 else ""
        raise jobs.failure(EXPERIMENT, f"worker {index}{where}", status, log)
    return json.loads(report.read_bytes()), link, log


PINNED = "DLPERF_CORES"  # which logical CPUs a worker that was started here has


def as_rows(c: Config, reports: list[dict[str, Any]], link: Link | None) -> pd.DataFrame:
    """A row for each worker and epoch."""
    j, rows = c.job, []
    images = j.steps * j.effective_batch // j.workers
    tests = len(fashion.synthetic().test_images) if c.dataset == "synthetic" else fashion.FILES["test_images"][1][0]
    for report in reports:
        for number, epoch in enumerate(report["epochs"]):
            hits = sum(other["epochs"][number]["correct"] for other in reports)
            p10, p50, p90 = epoch["steps"]
            rows.append(
                {
                    "network": j.network,
                    "dataset": c.dataset,
                    "device_kind": j.device,
                    "learner": c.learner,
                    "strategy": j.strategy,
                    "scaling": c.scaling,
                    "learners": j.learners,
                    "workers": j.workers,
                    "hosts": c.hosts,
                    "all_reduce": j.all_reduce or None,
                    "communication": j.communication or None,
                    "base": c.base,
                    "effective_batch": j.effective_batch,
                    "per_learner_batch": j.per_learner_batch,
                    "learning_rate": j.learning_rate,
                    "precision": j.precision,
                    "jit_compile": j.jit_compile,
                    "steps_per_execution": j.steps_per_execution,
                    "threads": j.threads,
                    "gbit": c.gbit,
                    "link_gbit": link and link.gbit,
                    "link_round_trip_us": link and link.round_trip_us,
                    "repeat": c.repeat,
                    "worker": report["rank"],
                    "epochs_planned": j.epochs,
                    "whole_epochs": c.whole,
                    "epoch": number + 1,
                    "steps": j.steps,
                    "images": images,
                    "seconds": epoch["seconds"],
                    "images_per_second": images / epoch["seconds"],
                    "step_p10": p10,
                    "step_p50": p50,
                    "step_p90": p90,
                    "train_loss": epoch["loss"],
                    "test_accuracy": hits / tests if j.evaluate else None,
                    "evaluation_seconds": epoch["evaluation_seconds"] if j.evaluate else None,
                    "parameters": report["parameters"],
                    "gradient_bytes": report["gradient_bytes"],
                    "setup_seconds": report["setup_seconds"],
                }
            )
    nullable = ["gbit", "link_gbit", "link_round_trip_us", "test_accuracy", "evaluation_seconds"]
    return pd.DataFrame(rows).astype(dict.fromkeys(nullable, float))


def finish(
    c: Config,
    results: Path,
    reports: list[dict[str, Any]],
    link: Link | None,
    started: datetime,
    code: store.Code,
    log: list[str],
) -> Path:
    """Write the results; returns their file."""
    name = store.run_id(c.slug, c.flat())
    origin = store.provenance(
        EXPERIMENT,
        name,
        c.flat(),
        seed=c.job.seed,
        device=jobs.device_name(c.job.device),
        device_count=c.job.learners,
        started=started,
        code=store.Code(code.commit, code.dirty, code.sources | reports[0]["sources"]),
        versions=reports[0]["versions"],
    )
    return store.write(as_rows(c, reports, link), origin, log="\n".join(log[-jobs.LOG_LINES :]) + "\n", results=results)


def sizes(a: argparse.Namespace) -> list[int]:
    """The numbers of learners to run with. Raises UsageError for a sweep without any."""
    if not a.sweep:
        return [a.learners]
    workers = max(1, a.workers or 1)
    # Fewer learners than hosts, or some that the workers can't share, make no job.
    fit = [learners for learners in SWEEP[a.strategy] if learners >= a.hosts and learners % workers == 0]
    if not fit:
        every = ", ".join(map(str, SWEEP[a.strategy]))
        raise UsageError(f"--sweep: none of {every} learners suits {workers} workers on {a.hosts} hosts; use fewer")
    return fit


def run(c: Config, a: argparse.Namespace, argv: list[str], say: Callable[[str], None]) -> Path:
    """Run a job and write its results; returns their file. Raises UsageError and RunError."""
    check_devices(c)
    store.check_writable(store.path_of(EXPERIMENT, "", a.results).parent)
    fashion.load(a.data_dir, c.dataset)  # say what is wrong with the data once, and not in every worker
    started, code = datetime.now(UTC), store.Code.now()
    with tempfile.TemporaryDirectory(prefix=f"{EXPERIMENT}-") as folder:
        reports, link, log = launch(c, Path(folder) / "report.json", argv)
    path = finish(c, a.results, reports, link, started, code, log)
    rows = pd.read_parquet(path)
    seconds = rows.groupby("epoch").seconds.max()
    rate = c.job.steps * c.job.effective_batch / seconds
    accuracy = rows.test_accuracy.iloc[-1]
    tested = "" if math.isnan(accuracy) else f", test accuracy {accuracy:.2%}"
    say(f"{c.slug}: {rate.median():.1f} images/s ({rate.min():.1f} to {rate.max():.1f} over epochs){tested}")
    return path


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 for a failed job, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM."""
    given = sys.argv[1:] if argv is None else argv
    a = arguments().parse_args(given)

    def work() -> int:
        configs = [configure(a, learners) for learners in ([a.learners] if a.report else sizes(a))]
        if a.launcher == "slurm":
            config_from_slurm(configs[0].job.workers)
        if a.report or "TF_CONFIG" in os.environ:
            if PINNED in os.environ:  # before TensorFlow is loaded, so that all its threads inherit it
                os.sched_setaffinity(0, map(int, os.environ[PINNED].split(",")))
            return be_worker(configs[0], a)
        again = a.sweep or a.skip_finished
        for c in jobs.pending(EXPERIMENT, configs, a.results, check_devices, sweep=a.sweep, skip_finished=again):
            print(run(c, a, given, lambda line: tqdm.write(line, file=sys.stderr)))
        return 0

    return exit_status(EXPERIMENT, work, "the workers were stopped, nothing was written")


if __name__ == "__main__":
    sys.exit(main())
