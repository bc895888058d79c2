"""The allocation of a run: one host, one boot, one go. Times and rates are compared only within one.

A go starts with a script's first job and ends with the script. Jobs of several scripts, or of scripts side by side on
disjoint GPUs, belong to one go if they share a token: `export DLPERF_ALLOCATION=$(uuidgen)`.

allocations.csv assigns runs from before allocations were recorded. Its rule: runs share an allocation if their hosts
have the same processor and the same number of usable cores, and no gap between them exceeds 15 minutes. Runs with
different numbers of cores therefore count as different hosts, even if they may have been parts of one.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import os
import platform
import secrets
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from experiments.cli import UsageError
from experiments.machine.device_names import physical_gpus

TOKEN = "DLPERF_ALLOCATION"
EARLIER = Path(__file__).with_name("allocations.csv")
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Window(NamedTuple):
    """An allocation of earlier runs: a host's processor and cores, and when its runs started and ended (UTC)."""

    allocation: str
    host_cpu: str
    host_cores: int
    first: datetime
    last: datetime


def token() -> str:
    """The token of this go: the one in the environment, or a new one, which child processes inherit.

    Raises UsageError unless it has 1 to 100 printable characters.
    """
    given = os.environ.setdefault(TOKEN, secrets.token_hex(8))
    if not 1 <= len(given) <= 100 or not given.isprintable():
        raise UsageError(f"{TOKEN} must be 1 to 100 printable characters; unset it, or use what uuidgen prints")
    return given


def current() -> str:
    """This allocation: 8 hex digits that depend on the boot, the host's name, its GPUs and the token."""
    boot = BOOT.read_text().strip() if BOOT.exists() else ""
    parts = [boot, platform.node(), *physical_gpus(), token()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


@functools.cache
def windows(path: Path = EARLIER) -> tuple[Window, ...]:
    """The allocations of earlier runs."""
    with path.open(newline="") as f:
        return tuple(
            Window(
                row["allocation"],
                row["host_cpu"],
                int(row["host_cores"]),
                datetime.fromisoformat(row["first"]),
                datetime.fromisoformat(row["last"]),
            )
            for row in csv.DictReader(f)
        )


def of_earlier(host_cpu: str, host_cores: int, started: datetime) -> str:
    """The allocation of a run that doesn't name one; empty if the table has none."""
    for window in windows():
        if (host_cpu, host_cores) == (window.host_cpu, window.host_cores) and window.first <= started <= window.last:
            return window.allocation
    return ""
