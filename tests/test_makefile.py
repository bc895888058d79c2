"""`make report QUARTO=install` tries once to install Quarto, says in a line that it can't, and renders anyway."""

from __future__ import annotations

import subprocess
from pathlib import Path

from experiments.store.files import ROOT

PYTHON = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *quarto*) echo "Traceback (most recent call last):" >&2; echo "tarfile.ReadError: not a gzip file" >&2; exit 1;;
  *"-m report"*) echo "rendered with $PATH";;
esac
"""


def test_quarto_is_tried_once_and_its_failure_is_a_line(tmp_path: Path) -> None:
    venv, log = tmp_path / "venv", tmp_path / "log"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(PYTHON.format(log=log))
    (venv / "bin" / "python").chmod(0o755)

    def report(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", "report", f"VENV={venv}", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    first, second = report("QUARTO=install"), report("QUARTO=install")
    assert first.stderr.count("\n") == 1 and "Quarto could not be installed" in first.stderr
    assert "tarfile" in (venv / "quarto.log").read_text()
    assert second.stderr == "" and f"rendered with {venv}/bin:" in second.stdout
    assert sum("[quarto]" in line for line in log.read_text().splitlines()) == 1


def test_without_being_asked_for_quarto_is_not_tried(tmp_path: Path) -> None:
    command = ["make", "-n", "report", f"VENV={tmp_path}"]
    assert "quarto" not in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
