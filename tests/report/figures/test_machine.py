"""The page of a reader's machine, from hand-made runs."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pandas as pd
import pytest

from experiments.cli import UsageError
from experiments.scaling import outlook
from experiments.scaling.outlook import Link, Series
from experiments.store.files import ROOT
from report import yours
from report.answers import Answer, Missing
from report.figures import augmentation_runs, horovod_runs, machine, strategy_runs
from report.yours import Own
from tests.p1_runs import BOTH, NONE, cores, gpus, lines, runs
from tests.stored_run import origin

MINE = Own("yours: 2 × RTX 4090", Path("mine"))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader has one and two GPUs; two do 1.6 times as much: 2 × 1 s / 1.25 s."""
    mine = runs(*gpus({1: 1.0, 2: 1.25}, repeats=1, device="NVIDIA GeForce RTX 4090", allocation="mine"))
    monkeypatch.setattr(horovod_runs, "load", lambda folder: mine if folder == MINE.folder else BOTH)
    monkeypatch.setattr(strategy_runs, "load", lambda folder, synthetic: strategy_runs_none())
    monkeypatch.setattr(augmentation_runs, "load", lambda folder: augmentation_runs_none())


REAL_STRATEGY, REAL_AUGMENTATION = strategy_runs.load, augmentation_runs.load


def strategy_runs_none() -> pd.DataFrame:
    return REAL_STRATEGY(Path("nowhere"))


def augmentation_runs_none() -> pd.DataFrame:
    return REAL_AUGMENTATION(Path("nowhere"))


@pytest.mark.usefixtures("two_gpus")
def test_answers_are_of_the_folders_runs_alone_and_name_missing_commands() -> None:
    found = machine.answers(MINE)
    assert list(found)[:4] == ["1.1", "1.2", "1.3", "1.4"] and list(found)[-1] == "4.3"
    scaling = found["1.2"]
    assert isinstance(scaling, Answer) and "1.60 times" in scaling.sentence and scaling.runs == 2
    assert all(isinstance(found[part], Missing) for part in found if part[0] in "24")
    table = lines(machine.tbl_machine_answers(MINE))
    (communication,) = [row for row in table if row[0] == "2.6"]
    assert communication[1].startswith("*Not measured here:* `python experiments/p2_strategy.py")
    assert [row[0] for row in table[-5:]] == ["2.1–2.4", "2.5", "2.6", "4.2", "4.3"]  # four parts lack the same runs


@pytest.mark.usefixtures("two_gpus")
def test_speedups_stand_beside_the_committed_ones_the_readers_first() -> None:
    points = machine.speedups(MINE)
    mine = points[points.whose == MINE.name]
    assert list(mine.learners) == [1, 2] and list(mine.speedup) == pytest.approx([1, 2 / 1.25])
    assert set(points.whose) == {MINE.name, yours.COMMITTED}
    chart = machine.fig_machine_speedup(MINE)
    assert isinstance(chart, alt.LayerChart)
    colour = chart.to_dict()["layer"][1]["encoding"]["color"]["scale"]["domain"]
    assert colour[0].startswith("yours: 2 × RTX 4090, PyTorch") and len(colour) == 3


def test_a_single_size_has_no_speed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {MINE.folder: runs(*cores({1: 2.0}))}
    monkeypatch.setattr(horovod_runs, "load", lambda folder: mine.get(folder, NONE))
    assert machine.fig_machine_speedup(MINE) == "*Not measured here:* `python experiments/measure.py --problems 1`"


def test_the_projection_is_marked_and_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Series("Horovod torch, RTX 4090", "RTX 4090", "mine", 64.0, {1: [1000.0], 2: [2000.0]})
    monkeypatch.setattr(outlook, "series", lambda folder: own)
    monkeypatch.setattr(outlook, "measured_link", lambda folder, allocation: Link(0.0, 0.0, "no time at all"))
    monkeypatch.setattr(outlook, "on_committed", lambda results: pd.DataFrame({"device": [], "error": []}))
    monkeypatch.setenv(machine.PRICE, "3.6")
    text = machine.tbl_machine_projection(MINE)
    assert text.startswith("**A projection** from one learner of Horovod torch, RTX 4090 with 64 images a step")
    table = lines("\n".join(line for line in text.splitlines() if line.startswith("|")))
    # 600,000 images at 1,000 a second are 600 s: a sixth of 3.6 USD.
    assert table[1] == ["1", "1,000 (1,000–1,000)", "100.0 %", "10.0 min", "$0.60", "1,000"]
    assert [row[0] for row in table[1:]] == ["1", "2", "4", "8", "16"] and table[3][-1] == "–"
    assert "- this folder's own larger jobs: +0.0% (1 point)" in text


def test_without_runs_or_all_reduce_the_projection_says_what_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(folder: Path) -> Series:
        raise UsageError("no run")

    monkeypatch.setattr(outlook, "series", none)
    assert machine.tbl_machine_projection(MINE).startswith("*No projection without one learner's runs:*")
    own = Series("a series", "a GPU", "mine", 64.0, {1: [1000.0]})
    monkeypatch.setattr(outlook, "series", lambda folder: own)
    monkeypatch.setattr(outlook, "measured_link", lambda folder, allocation: None)
    assert machine.tbl_machine_projection(MINE).startswith("*No projection without a timed all-reduce")


@pytest.mark.parametrize("text", ["free", "-1", "0", "inf"])
def test_a_price_is_a_positive_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(machine.PRICE, text)
    with pytest.raises(UsageError, match="must be a positive number of US dollars"):
        machine.price()


@pytest.mark.usefixtures("fixed_commit")
def test_the_folder_is_described_by_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = origin({"dataset": "synthetic"}, allocation="mine")
    monkeypatch.setattr(machine.parquet, "origins", lambda results: [made, made])
    text = machine.text_machine_runs(MINE)
    assert text.startswith("2 runs from 1 allocation, 2026-01-02 03:04 to ") and "are synthetic" in text


def test_the_example_answers_problem_1_and_names_what_the_rest_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(yours.FOLDERS, str(ROOT / "examples" / "four-h200"))
    (example,) = yours.own()
    assert example.name == "yours: 4 × H200"
    found = machine.answers(example)
    assert [part for part, answer in found.items() if isinstance(answer, Answer)] == ["1.1", "1.2", "1.3"]
    assert "**A projection** from one learner of Horovod torch, NVIDIA H200" in machine.tbl_machine_projection(example)
