"""experiments.p4.checkpoint, through p4_cutout.py: resuming bit for bit, and checkpoints that are none."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import p4_cutout
from experiments.p4 import checkpoint as checkpoints
from experiments.p4 import datasets, plain_engine
from experiments.store import parquet
from experiments.store.files import ROOT, write_atomically
from tests.p4_runs import STEPS, assert_same_bits, begun, checkpoint, command, complaint, files, no_space

pytestmark = pytest.mark.usefixtures("one_thread", "small")

# What a child process runs: the script on small data, with a checkpoint after every epoch, killed at a given call.
DRIVER = """
import os, pathlib, signal, sys
import torch
from experiments import p4_cutout
from experiments.p4 import checkpoint as checkpoints
from experiments.p4 import datasets, plain_engine
from tests.p4_runs import SMALL
datasets.load = lambda data_dir, dataset: SMALL
p4_cutout.CHECKPOINT_SECONDS = 0
torch.set_num_threads(1)
owner = {"step": plain_engine.PlainEngine, "replace": pathlib.Path}[sys.argv[1]]
method, calls = getattr(owner, sys.argv[1]), []
def kill(*args):
    calls.append(args)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return method(*args)
setattr(owner, sys.argv[1], kill)
sys.exit(p4_cutout.main(sys.argv[3:]))
"""


# ---- resuming ------------------------------------------------------------------------------------------------------


def test_a_run_in_pieces_has_the_numbers_of_a_whole_one(whole: Path, tmp_path: Path) -> None:
    for _ in range(3):
        assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume", "--minutes", "1e-9")) == 0
        assert not files(tmp_path / "results")  # no row before the run is complete
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume", "--minutes", "1e-9")) == 0
    assert_same_bits(tmp_path, whole)
    frame = parquet.read("p4_cutout", tmp_path / "results")
    np.testing.assert_allclose(frame.wall_seconds, (frame.train_seconds + frame.val_seconds).cumsum())
    assert frame.setup_seconds.is_monotonic_increasing and frame.setup_seconds.nunique() == 4


@pytest.mark.slow
def test_a_run_killed_again_and_again_has_the_numbers_of_a_whole_one(whole: Path, tmp_path: Path) -> None:
    def killed(method: str, call: int) -> str:
        run = [sys.executable, "-c", DRIVER, method, str(call), *command(tmp_path, "--M", "2", "--resume")]
        done = subprocess.run(run, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL
        assert [path.suffix for path in files(tmp_path / "results")] == [".lock"]  # what nobody holds is no obstacle
        return done.stderr

    log = killed("step", STEPS + 2)  # amid the second epoch
    assert "from epoch 1" in log and "epoch   1" in log and "epoch   2" not in log
    log = killed("replace", 2)  # with the third epoch's checkpoint written under its temporary name
    assert "from epoch 2" in log and "epoch   3" in log and "epoch   4" not in log
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 0
    assert_same_bits(tmp_path, whole)
    assert sorted(path.suffix for path in files(tmp_path / "results")) == [".log", ".parquet"]
    (written,) = (tmp_path / "results" / "p4_cutout").glob("*.log")
    starts = re.findall(r"from epoch (\d)", written.read_text())
    assert starts == ["1", "2", "3"]


def at_call(number: int, method: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
    calls = 0

    def counted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return method(*args)

    return counted


def test_ctrl_c_says_how_to_go_on(
    whole: Path,
    first_epoch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun(first_epoch, tmp_path)
    with monkeypatch.context() as patch:
        press = at_call(3, plain_engine.PlainEngine.step, lambda: signal.raise_signal(signal.SIGINT))
        patch.setattr(plain_engine.PlainEngine, "step", press)
        assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 130
    assert complaint(capsys) == "interrupted; continue with --resume from the last checkpoint"
    assert not files(tmp_path / "results")
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 0
    assert_same_bits(tmp_path, whole)


def changed(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A checkpoint's content with changes to its first row."""
    first, *rest = content["rows"]
    return content | {"rows": [first | changes, *rest]}


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"x" * 1000,
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :],
    ],
    ids=["torn", "garbage", "empty", "one flipped bit"],
)
def test_a_damaged_checkpoint_is_named_and_kept(
    damage: Callable[[bytes], bytes], first_epoch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = begun(first_epoch, tmp_path)
    path.write_bytes(damage(first_epoch.read_bytes()))
    refused(path, tmp_path, capsys)


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: [1, 2],
        lambda saved: saved | {"config": None},
        lambda saved: saved | {"state": [1]},
        lambda saved: saved | {"state": saved["state"] | {"conv.weight": 1.0}},
        lambda saved: saved | {"log": "a line"},
        lambda saved: saved | {"log": [1]},
        lambda saved: saved | {"rows": {}},
        lambda saved: saved | {"rows": [1]},
        lambda saved: saved | {"rows": saved["rows"] * 5},
        lambda saved: saved | {"rows": [saved["rows"][0] | {"epoch": k} for k in range(1, 6)]},
        lambda saved: saved | {"started": "yesterday"},
        lambda saved: saved | {"started": 1},
        lambda saved: saved | {"more": 1},
        lambda saved: {k: v for k, v in saved.items() if k != "log"},
        lambda saved: changed(saved, epoch=2),
        lambda saved: changed(saved, more=1),
        lambda saved: changed(saved, wall_seconds=None),
        lambda saved: changed(saved, setup_seconds="1"),
        lambda saved: changed(saved, train_loss=float("nan")),
        lambda saved: changed(saved, steps=6.0),
    ],
)
def test_a_checkpoint_of_another_form_is_named_and_kept(
    change: Callable[[Any], Any], first_epoch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = begun(first_epoch, tmp_path)
    torch.save(change(torch.load(first_epoch, weights_only=True)), path)
    refused(path, tmp_path, capsys)


def test_saving_again_alone_is_harmless(first_epoch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that the test above can fail for nothing but its change."""
    path = begun(first_epoch, tmp_path)
    torch.save(torch.load(path, weights_only=True), path)
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume", "--minutes", "1e-9")) == 0
    assert "stopped after epoch 2" in capsys.readouterr().err


def refused(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resuming names the checkpoint and leaves it as it is."""
    before = files(tmp_path)
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 2
    assert re.fullmatch(rf"{re.escape(str(path))}: not a whole checkpoint \(.+\); remove it .+", complaint(capsys))
    assert files(tmp_path) == before


def test_a_checkpoint_of_another_configuration_is_refused(
    first_epoch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = begun(first_epoch, tmp_path / "mine")
    mine.write_bytes(checkpoint(tmp_path / "other", "--M", "1", "--seed", "3").read_bytes())
    before = files(tmp_path)
    capsys.readouterr()
    assert p4_cutout.main(command(tmp_path / "mine", "--M", "2", "--resume")) == 2
    assert f"{mine}: belongs to another configuration (M=1, seed=3)" in complaint(capsys)
    assert files(tmp_path) == before


def test_a_checkpoint_of_another_network_is_refused(
    first_epoch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = begun(first_epoch, tmp_path)
    saved = torch.load(path, weights_only=True)
    saved["state"]["conv.weight"] = torch.zeros(3)
    torch.save(saved, path)
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 2
    assert (
        complaint(capsys) == f"{path}: the state's 'conv.weight' does not fit this network; remove it to start afresh"
    )


def test_a_checkpoint_runs_no_code(first_epoch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    path = begun(first_epoch, tmp_path)
    torch.save({"config": Hostile()}, path)
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 2
    assert str(path) in complaint(capsys)
    assert not (tmp_path / "touched").exists()


# ---- the end of a run ----------------------------------------------------------------------------------------------


def test_results_that_could_not_be_written_need_no_training_to_be_written_later(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        no_space(0)

    with monkeypatch.context() as patch:
        patch.setattr("experiments.store.parquet.write", full)
        assert p4_cutout.main(command(tmp_path, "--M", "2")) == 2
    assert "No space left on device; earlier results" in complaint(capsys)
    assert not files(tmp_path / "results")
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: pytest.fail("no need"))
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 0
    assert_same_bits(tmp_path, whole)


@pytest.mark.parametrize("writes", [[1], [4], [1, 2, 3, 4]], ids=["in mid-run", "at the end", "always"])
def test_a_checkpoint_on_a_full_disk_costs_a_warning_that_names_it_and_no_result(
    writes: list[int],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = itertools.count(1)

    def full_at_times(path: Path, data: bytes) -> None:
        with monkeypatch.context() as patch:
            if next(count) in writes:
                patch.setattr(os, "fsync", no_space)
            write_atomically(path, data)

    monkeypatch.setattr(checkpoints, "write_atomically", full_at_times)
    monkeypatch.setattr(p4_cutout, "CHECKPOINT_SECONDS", 0)  # one after each of the four epochs
    assert p4_cutout.main(command(tmp_path, "--M", "2")) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    (name,) = (path.stem for path in (tmp_path / "results").rglob("*.parquet"))
    assert warnings == [
        f"p4_cutout: warning: no checkpoint after epoch {epoch}, the run goes on: [Errno 28] No space left on device: "
        f"'{tmp_path / 'checkpoints' / name}.ckpt'"
        for epoch in writes
    ]
    assert_same_bits(tmp_path, whole)


def test_a_run_that_stops_for_its_checkpoint_fails_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", no_space)
    assert p4_cutout.main(command(tmp_path, "--minutes", "1e-9")) == 2
    assert re.search(r"No space left on device: '.*\.ckpt'; earlier results", complaint(capsys))
    assert not files(tmp_path)


def test_resuming_a_complete_run_trains_nothing(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(whole)
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: pytest.fail("no need"))
    assert p4_cutout.main(command(whole, "--M", "2", "--resume")) == 0
    (written,) = (whole / "results").rglob("*.parquet")
    out, err = capsys.readouterr()
    assert out == f"{written}\n"
    assert err == "p4_cutout: this run is complete, nothing to resume; its results:\n"
    assert files(whole) == before


def test_resuming_replaces_results_that_cannot_be_read(whole: Path, tmp_path: Path) -> None:
    (written,) = (whole / "results").rglob("*.parquet")
    torn = tmp_path / written.relative_to(whole)
    torn.parent.mkdir(parents=True)
    torn.write_bytes(written.read_bytes()[:-100])
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 0
    assert_same_bits(tmp_path, whole)


def test_a_disk_full_at_a_checkpoint_leaves_the_last_one_to_go_on_from(
    whole: Path,
    first_epoch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun(first_epoch, tmp_path)
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        patch.setattr(p4_cutout, "CHECKPOINT_SECONDS", 0)
        assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 2
    assert "No space left on device" in complaint(capsys)
    assert files(tmp_path) == before
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 0
    assert_same_bits(tmp_path, whole)
