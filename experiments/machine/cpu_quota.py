"""The CPU time that control groups grant this process: a container may see all cores but get half of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def _groups() -> Iterator[Path]:
    """This process's control groups that could limit its CPU time, outer ones included.

    In a container the path may be the host's, of which only the innermost group is mounted, as the root.
    """
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for base in (ROOT / controllers, ROOT / "cpu") if controllers else (ROOT, ROOT / "unified"):
            innermost = base / path.lstrip("/")
            yield from (group for group in (innermost, *innermost.parents) if group.is_relative_to(base))


def _numbers(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:  # neither the root group nor a group that isn't mounted here has one
        return []


def cores() -> float | None:
    """How many cores' time this process may use at most; None without a limit."""
    limits = []
    for group in _groups():
        second = _numbers(group / "cpu.max")  # version 2: "50000 100000", or "max 100000"
        first = _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")  # version 1: -1 for none
        limits += [int(pair[0]) / int(pair[1]) for pair in (second, first) if pair and pair[0] not in {"max", "-1"}]
    return min(limits, default=None)


def throttled() -> int:
    """How often this process's groups have used up a period's quota and had to wait, since the groups were made."""
    total = 0
    for group in dict.fromkeys(_groups()):
        words = _numbers(group / "cpu.stat")
        total += int(words[words.index("nr_throttled") + 1]) if "nr_throttled" in words else 0
    return total
