"""The speed of the link between two hosts: one TCP connection's rate and round trip."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A link's measured speed: TCP payload in Gbit/s (10⁹ bits), median round trip of one byte in µs."""

    gbit: float
    round_trip_us: float


def rate_after_round_trips(
    sender: socket.socket, receiver: socket.socket, seconds: float, rounds: int
) -> tuple[float, float]:
    """Gbit/s and µs, see Link."""
    trips = []
    for _ in range(rounds):
        start = time.perf_counter()
        sender.sendall(b"?")
        receiver.recv(1)
        receiver.sendall(b"!")
        sender.recv(1)
        trips.append(time.perf_counter() - start)

    def send() -> None:
        block, end = bytes(1 << 20), time.perf_counter() + seconds
        while time.perf_counter() < end:
            sender.sendall(block)
        sender.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    buffer = bytearray(1 << 20)
    receiver.recv_into(buffer)
    start, received = time.perf_counter(), 0
    while size := receiver.recv_into(buffer):
        received += size
    elapsed = time.perf_counter() - start
    sending.join()
    return 8e-9 * received / elapsed, 1e6 * statistics.median(trips)
