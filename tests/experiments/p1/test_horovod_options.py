"""Problem 1's jobs from the command line: sizes, repetitions, places, names."""

from __future__ import annotations

import pytest

from experiments import p1_horovod
from experiments.cli import UsageError
from experiments.p1 import horovod_options
from experiments.store.provenance import run_id


def configs(*arguments: str) -> list[horovod_options.Config]:
    return horovod_options.series(p1_horovod.arguments().parse_args(arguments))[0]


def order(*arguments: str) -> list[tuple[int, int, bool]]:
    """Learners, repetition and all-reduce of the jobs, in the order that they run in."""
    return [(c.learners, c.repeat, c.job.allreduce) for c in configs(*arguments)]


def test_one_job_by_default() -> None:
    assert horovod_options.series(p1_horovod.arguments().parse_args([])) == (configs("--learners", "1"), False)
    assert order() == [(1, 1, True)]


def test_a_list_of_sizes() -> None:
    assert order("--learners", "4,1") == [(4, 1, True), (1, 1, True)]


def test_repetitions_alternate_and_independent_learners_follow() -> None:
    assert order("--learners", "1,2", "--repeats", "2", "--repeat", "3", "--independent-too") == [
        (1, 3, True), (1, 3, False), (2, 3, True), (2, 3, False),
        (2, 4, False), (2, 4, True), (1, 4, False), (1, 4, True),
    ]  # fmt: skip


def test_a_sweep_is_of_powers_of_two() -> None:
    assert [learners for learners, *_ in order("--sweep", "--no-allreduce")] == [1, 2, 4, 8, 16]
    assert order("--sweep", "-H", "node2:3,node3:3") == [(1, 1, True), (2, 1, True), (4, 1, True)]
    assert order("--sweep", "--hosts", "8") == [(8, 1, True), (16, 1, True)]


@pytest.mark.parametrize("more", [["--sweep"], ["--learners", "1,2"], ["--repeats", "2"], ["--independent-too"]])
def test_several_jobs_share_a_seed(more: list[str]) -> None:
    jobs, several = horovod_options.series(p1_horovod.arguments().parse_args(["--seed", "7", *more]))
    assert several and {c.job.seed for c in jobs} == {7}


def test_cores_are_counted_where_learners_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(horovod_options.cores, "siblings", lambda: {0: 0, 1: 0})

    def check_devices(hosts: str) -> None:
        horovod_options.check_devices(*configs("--learners", "4", "-H", hosts))

    check_devices("node2:4")
    check_devices("node2:2,localhost:2")
    with pytest.raises(UsageError, match="3 learners of 1 threads need 3 cores, this machine has 2"):
        check_devices("node2:1,localhost:3")


def test_learners_are_placed_host_by_host() -> None:
    (c,) = configs("--learners", "10", "-H", "a:8,b:8")
    assert c.placed() == [8, 2] and c.hosts == 2 and c.slug == "tensorflow-cpu-10-2hosts-r1"
    (c,) = configs("--learners", "8", "-H", "a:8,b:8", "--compile")
    assert c.placed() == [8, 0] and c.hosts == 1 and c.slug == "tensorflow-cpu-8-compiled-r1"
    (c,) = configs("--learners", "3", "--hosts", "2", "--gbit", "10", "--no-allreduce")
    assert c.placed() == [2, 1] and c.slug == "tensorflow-cpu-3-2hosts-10gbit-independent-r1"


def test_repetitions_and_settings_have_results_of_their_own() -> None:
    names = set()
    for more in (
        [],
        ["--repeat", "2"],
        ["--seed", "1"],
        ["--threads", "2"],
        ["--no-allreduce"],
        ["--epochs", "3"],
        ["--compile"],
    ):
        (c,) = configs(*more)
        names.add(run_id(c.slug, c.flat()))
    assert len(names) == 7
