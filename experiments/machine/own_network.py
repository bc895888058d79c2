"""A network of a job's own, with nothing but a loopback: nobody else reaches what listens there on all addresses."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from experiments.machine.hosts import CLONE_NEWNET

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1  # <linux/sockios.h>, <linux/if.h>


@contextmanager
def own_network() -> Iterator[bool]:
    """Processes that this thread starts in the block share a new network; False, and none, where that can't be made: it
    needs root, and in a container its capability SYS_ADMIN. The network goes with the last of them."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare and os.setns are Python 3.12's
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(CLONE_NEWNET):
            yield False
            return
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
            yield True
        finally:
            if libc.setns(before.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot go back to this machine's network")


def possible() -> bool:
    """Whether such a network can be made here."""
    with own_network() as made:
        return made
