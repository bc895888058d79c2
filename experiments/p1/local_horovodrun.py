"""horovodrun for learners of this machine: its rendezvous server listens on the loopback alone.

Horovod's server takes writes and reads from anybody and listens on all addresses, also where all learners are here.

    python experiments/p1/local_horovodrun.py --gloo -np 2 -H localhost:2 python learner.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def on_loopback(make: Callable[[tuple[str, int]], Any]) -> tuple[Any, int]:
    """A server at a free port of the loopback, and the port."""
    server = make(("127.0.0.1", 0))
    return server, server.server_address[1]


def main() -> None:
    """Run horovodrun's command line."""
    from horovod.runner import launch
    from horovod.runner.http import http_server

    http_server.find_port = on_loopback
    launch.run_commandline()


if __name__ == "__main__":
    main()
