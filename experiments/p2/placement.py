"""Where Problem 2's workers run: the cores or GPUs of each, and the place that TF_CONFIG or Slurm gives to one."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from experiments.cli import RunError, UsageError
from experiments.machine import cores, nvidia, supervision
from experiments.p2.join_timeout import host_and_port, silent_peers
from experiments.p2.worker_job import Job

PINNED = "DLPERF_CORES"  # in the environment of a worker process: which logical CPUs it has


def devices(job: Job, workers: int, oversubscribe: bool) -> list[dict[str, str]]:
    """The cores or GPUs of each of `workers` workers on this machine, as environments. Raises UsageError."""
    local = job.local
    if job.device == "cpu":
        sets = cores.core_sets(workers, job.threads * local, oversubscribe)
        return [{PINNED: ",".join(map(str, cpus))} for cpus in sets]
    nvidia.check_gpus(workers * local, oversubscribe=False)
    gpus = nvidia.gpus()
    return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * local : (i + 1) * local])} for i in range(workers)]


def free_addresses(count: int) -> list[str]:
    """`count` addresses of this machine where nothing listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]


def as_tf_config(addresses: Sequence[str], index: int) -> str:
    """TF_CONFIG, which tells TensorFlow where the workers are and which of them it is."""
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


# ---- a place that others assign ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AssignedWorker:
    """The one worker that the script starts where TF_CONFIG or Slurm has assigned it a place."""

    addresses: list[str]  # of all workers
    rank: int
    devices: dict[str, str]  # its cores or GPUs, as its environment

    @property
    def others(self) -> list[str]:
        """The other workers' addresses."""
        return [address for i, address in enumerate(self.addresses) if i != self.rank]


def host_of(address: str) -> str:
    """The host of host:port, under one name."""
    host = host_and_port(address)[0].lower()
    return "127.0.0.1" if host == "localhost" else host


def is_address(address: object) -> bool:
    """Whether it is a host:port."""
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16


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


@contextmanager
def quiet() -> Iterator[None]:
    """Silence standard error: importing TensorFlow logs there at any log level."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def slurm_tf_config(workers: int) -> str:
    """TF_CONFIG from Slurm's variables. Raises UsageError outside of srun, and for another number of its tasks."""
    for name in ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE"):
        if name not in os.environ:
            raise UsageError(f"--launcher slurm: no {name} here; start the script with srun, a task for each worker")
    with quiet():
        import tensorflow as tf
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver
    try:
        # Without a number of GPUs it would ask nvidia-smi; it only counts them: one a task, of more than enough.
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
            # As TensorFlow binds: to all addresses, and to ports of connections that have just ended.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("", port))
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
        raise UsageError(f"{address}: port {port} of this machine {why}; end what uses it, or give another") from error


def assigned_worker(job: Job, launcher: str, oversubscribe: bool) -> AssignedWorker:
    """The worker to start where TF_CONFIG or Slurm says which one. Raises UsageError."""
    text = slurm_tf_config(job.workers) if launcher == "slurm" else os.environ["TF_CONFIG"]
    addresses, rank = cluster(text, job.workers)
    check_address(addresses[rank])
    hosts = [host_of(address) for address in addresses]
    try:
        mine = devices(job, hosts.count(hosts[rank]), oversubscribe)[hosts[:rank].count(hosts[rank])]
    except UsageError:
        # Too few for all workers of this host, but what this one sees may be its share alone.
        alone = launcher == "slurm" or (job.device == "gpu" and "CUDA_VISIBLE_DEVICES" in os.environ)
        if not alone:
            raise
        mine = devices(job, 1, oversubscribe)[0]
    return AssignedWorker(addresses, rank, mine)


def assigned_failure(experiment: str, assigned: AssignedWorker, status: int, log: Sequence[str]) -> RunError:
    """The error for the one worker that was started here: why it has ended."""
    who, mark = f"worker {assigned.rank}", f"{experiment}: "
    said = [line.removeprefix(mark) for line in log if line.startswith(mark)]
    raised = [line for line in log if line.startswith(f"{who}: ")]
    # When it loses a peer, TensorFlow doesn't say which, or just aborts.
    if not said and (raised or status == -signal.SIGABRT):
        for _ in range(4):  # the peer that failed may still be ending
            if silent := silent_peers(assigned.others):
                one = len(silent) == 1
                said = [f"{who} lost {', '.join(silent)}, which no longer answer{'s' if one else ''}"]
                break
            time.sleep(0.5)
    return RunError(f"{[*said, *raised, f'{who} {supervision.ended(status)}'][0]}; nothing was written")
