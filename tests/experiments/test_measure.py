"""experiments/measure.py: the plan that it prints, bad input, and the whole way from a plan to the page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import measure
from experiments.cli import UsageError
from experiments.machine import allocation, child_script
from experiments.measure_plan import survey
from experiments.measure_plan.homework_jobs import Job
from experiments.store import parquet
from experiments.store.files import ROOT
from report import yours
from report.figures import machine
from tests.measure_machines import LAPTOP

# A run whose plan is three tiny all-reduces; their windows last long enough to be stopped in the second.
TINY = """
import sys
sys.path.insert(0, {root!r})
from experiments import measure
from experiments.measure_plan.homework_jobs import Job
words = ("experiments/allreduce.py", "--learners", "2", "--backend", "gloo", "--min-bytes", "1024", "--max-bytes",
         "4096", "--windows", "2", "--window-seconds", "0.05", "--oversubscribe")
measure.plan = lambda machine, problems: ([Job(1, "All-reduce", ("link",), words, 5.0, "curve")], [])
sys.exit(measure.main(["--results", {results!r}, "--repeats", "3", "--device", "cpu"]))
"""


# For a folder on PYTHONPATH: an interpreter, and those that it starts, without these packages.
HIDING = """
import sys
from importlib.machinery import PathFinder
class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in ("tensorflow", "horovod")
        return None if hidden else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""


@pytest.fixture
def laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "survey", lambda device, probe: LAPTOP)
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    monkeypatch.setenv(allocation.TOKEN, "a go")


@pytest.mark.usefixtures("laptop")
def test_a_dry_run_prints_commands_times_and_reasons_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    assert measure.main(["--dry-run", "--results", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 cores, a CPU; tensorflow, torch; data: none: images are synthetic\n\nProblem 1\n")
    assert "python experiments/p1_horovod.py --learners 2 --framework tensorflow" in said
    assert "left out: AUTO, NCCL and RING (2.6): needs two GPUs" in said
    assert f"results in {folder}" in said and not folder.exists()


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.machine.nvidia.gpus", lambda: [])
    with pytest.raises(UsageError, match="this machine has no NVIDIA GPU; use --device cpu"):
        survey.survey("gpu", ["false"])


@pytest.mark.usefixtures("laptop")
def test_a_machine_that_can_do_nothing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "plan", lambda machine, problems: ([], []))
    assert measure.main([]) == 2
    assert "this machine can run none of these jobs; the plan says what to install" in capsys.readouterr().err


@pytest.mark.usefixtures("laptop")
def test_failed_jobs_are_listed_with_the_command_that_repeats_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(1, "a job", ("1.1",), ("experiments/allreduce.py", "--learners", "2"), 1.0, "curve")
    monkeypatch.setattr(measure, "plan", lambda machine, problems: ([job], []))
    monkeypatch.setattr(child_script, "run", lambda arguments, tell: "learner 1 was killed")
    assert measure.main(["--results", str(tmp_path), "--repeats", "1"]) == 1
    said = capsys.readouterr().out
    assert f"failed: a job: learner 1 was killed\n  repeat: {job.command(tmp_path)}\n" in said


@pytest.mark.slow
def test_without_tensorflow_and_horovod_the_rest_runs_and_the_plan_says_what_installs_them(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    own = {name: value for name, value in os.environ.items() if name != allocation.TOKEN}
    own |= {"PYTHONPATH": str(tmp_path), "DLPERF_COMMIT": "0" * 40}
    options = ["--device", "cpu", "--problems", "1,2", "--repeats", "1", "--results", str(tmp_path / "mine")]
    done = subprocess.run([sys.executable, measure.__file__, *options], env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: Horovod's learners: Horovod is not installed; `make horovod`\n" in done.stdout
    assert "left out: All of it: TensorFlow is not installed; `pip install 'tensorflow-cpu'`\n" in done.stdout
    assert {run.provenance.experiment for run in parquet.runs(tmp_path / "mine")} == {"allreduce"}


@pytest.mark.slow
def test_the_whole_way_plan_run_kill_resume_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after its first job, the same command runs the other two, and the page has them all."""
    monkeypatch.delenv(allocation.TOKEN, raising=False)
    folder = tmp_path / "my-results"
    command = [sys.executable, "-c", TINY.format(root=str(ROOT), results=str(folder))]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("[2/3]"):
            break
    asked = time.monotonic()
    first.send_signal(signal.SIGINT)
    assert first.wait(15) == 130 and time.monotonic() - asked < 10
    assert "interrupted; finished jobs are kept; the same command goes on" in first.stderr.read()
    assert len(parquet.runs(folder)) == 1

    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "1 of 3 jobs were finished before" in again.stderr and "[2/2]" in again.stderr
    assert len({run.provenance.where for run in parquet.runs(folder)}) == 1 and len(parquet.runs(folder)) == 3

    monkeypatch.setenv(yours.FOLDERS, str(folder))
    (own,) = yours.own()
    text = "\n".join(piece for piece in machine.pieces(own) if isinstance(piece, str))
    assert "3 runs from 1 allocation" in text and "| allreduce" in text
    assert "*Not measured here:* `python experiments/p1_horovod.py" in text.replace("\u00a0", " ")
    assert "*No projection without one learner's runs:* `python experiments/measure.py --problems 1`" in text
