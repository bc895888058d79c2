"""Launching a job's learners: hosts, checks, how deaths are told. Stand-ins play mpirun and srun."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from experiments.cli import RunError, UsageError
from experiments.machine import job_clock, processes, stalls
from experiments.machine.hosts import Hosts
from experiments.p1 import horovod_launch
from tests.experiments.machine.test_hosts import makes_hosts, needs_ssh
from tests.processes import started_for

# A learner without a framework: says its place, and fails where it is told to.
LEARNER = """
import os, sys, time
from experiments.p1 import horovod_launch
horovod_launch.join(sys.argv[1], int(sys.argv[2]))
rank = int(os.environ["HOROVOD_RANK"])
line = f"rank {rank} of {os.environ['HOROVOD_SIZE']} host {os.environ['HOROVOD_CROSS_RANK']}\\n"
os.write(1, line.encode())  # at once: learners of a stand-in share a pipe
if rank == int(sys.argv[3]):
    os.kill(os.getpid(), 9)
time.sleep(0 if sys.argv[3] == "-1" else 60)
"""


def test_hosts_and_their_slots() -> None:
    assert horovod_launch.parse_hosts("a:8,b-1.example.org:4", 12) == {"a": 8, "b-1.example.org": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "'a' is not a host and its slots"),
        ("a:0", "'a:0' is not a host and its slots"),
        ("a:1,", "'' is not a host and its slots"),
        ("a:1;b:1", "is not a host and its slots"),
        ("a:1,a:2", "host a is named twice"),
        ("a:1,b:2", "4 learners need as many slots, a:1,b:2 has 3"),
    ],
)
def test_bad_hosts(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        horovod_launch.parse_hosts(text, 4)


def test_this_machines_own_address_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(map(horovod_launch.is_own, ("localhost", "127.0.0.1", "127.0.0.2", socket.gethostname())))
    assert not horovod_launch.is_own("192.0.2.1")  # of no machine: kept for documentation (RFC 5737)
    assert not horovod_launch.is_own("no-such-host.invalid")
    with pytest.raises(UsageError, match=r"localhost and 127\.0\.0\.2 are this same machine"):
        horovod_launch.check_reachable({"localhost": 1, "127.0.0.2": 1}, "none")


def test_hosts_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"unknown host no-such-host\.invalid"):
        horovod_launch.check_reachable({"no-such-host.invalid": 1}, "horovodrun")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    horovod_launch.check_reachable({"localhost": 1}, "none")
    horovod_launch.check_reachable({socket.gethostname(): 1}, "none")
    with pytest.raises(UsageError, match="on this machine only, not on node2"):
        horovod_launch.check_reachable({"localhost": 1, "node2": 1}, "none")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="node2 is reached by ssh, which is missing"):
        horovod_launch.check_reachable({"localhost": 1, "node2": 1}, "horovodrun")
    horovod_launch.check_reachable({"node2": 1}, "slurm")


def test_a_machine_is_named_once() -> None:
    with pytest.raises(UsageError, match=r"-H: localhost and 127\.0\.0\.1 are this same machine; name it once"):
        horovod_launch.check_reachable({"localhost": 2, "127.0.0.1": 2}, "horovodrun")
    with pytest.raises(UsageError, match="are this same machine"):
        horovod_launch.check_reachable({socket.gethostname(): 1, "localhost": 1}, "none")


@pytest.mark.horovod
def test_learners_elsewhere_are_told_an_address_that_leads_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.p1.horovod_launch.address_towards", {"node2": "127.0.0.2"}.__getitem__)
    with horovod_launch._rendezvous({"localhost": 1, "node2": 1}, 2, None) as variables:
        assert variables["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "127.0.0.2" and "HOROVOD_GLOO_IFACE" not in variables
    with horovod_launch._rendezvous({"localhost": 2}, 2, None) as variables:
        assert variables["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "127.0.0.1" and variables["HOROVOD_GLOO_IFACE"] == "lo"


def test_an_address_on_the_way_to_a_host() -> None:
    assert horovod_launch.address_towards("127.0.0.2") == "127.0.0.1"


@pytest.fixture
def horovod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an installed Horovod with that metadata first on the path."""
    package = tmp_path / "horovod"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "horovod"]:
        monkeypatch.delitem(sys.modules, name)

    def write(metadata: str) -> None:
        (package / "metadata.json").write_text(metadata)

    return write


def test_horovod_for_other_versions(horovod: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(horovod_launch.metadata, "version", lambda _: "2.13.0+cpu")
    horovod('{"pytorch": "2.13.0"}')
    horovod_launch.check_horovod("torch")
    horovod('{"pytorch": "2.12.1+cpu"}')
    with pytest.raises(UsageError, match=r"built for torch 2.12.1\+cpu, installed is 2.13.0\+cpu; .*make horovod"):
        horovod_launch.check_horovod("torch")
    horovod('{"tensorflow": "2.21.0"}')
    with pytest.raises(UsageError, match="built without torch; build it with: make horovod"):
        horovod_launch.check_horovod("torch")


def test_a_damaged_horovod(horovod: Callable[[str], None]) -> None:
    horovod('{"pytorch": ')
    with pytest.raises(UsageError, match=r"is damaged \(JSONDecodeError: .*\); build it with: make horovod"):
        horovod_launch.check_horovod("torch")


def test_horovod_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(horovod_launch.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="Horovod is not installed; build it with: make horovod"):
        horovod_launch.check_horovod("torch")


@pytest.mark.parametrize(
    ("line", "rank"),
    [
        ("Process 3 exit with status code 137.", "3"),
        ("mpirun noticed that process rank 1 with PID 77 on node host exited on signal 9 (Killed).", "1"),
        ("  Process name: [[31872,1],3]", "3"),
        ("srun: error: node1: task 12: Killed", "12"),
    ],
)
def test_deaths_that_launchers_tell(line: str, rank: str) -> None:
    assert [found[1] for pattern in horovod_launch.DEATHS if (found := pattern.search(line))] == [rank]


@pytest.mark.parametrize("prefix", ["[0]<stdout>:", "[1]<stderr>:", "[1,3]<stdout>:", "3: ", ""])
def test_what_launchers_put_before_a_line_is_taken_off(prefix: str) -> None:
    assert processes.PREFIX.sub("", f"{prefix}epoch 1 of 2: 3") == "epoch 1 of 2: 3"


# A stand-in for srun and mpirun: starts the processes with ranks in their environment, and says who died.
STAND_IN = """#!{python}
import os, subprocess, sys
words = sys.argv[1:]
count = next(int(w.split("=")[1]) for w in words if w.startswith("--ntasks=")) if "{kind}" == "srun" else (
    int(words[words.index("-np") + 1]))
argv = words[words.index({python!r}):]
running = [subprocess.Popen(argv, env=os.environ | {{"{variable}": str(rank)}}) for rank in range(count)]
while running:
    pid, status = os.wait()
    rank = next(i for i, p in enumerate(running) if p.pid == pid)
    if status:
        print({message!r}.format(rank=rank), file=sys.stderr)
        [p.kill() for p in running]
        sys.exit(137)
    count -= 1
    if not count:
        break
"""


def stand_in(folder: Path, kind: str) -> None:
    variable = {"srun": "SLURM_PROCID", "mpirun": "OMPI_COMM_WORLD_RANK"}[kind]
    message = {"srun": "srun: error: n: task {rank}: Killed", "mpirun": "that process rank {rank} with PID"}[kind]
    script = folder / kind
    script.write_text(STAND_IN.format(python=sys.executable, kind=kind, variable=variable, message=message))
    script.chmod(0o755)


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins of srun and mpirun come first on PATH; learners find the project."""
    for kind in ("srun", "mpirun"):
        stand_in(tmp_path, kind)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(horovod_launch.__file__).parents[2]))


@pytest.mark.horovod
@pytest.mark.parametrize("launcher", horovod_launch.LAUNCHERS)
def test_every_launcher_starts_learners_and_names_the_one_that_dies(
    launcher: str, tmp_path: Path, stand_ins: None
) -> None:
    script = tmp_path / "learner.py"
    script.write_text(LEARNER)
    said: list[str] = []
    argv = [sys.executable, str(script), "localhost:3", "3"]
    horovod_launch.launch("p1", [*argv, "-1"], 3, launcher, {"localhost": 3}, said.append)
    assert sorted(line for line in said if line.startswith("rank")) == [f"rank {i} of 3 host 0" for i in range(3)]
    with pytest.raises(RunError, match=r"^learner 2 "):
        horovod_launch.launch("p1", [*argv, "2"], 3, launcher, {"localhost": 3}, said.append)


@pytest.mark.horovod
@pytest.mark.parametrize("launcher", horovod_launch.LAUNCHERS)
def test_a_stopped_learner_ends_the_job_of_every_launcher(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_ins: None
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")  # as in a batch script, from which launchers have it
    script = tmp_path / "learner.py"
    script.write_text(LEARNER.replace("os.getpid(), 9", "os.getpid(), 19"))
    argv = [sys.executable, str(script), "localhost:3", "3", "2"]
    message = r"^learner 2 \(process \d+\) has been stopped for 1 s; all others were stopped and nothing was written$"
    with pytest.raises(RunError, match=message):
        horovod_launch.launch("p1", argv, 3, launcher, {"localhost": 3}, print, stall_timeout=1.0)
    assert not list(started_for(script, "localhost:3"))


def test_what_mpirun_hands_on_to_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOROVOD_CYCLE_TIME", "OMP_NUM_THREADS", "OMPI_MCA_btl", "HOME", "DLPERF_ALLOCATION"):
        monkeypatch.setenv(name, "1")
    argv = horovod_launch._command("mpirun", "a:1", 1, ["true"], {"HOROVOD_CONTROLLER": "gloo"})
    passed = {name for option, name in pairwise(argv) if option == "-x"}
    assert {"HOROVOD_CYCLE_TIME", "OMP_NUM_THREADS", "DLPERF_ALLOCATION", "HOROVOD_CONTROLLER"} <= passed
    assert {stalls.MARK, job_clock.STARTED} <= passed
    assert not {"OMPI_MCA_btl", "HOME"} & passed  # the first one mpirun hands on anyway


@pytest.mark.horovod
def test_a_launcher_that_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "srun"
    silent.write_text("#!/bin/sh\nexit 3\n")
    silent.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RunError, match=r"^srun ended with status 3; all others were stopped and nothing "):
        horovod_launch.launch("p1", ["true"], 1, "slurm", {"localhost": 1}, print)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs: apt-get install util-linux")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """Also when that one is killed, so that it can't end them."""
    script = (
        "import sys, time; from experiments.machine.processes import Processes\n"
        "with Processes(print) as p:\n"
        "    p.start([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(100)'], {})\n"
        "    time.sleep(100)\n"
    )
    root = Path(horovod_launch.__file__).parents[2]
    with subprocess.Popen([sys.executable, "-uc", script], cwd=root, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        child = Path(f"/proc/{int(job.stdout.readline())}/stat")
        assert child.exists()
        job.kill()
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.horovod
@pytest.mark.parametrize(("launcher", "program"), [("mpirun", "mpirun"), ("slurm", "srun")])
def test_a_missing_launcher(launcher: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=f"--launcher {launcher} needs {program}"):
        horovod_launch.launch("p1", ["true"], 1, launcher, {"localhost": 1}, print)


@pytest.mark.horovod
def test_a_learner_without_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOROVOD_RANK", *horovod_launch.RANKS):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="without a rank"):
        horovod_launch.join("localhost:1", 1)


def listening(port: int) -> list[str]:
    """The addresses at which this machine listens at a port, as the kernel writes them: 0100007F is 127.0.0.1."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [line.split()[1].split(":") for line in lines if line.split()[3] == "0A"]
    return [address for address, of_port in ends if int(of_port, 16) == port]


@pytest.mark.horovod
def test_the_rendezvous_of_local_learners_listens_on_the_loopback_alone() -> None:
    with horovod_launch._rendezvous({"localhost": 2}, 2, None) as variables:
        assert listening(int(variables["HOROVOD_GLOO_RENDEZVOUS_PORT"])) == ["0100007F"]
    assert listening(int(variables["HOROVOD_GLOO_RENDEZVOUS_PORT"])) == []


@pytest.mark.horovod
def test_horovodruns_rendezvous_listens_on_the_loopback_alone() -> None:
    said: list[str] = []
    learner = "import os, time; print('port', os.environ['HOROVOD_GLOO_RENDEZVOUS_PORT'], flush=True); time.sleep(60)"
    command = horovod_launch._command("horovodrun", "localhost:1", 1, [sys.executable, "-c", learner], {})
    with processes.Processes(said.append) as started:
        started.start(command, {"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
        deadline = time.monotonic() + 60
        while not (found := [line for line in said if "port " in line]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found, said
        assert listening(int(found[0].rpartition("port ")[2])) == ["0100007F"]


# Says where its host listens at the rendezvous' port; only the first host does.
WHERE = """
import os, pathlib
port = f"{int(os.environ['HOROVOD_GLOO_RENDEZVOUS_PORT']):04X}"
for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
    address, _, at = line.split()[1].partition(":")
    if line.split()[3] == "0A" and at == port:
        print("learner", os.environ["HOROVOD_RANK"], "is told", os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"],
              "and its host listens at", address, flush=True)
"""


@pytest.mark.horovod
@pytest.mark.root
@makes_hosts
@needs_ssh
def test_horovodruns_rendezvous_of_several_hosts_listens_at_their_interface_alone() -> None:
    with Hosts() as made:
        command = horovod_launch._command("horovodrun", "host1:1,host2:1", 2, [sys.executable, "-c", WHERE], {})
        done = subprocess.run(made.command("host1", command), capture_output=True, text=True, timeout=120)
    said = [line.partition(">:")[2] for line in done.stdout.splitlines() if "listens at" in line]
    # 10.77.0.1, as the kernel writes it
    assert said == ["learner 0 is told 10.77.0.1 and its host listens at 01004D0A"], done.stdout + done.stderr
