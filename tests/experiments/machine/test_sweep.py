"""Series of jobs: their order, what is left to run, the plan, and what happens when one fails."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import RunError, UsageError
from experiments.machine import allocation, sweep
from experiments.store import parquet, suspicious
from experiments.store.claims import lock_of
from experiments.store.provenance import provenance, timed_id

EXPERIMENT = "p4_masked_area"  # a small schema


@dataclass(frozen=True)
class Job:
    learners: int
    repeat: int = 1

    @property
    def slug(self) -> str:
        return f"job-{self.learners}-r{self.repeat}"

    def flat(self) -> dict[str, Any]:
        return {"learners": self.learners, "repeat": self.repeat}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(allocation.TOKEN, "this go")
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)


def stored(job: Job, results: Path, seconds: float = 30) -> Path:
    """A stored run of the job in this allocation, which took so many seconds."""
    import pandas as pd

    row = {"length": 16, "side": 32, "draws": 2, "mean_share": 0.5, "standard_error": 0.1}
    name = timed_id(job.slug, job.flat())
    ended = datetime.now(UTC)
    origin = provenance(EXPERIMENT, name, job.flat(), seed=0, device="cpu", started=ended)
    origin = origin.model_copy(update={"started": ended - timedelta(seconds=seconds), "ended": ended})
    return parquet.write(pd.DataFrame([row]), origin, results=results)


def at_most(most: int):  # type: ignore[no-untyped-def]
    def check(job: Job) -> None:
        if job.learners > most:
            raise UsageError(f"{job.learners} are too many")

    return check


def test_repetitions_go_back_and_forth() -> None:
    jobs = sweep.alternating(lambda repeat: [Job(n, repeat) for n in (1, 2, 4)], repeats=3, first=5)
    assert [(job.learners, job.repeat) for job in jobs] == [
        (1, 5), (2, 5), (4, 5), (4, 6), (2, 6), (1, 6), (1, 7), (2, 7), (4, 7),
    ]  # fmt: skip


def test_jobs_that_the_machine_is_too_small_for_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [Job(1), Job(2), Job(4), Job(4, 2), Job(2, 2)]
    assert sweep.fitting(jobs, at_most(2)) == [Job(1), Job(2), Job(2, 2)]
    assert capsys.readouterr().err == "larger jobs left out: 4 are too many\n"
    with pytest.raises(UsageError, match="2 are too many"):
        sweep.fitting([Job(2), Job(4)], at_most(1))


def test_finished_jobs_of_this_allocation_are_skipped_and_others_start_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(Job(2), tmp_path)
    ran: list[Job] = []

    def run(job: Job) -> None:
        ran.append(job)

    sweep.run_all(EXPERIMENT, [Job(1), Job(2)], tmp_path, run, skip_finished=True, goes_on=True)
    assert ran == [Job(1)]
    assert "job-2-r1: finished before, skipped" in capsys.readouterr().err
    sweep.run_all(EXPERIMENT, [Job(2)], tmp_path, run, skip_finished=False, goes_on=True)
    assert ran == [Job(1), Job(2)]
    capsys.readouterr()
    monkeypatch.setenv(allocation.TOKEN, "another go")
    sweep.run_all(EXPERIMENT, [Job(1), Job(2)], tmp_path, run, skip_finished=True, goes_on=True)
    assert ran == [Job(1), Job(2), Job(1), Job(2)]
    assert "1 of these jobs were run in another allocation" in capsys.readouterr().err


def test_the_plan_comes_first_with_an_estimate_from_earlier_repetitions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [Job(1, 2), Job(2, 2)]
    said: list[str] = []

    def run(job: Job) -> None:
        said.append(capsys.readouterr().err)

    sweep.run_all(EXPERIMENT, jobs, tmp_path, run, skip_finished=False, goes_on=True)
    assert said[0].startswith("plan: 2 jobs, of unknown length; to go on after a stop: DLPERF_ALLOCATION=this go\n")
    assert "  job-1-r2\n  job-2-r2\n" in said[0]
    stored(Job(1), tmp_path, seconds=100)
    stored(Job(2), tmp_path, seconds=200)
    assert sweep.estimate(jobs, parquet.origins(EXPERIMENT, tmp_path)) == pytest.approx(300)
    stored(Job(2, 3), tmp_path, seconds=260)
    assert sweep.estimate(jobs, parquet.origins(EXPERIMENT, tmp_path)) == pytest.approx(100 + 230)
    assert sweep.estimate([*jobs, Job(4)], parquet.origins(EXPERIMENT, tmp_path)) is None


def test_a_failed_job_is_named_and_the_others_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(job: Job) -> Path:
        if job.learners == 2:
            raise RunError("learner 1 was killed by signal 9")
        return tmp_path / job.slug

    jobs = [Job(1), Job(2), Job(4)]
    with pytest.raises(RunError, match=r"^1 of 3 jobs failed: job-2-r1: learner 1 was killed by signal 9$"):
        sweep.run_all(EXPERIMENT, jobs, tmp_path, run, skip_finished=False, goes_on=True)
    assert capsys.readouterr().out.split() == [str(tmp_path / "job-1-r1"), str(tmp_path / "job-4-r1")]
    with pytest.raises(RunError, match=r"^learner 1 was killed"):
        sweep.run_all(EXPERIMENT, jobs, tmp_path, run, skip_finished=False, goes_on=False)


def test_a_job_that_another_process_runs_is_refused_and_none_follows(tmp_path: Path) -> None:
    jobs = [Job(1), Job(2)]
    path = parquet.path_of(EXPERIMENT, timed_id(jobs[0].slug, jobs[0].flat()), tmp_path)
    path.parent.mkdir()
    with lock_of(path).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="is being made by another process; wait for it, or end it"):
            sweep.run_all(EXPERIMENT, jobs, tmp_path, lambda job: pytest.fail(), skip_finished=True, goes_on=True)


def test_suspicious_runs_are_named_when_all_have_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [timed_id(job.slug, job.flat()) for job in (Job(1), Job(2))]
    flags = [suspicious.Flag(names[0], "too fast"), suspicious.Flag("another", "too fast")]
    monkeypatch.setattr(suspicious, "find", lambda experiment, results: flags)
    jobs = [Job(1), Job(2)]
    sweep.run_all(EXPERIMENT, jobs, tmp_path, lambda job: stored(job, tmp_path), skip_finished=True, goes_on=True)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        f"warning: {names[0]} is suspicious: too fast; answers leave it out until explained.csv explains it"
    ]


def test_a_job_is_claimed_while_it_runs(tmp_path: Path) -> None:
    def run(job: Job) -> Path:
        (lock,) = (tmp_path / EXPERIMENT).glob(".*.lock")
        assert job.slug in lock.name
        return stored(job, tmp_path)

    assert sweep.run_all(EXPERIMENT, [Job(1), Job(2)], tmp_path, run, skip_finished=True, goes_on=True) == 0
    assert not list((tmp_path / EXPERIMENT).glob(".*"))
