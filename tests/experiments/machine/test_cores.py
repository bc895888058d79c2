"""Cores for CPU learners: disjoint, physical cores before hardware threads, refused when too few."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.cli import UsageError
from experiments.machine import cores

# Four physical cores with two hardware threads each, numbered as Linux often does: 0-3 first threads, 4-7 second.
RANKS = {0: 0, 1: 0, 2: 0, 3: 0, 4: 1, 5: 1, 6: 1, 7: 1}
# The same machine with the threads of a core beside each other.
ADJACENT = {0: 0, 1: 1, 2: 0, 3: 1, 4: 0, 5: 1, 6: 0, 7: 1}


def test_physical_cores_come_first() -> None:
    assert cores.core_sets(4, 1, ranks=ADJACENT) == [(0,), (2,), (4,), (6,)]
    assert cores.core_sets(3, 2, ranks=ADJACENT) == [(0, 2), (4, 6), (1, 3)]


def test_learners_share_no_core() -> None:
    sets = cores.core_sets(4, 2, ranks=RANKS)
    assert sorted(cpu for one in sets for cpu in one) == list(range(8))


def test_oversubscription_deals_the_cores_out_again() -> None:
    assert cores.core_sets(3, 1, oversubscribe=True, ranks={5: 0, 7: 0}) == [(5,), (7,), (5,)]


def test_too_few_cores_are_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"9 learners of 1 threads need 9 cores, this machine has 8.*--oversubscribe"):
        cores.core_sets(9, 1, ranks=RANKS)


@pytest.mark.parametrize(("learners", "threads", "flag"), [(0, 1, "learners"), (-2, 1, "learners"), (1, 0, "threads")])
def test_numbers_below_one_are_refused(learners: int, threads: int, flag: str) -> None:
    with pytest.raises(UsageError, match=f"--{flag} must be at least 1"):
        cores.core_sets(learners, threads, ranks=RANKS)


def test_hardware_threads_are_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 9})
    for cpu, listing in {0: "0-1", 1: "0-1", 2: "2-3"}.items():
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(listing + "\n")
    assert cores.siblings(tmp_path) == {0: 0, 1: 1, 2: 0, 9: 0}
