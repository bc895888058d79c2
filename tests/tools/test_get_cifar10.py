"""tools/get_cifar10.py, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from experiments.store.files import ROOT
from tests.cifar10_files import binary_files, put

SCRIPT = ROOT / "tools" / "get_cifar10.py"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "DLPERF_DATA"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=kept | environment, cwd="/"
    )


def test_command_refuses_bad_input_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, binary_files())  # the real command expects the real size
    for done in (command(), command("--data-dir", "/nowhere"), command(DLPERF_DATA=str(tmp_path))):
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("get_cifar10: ") and done.stderr.count("\n") == 1


def test_command_shows_what_it_found() -> None:
    done = command("--data", "synthetic")
    assert done.returncode == 0 and done.stderr == ""
    assert "(5000, 32, 32, 3)" in done.stdout and done.stdout.count("sha256") == 4
