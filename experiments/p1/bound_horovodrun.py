"""horovodrun whose rendezvous server listens only at the address that learners are told: the loopback where all of them
are on this machine, else the one of the interface that all hosts reach.

Horovod's own listens on all addresses, and takes writes and reads from anybody.

    python experiments/p1/bound_horovodrun.py --gloo -np 2 -H localhost:2 python learner.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def port_at(address: str) -> Callable[[Callable[[tuple[str, int]], Any]], tuple[Any, int]]:
    """Instead of Horovod's function that finds a port: a server at a free port of this address, and the port."""

    def find(make: Callable[[tuple[str, int]], Any]) -> tuple[Any, int]:
        server = make((address, 0))
        return server, server.server_address[1]

    return find


def main() -> None:
    """Run horovodrun's command line."""
    from horovod.runner import launch
    from horovod.runner.http import http_server

    start = launch.gloo_run

    def at_its_address(settings: Any, interfaces: Any, environment: Any, address: str, command: Any) -> None:
        http_server.find_port = port_at(address)
        start(settings, interfaces, environment, address, command)

    launch.gloo_run = at_its_address
    launch.run_commandline()


if __name__ == "__main__":
    main()
