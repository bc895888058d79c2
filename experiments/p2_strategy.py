"""Problem 2: strong and weak scaling with tf.distribute, ResNet-50 on Fashion-MNIST.

    python experiments/p2_strategy.py --learners 4 --scaling weak                      # 64 images a learner
    python experiments/p2_strategy.py --learners 4 --scaling strong                    # 256 images in all
    python experiments/p2_strategy.py --strategy mirrored --learners 2 --all-reduce hierarchical
    python experiments/p2_strategy.py --learners 2 --communication ring --hosts 2 --gbit 1
    python experiments/p2_strategy.py --sweep --scaling weak --steps-per-epoch 2 --no-evaluate

Workers are processes, started here on this machine (or on emulated hosts). With TF_CONFIG set, or under srun with
--launcher slurm, the script starts only the one worker that it is then, and worker 0's writes the results. Updates of
the warm-up are taken back, its time is `setup_seconds` and in no epoch.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
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
from experiments.usage import RunError, UsageError, exit_status
from experiments.watch import Watch, host_and_port, silent_peers

EXPERIMENT = "p2_strategy"
SWEEP = {"mirrored": [1, 2, 4, 8], "multiworker": [1, 2, 4, 8, 16]}
RATE_AT_256 = 0.05  # learning rate of an effective batch of 256; proportional to the batch [Goyal et al. 2017]
FIRST_PORT = 29500  # of workers on emulated hosts, where every port is free
LINGER = 1.0  # s until workers are killed; TensorFlow catches SIGTERM and goes on, and workers leave nothing behind
PINNED = "DLPERF_CORES"  # in the environment of a worker process: which logical CPUs it has


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


def devices(c: Config, workers: int) -> list[dict[str, str]]:
    """The cores or GPUs of each of so many workers of this machine, as its environment. Raises UsageError."""
    local = c.job.local
    if c.job.device == "cpu":
        sets = cores.core_sets(workers, c.job.threads * local, c.oversubscribe)
        return [{PINNED: ",".join(map(str, cpus))} for cpus in sets]
    jobs.check_gpus(workers * local, oversubscribe=False)
    gpus = jobs.gpus()
    return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * local : (i + 1) * local])} for i in range(workers)]


def check_devices(c: Config) -> None:
    """Raise UsageError when this machine has too few cores or GPUs."""
    devices(c, c.job.workers)


# ---- a worker ------------------------------------------------------------------------------------------------------


def be_worker(c: Config, a: argparse.Namespace) -> int:
    """Do one worker's part; its exit status. Worker 0 writes a report. Raises UsageError."""
    addresses, rank = cluster(os.environ["TF_CONFIG"], c.job.workers) if "TF_CONFIG" in os.environ else ([""], 0)
    data = fashion.load(a.data_dir, c.dataset)

    def say(line: str) -> None:
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
            f"{'' if lost else EXPERIMENT + ': '}worker {rank}: {type(error).__name__}: {jobs.first_line(error)}",
            flush=True,
        )
        return 1
    if rank == 0:
        reports[0] |= {"versions": store.library_versions(), "sources": store.loaded_sources()}
        store.write_atomically(a.report, json.dumps(reports).encode())
    return 0


# ---- a place among workers that others start -----------------------------------------------------------------------


@dataclass(frozen=True)
class Own:
    """The one worker that this script starts where TF_CONFIG or Slurm has given it a place among others."""

    addresses: list[str]  # of all workers
    rank: int
    devices: dict[str, str]  # its cores or GPUs, as its environment

    @property
    def others(self) -> list[str]:
        """The other workers' addresses."""
        return [address for i, address in enumerate(self.addresses) if i != self.rank]


def host_of(address: str) -> str:
    """The host of host:port, by one name."""
    host = host_and_port(address)[0].lower()
    return "127.0.0.1" if host == "localhost" else host


def cluster(text: str, workers: int) -> tuple[list[str], int]:
    """The workers' addresses and which of them this process is, from a TF_CONFIG. Raises UsageError."""
    try:
        config = json.loads(text)
        addresses, task = config["cluster"]["worker"], config["task"]
        kind, index = task["type"], task["index"]
        if type(index) is not int or not isinstance(addresses, list) or not all(map(is_address, addresses)):
            raise TypeError("addresses must be host:port and an index a number")
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f'TF_CONFIG is not {{"cluster": {{"worker": [addresses]}}, "task": {{"type": "worker", "index": i}}}} '
            f"({type(error).__name__}: {error}); correct or unset it"
        ) from error
    if kind != "worker" or set(config["cluster"]) != {"worker"}:
        raise UsageError(f"TF_CONFIG: all tasks must be workers, this one is a '{kind}'")
    places = [(host_of(address), host_and_port(address)[1]) for address in addresses]
    twice = next((address for i, address in enumerate(addresses) if places[i] in places[:i]), None)
    if twice:
        raise UsageError(f"TF_CONFIG names {twice} twice; give each worker an address of its own")
    if len(addresses) != workers:
        raise UsageError(f"TF_CONFIG names {len(addresses)} workers, --workers says {workers}; make them agree")
    if not 0 <= index < len(addresses):
        raise UsageError(f"TF_CONFIG: there is no worker {index} among {len(addresses)}")
    return addresses, index


def is_address(address: object) -> bool:
    """Whether it is a host:port."""
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16


def as_tf_config(addresses: Sequence[str], index: int) -> str:
    """What tells TensorFlow where the workers are, and which of them it is."""
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def slurm_tf_config(workers: int) -> str:
    """TF_CONFIG from Slurm's variables. Raises UsageError outside of srun, and for another number of its tasks."""
    for name in ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE"):
        if name not in os.environ:
            raise UsageError(f"--launcher slurm: no {name} here; start the script with srun, a task for each worker")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver
    try:
        # It asks nvidia-smi unless it is told of GPUs, which it deals out on paper: one a task, of more than enough.
        found = resolver({"worker": workers}, gpus_per_node=1 << 16, gpus_per_task=1, auto_set_gpu=False)
        return as_tf_config(found.cluster_spec().as_dict()["worker"], int(os.environ["SLURM_PROCID"]))
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"--launcher slurm: {error} Start it with srun, a task for each of {workers} workers"
        ) from error


def check_address(address: str) -> None:
    """Raise UsageError unless host:port is an address of this machine whose port is free."""
    host, port = host_and_port(address)
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as s:
            s.bind(place)
    except OSError as error:
        raise UsageError(
            f"{address} is not an address of this machine, but this worker's ({error.strerror}); correct its index "
            "or its address"
        ) from error
    try:
        with socket.socket() as s:
            # As TensorFlow does: at all of the machine's addresses, and ports of connections that have just ended too.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("", port))
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
        raise UsageError(f"{address}: port {port} of this machine {why}; end what uses it, or give another") from error


def own_place(c: Config, a: argparse.Namespace) -> Own:
    """The worker to start where TF_CONFIG or Slurm says which one. Raises UsageError."""
    text = slurm_tf_config(c.job.workers) if a.launcher == "slurm" else os.environ["TF_CONFIG"]
    addresses, rank = cluster(text, c.job.workers)
    check_address(addresses[rank])
    hosts = [host_of(address) for address in addresses]
    try:
        mine = devices(c, hosts.count(hosts[rank]))[hosts[:rank].count(hosts[rank])]
    except UsageError:
        # Too few for all workers of this host; it may see only a part that is its alone.
        alone = a.launcher == "slurm" or (c.job.device == "gpu" and "CUDA_VISIBLE_DEVICES" in os.environ)
        if not alone:
            raise
        mine = devices(c, 1)[0]
    return Own(addresses, rank, mine)


def own_failure(own: Own, status: int, log: Sequence[str]) -> RunError:
    """Why the one worker that was started here has ended."""
    who, mark = f"worker {own.rank}", f"{EXPERIMENT}: "
    said = [line.removeprefix(mark) for line in log if line.startswith(mark)]
    raised = [line for line in log if line.startswith(f"{who}: ")]
    # Of a lost peer, TensorFlow says only that somebody is gone, or just aborts.
    if not said and (raised or status == -signal.SIGABRT):
        for _ in range(4):  # who has failed is on its way out
            if silent := silent_peers(own.others):
                one = len(silent) == 1
                said = [f"{who} lost {', '.join(silent)}, which no longer answer{'s' if one else ''}"]
                break
            time.sleep(0.5)
    return RunError(f"{[*said, *raised, f'{who} {jobs.ended(status)}'][0]}; nothing was written")


# ---- the launcher --------------------------------------------------------------------------------------------------


def free_addresses(count: int) -> list[str]:
    """So many addresses of this machine that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]


def launch(
    c: Config, report: Path, argv: list[str], own: Own | None
) -> tuple[list[dict[str, Any]], Link | None, list[str]]:
    """Start all workers, or just an `own` one, and wait; what they report, the emulated link, and what they printed.

    Only worker 0 has the reports. Raises RunError.
    """
    workers, log = c.job.workers, list[str]()
    counts = ["--learners", str(c.job.learners), "--workers", str(workers), "--report", str(report)]
    command = jobs.command(__file__, *argv, *counts)
    started = {own.rank: own.devices} if own else dict(enumerate(devices(c, workers)))
    with ExitStack() as stack:
        silent = None if 0 in started else True
        bar = stack.enter_context(tqdm(total=c.job.epochs, desc=c.slug, unit="epoch", disable=silent))
        emulated = c.hosts > 1 and not own
        hosts = stack.enter_context(Hosts(c.hosts, c.gbit, ssh=False)) if emulated else None
        link = hosts.measure() if hosts else None
        place = [hosts.names[i * c.hosts // workers] for i in range(workers)] if hosts else []
        if own:
            addresses = own.addresses
        elif hosts:
            addresses = [f"{hosts.addresses[host]}:{FIRST_PORT + i}" for i, host in enumerate(place)]
        else:
            addresses = free_addresses(workers)

        def say(line: str) -> None:
            log.append(line)
            if line.startswith(jobs.EPOCH_LINE):
                bar.update()
            elif own and own.others and line == f"joined {own.rank}":  # only now the others may be missed
                tqdm.write(f"{EXPERIMENT}: worker {own.rank} has joined the others", file=sys.stderr)

        processes = stack.enter_context(Processes(say, LINGER))
        for i, its_devices in started.items():
            environment = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1")} | its_devices
            if workers > 1:
                environment["TF_CONFIG"] = as_tf_config(addresses, i)
            processes.start(hosts.command(place[i], command) if hosts else command, environment)
        failed = processes.wait()
    if failed is not None:
        index, status = failed
        if own:
            raise own_failure(own, status, log)
        where = f" at {addresses[index]}" if workers > 1 else ""
        raise jobs.failure(EXPERIMENT, f"worker {index}{where}", status, log)
    return json.loads(report.read_bytes()) if 0 in started else [], link, log


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


def run(
    c: Config, a: argparse.Namespace, argv: list[str], say: Callable[[str], None], own: Own | None = None
) -> Path | None:
    """Run a job and write its results; returns their file. Raises UsageError and RunError.

    An `own` worker is the only one of the job that runs here; none but worker 0 writes.
    """
    writes = own is None or own.rank == 0
    if writes:
        store.check_writable(store.path_of(EXPERIMENT, "", a.results).parent)
    fashion.load(a.data_dir, c.dataset)  # say what is wrong with the data once, and not in every worker
    started, code = datetime.now(UTC), store.Code.now()
    with tempfile.TemporaryDirectory(prefix=f"{EXPERIMENT}-") as folder:
        reports, link, log = launch(c, Path(folder) / "report.json", argv, own)
    if not writes:
        return None
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

    def say(line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    def work() -> int:
        if a.report:
            if PINNED in os.environ:  # before TensorFlow is loaded, so that all its threads inherit it
                os.sched_setaffinity(0, map(int, os.environ[PINNED].split(",")))
            return be_worker(configure(a, a.learners), a)
        if a.launcher == "slurm" or "TF_CONFIG" in os.environ:
            return work_of_one()
        again = a.sweep or a.skip_finished
        configs = [configure(a, learners) for learners in sizes(a)]
        for c in jobs.pending(EXPERIMENT, configs, a.results, check_devices, sweep=a.sweep, skip_finished=again):
            print(run(c, a, given, say))
        return 0

    def work_of_one() -> int:
        # The workers can't agree on what to skip, as only worker 0 has the results, and ports are for one job.
        for option, chosen in {"--sweep": a.sweep, "--skip-finished": a.skip_finished, "--hosts": a.hosts > 1}.items():
            if chosen:
                which = "--launcher slurm" if a.launcher == "slurm" else "TF_CONFIG"
                raise UsageError(
                    f"{option} is for workers that the script starts, but {which} names them; leave one out"
                )
        c = configure(a, a.learners)
        own = own_place(c, a)
        path = run(replace(c, hosts=len(set(map(host_of, own.addresses)))), a, given, say, own)
        if path:
            print(path)
        return 0

    return exit_status(EXPERIMENT, work, "the workers were stopped, nothing was written")


if __name__ == "__main__":
    sys.exit(main())
