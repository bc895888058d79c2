"""experiments/scaling_fit.py: the command, what it replaces, and bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import scaling_fit
from experiments.store import parquet
from tests.measured_runs import Epochs

HEAD = "series,framework,network,machine,precision,node_learners,link_gbit_per_second,learners,per_learner_batch"
FEW = f"""{HEAD},unit,value,source
A,F,N,M,FP32,,,1,,images/s,100,me
A,F,N,M,FP32,,,2,,images/s,190,me
A,F,N,M,FP32,,,4,,images/s,360,me
A,F,N,M,FP32,,,8,,images/s,700,me
"""


def test_command_writes_projected_rows_and_names_its_inputs(
    measured: Epochs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path
    source = results / "few.csv"
    source.write_text(FEW + "B,F,N,other,FP32,,,1,,images/s,100,me\n")
    arguments = ["--references", str(source), "--draws", "100", "--results", str(results)]
    assert scaling_fit.main(arguments) == 0
    before = parquet.read("scaling_fit", results)
    source.write_text(FEW)
    assert scaling_fit.main([*arguments, "--seed", "1"]) == 0  # another setting stays beside it
    assert len(list((results / "scaling_fit").glob("*.parquet"))) == 2
    next(run for run in parquet.runs(results) if run.provenance.seed == 1).path.unlink()
    assert scaling_fit.main(arguments) == 0  # other inputs, which replace the earlier ones
    frame = parquet.read("scaling_fit", results)
    assert set(frame.kind) == {"projected"} and frame.run_id.nunique() == before.run_id.nunique() == 1
    own = frame[(frame.series == "A") & (frame.method == "curve")]
    assert list(own.role) == ["fitted"] * 3 + ["held out"] and own.low.notna().sum() == 1
    horovod = frame[frame.series.str.startswith("Horovod")]
    assert list(horovod.role) == ["fitted", "fitted", "held out"] and set(horovod.source) == {"measured"}
    (run,) = [run for run in parquet.runs(results) if run.provenance.experiment == "scaling_fit"]
    assert (
        "p1-4-1-True" in run.provenance.config["measured_runs"]
        and len(run.provenance.config["references_sha256"]) == 64
    )
    assert "experiments/scaling/scaling.csv" in run.provenance.sources and "scipy" in run.provenance.versions
    said = capsys.readouterr().err
    assert "B is left out: two points are needed" in said
    strategy = frame[frame.series.str.startswith("tf.distribute")]
    assert list(strategy.role) == ["fitted", "fitted", "held out"] and strategy.overhead_seconds.isna().all()


def test_bad_references_are_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    source = tmp_path / "series.csv"
    for text, message in (
        ("series,learners\n", "columns are missing"),
        (FEW.partition("A,F,N,M,FP32,,,2")[0], "nothing"),
    ):
        source.write_text(text)
        assert scaling_fit.main(["--references", str(source), "--draws", "100", "--results", str(tmp_path)]) == 2
        said = capsys.readouterr().err.splitlines()
        assert message in said[-1] and str(source) in said[-1]
    assert not (tmp_path / "scaling_fit").exists()


def test_an_untold_commit_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "yesterday's")
    assert scaling_fit.main(["--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("scaling_fit: DLPERF_COMMIT must be a commit")


def test_script_runs_from_anywhere_and_refuses_bad_levels(tmp_path: Path) -> None:
    command = [sys.executable, scaling_fit.__file__, "--level", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["scaling_fit: --level must lie between 0 and 1, and --draws be at least 100"]
