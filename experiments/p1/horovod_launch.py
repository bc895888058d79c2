"""Start the learners of a Horovod job, one process each, and end all of them when one dies.

`horovodrun` is Horovod's own launcher; it reaches other hosts by ssh. The others only start processes: learners then
meet at a rendezvous server in this process, which Horovod's launcher would run otherwise, and each finds its place
among them by the rank that its launcher gave it (`join`). `none` starts the processes itself, on this machine, or on
emulated hosts (experiments/machine/hosts.py), `mpirun` and `slurm` leave that to Open MPI and to srun.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from experiments.cli import UsageError
from experiments.machine import settings, stalls, supervision
from experiments.machine.hosts import INTERFACE, Hosts
from experiments.machine.job_clock import STARTED
from experiments.machine.processes import OWN_RANK, Processes

LAUNCHERS = ("horovodrun", "mpirun", "slurm", "none")
INSTALL = "build it with: make horovod"
# How launchers say which learner died.
DEATHS = [re.compile(r"Process (\d+) exit with status code"), re.compile(r"process rank (\d+) with"),
          re.compile(r"Process name: \[\[\d+,\d+\],(\d+)\]"), re.compile(r"task (\d+): ")]  # fmt: skip
# The rank, in the environment that each launcher makes.
RANK_OF = {
    "horovodrun": "HOROVOD_RANK",
    "mpirun": "OMPI_COMM_WORLD_RANK",
    "slurm": "SLURM_PROCID",
    "none": OWN_RANK,
}
RANKS = (OWN_RANK, "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
# What Open MPI hands on to other hosts only if it is told to; its own variables it always does.
EXPORTED = re.compile(r"HOROVOD_|DLPERF_|PYTHONPATH|LD_LIBRARY")
OWN_OF_MPI = re.compile(r"(OMPI|PMIX|PRTE)_")


def check_horovod(framework: str) -> None:
    """Raise UsageError unless Horovod is installed and was built for the framework and its version."""
    if util.find_spec("horovod") is None:
        raise UsageError(f"Horovod is not installed; {INSTALL}")
    if util.find_spec(framework) is None:
        raise UsageError(f"--framework {framework} is not installed; install it, then build Horovod for it")
    origin = util.find_spec("horovod").origin  # type: ignore[union-attr]
    try:
        built_for = json.loads((Path(str(origin)).parent / "metadata.json").read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"Horovod's installation is damaged ({type(error).__name__}: {error}); {INSTALL}") from error
    built = built_for.get({"torch": "pytorch"}.get(framework, framework))
    package = "tensorflow_cpu" if framework == "tensorflow" else framework
    try:
        installed = metadata.version(framework)
    except metadata.PackageNotFoundError:
        installed = metadata.version(package)
    if built is None:
        raise UsageError(f"Horovod was built without {framework}; {INSTALL}")
    if built.partition("+")[0] != installed.partition("+")[0]:
        raise UsageError(f"Horovod was built for {framework} {built}, installed is {installed}; {INSTALL}")


def parse_hosts(text: str, learners: int) -> dict[str, int]:
    """Slots by host, from 'host1:8,host2:8'. Raises UsageError for another form, or when slots don't suffice."""
    slots: dict[str, int] = {}
    for part in text.split(","):
        matched = re.fullmatch(r"([\w.-]+):([1-9]\d*)", part)
        if matched is None:
            raise UsageError(f"-H: '{part}' is not a host and its slots, such as host1:8; separate hosts by commas")
        if matched[1] in slots:
            raise UsageError(f"-H: host {matched[1]} is named twice")
        slots[matched[1]] = int(matched[2])
    if sum(slots.values()) < learners:
        raise UsageError(f"-H: {learners} learners need as many slots, {text} has {sum(slots.values())}")
    return slots


def is_own(host: str) -> bool:
    """Whether a host's name or address means this machine: sockets can be bound to its own addresses alone."""
    if host in {"localhost", "127.0.0.1", socket.gethostname()}:
        return True
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe:
                probe.bind(address)
                return True
    except OSError:  # another's address, or no host's
        pass
    return False


def check_reachable(slots: dict[str, int], launcher: str) -> None:
    """Raise UsageError for hosts whose name can't be resolved, or that need ssh where there is none, and for two names
    of this machine, whose learners would get the same cores."""
    own = [host for host in slots if is_own(host)]
    if len(own) > 1:
        raise UsageError(f"-H: {' and '.join(own)} are this same machine; name it once, with all its slots")
    for host in slots:
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            raise UsageError(f"-H: unknown host {host} ({error.strerror})") from error
    others = [host for host in slots if not is_own(host)]
    if others and launcher == "none":
        raise UsageError(f"--launcher none starts learners on this machine only, not on {', '.join(others)}")
    if others and launcher in {"horovodrun", "mpirun"} and shutil.which("ssh") is None:
        raise UsageError(f"{others[0]} is reached by ssh, which is missing; install it, or use --launcher slurm")


def join(hosts: str, learners: int) -> None:
    """In a learner's process: take the place that the launcher gave it, in Horovod's variables. Raises UsageError."""
    from horovod.runner.common.util.hosts import get_host_assignments
    from horovod.runner.common.util.hosts import parse_hosts as parse
    from horovod.runner.gloo_run import create_slot_env_vars

    if "HOROVOD_RANK" in os.environ:  # horovodrun told it all
        return
    rank = next((os.environ[name] for name in RANKS if name in os.environ), None)
    if rank is None:
        raise UsageError("a learner without a rank; start the job without --report")
    plan = get_host_assignments(parse(hosts), learners, learners)
    os.environ.update({name: str(value) for name, value in create_slot_env_vars(plan[int(rank)]).items()})


def address_towards(host: str) -> str:
    """This machine's address on the way to another host: what its own name stands for may be the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        return str(probe.getsockname()[0])


@contextlib.contextmanager
def _rendezvous(slots: dict[str, int], learners: int, hosts: Hosts | None) -> Iterator[dict[str, str]]:
    """A rendezvous server for the learners; gives the variables by which they find it."""
    from horovod.runner.common.util.hosts import get_host_assignments
    from horovod.runner.common.util.hosts import parse_hosts as parse
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    others = [] if hosts else [host for host in slots if not is_own(host)]
    address = hosts.addresses["host1"] if hosts else address_towards(others[0]) if others else "127.0.0.1"

    def start() -> RendezvousHTTPServer:
        """Horovod's own start listens on all addresses, and the server takes writes from anybody."""
        made = RendezvousHTTPServer((address, 0), RendezvousHandler, 0)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        return made

    server = hosts.inside("host1", start) if hosts else start()
    port = server.server_address[1]
    server.init(get_host_assignments(parse(spec(slots)), learners, learners))
    interface = INTERFACE if hosts else None if others else "lo"
    try:
        yield {
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
            "HOROVOD_GLOO_TIMEOUT_SECONDS": "120",
            **({"HOROVOD_GLOO_IFACE": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}),
        }
    finally:
        server.shutdown()
        server.server_close()


def spec(slots: dict[str, int]) -> str:
    """Hosts and slots as launchers take them."""
    return ",".join(f"{host}:{count}" for host, count in slots.items())


def _command(launcher: str, hosts: str, learners: int, argv: Sequence[str], environment: dict[str, str]) -> list[str]:
    """The one command of a launcher that starts all learners."""
    if launcher == "mpirun":
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        passed = [
            name
            for name in sorted({*os.environ, *environment, stalls.MARK, STARTED})
            if EXPORTED.match(name) or (settings.READ.match(name) and not OWN_OF_MPI.match(name))
        ]
        exported = [word for name in passed for word in ("-x", name)]
        return [
            "mpirun",
            *root,
            "-np",
            str(learners),
            "-H",
            hosts,
            "--bind-to",
            "none",
            "--tag-output",
            *exported,
            *argv,
        ]
    if launcher == "slurm":
        return ["srun", f"--ntasks={learners}", "--distribution=block", "--kill-on-bad-exit=1", "--label", *argv]
    horovodrun = str(Path(__file__).with_name("bound_horovodrun.py"))
    return [sys.executable, horovodrun, "--gloo", "-np", str(learners), "-H", hosts, *argv]


class Finished(NamedTuple):
    """A job that ran to its end."""

    log: list[str]  # the lines that its processes printed
    seconds: float  # from the start of its first process until all had ended


def launch(
    experiment: str,
    argv: Sequence[str],
    learners: int,
    launcher: str,
    slots: dict[str, int],
    say: Callable[[str], None],
    hosts: Hosts | None = None,
    stall_timeout: float = stalls.TIMEOUT,
) -> Finished:
    """Run a learner's `argv` in `learners` processes to their end; `say` gets each line that they print.

    `hosts` are emulated ones, on which `none` starts processes. Raises UsageError when a launcher is missing, RunError
    naming the learner that died, or that was stopped for `stall_timeout` seconds on this machine; then no process is
    left.
    """
    program = {"mpirun": "mpirun", "slurm": "srun"}.get(launcher)
    if program and shutil.which(program) is None:
        raise UsageError(f"--launcher {launcher} needs {program}, which is not installed; use --launcher none")
    log, dead = list[str](), list[str]()

    def listen(line: str) -> None:
        log.append(line)
        dead.extend(found[1] for pattern in DEATHS if (found := pattern.search(line)))
        if dead:
            processes.unwatch()
        say(line)

    with contextlib.ExitStack() as stack:
        environment: dict[str, str] = {}
        if launcher != "horovodrun":
            environment = stack.enter_context(_rendezvous(slots, learners, hosts))
        # mpirun and srun end what they have started when they are asked to. So does horovodrun, but a second signal
        # while it handles the first locks it up; when it is killed, those between it and the learners end them.
        orphaned = "TERM" if launcher in {"mpirun", "slurm"} else "KILL"
        processes = Processes(listen, orphaned=orphaned, stall_timeout=stall_timeout, ranks=[RANK_OF[launcher]])
        stack.enter_context(processes)
        if launcher == "none":
            for rank, host in enumerate([host for host, count in slots.items() for _ in range(count)][:learners]):
                command = hosts.command(host, argv) if hosts else list(argv)
                processes.start(command, environment | {OWN_RANK: str(rank)})
        else:
            processes.start(_command(launcher, spec(slots), learners, argv, environment), environment)
        failed = processes.wait()
    if failed is not None:
        index, status = failed
        starter = f"{f'learner {dead[0]} died, and ' if dead else ''}{program or launcher}"
        raise supervision.failure(experiment, f"learner {index}" if launcher == "none" else starter, status, log)
    return Finished(log, processes.seconds)
