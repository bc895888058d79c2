"""Who waits too long for its peers is ended, whatever it waits in."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from experiments.p2 import join_timeout, placement
from experiments.store.files import ROOT


@contextmanager
def listener(host: str = "127.0.0.1", family: socket.AddressFamily = socket.AF_INET) -> Iterator[str]:
    with socket.create_server((host, 0), family=family) as server:
        yield f"{f'[{host}]' if ':' in host else host}:{server.getsockname()[1]}"


def test_silent_peers_are_found() -> None:
    (nobody,) = placement.free_addresses(1)
    with listener() as answers:
        assert join_timeout.silent_peers([nobody, answers, "no-such-host.invalid:1"]) == [
            nobody,
            "no-such-host.invalid:1",
        ]


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_a_peer_of_an_ipv6_address_answers() -> None:
    with listener("::1", socket.AF_INET6) as answers:
        assert answers.startswith("[::1]:") and not join_timeout.silent_peers([answers])


# Holds the interpreter's lock, as TensorFlow does.
WAITS = """
import ctypes, sys
from experiments.p2.join_timeout import JoinTimeout
with JoinTimeout(0.5, sys.argv[2:], "worker 0: "):
    ctypes.PyDLL(None).usleep(int(sys.argv[1]))
ctypes.PyDLL(None).usleep(800_000)
print("on")
"""


def waits(microseconds: int, *addresses: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WAITS, str(microseconds), *addresses]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_a_watch_ends_the_process_and_names_who_is_missing() -> None:
    (nobody,) = placement.free_addresses(1)
    with listener() as answers:
        done = waits(20_000_000, answers, nobody)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == f"worker 0: not all workers joined within 0.5 s; missing: {nobody}\n" and not done.stderr


def test_who_answers_but_does_not_join_is_named_too() -> None:
    with listener() as answers:
        done = waits(20_000_000, answers)
    assert done.stdout == f"worker 0: not all workers joined within 0.5 s; not joined, but answering: {answers}\n"


def test_a_watch_leaves_alone_who_is_in_time() -> None:
    done = waits(1, "x:1")
    assert done.returncode == 0 and done.stdout == "on\n"


def test_a_watch_ends_with_the_process_it_watches() -> None:
    script = "import os, sys\nfrom experiments.p2.join_timeout import JoinTimeout\n"
    script += "JoinTimeout(20, [], sys.argv[1]).__enter__()\nos._exit(0)"
    began = time.monotonic()
    # Its output ends only when the watch has ended, too.
    done = subprocess.run([sys.executable, "-c", script, ""], cwd=ROOT, capture_output=True, timeout=15)
    assert done.returncode == 0 and not done.stdout and time.monotonic() - began < 10
