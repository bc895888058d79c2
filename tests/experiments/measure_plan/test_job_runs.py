"""Jobs of a plan run by made-up scripts: progress, failures, what is run again, and an end within seconds."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import UsageError
from experiments.machine import allocation, child_script
from experiments.measure_plan import job_runs
from experiments.measure_plan.homework_jobs import Job
from experiments.store.provenance import Provenance
from tests.stored_run import origin

SCRIPT = """import sys, time
name = sys.argv[1]
print("name", name, flush=True)
if name == "bad":
    print("allreduce: learner 1 was killed", flush=True)
    print("some other line", flush=True)
    sys.exit(1)
time.sleep(0.15)
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose only script is made up; the folder of its results."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "allreduce.py").write_text(SCRIPT)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(child_script, "ROOT", tmp_path)
    monkeypatch.setenv(allocation.TOKEN, "a go")
    return tmp_path / "results"


def job(name: str, seconds: float = 1.0) -> Job:
    return Job(1, name, (), ("experiments/allreduce.py", name), seconds, name)


def test_a_failed_job_is_named_with_its_reason_and_the_others_run(
    scripts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed, unstarted = job_runs.run_all([job("one"), job("bad"), job("two")], scripts, None)
    assert [(one.what, why) for one, why in failed] == [("bad", "allreduce: learner 1 was killed")] and not unstarted
    said = capsys.readouterr().err
    assert said.index("one: done in") < said.index("bad: failed after") < said.index("two: done in")
    assert said.startswith("[1/3] one; 3 s left, ends about ")


def test_no_job_is_started_that_the_budget_does_not_hold(scripts: Path) -> None:
    failed, unstarted = job_runs.run_all([job("one"), job("two", 100)], scripts, 5)
    assert not failed and [one.what for one in unstarted] == ["two"]


def test_what_is_left_of_the_budget_goes_to_more_jobs(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first takes a fraction of its estimate, so the second, estimated as long, fits after it; the third never."""
    jobs = [job("one", 40), job("two", 40), Job(1, "long", (), ("experiments/allreduce.py", "long"), 1e6, "long")]
    failed, unstarted = job_runs.run_all(jobs[:1], scripts, 60, jobs, 1)
    said = capsys.readouterr().err
    assert not failed and not unstarted and "long" not in said
    assert said.index("one: done in") < said.index("s of the budget left: 1 more job\n[2/2] two; ")


def test_a_later_choice_keeps_the_plans_estimates_for_the_clock_to_correct(
    scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, real = list[tuple[str, float]](), job_runs.Sweep.run

    def noted(sweep: job_runs.Sweep, jobs: list[Job]) -> None:
        ran.extend((one.what, one.seconds) for one in jobs)
        real(sweep, jobs)

    monkeypatch.setattr(job_runs.Sweep, "run", noted)
    jobs = [job("one", 40), job("two", 50)]
    job_runs.run_all(jobs[:1], scripts, 60, jobs, 1)
    assert ran == [("one", 40), ("two", 50)]


def run_of(command: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Provenance:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    return origin(command=command, **changes)


def test_a_run_is_known_by_its_command_wherever_its_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(allocation.TOKEN, "a go")
    here = allocation.current()
    runs = [
        run_of("python -P experiments/allreduce.py one --repeat 1 --results /there", monkeypatch, allocation=here),
        run_of("python experiments/allreduce.py two --repeat 1 --results x", monkeypatch, allocation="another"),
        run_of("python experiments/allreduce.py three --repeat 1", monkeypatch, allocation=here,
               sources={"experiments/allreduce.py": "0" * 64}),
    ]  # fmt: skip
    (tmp_path / "allreduce").mkdir()
    monkeypatch.setattr(job_runs.parquet, "origins", lambda results: runs)
    assert list(job_runs.stored(tmp_path)) == [job("one").key]
    assert job_runs.others(tmp_path) == f"{tmp_path}: runs of another version (0000000) are measured again"
    runs.pop()
    assert "runs of another boot or go stay as they are" in str(job_runs.others(tmp_path))


def test_only_what_is_missing_is_run(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_of("python x", monkeypatch)
    monkeypatch.setattr(job_runs, "stored", lambda results: {job("one").key: before})
    job_runs.run_all([job("one"), job("two")], scripts, None)
    said = capsys.readouterr().err
    assert "1 of 2 jobs were finished before" in said and "[1/1] two" in said


def test_times_follow_what_jobs_took(monkeypatch: pytest.MonkeyPatch) -> None:
    started = datetime(2026, 1, 1, tzinfo=UTC)
    took = run_of("python x", monkeypatch, started=started, ended=started + timedelta(seconds=40))
    again = Job(1, "known", (), ("experiments/allreduce.py", "known"), 10.0, "known", 2)
    clock = job_runs.Clock({("experiments/allreduce.py", "known", "--repeat", "1"): took})
    assert clock.expects(again) == 40
    assert clock.expects(job("new", 10)) == 10
    clock.note(job("other", 10), 20)  # twice the estimate
    assert clock.expects(job("new", 10)) == 20


def test_a_folder_keeps_its_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(allocation.TOKEN, raising=False)
    job_runs.join_go(tmp_path)
    token = json.loads((tmp_path / job_runs.GO).read_text())["token"]
    monkeypatch.delenv(allocation.TOKEN)
    job_runs.join_go(tmp_path)
    assert os.environ[allocation.TOKEN] == token
    monkeypatch.delenv(allocation.TOKEN)
    (tmp_path / job_runs.GO).write_text("{")
    with pytest.raises(UsageError, match="is damaged; remove it to start anew"):
        job_runs.join_go(tmp_path)
