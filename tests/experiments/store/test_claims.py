"""Two runs of one configuration at once: the second names the first, and a dead one is no obstacle."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import p4_cutout
from experiments.cli import UsageError
from experiments.store import claims
from experiments.store.claims import claimed, lock_of
from experiments.store.files import ROOT
from tests.p4_runs import complaint

# Claims the file, says so, and waits.
HOLDER = """
import sys
from pathlib import Path
from experiments.store.claims import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    started = list[subprocess.Popen[str]]()

    def start(path: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(path)]
        holder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(holder)
        assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
        return holder

    yield start
    for holder in started:
        holder.kill()
        holder.communicate()


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as error, claimed(path):
        pass
    return str(error.value)


def test_the_second_process_names_the_first(other: Callable[[Path], subprocess.Popen[str]], tmp_path: Path) -> None:
    path = tmp_path / "p4_cutout" / "run.parquet"
    first = other(path)
    said = refusal(path)
    what = (
        rf"run is being made by process {first.pid} on \S+ since \d{{4}}-\d\d-\d\d [\d:]+ UTC; wait for it, or end it"
    )
    assert re.fullmatch(what, said), said
    with claimed(path.with_name("other.parquet")):  # another configuration's
        pass
    first.communicate("")  # it ends
    with claimed(path):
        assert json.loads(lock_of(path).read_text())["process"] == str(os.getpid())
    assert list(path.parent.iterdir()) == []


def test_a_killed_holder_is_no_obstacle(other: Callable[[Path], subprocess.Popen[str]], tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    first = other(path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert lock_of(path).exists()
    with claimed(path):
        pass
    assert list(tmp_path.iterdir()) == []


def left_by(tmp_path: Path, machine: str, boot: str) -> Path:
    path = tmp_path / "run.parquet"
    said = {"machine": machine, "boot": boot, "process": "7", "started": "2027-01-01 00:00:00 UTC"}
    lock_of(path).write_text(json.dumps(said))
    return path


def test_another_machines_claim_is_kept(tmp_path: Path) -> None:
    path = left_by(tmp_path, "other", "another boot")
    before = lock_of(path).read_text()
    said = "run is being made by process 7 on other since 2027-01-01 00:00:00 UTC; where that has ended, remove "
    assert refusal(path) == f"{said}{lock_of(path)}"
    assert lock_of(path).read_text() == before


@pytest.mark.parametrize("what", ["rebooted", "other container", "damaged"])
def test_what_a_dead_run_of_this_machine_left_is_no_obstacle(tmp_path: Path, what: str) -> None:
    own = claims._this_process()
    machine = "other" if what == "other container" else own["machine"]
    path = left_by(tmp_path, machine, "before" if what == "rebooted" else own["boot"])
    if what == "damaged":
        lock_of(path).write_text('{"machine":')
    with claimed(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_claim_inside_a_claim_ends_with_the_outer_one(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    with claimed(path):
        with claimed(path):
            pass
        assert lock_of(path).exists()
    assert not lock_of(path).exists()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    target.write_text("mine")
    lock_of(tmp_path / "run.parquet").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), claimed(tmp_path / "run.parquet"):
        pass
    assert target.read_text() == "mine"


def test_a_file_system_without_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with claimed(tmp_path / "run.parquet"):
        pass
    assert list(tmp_path.iterdir()) == []


# ---- scripts -------------------------------------------------------------------------------------------------------


def test_a_training_refuses_before_it_starts(
    other: Callable[[Path], subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [*["--data", "synthetic", "--depth", "14", "--device", "cpu", "--epochs", "1", "--results"], str(tmp_path)]
    seen = list[Path]()

    def stop(*_: Any) -> bool:
        seen.extend(claims._held)
        return False

    monkeypatch.setattr(p4_cutout, "train_on", stop)
    assert p4_cutout.main(asked) == 0
    first = other(seen[0])
    assert p4_cutout.main(asked) == 2
    assert f"is being made by process {first.pid} on" in complaint(capsys)
