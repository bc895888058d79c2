"""A network of a job's own: its processes reach each other, nobody else reaches them, and this one is where it was."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from experiments.machine import own_network

can_make = pytest.mark.skipif(not own_network.possible(), reason="needs root and namespaces")
# A server on all addresses, as TensorFlow's: says its port and network, and serves one who connects.
SERVER = """
import os, socket
with socket.create_server(("", 0)) as server:
    print(server.getsockname()[1], os.readlink("/proc/self/ns/net"), flush=True)
    server.accept()[0].sendall(b"hello")
"""
CLIENT = "import socket, sys; print(socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5).recv(9).decode())"


@pytest.mark.root
@can_make
def test_its_processes_reach_each_other_and_nobody_else_does() -> None:
    here = os.readlink("/proc/thread-self/ns/net")
    with own_network.own_network() as made:
        assert made
        server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        port, network = server.stdout.readline().split()
        assert network == os.readlink("/proc/thread-self/ns/net") != here
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert os.readlink("/proc/thread-self/ns/net") == here
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), 5)
    enter = ["nsenter", f"--target={server.pid}", "--net", "--", sys.executable, "-c", CLIENT, port]
    assert subprocess.run(enter, capture_output=True, text=True, check=True).stdout == "hello\n"
    assert server.wait(10) == 0


def test_where_it_cannot_be_made_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def unshare(self, flags: int) -> int:
            return -1

    def library(*_: Any, **__: Any) -> Refusing:
        return Refusing()

    monkeypatch.setattr(ctypes, "CDLL", library)
    here = os.readlink("/proc/thread-self/ns/net")
    with own_network.own_network() as made:
        assert not made and os.readlink("/proc/thread-self/ns/net") == here
    assert not own_network.possible()
