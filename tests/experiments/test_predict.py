"""experiments/predict.py: the table, and bad input in one line."""

from __future__ import annotations

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
