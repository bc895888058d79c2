"""A time limit for workers that wait for each other in TensorFlow.

TensorFlow waits without end and holds the interpreter's lock meanwhile, so neither a thread nor a signal handler of
the worker would run. A separate process keeps the time.
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
    """The addresses, host:port, where nothing answers."""
    silent = []
    for address in addresses:
        try:
            socket.create_connection(host_and_port(address), timeout=2).close()
        except OSError:
            silent.append(address)
    return silent


class JoinTimeout:
    """Kills this process if the block in which the workers meet takes longer than a number of seconds.

    A line on standard output, with the prefix `who`, first names the addresses, host:port, where nothing answers.
    """

    def __init__(self, seconds: float, addresses: list[str], who: str) -> None:
        self._command = [sys.executable, "-I", "-c", PROGRAM, __file__, f"{seconds}", who, *addresses]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input


def main(argv: list[str]) -> None:
    """Wait for the end of standard input, when the block or the process ends; after the limit, kill the process."""
    seconds, who, addresses = float(argv[0]), argv[1], argv[2:]
    watched = os.getppid()
    if select.select([sys.stdin], [], [], seconds)[0]:
        return
    silent = silent_peers(addresses)
    # A stopped peer, or another program at its port, answers but doesn't join.
    missing = f"missing: {', '.join(silent)}" if silent else f"not joined, but answering: {', '.join(addresses)}"
    if os.getppid() == watched:  # otherwise it has ended meanwhile
        print(f"{who}not all workers joined within {seconds:g} s; {missing}", flush=True)
        os.kill(watched, signal.SIGKILL)
