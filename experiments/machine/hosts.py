"""Several hosts on one machine, joined by a network of known speed.

A host is a set of Linux namespaces: it has its own name, network, processes and shared memory, and shares cores and
files with the others. Each has one interface, eth0, on a common switch; `tc` limits how fast it sends. With ssh, each
runs an sshd that lets the others in by name. tools/emulate_hosts.py runs a command on such hosts.

Nothing outlives the process that made the hosts, even after kill -9. The first process of each host waits for the end
of a pipe from its maker; it then removes the hosts' files and ends, and the kernel kills the host's other processes and
drops its network.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from experiments.cli import UsageError
from experiments.machine.link_speed import Link, rate_after_round_trips

T = TypeVar("T")
INTERFACE = "eth0"
# Debian's packages, for the message about a missing tool.
PACKAGES = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "tc": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
# The first process of a host reads its pid before /proc becomes the host's own, so it is the pid seen from outside.
SET_UP = """
read -r pid rest < /proc/self/stat
hostname "$1"
mount -t proc proc /proc
mount -t tmpfs tmpfs /dev/shm
mount --bind "$2/hosts" /etc/hosts
if [ -e "$2/ssh_config" ]; then mount --bind "$2/ssh_config" /etc/ssh/ssh_config; fi
exec "$3" -ISc "$4" "$pid" "$2"
"""
# Then it executes this. Orphans become its children, and as it ignores SIGCHLD, the kernel reaps them. (A shell would
# not do: dash always catches SIGCHLD, and its `read` ends when an orphan does.)
WAIT = """
import shutil, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print(sys.argv[1], flush=True)
sys.stdin.read()
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""
SSH_CONFIG = """
Host *
User root
BatchMode yes
IdentityFile {files}/key
IdentitiesOnly yes
UserKnownHostsFile {files}/known_hosts
"""
# StrictModes would refuse the key's folder, which is under /tmp; only root can read the key.
SSHD_CONFIG = """
HostKey {files}/key
AuthorizedKeysFile {files}/key.pub
PidFile none
StrictModes no
PermitRootLogin prohibit-password
MaxStartups 1000
"""
SSHD_ROOT = Path("/run/sshd")  # sshd wants this empty folder; the package's service makes it, too
MTU = 1500  # bytes
CLONE_NEWNET = 0x40000000  # <linux/sched.h>


def tool(name: str) -> str:
    """The tool's path. Raises UsageError with the package that has it."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found is None:
        without = ", or do without ssh (--no-ssh)" if name.startswith("ssh") else ""
        raise UsageError(f"{name} is missing; on Debian or Ubuntu: apt-get install {PACKAGES[name]}{without}")
    return found


def _checked(argv: Sequence[str], what: str) -> None:
    """Run a tool to its end. Raises UsageError with its last line of output."""
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"cannot {what}: {_last_words(done.stderr)}")


def _last_words(stderr: str) -> str:
    return (stderr.strip().splitlines() or ["no reason given"])[-1]


LEAST_GBIT = 1e-3  # Gbit/s; tc refuses much lower rates


class Hosts:
    """`count` hosts, named host1, host2, …, that exist inside its `with` block.

    Each sends at most `gbit` Gbit/s, Ethernet frames included (None: as fast as the machine can). Data arrives
    `delay_us` µs after it is sent, so a round trip takes twice that. Without `ssh`, only `command` starts processes on
    a host. Raises UsageError where the machine can't do this.
    """

    def __init__(
        self, count: int = 2, gbit: float | None = None, delay_us: float | None = None, ssh: bool = True
    ) -> None:
        if not 2 <= count <= 250:
            raise UsageError(f"2 to 250 hosts can be emulated, not {count}")
        for name, value in (("--gbit", gbit), ("--delay-us", delay_us)):
            if value is not None and not (0 < value < math.inf):
                raise UsageError(f"{name} must be positive, not {value:g}")
        if gbit is not None and gbit < LEAST_GBIT:
            raise UsageError(f"--gbit must be at least {LEAST_GBIT:g}, not {gbit:g}")
        self.names = [f"host{i}" for i in range(1, count + 1)]
        self.addresses = {name: f"10.77.0.{i}" for i, name in enumerate(self.names, 1)}
        self.gbit, self.delay_us, self.ssh = gbit, delay_us, ssh
        self._first: dict[str, subprocess.Popen[str]] = {}
        self._pid: dict[str, int] = {}

    def __enter__(self) -> Hosts:
        if os.geteuid() != 0:
            raise UsageError("making hosts needs root; run as root, or with sudo")
        for name in PACKAGES:
            if self.ssh or not name.startswith("ssh"):
                tool(name)
        self.files = Path(tempfile.mkdtemp(prefix=f"hosts-{os.getpid()}-"))
        try:
            self._write_files()
            for name in ("switch", *self.names):
                self._start(name)
            self._connect()
            if self.ssh:
                SSHD_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
                for name in self.names:
                    # sshd becomes a daemon once it listens, so afterwards the host can be reached.
                    sshd = [tool("sshd"), "-f", str(self.files / "sshd_config")]
                    _checked(self.command(name, sshd), f"start sshd on {name}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the hosts, with all that runs on them; returns when they are gone."""
        for name, pid in self._pid.items():
            if self._first[name].poll() is None:
                # A forked child may hold a copy of the pipe, so closing ours is not enough.
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, signal.SIGKILL)
        for first in self._first.values():
            first.communicate()
        shutil.rmtree(self.files, ignore_errors=True)  # a host that ended by itself has removed them already

    @property
    def ssh_key(self) -> Path:
        """The private key that lets root in on every host."""
        return self.files / "key"

    @property
    def ssh_config(self) -> Path:
        """Settings for ssh; on the hosts they are the system's own, so `ssh host2` needs no options there."""
        return self.files / "ssh_config"

    def command(self, host: str, argv: Sequence[str], cwd: Path | None = None) -> list[str]:
        """The argv that runs `argv` on a host, in `cwd` (default: the current folder), with the caller's environment.

        It has the exit status of `argv`. When the process it starts is killed, `argv` gets SIGTERM. Raises UsageError
        for an unknown host.
        """
        enter = [tool("nsenter"), f"--target={self._pid_of(host)}", "--net", "--uts", "--ipc", "--mount", "--pid", "--"]
        return [*enter, "env", f"--chdir={cwd or Path.cwd()}", tool("setpriv"), "--pdeathsig=TERM", "--", *argv]

    def inside(self, host: str, function: Callable[[], T]) -> T:
        """The function's result, called by a thread of this process in the host's network.

        Sockets that it opens and threads that it starts stay there, so that a server in this process can serve hosts.
        Raises UsageError for an unknown host.
        """
        pid = self._pid_of(host)

        def call() -> T:
            libc = ctypes.CDLL(None, use_errno=True)  # setns moves the calling thread alone; os.setns is Python 3.12's
            with open(f"/proc/{pid}/ns/net") as network:
                if libc.setns(network.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot enter the network of {host}")
            return function()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(call).result()

    def measure(self, seconds: float = 2.0, rounds: int = 200) -> Link:
        """Rate and round trip of one TCP connection from the first to the second host, over some seconds."""
        with self.inside("host2", socket.socket) as listener, self.inside("host1", socket.socket) as sender:
            listener.bind((self.addresses["host2"], 0))
            listener.listen()
            sender.connect(listener.getsockname())
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            receiver, _ = listener.accept()
            with receiver:
                receiver.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return Link(*rate_after_round_trips(sender, receiver, seconds, rounds))

    def _pid_of(self, host: str) -> int:
        if host not in self.names:
            raise UsageError(f"unknown host {host}; there are {', '.join(self.names)}")
        return self._pid[host]

    def _write_files(self) -> None:
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        (self.files / "hosts").write_text("\n".join(lines) + "\n")
        if not self.ssh:
            return
        make_key = [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "throw-away", "-f", str(self.ssh_key)]
        _checked(make_key, "make an ssh key")
        public = (self.files / "key.pub").read_text()
        (self.files / "known_hosts").write_text("".join(f"{name} {public}" for name in self.names))
        self.ssh_config.write_text(SSH_CONFIG.format(files=self.files))
        (self.files / "sshd_config").write_text(SSHD_CONFIG.format(files=self.files))

    def _start(self, name: str) -> None:
        """Start the first process of a host, in a session of its own, so that Ctrl-C reaches only its maker."""
        unshare = [tool("unshare"), "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child"]
        self._first[name] = first = subprocess.Popen(
            [*unshare, "sh", "-ec", SET_UP, "sh", name, str(self.files), sys.executable, WAIT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert first.stdout is not None and first.stderr is not None
        pid = first.stdout.readline()
        if not pid:
            why = _last_words(first.stderr.read())
            raise UsageError(f"cannot make namespaces ({why}); a container needs --privileged for them")
        self._pid[name] = int(pid)

    def _connect(self) -> None:
        """Plug every host into the switch and limit its sending rate."""
        self._net("switch", "ip", "link add switch type bridge")
        self._net("switch", "ip", "link set switch up")
        for i, name in enumerate(self.names, 1):
            cable = f"link add port{i} type veth peer name {INTERFACE} netns {self._pid[name]}"
            self._net("switch", "ip", cable)
            self._net("switch", "ip", f"link set port{i} master switch up")
            self._net(name, "ip", f"address add {self.addresses[name]}/24 dev {INTERFACE}")
            self._net(name, "ip", f"link set {INTERFACE} mtu {MTU} up")
            self._net(name, "ip", "link set lo up")
            parent = "root"
            if self.gbit is not None:
                # Bursts of 1 ms bridge the timer's slack; packets that wait longer than the latency are dropped.
                burst = max(1e6 * self.gbit / 8, 64 * 1024)
                limit = f"tbf rate {self.gbit * 1e9:.0f}bit burst {burst:.0f} latency 50ms"
                self._net(name, "tc", f"qdisc add dev {INTERFACE} root handle 1: {limit}")
                parent = "parent 1:"
            if self.delay_us is not None:
                delay = f"netem delay {self.delay_us:g}us limit 1000000"
                try:
                    self._net(name, "tc", f"qdisc add dev {INTERFACE} {parent} handle 2: {delay}")
                except UsageError as error:
                    wanted = "--delay-us needs netem, which this kernel lacks (module sch_netem)"
                    raise UsageError(f"{wanted}; leave it out") from error

    def _net(self, name: str, program: str, words: str) -> None:
        enter = [tool("nsenter"), f"--target={self._pid[name]}", "--net", "--"]
        _checked([*enter, tool(program), *words.split()], f"set up the network with '{program} {words}'")
