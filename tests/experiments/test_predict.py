"""experiments/predict.py: the table, and bad input in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import predict
from experiments.store.files import RESULTS


def test_the_committed_runs_are_projected_with_interval_errors_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--from", str(RESULTS), "--learners", "8", "--link", "100gbit", "--price", "2.5"]
    assert predict.main(arguments) == 0
    said = capsys.readouterr().out
    assert said.startswith("PROJECTION from one learner: ") and "a link of 100 Gbit/s, given" in said
    (eight,) = [line for line in said.splitlines() if line.split()[:1] == ["8"]]
    assert "%" in eight and "$" in eight and "–" in eight
    assert "committed GPUs (" in said and "published K80 clusters: " in said


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--from", "nowhere"], "there is no such folder"),
        (["--learners", "0"], "--learners must be at least 1, not 0"),
        (["--price", "-1"], "--price must be positive and finite, not -1"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    assert predict.main(arguments) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--link", "fast"], ["--link", "0gbit"], ["--learners", "many"]])
def test_unreadable_options_are_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        predict.main(arguments)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_without_runs_says_what_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main(["--from", str(tmp_path)]) == 2
    assert "has no run of one learner; make some: python experiments/measure.py" in capsys.readouterr().err
