"""Problem 4's script: schedules, resuming bit for bit, and one clear line for whatever goes wrong."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import p4_cutout, store
from experiments.p4 import cuda_kernels, datasets, plain_engine, training
from experiments.p4.cifar10_archives import HOW_TO_GET_IT
from experiments.p4.synthetic import synthetic

pytestmark = pytest.mark.usefixtures("one_thread")

SCRIPT = Path(p4_cutout.__file__)
SMALL = synthetic(seed=0, train=96, test=40)
STEPS = 6  # of an epoch: 96 samples in batches of 16
# What a child process runs: the script on small data, with a checkpoint after every epoch, killed at a given call.
DRIVER = """
import os, pathlib, signal, sys
import torch
from experiments import p4_cutout
from experiments.p4 import datasets, plain_engine
from experiments.p4.synthetic import synthetic
small = synthetic(seed=0, train=96, test=40)
datasets.load = lambda data_dir, dataset: small
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


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: SMALL)


def command(where: Path, *more: str, epochs: int = 4) -> list[str]:
    base = ["--data", "synthetic", "--depth", "14", "--batch-size", "16", "--device", "cpu", "--epochs", str(epochs)]
    return [*base, "--results", str(where / "results"), "--checkpoints", str(where / "checkpoints"), *more]


def files(where: Path) -> dict[Path, bytes]:
    """All files below a folder; where empty folders are made doesn't matter."""
    return {path.relative_to(where): path.read_bytes() for path in where.rglob("*") if path.is_file()}


def numbers(where: Path) -> pd.DataFrame:
    """A run's rows without what differs between two runs: times."""
    frame = store.read("p4_cutout", where / "results")
    return frame.drop(columns=["train_seconds", "val_seconds", "wall_seconds", "setup_seconds", "started", "ended"])


def assert_same_bits(where: Path, whole: Path) -> None:
    pd.testing.assert_frame_equal(numbers(where), numbers(whole), check_exact=True)
    assert not files(where / "checkpoints")  # done with


def checkpoint(where: Path, *more: str) -> Path:
    """Train one epoch of four and stop."""
    assert p4_cutout.main(command(where, *more, "--minutes", "1e-9")) == 0
    assert not files(where / "results")
    (found,) = (where / "checkpoints").iterdir()
    return found


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr that is not the run's log."""
    log = re.compile(r"epoch +\d+ |\d{4}-\d\d-\d\dT|stopped after epoch|p4_cutout: no checkpoint of the finished run")
    lines = [line for line in capsys.readouterr().err.splitlines() if not log.match(line)]
    assert len(lines) == 1 and lines[0].startswith("p4_cutout: ")
    return lines[0].removeprefix("p4_cutout: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """An uninterrupted run of four epochs with M = 2; to be read only."""
    where = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda data_dir, dataset: SMALL)
        assert p4_cutout.main(command(where, "--M", "2")) == 0
    return where


@pytest.fixture(scope="module")
def first_epoch(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """The checkpoint of a run's first epoch; to be read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda data_dir, dataset: SMALL)
        return checkpoint(tmp_path_factory.mktemp("first_epoch"))


# ---- schedules -----------------------------------------------------------------------------------------------------


def rates(schedule: str, epochs: int) -> list[float]:
    return [training.learning_rate(epoch, schedule, epochs) for epoch in range(1, epochs + 1)]


def test_the_authors_schedule_drops_once_within_100_epochs() -> None:
    assert rates("authors", 100) == pytest.approx([0.1] * 81 + [0.01] * 19)
    assert rates("authors", 10) == [0.1] * 10


def test_the_scaled_schedule_has_all_three_drops() -> None:
    # After 40.5, 61 and 82 epochs: the first whole epochs behind these are numbers 42, 62 and 83.
    assert rates("scaled", 100) == pytest.approx([0.1] * 41 + [0.01] * 20 + [1e-3] * 21 + [1e-4] * 18)
    assert rates("scaled", 200) == rates("authors", 200)


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_a_run_writes_tidy_rows_and_its_log(whole: Path) -> None:
    frame = store.read("p4_cutout", whole / "results")
    assert frame.epoch.tolist() == [1, 2, 3, 4]
    assert (frame.dataset == "synthetic").all()
    assert (frame.steps == STEPS).all() and (frame.images == STEPS * 16 * 2).all()
    np.testing.assert_allclose(frame.wall_seconds, (frame.train_seconds + frame.val_seconds).cumsum())
    (written,) = (whole / "results" / "p4_cutout").glob("*.parquet")
    assert written.name.startswith("synthetic-cutout-M02-e4-authors-fp32-cpu-s0-")
    log = written.with_suffix(".log").read_text().splitlines()
    assert [line[:9] for line in log[1:]] == [f"epoch{epoch:4d}" for epoch in (1, 2, 3, 4)]
    assert f"{written.stem} on " in log[0]
    assert not list((whole / "checkpoints").glob("*"))


def test_training_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataclasses.replace(SMALL, train_images=SMALL.train_images[:32], train_labels=SMALL.train_labels[:32])
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: data)
    assert p4_cutout.main(command(tmp_path, "--augment", "none", epochs=25)) == 0
    frame = numbers(tmp_path)
    assert frame.train_loss.tail(5).mean() < 0.5 * frame.train_loss.iloc[0]  # it gets to know 32 images by heart
    assert frame.train_error.tail(5).mean() < 0.5 * frame.train_error.iloc[0]


def test_the_seed_makes_the_numbers(whole: Path, tmp_path: Path) -> None:
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--seed", "1", epochs=1)) == 0
    assert numbers(tmp_path).train_loss[0] != numbers(whole).train_loss[0]


def test_a_run_without_resume_starts_afresh_and_replaces_the_earlier_one(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    path.write_bytes(b"of no use")
    for _ in range(2):
        assert p4_cutout.main(command(tmp_path)) == 0
        assert numbers(tmp_path).epoch.tolist() == [1, 2, 3, 4]


# ---- resuming ------------------------------------------------------------------------------------------------------


def test_a_run_in_pieces_has_the_numbers_of_a_whole_one(whole: Path, tmp_path: Path) -> None:
    for _ in range(3):
        assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume", "--minutes", "1e-9")) == 0
        assert not files(tmp_path / "results")  # no row before the run is complete
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume", "--minutes", "1e-9")) == 0
    assert_same_bits(tmp_path, whole)
    frame = store.read("p4_cutout", tmp_path / "results")
    np.testing.assert_allclose(frame.wall_seconds, (frame.train_seconds + frame.val_seconds).cumsum())
    assert frame.setup_seconds.is_monotonic_increasing and frame.setup_seconds.nunique() == 4


def test_a_run_killed_again_and_again_has_the_numbers_of_a_whole_one(whole: Path, tmp_path: Path) -> None:
    def killed(method: str, call: int) -> str:
        run = [sys.executable, "-c", DRIVER, method, str(call), *command(tmp_path, "--M", "2", "--resume")]
        done = subprocess.run(run, env=os.environ | {"PYTHONPATH": str(store.ROOT)}, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL
        assert not files(tmp_path / "results")
        return done.stderr

    log = killed("step", STEPS + 3)  # amid the second epoch
    assert "from epoch 1" in log and "epoch   1" in log and "epoch   2" not in log
    log = killed("replace", 2)  # with the third epoch's checkpoint written under its temporary name
    assert "from epoch 2" in log and "epoch   3" in log and "epoch   4" not in log
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 0
    assert_same_bits(tmp_path, whole)
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
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path, "--M", "2")
    capsys.readouterr()
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
    path = tmp_path / "checkpoints" / first_epoch.name
    path.parent.mkdir()
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
    path = tmp_path / "checkpoints" / first_epoch.name
    path.parent.mkdir()
    torch.save(change(torch.load(first_epoch, weights_only=True)), path)
    refused(path, tmp_path, capsys)


def test_saving_again_alone_is_harmless(tmp_path: Path) -> None:
    """So that the test above can fail for nothing but its change."""
    path = checkpoint(tmp_path)
    torch.save(torch.load(path, weights_only=True), path)
    assert p4_cutout.main(command(tmp_path, "--resume")) == 0


def refused(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resuming names the checkpoint and leaves it as it is."""
    before = files(tmp_path)
    capsys.readouterr()
    assert p4_cutout.main(command(tmp_path, "--resume")) == 2
    assert re.fullmatch(rf"{re.escape(str(path))}: not a whole checkpoint \(.+\); remove it .+", complaint(capsys))
    assert files(tmp_path) == before


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = checkpoint(tmp_path / "mine")
    mine.write_bytes(checkpoint(tmp_path / "other", "--M", "2", "--seed", "3").read_bytes())
    before = files(tmp_path)
    capsys.readouterr()
    assert p4_cutout.main(command(tmp_path / "mine", "--resume")) == 2
    assert f"{mine}: belongs to another configuration (M=2, seed=3)" in complaint(capsys)
    assert files(tmp_path) == before


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(tmp_path)
    saved = torch.load(path, weights_only=True)
    saved["state"]["conv.weight"] = torch.zeros(3)
    torch.save(saved, path)
    capsys.readouterr()
    assert p4_cutout.main(command(tmp_path, "--resume")) == 2
    assert (
        complaint(capsys) == f"{path}: the state's 'conv.weight' does not fit this network; remove it to start afresh"
    )


def test_a_checkpoint_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    path = checkpoint(tmp_path)
    torch.save({"config": Hostile()}, path)
    capsys.readouterr()
    assert p4_cutout.main(command(tmp_path, "--resume")) == 2
    assert str(path) in complaint(capsys)
    assert not (tmp_path / "touched").exists()


# ---- what can go wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--M", "0"], "--M must be at least 1, not 0"),
        (["--epochs", "101"], "--epochs 101: the homework allows no run of more than 100 epochs"),
        (["--epochs", "0"], "--epochs must be at least 1, not 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--batch-size", "97"], "--batch-size 97 is more than the 96 training images"),
        (["--depth", "15"], "--depth must be 6n+2 with n ≥ 2 (14, 20, … 44, …), not 15"),
        (["--depth", "8"], "--depth must be 6n+2 with n ≥ 2 (14, 20, … 44, …), not 8"),
        (["--device", "tpu"], "--device must be auto, cpu or cuda, not tpu"),
        (["--engine", "fused"], "--engine fused needs a GPU; use --engine plain"),
        (["--minutes", "0"], "--minutes must be positive and finite, not 0.0"),
        (["--minutes", "nan"], "--minutes must be positive and finite, not nan"),
        (["--minutes", "inf"], "--minutes must be positive and finite, not inf"),
        (["--seed", str(2**63)], f"--seed must be at most {2**63 - 1}, not {2**63}"),
        (["--M", str(2**40)], f"--M times --batch-size must be at most {2**24}, not {2**44}"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
    ],
)
def test_bad_input_gets_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert p4_cutout.main([*command(tmp_path), *arguments]) == 2
    assert complaint(capsys) == said
    assert not files(tmp_path)


def test_a_gpu_that_is_not_there_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert p4_cutout.main([*command(tmp_path), "--device", "cuda"]) == 2
    assert complaint(capsys) == "--device cuda: PyTorch sees no GPU here; use --device cpu"


def test_the_greatest_seed_works(tmp_path: Path) -> None:
    assert p4_cutout.main(command(tmp_path, "--seed", str(2**63 - 1), epochs=1)) == 0
    assert set(store.read("p4_cutout", tmp_path / "results").seed) == {2**63 - 1}


@pytest.mark.parametrize(
    ("images", "advice"),
    [
        (3 * 16, "--M 2 does"),
        (4 * 16, "--M 4 does"),
        (5 * 16, "--M 4 does"),
        (15, "no smaller one does either; use a smaller --batch-size"),
    ],
)
def test_too_little_gpu_memory_says_which_m_fits(
    images: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A GPU that takes a number of images; also, that what failed is freed before the next try."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    step = plain_engine.PlainEngine.step

    def limited(engine: Any) -> None:
        alive.add(engine)
        assert len(alive) == 1
        if engine.table.shape[1] > images:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20.00 GiB")
        step(engine)

    monkeypatch.setattr(plain_engine.PlainEngine, "step", limited)
    assert p4_cutout.main(command(tmp_path, "--M", "8")) == 2
    assert complaint(capsys) == f"--M 8 does not fit this GPU's memory, {advice}"
    assert not files(tmp_path)


def test_too_little_memory_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plain_engine.PlainEngine, "step", lambda engine: torch.empty(2**50))  # PyTorch's own refusal
    assert p4_cutout.main(command(tmp_path, "--M", "2")) == 2
    assert complaint(capsys) == "--M 2 does not fit this machine's memory; use a smaller --M"


def test_other_failures_are_not_taken_for_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_engine.PlainEngine, "step", lambda engine: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        p4_cutout.main(command(tmp_path))


def test_kernels_that_do_not_build_get_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise cuda_kernels.KernelError("nvcc could not build cuda_kernels.cu: line 3: error\n1 error")

    monkeypatch.setattr(p4_cutout, "make_engine", broken)
    assert p4_cutout.main(command(tmp_path)) == 1
    assert complaint(capsys) == "nvcc could not build cuda_kernels.cu: line 3: error 1 error"


def test_a_missing_triton_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "experiments.p4.fused_engine", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)  # what Python takes for a module that is not there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert p4_cutout.main([*command(tmp_path), "--device", "cuda"]) == 2
    assert complaint(capsys) == "--engine fused needs triton, which is not installed; use --engine plain"


def test_the_script_needs_no_installation_and_says_in_one_line_how_to_get_missing_data(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "DLPERF_DATA"}}
    run = [sys.executable, str(SCRIPT), "--device", "cpu", "--data-dir", "nowhere", "--results", "results"]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"p4_cutout: no CIFAR-10 data: nowhere does not exist; {HOW_TO_GET_IT}\n"
    assert not files(tmp_path)


def test_a_commit_that_cannot_be_told_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "yesterday")
    assert p4_cutout.main(command(tmp_path)) == 2
    assert "DLPERF_COMMIT must be a commit" in complaint(capsys)
    assert not files(tmp_path)


@pytest.mark.parametrize("folder", ["results", "checkpoints"])
@pytest.mark.parametrize("below", ["", "folder"])
def test_a_folder_that_cannot_be_written_is_noticed_before_training(
    folder: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: pytest.fail("too late"))
    assert p4_cutout.main(command(tmp_path, f"--{folder}", str(tmp_path / "file" / below))) == 2
    assert re.search(r"(Not a directory|File exists): .*; earlier results are as they were", complaint(capsys))
    assert list(files(tmp_path)) == [Path("file")]


@pytest.mark.parametrize("folder", ["results", "checkpoints"])
def test_a_full_disk_is_noticed_before_training(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = tempfile.TemporaryFile

    def full(dir: Path) -> Any:
        return opened(dir=dir) if folder not in str(dir) else no_space(0)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: pytest.fail("too late"))
    assert p4_cutout.main(command(tmp_path)) == 2
    assert "No space left on device; earlier results" in complaint(capsys)


def no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_full_at_the_end_leaves_earlier_results_as_they_were(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(whole)
    monkeypatch.setattr(os, "fsync", no_space)
    assert p4_cutout.main(command(whole, "--M", "2")) == 2
    assert complaint(capsys).startswith("[Errno 28] No space left on device; earlier results are as they were, ")
    assert files(whole) == before


def test_results_that_could_not_be_written_need_no_training_to_be_written_later(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        no_space(0)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", full)
        assert p4_cutout.main(command(tmp_path, "--M", "2")) == 2
    assert "No space left on device; earlier results" in complaint(capsys)
    assert not files(tmp_path / "results")
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: pytest.fail("no need"))
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 0
    assert_same_bits(tmp_path, whole)


def test_a_finished_run_is_written_though_its_checkpoint_cannot_be(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        no_space(0)

    monkeypatch.setattr(p4_cutout, "save_checkpoint", full)
    assert p4_cutout.main(command(tmp_path, "--M", "2")) == 0
    assert "no checkpoint of the finished run: [Errno 28]" in capsys.readouterr().err
    assert_same_bits(tmp_path, whole)


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


def test_provenance_tells_the_code_that_the_run_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter("ab")
    monkeypatch.setattr(store, "git_state", lambda: (40 * next(commits), False))
    monkeypatch.setattr(store, "file_hash", lambda path: "as it was at the start")
    load = datasets.load

    def edited(*arguments: Any) -> Any:
        monkeypatch.setattr(store, "file_hash", lambda path: "edited")
        return load(*arguments)

    monkeypatch.setattr(datasets, "load", edited)
    assert p4_cutout.main(command(tmp_path, epochs=1)) == 0
    (run,) = store.runs(tmp_path / "results")
    assert run.provenance.git_commit == 40 * "a"
    assert set(run.provenance.sources.values()) == {"as it was at the start"}
    assert {"experiments/p4_cutout.py", "experiments/p4/plain_engine.py"} < set(run.provenance.sources)


def test_a_disk_full_at_a_checkpoint_leaves_the_last_one_to_go_on_from(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path, "--M", "2")
    before = files(tmp_path)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        patch.setattr(p4_cutout, "CHECKPOINT_SECONDS", 0)
        assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 2
    assert "No space left on device" in complaint(capsys)
    assert files(tmp_path) == before
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 0
    assert_same_bits(tmp_path, whole)


def test_a_run_that_diverges_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "LEARNING_RATE", float("nan"))
    assert p4_cutout.main(command(tmp_path)) == 1
    assert "not finite after epoch 1" in complaint(capsys)
    assert not files(tmp_path)
