"""Run a command on emulated hosts, joined by a network of known speed (needs root).

    python tools/emulate_hosts.py --gbit 10 -- horovodrun --gloo -np 2 -H host1:1,host2:1 python train.py

makes host1 and host2, runs the command on host1, and removes both.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments.cli import Parser, UsageError, exit_status
from experiments.machine.hosts import Hosts


def arguments() -> Parser:
    """The command line."""
    p = Parser("emulate_hosts", __doc__)
    p.add_argument("--count", type=int, default=2, help="how many hosts (default 2)")
    p.add_argument("--gbit", type=float, help="the most that a host sends, in Gbit/s (default: no limit)")
    p.add_argument("--delay-us", type=float, help="delay of what a host sends, in µs; a round trip has two (default 0)")
    p.add_argument("--no-ssh", action="store_true", help="start no sshd")
    p.add_argument("--measure", action="store_true", help="first print the link's speed and round-trip time")
    p.add_argument("command", nargs="*", metavar="COMMAND", help="what to run on host1, after --")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the command's exit status, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM."""
    a = arguments().parse_args(argv)

    def work() -> int:
        if not a.command and not a.measure:
            raise UsageError("nothing to do; give --measure, or a command after --")
        with Hosts(a.count, a.gbit, a.delay_us, ssh=not a.no_ssh) as hosts:
            if a.measure:
                link = hosts.measure()
                print(f"host1 to host2: {link.gbit:.3f} Gbit/s, round trip {link.round_trip_us:.1f} µs", flush=True)
            status = subprocess.call(hosts.command("host1", a.command)) if a.command else 0
        return status if status >= 0 else 128 - status

    return exit_status("emulate_hosts", work, "the hosts are gone")


if __name__ == "__main__":
    sys.exit(main())
