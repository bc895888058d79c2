"""Who waits too long for its peers is ended, whatever it waits in."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from experiments import p2_strategy, store, watch


@contextmanager
def listener() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_silent_peers_are_found() -> None:
    (nobody,) = p2_strategy.free_addresses(1)
    with listener() as answers:
        assert watch.silent_peers([nobody, answers, "no-such-host.invalid:1"]) == [nobody, "no-such-host.invalid:1"]


# Holds the interpreter's lock, as TensorFlow does.
WAITS = """
import ctypes, sys
from experiments.watch import Watch
with Watch(0.5, sys.argv[2:], "worker 0: "):
    ctypes.PyDLL(None).usleep(int(sys.argv[1]))
ctypes.PyDLL(None).usleep(800_000)
print("on")
"""


def waits(microseconds: int, *addresses: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WAITS, str(microseconds), *addresses]
    return subprocess.run(command, cwd=store.ROOT, capture_output=True, text=True, timeout=30)


def test_a_watch_ends_the_process_and_names_who_is_missing() -> None:
    (nobody,) = p2_strategy.free_addresses(1)
    with listener() as answers:
        done = waits(20_000_000, answers, nobody)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == f"worker 0: not all workers joined within 0.5 s; missing: {nobody}\n" and not done.stderr


def test_a_watch_leaves_alone_who_is_in_time() -> None:
    done = waits(1, "x:1")
    assert done.returncode == 0 and done.stdout == "on\n"


def test_a_watch_ends_with_the_process_it_watches() -> None:
    script = "import os, sys\nfrom experiments.watch import Watch\nWatch(20, [], sys.argv[1]).__enter__()\nos._exit(0)"
    began = time.monotonic()
    # Its output ends only when the watch has ended, too.
    done = subprocess.run([sys.executable, "-c", script, ""], cwd=store.ROOT, capture_output=True, timeout=15)
    assert done.returncode == 0 and not done.stdout and time.monotonic() - began < 10
