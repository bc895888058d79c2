"""What control groups of both versions grant, in a container or outside, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import UsageError
from experiments.machine import cores, cpu_quota


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system whose control groups are below the folder `groups`."""
    monkeypatch.setattr(cpu_quota, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cpu_quota, "ROOT", tmp_path / "groups")
    return tmp_path


def member(system: Path, membership: str, **files: str) -> None:
    """This process's membership, and files by their paths, where __ stands for a slash and _dot_ for a dot."""
    (system / "membership").write_text(membership)
    for name, text in files.items():
        path = system / "groups" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_no_limit(system: Path) -> None:
    assert cpu_quota.cores() is None and cpu_quota.throttled() == 0
    member(system, "0::/\n", cpu_dot_max="max 100000\n")
    assert cpu_quota.cores() is None


def test_the_smallest_limit_of_all_groups_around_counts(system: Path) -> None:
    member(
        system,
        "0::/pod/container\n",
        pod__cpu_dot_max="50000 100000\n",  # half a core
        pod__container__cpu_dot_max="200000 100000\n",
        pod__cpu_dot_stat="usage_usec 5\nnr_periods 9\nnr_throttled 3\n",
        pod__container__cpu_dot_stat="nr_throttled 4\n",
    )
    assert cpu_quota.cores() == 0.5 and cpu_quota.throttled() == 3 + 4


def test_the_first_version_and_a_path_of_the_host(system: Path) -> None:
    membership = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n"
    files = {"cfs_quota_us": "150000\n", "cfs_period_us": "100000\n", "stat": "nr_throttled 2\n"}
    member(system, membership, **{f"cpu,cpuacct__cpu_dot_{name}": text for name, text in files.items()})
    assert cpu_quota.cores() == 1.5 and cpu_quota.throttled() == 2
    member(system, membership, **{"cpu,cpuacct__cpu_dot_cfs_quota_us": "-1\n"})
    assert cpu_quota.cores() is None


def test_more_threads_than_the_quota_grants_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "siblings", lambda: {0: 0, 1: 0})
    monkeypatch.setattr(cpu_quota, "cores", lambda: 0.5)
    with pytest.raises(UsageError, match=r"learners of 1 threads need 2 cores, .*CPU quota is 0\.5; use fewer, raise"):
        cores.core_sets(2, 1)
    assert cores.core_sets(2, 1, oversubscribe=True) == [(0,), (1,)]
    monkeypatch.setattr(cpu_quota, "cores", lambda: 2.0)
    assert cores.core_sets(2, 1) == [(0,), (1,)]
