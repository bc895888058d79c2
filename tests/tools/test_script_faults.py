"""A killed script is asked only for what it started itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tools import script_faults
from tools.script_faults import MARK, Place, Script


class Shell(Place):
    """A place whose script is a line of the shell."""

    def start(self) -> subprocess.Popen[bytes]:
        with open(self.said, "wb") as said:
            own = os.environ | {MARK: self.mark}
            return subprocess.Popen(["sh", "-c", self.script.words], env=own, stderr=said, start_new_session=True)


def test_what_runs_on_is_found_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_faults, "PATIENCE", 1.0)
    place = Shell(Script("shell", "setsid sleep 60 & echo here >&2"), tmp_path)
    assert place.finish() is None
    assert place.left_running and not list(place.orphans())
    assert place.said.read_text() == "here\n"


def test_another_program_is_none_of_its_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parallel tests emulate hosts, whose network namespaces once counted as left behind."""
    monkeypatch.setattr(script_faults, "PATIENCE", 1.0)
    place = Shell(Script("shell", "exit 3"), tmp_path)
    with subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: "another"}) as other:
        assert place.finish() == "shell ended with 3: []"
        assert other.poll() is None and not place.left_running
        other.kill()


def test_a_kill_ends_the_script(tmp_path: Path) -> None:
    place = Shell(Script("shell", "echo begun >&2; exec sleep 60"), tmp_path)
    assert place.kill(2) == "begun\n"
    assert not list(place.orphans())
