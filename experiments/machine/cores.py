"""CPU learners: which cores belong to which learner.

A learner is pinned to its own cores: logical devices that share one thread pool would measure the pool, not scaling.
Hardware threads of one physical core share its arithmetic units, so all physical cores are dealt out before any core's
second thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from experiments.cli import UsageError
from experiments.machine import cpu_quota

CPUS = Path("/sys/devices/system/cpu")


def siblings(root: Path = CPUS) -> dict[int, int]:
    """For each logical CPU this process may use, its rank among the hardware threads of its physical core, 0 first.

    A CPU without topology information counts as a separate core.
    """
    seen: dict[str, int] = {}
    ranks = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        listing = root / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        core = listing.read_text().strip() if listing.exists() else str(cpu)
        ranks[cpu] = seen.get(core, 0)
        seen[core] = ranks[cpu] + 1
    return ranks


def core_sets(
    learners: int, threads: int, oversubscribe: bool = False, ranks: Mapping[int, int] | None = None
) -> list[tuple[int, ...]]:
    """`threads` logical CPUs for each of `learners` learners, disjoint, physical cores first.

    With `oversubscribe`, CPUs are dealt out again from the start where there are too few. Raises UsageError without it
    for too few CPUs or too small a CPU quota, and for numbers below 1. `ranks` may describe another machine.
    """
    for name, value in (("learners", learners), ("threads", threads)):
        if value < 1:
            raise UsageError(f"--{name} must be at least 1, not {value}")
    quota = cpu_quota.cores() if ranks is None else None
    ranks = siblings() if ranks is None else ranks
    order = sorted(ranks, key=lambda cpu: (ranks[cpu], cpu))
    wanted = learners * threads
    if wanted > len(order):
        if not oversubscribe:
            raise UsageError(
                f"{learners} learners of {threads} threads need {wanted} cores, this machine has {len(order)}; "
                "use fewer, or --oversubscribe"
            )
        order *= -(-wanted // len(order))
    if quota is not None and wanted > quota and not oversubscribe:
        raise UsageError(
            f"{learners} learners of {threads} threads need {wanted} cores, this container's CPU quota is {quota:g}; "
            "use fewer, raise the quota, or --oversubscribe"
        )
    return [tuple(order[i : i + threads]) for i in range(0, wanted, threads)]
