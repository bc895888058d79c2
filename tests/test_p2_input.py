"""Problem 2's input benchmark runs, and refuses what it can't do in one line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from benchmarks import p2_input


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
def test_both_contenders_are_timed() -> None:
    small = ["--network", "tiny", "--data", "synthetic", "--steps", "3", "--windows", "2"]
    done = subprocess.run([sys.executable, p2_input.__file__, *small], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    first, second, verdict = done.stdout.splitlines()
    assert first.startswith("input pipeline: ") and second.startswith("resident batch: ")
    assert ("keeps up" in verdict) == (done.returncode == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--windows", "0"], "--windows must be at least 1, not 0"),
        (["--data", "synthetic", "--per-learner-batch", "3000"], "--per-learner-batch is more than the 2,000 images"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert p2_input.main(arguments) == 2
    assert capsys.readouterr().err == f"p2_input: {message}\n"
