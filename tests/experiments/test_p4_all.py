"""All trainings of Problem 4 side by side: which are done, lanes with made-up trainings, small real ones, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import p4_all, p4_cutout
from experiments.machine import allocation, child_script
from experiments.p4 import wanted
from experiments.p4.training import Config, resolved
from experiments.p4.wanted import Training
from experiments.store.files import ROOT

BASE = resolved(Config("synthetic", "cutout", 1, 16, 100, "authors", "auto", "auto", 14, "cpu", 0))
GPU = replace(BASE, device="cuda")
SHORT = [Training("cutout", 1, 1, "authors", 0), Training("basic", 2, 2, "scaled", 1)]
Tell = Callable[[str], None]

# p4_all with a training that lasts: in a folder of its own, on a CPU.
LONG = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from experiments import p4_all
from experiments.machine import child_script
child_script.ROOT = Path({folder!r})
p4_all.datasets.load = lambda place, name: None
sys.exit(p4_all.main(["--data", "synthetic", "--device", "cpu", "--results", {folder!r}]))
"""


def trained(arguments: Sequence[str], tell: Tell, environment: Mapping[str, str]) -> str | None:
    """What a child does, in this process, with a shallow network and small batches."""
    a = p4_cutout.arguments().parse_args([*arguments[1:], "--depth", "14", "--batch-size", "16"])
    p4_cutout.run(p4_cutout.configure(a), a)
    return None


def training_of(arguments: Sequence[str]) -> Training:
    a = p4_cutout.arguments().parse_args(list(arguments[1:]))
    return Training(a.augment, a.M, a.epochs, a.schedule, a.seed)


class MadeUp:
    """Trainings that end at once: with an error, made of length and seed, or a reason why they failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcome: Callable[[Training], float | str | None]) -> None:
        self.lowest: dict[Training, float] = {}
        self.ran: list[tuple[Training, str]] = []
        self.words: list[Sequence[str]] = []
        self.at_once = self.most = 0
        self._outcome, self._lock = outcome, threading.Lock()
        monkeypatch.setattr(p4_all.Lanes, "lowest", lambda lanes: dict(self.lowest))
        monkeypatch.setattr(child_script, "run", self.run)

    def run(self, arguments: Sequence[str], tell: Tell, environment: Mapping[str, str]) -> str | None:
        one = training_of(arguments)
        with self._lock:
            self.ran.append((one, environment.get("CUDA_VISIBLE_DEVICES", "")))
            self.words.append(arguments)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(0.02)
        tell(", 1 of 9")
        with self._lock:
            self.at_once -= 1
            found = self._outcome(one)
            if isinstance(found, float):
                self.lowest[one] = found
        return found if isinstance(found, str) else None


def lanes(parts: list[str], tmp_path: Path, base: Config = GPU, seeds: int = 3) -> p4_all.Lanes:
    return p4_all.Lanes(parts, seeds, base, tmp_path, None)


@pytest.mark.usefixtures("one_thread", "small", "fixed_commit")
def test_what_is_stored_is_done_and_another_code_or_setting_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(child_script, "run", trained)
    monkeypatch.setattr(wanted, "wanted", lambda parts, seeds, lowest: [one for one in SHORT if one not in lowest])
    monkeypatch.setattr(p4_all, "BATCH", 16)
    monkeypatch.setattr(p4_all, "DEPTH", 14)
    monkeypatch.delenv(allocation.TOKEN, raising=False)
    command = ["--data", "synthetic", "--device", "cpu", "--results", str(tmp_path)]
    assert p4_all.main([*command, "--dry-run"]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "python experiments/p4_cutout.py --augment cutout --M 1 --epochs 1 --schedule authors --seed 0"
    )
    assert "--augment basic --M 2 --epochs 2 --schedule scaled --seed 1" in second and last.startswith("2 trainings")
    assert not list(tmp_path.iterdir())

    assert p4_all.main(command) == 0
    said = capsys.readouterr()
    assert said.out.endswith(f"2 trainings are stored in {tmp_path}; 0 still wanted\n")
    assert "p4_all: cpu: --augment basic --M 2 --epochs 2 --schedule scaled --seed 1: lowest error " in said.err
    stored = lanes([], tmp_path, BASE)
    assert set(stored.lowest()) == set(SHORT)
    assert lanes([], tmp_path, replace(BASE, precision="bf16")).lowest() == {}
    monkeypatch.setattr(p4_all, "device_name", lambda c: "another")
    assert stored.lowest() == {}
    monkeypatch.undo()
    monkeypatch.setattr("experiments.store.provenance.Provenance.stale", lambda origin: ["a source"])
    assert stored.lowest() == {}


def test_each_lane_has_a_gpu_of_its_own_and_the_search_goes_on_with_what_they_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {1: 101, 4: 80, 8: 60, 32: 60}
    made_up = MadeUp(monkeypatch, lambda one: 5.0 if one.epochs >= short[one.M] else 7.0)
    lanes(["shortest"], tmp_path).run(["0", "3"], None)
    tried = {m: sorted({(one.epochs, one.seed) for one, _ in made_up.ran if m == one.M}) for m in short}
    three = [0, 1, 2]
    assert tried[1] == [(40, 0), (80, 0), (100, 0)]
    assert tried[4] == [(40, 0), (60, 0), *((80, seed) for seed in three)]
    assert tried[8] == tried[32] == [(40, 0), *((60, seed) for seed in three), *((80, seed) for seed in three)]
    assert {gpu for _, gpu in made_up.ran} == {"0", "3"} and made_up.most == 2
    assert len(made_up.ran) == len(set(made_up.ran))


def test_a_line_says_how_far_each_lane_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MadeUp(monkeypatch, lambda one: 7.0)
    found, shown = lanes(["authors"], tmp_path, seeds=1), list[str]()
    monkeypatch.setattr(found._bar, "set_description_str", shown.append)
    found._listen("3", SHORT[1], "")
    found._listen("0", SHORT[0], ", 1 of 9")
    assert shown == ["3: M = 2", "0: M = 1, 1 of 9 | 3: M = 2"]
    found.run(["0", "3"], None)
    assert shown[-1] == ""


def test_a_failed_training_is_named_once_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up = MadeUp(monkeypatch, lambda one: "p4_cutout: the loss is not finite" if one.M == 4 else 7.0)
    monkeypatch.setattr(p4_all.datasets, "load", lambda place, name: None)
    command = [
        "--data",
        "synthetic",
        "--device",
        "cpu",
        "--seeds",
        "1",
        "--parts",
        "authors",
        "--results",
        str(tmp_path),
    ]
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    assert p4_all.main(command) == 1
    assert sorted(one.M for one, _ in made_up.ran) == [1, 1, 2, 4, 8, 16, 32]
    said = capsys.readouterr().out
    assert said.count("failed: p4_cutout: the loss is not finite\n  repeat: python experiments/p4_cutout.py") == 1
    assert said.endswith(f"6 trainings are stored in {tmp_path}; 1 still wanted\n")


def test_minutes_end_what_runs_and_start_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = MadeUp(monkeypatch, lambda one: None)  # stopped, with a checkpoint
    running = lanes(["authors"], tmp_path, seeds=30)
    running.run(["0"], 0.3 / 60)  # 0.02 s each
    assert 1 <= len(made_up.ran) <= 15 and not running.failed
    left = [float(words[words.index("--minutes") + 1]) for words in map(list, made_up.words)]
    assert left == sorted(left, reverse=True) and left[-1] > 0 and left[0] <= 0.3 / 60


def test_what_goes_wrong_in_a_lane_ends_the_others_and_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome(one: Training) -> float:
        if one.M == 32:
            raise OSError("no space left")
        return 7.0

    made_up = MadeUp(monkeypatch, outcome)
    with pytest.raises(OSError, match="no space left"):
        lanes(["authors"], tmp_path, seeds=30).run(["0", "1"], None)
    assert len(made_up.ran) < 3 * 30  # the baseline's, and a few of M = 32


def test_a_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    found = lanes([], tmp_path, BASE)
    assert "--resume" not in found.command(SHORT[0])
    a = p4_cutout.arguments().parse_args([*found.command(SHORT[0])[1:], "--depth", "14", "--batch-size", "16"])
    c = p4_cutout.configure(a)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"{p4_cutout.run_id(c.slug, vars(c))}.ckpt").touch()
    assert "--resume" in found.command(SHORT[0]) and "--resume" not in found.command(SHORT[1])
    there = p4_all.Lanes([], 3, BASE, tmp_path, Path("/data")).command(SHORT[0])
    assert there[there.index("--data-dir") + 1] == "/data" and there[-2:] == ["--results", str(tmp_path)]


def test_ctrl_c_ends_all_lanes_within_seconds(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "p4_cutout.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    script = LONG.format(root=str(ROOT), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "p4_all: cpu: --augment basic --M 1" in process.stderr.readline()
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130 and time.monotonic() - began < 10
    assert process.stderr.read().endswith(
        "p4_all: interrupted; finished trainings are kept; the same command goes on\n"
    )
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "p4_cutout.py --augment basic" not in running
