"""experiments/scaling_ahead.py: what it writes, what is committed, and bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import scaling_ahead
from experiments.store import parquet
from tests.measured_runs import Epochs


@pytest.fixture
def gpus(measured: Epochs) -> Epochs:
    """Problem 1's runs on GPUs alone."""
    measured["p2_strategy"] = [row | {"device_kind": "cpu"} for row in measured["p2_strategy"]]
    return measured


def test_command_writes_a_projection_that_names_its_runs(gpus: Epochs, tmp_path: Path) -> None:
    assert scaling_ahead.main(["--learners", "8", "--results", str(tmp_path)]) == 0
    (run,) = parquet.runs(tmp_path)
    assert run.provenance.kind == "projected" and run.path.name.startswith("ahead-8-")
    assert run.provenance.config["measured_runs"] == ["p1-1-1-True", "p1-2-1-True", "p1-4-1-True"]
    rows = parquet.read("scaling_ahead", tmp_path)
    assert list(rows[rows.role == "projected"].learners) == [8]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--learners", "4"], "has no series of 1 GPU and another number of them below 4"),
        (["--learners", "0"], "--learners must be at least 1, not 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    gpus: Epochs, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert scaling_ahead.main([*arguments, "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1 and not list(tmp_path.glob("scaling_ahead/*"))


def test_the_committed_prediction_can_be_read() -> None:
    rows = parquet.read("scaling_ahead")
    assert set(rows.kind) == {"projected"} and {"fitted", "projected"} == set(rows.role)
