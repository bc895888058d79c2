"""A time limit for workers that wait for each other in TensorFlow.

TensorFlow waits without end and holds the interpreter's lock meanwhile, so neither a thread nor a signal handler of
the worker would run: a process of its own keeps the time.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys

# What the process that keeps the time runs: `main` of this file, and nothing else of the project.
PROGRAM = "import runpy, sys; runpy.run_path(sys.argv[1])['main'](sys.argv[2:])"


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of host:port; an IPv6 host without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def silent_peers(addresses: list[str]) -> list[str]:
    """The addresses, host:port, where nobody answers."""
    silent = []
    for address in addresses:
        try:
            socket.create_connection(host_and_port(address), timeout=2).close()
        except OSError:
            silent.append(address)
    return silent


class JoinTimeout:
    """Kills this process when its block, in which the workers meet, takes more than so many seconds.

    Before that, a line on standard output names the addresses, host:port, where nobody answers; `who` is its prefix.
    """

    def __init__(self, seconds: float, addresses: list[str], who: str) -> None:
        self._command = [sys.executable, "-I", "-c", PROGRAM, __file__, f"{seconds}", who, *addresses]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input


def main(argv: list[str]) -> None:
    """Wait for the end of standard input, which comes with the end of the block or of the process; or kill that."""
    seconds, who, addresses = float(argv[0]), argv[1], argv[2:]
    watched = os.getppid()
    if select.select([sys.stdin], [], [], seconds)[0]:
        return
    silent = silent_peers(addresses)
    # A peer that is stopped, or another program at its port, answers, but doesn't join.
    missing = f"missing: {', '.join(silent)}" if silent else f"not joined, but answering: {', '.join(addresses)}"
    if os.getppid() == watched:  # else it has ended meanwhile
        print(f"{who}not all workers joined within {seconds:g} s; {missing}", flush=True)
        os.kill(watched, signal.SIGKILL)
