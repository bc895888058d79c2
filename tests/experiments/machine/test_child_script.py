"""Scripts as child processes, with made-up scripts: progress, the reason of a failure, an end within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.machine import child_script

SCRIPT = """import os, sys, time
from tqdm import tqdm
name = sys.argv[1]
if name == "bad":
    print("made_up: the cause", flush=True)
    print("some other line", flush=True)
    sys.exit(1)
if name == "silent":
    sys.exit(3)
if name == "variable":
    sys.exit(os.environ["CHILD"] + os.environ["PARENT"] != "onetwo")
for _ in tqdm(range(3), desc="slug", mininterval=0, disable=None):
    time.sleep(0.05)
if name == "slow":
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose only script is made up."""
    (tmp_path / "made_up.py").write_text(SCRIPT)
    monkeypatch.setattr(child_script, "ROOT", tmp_path)


def quiet(done: str) -> None:
    pass


def test_progress_is_read_from_the_scripts_own_bars() -> None:
    told: list[str] = []
    assert child_script.run(["made_up.py", "one"], told.append) is None
    assert [line for line in dict.fromkeys(told) if line] == [", 0 of 3", ", 1 of 3", ", 2 of 3", ", 3 of 3"]


def test_a_failed_script_has_its_own_last_line_as_its_reason() -> None:
    assert child_script.run(["made_up.py", "bad"], quiet) == "made_up: the cause"
    assert child_script.run(["made_up.py", "silent"], quiet) == "ended with status 3"


def test_variables_of_its_own_stand_beside_the_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARENT", "two")
    assert child_script.run(["made_up.py", "variable"], quiet, {"CHILD": "one"}) is None
    assert "CHILD" not in os.environ


def test_an_interrupted_script_is_ended_within_seconds() -> None:
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        child_script.run(["made_up.py", "slow"], quiet)
    assert time.monotonic() - began < 10
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"{sys.executable} made_up.py slow" not in running.splitlines()


def test_one_that_its_listener_gives_up_is_ended() -> None:
    def tired(done: str) -> None:
        if done == ", 3 of 3":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        child_script.run(["made_up.py", "slow"], tired)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"{sys.executable} made_up.py slow" not in running.splitlines()
