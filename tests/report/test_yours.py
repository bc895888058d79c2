"""A reader's own results beside the committed ones: first, named, never pooled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest

from experiments.cli import UsageError
from experiments.store import parquet
from report import __main__ as command
from report import show, yours
from report.answers import Answer, Missing
from report.comparisons import Incomparable
from report.yours import Both
from tests.stored_run import counts, origin

MINE, THEIRS = pd.DataFrame({"run_id": ["mine"], "rate": [1]}), pd.DataFrame({"run_id": ["theirs"], "rate": [2]})
RUNS = Both(THEIRS, {"yours: 2 × RTX 4090": MINE})


def store(folder: Path, **changes: Any) -> None:
    parquet.write(counts(1), origin(**changes), results=folder)


def answer_rate(runs: pd.DataFrame) -> Answer:
    return Answer("1.1", f"It is {runs.rate.iloc[0]}.", "a device", len(runs), "measured", "fig-rate")


def tbl_rate(runs: pd.DataFrame) -> str:
    return show.table_text([(int(rate),) for rate in runs.rate], ["Rate"])


def fig_rate(runs: pd.DataFrame) -> alt.Chart:
    return alt.Chart(runs).mark_point().encode(x="rate:Q")


def text_rate(runs: pd.DataFrame) -> str:
    return f"Rate {runs.rate.iloc[0]}."


def only_theirs(runs: pd.DataFrame) -> str | Missing:
    return Missing("Runs", "make them") if runs is MINE else tbl_rate(runs)


def only_mine(runs: pd.DataFrame) -> str | Missing:
    return Missing("Runs", "make them") if runs is THEIRS else tbl_rate(runs)


def answer_incomparable(runs: pd.DataFrame) -> Answer:
    if runs is MINE:
        raise Incomparable("no run with learners = 1", "run it")
    return answer_rate(runs)


def test_without_a_folder_a_loader_gives_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(yours.FOLDERS, raising=False)
    assert yours.both(lambda: THEIRS) is THEIRS and yours.own() == []


@pytest.mark.usefixtures("fixed_commit")
def test_a_loader_reads_the_committed_results_and_each_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"device": "NVIDIA GeForce RTX 4090", "device_count": 2}
    for name in ("one", "two"):
        store(tmp_path / name, **gpu)
    store(tmp_path / "cores", device="cpu")
    folders = ":".join(str(tmp_path / name) for name in ("one", "cores", "two"))
    monkeypatch.setenv(yours.FOLDERS, folders)
    found = yours.both(lambda folder=None, **options: (folder and folder.name, options), synthetic=True)
    assert found.committed == (None, {})
    assert found.own == {
        "yours: 2 × RTX 4090 (one)": ("one", {"synthetic": True}),
        "yours: 1 × cpu core": ("cores", {"synthetic": True}),
        "yours: 2 × RTX 4090 (two)": ("two", {"synthetic": True}),
    }


def test_answers_stay_apart_the_readers_first() -> None:
    mine, theirs = yours.made(answer_rate, (RUNS,))
    assert (mine.whose, mine.what.sentence, mine.runs) == ("yours: 2 × RTX 4090", "It is 1.", ["mine"])
    assert (theirs.whose, theirs.what.sentence, theirs.runs) == ("committed machines", "It is 2.", ["theirs"])
    assert mine.what.markdown(mine.whose).startswith("**Answer (yours: 2 × RTX 4090).** It is 1. Measured on")


def test_an_answer_that_cannot_be_formed_names_what_is_missing() -> None:
    mine, theirs = yours.made(answer_incomparable, (RUNS,))
    assert mine.what.command == "run it" and isinstance(theirs.what, Answer)


def test_synthetic_images_are_named() -> None:
    mine = MINE.assign(dataset="synthetic")
    found, _ = yours.made(answer_rate, (Both(THEIRS, {"yours": mine}),))
    assert found.whose == "yours, synthetic images"


def test_tables_stand_one_after_the_other() -> None:
    (both,) = yours.made(tbl_rate, (RUNS,))
    first, table, second, other = both.what.split("\n\n")
    assert (first, second) == ("*Yours: 2 × RTX 4090*", "*Committed machines*")
    assert table.splitlines()[2].split() == ["|", "1", "|"] and other.splitlines()[2].split() == ["|", "2", "|"]
    assert both.runs == ["mine", "theirs"]


def test_charts_stand_above_each_other() -> None:
    (both,) = yours.made(fig_rate, (RUNS,))
    views = both.what.to_dict()["vconcat"]
    assert [view["title"] for view in views] == ["yours: 2 × RTX 4090", "committed machines"]


def test_a_side_without_runs_is_left_out_of_figures() -> None:
    (theirs,) = yours.made(only_theirs, (RUNS,))
    (mine,) = yours.made(only_mine, (RUNS,))
    assert (theirs.what, theirs.runs, theirs.whose) == (tbl_rate(THEIRS), ["theirs"], "")
    assert (mine.what, mine.runs) == (tbl_rate(MINE), ["mine"])


def test_prose_is_about_the_committed_runs() -> None:
    (only,) = yours.made(text_rate, (RUNS,))
    assert only.what == "Rate 2."


@pytest.mark.usefixtures("fixed_commit")
def test_a_folder_of_another_version_says_so_in_one_line(tmp_path: Path) -> None:
    store(tmp_path)
    assert yours.other_version(tmp_path) is None
    store(tmp_path, sources={"experiments/p3_crosscheck.py": "0" * 64}, git_commit="abcdef0" + "0" * 33)
    line = "1 of 1 runs were made by another version of the project (`abcdef0`)."
    assert yours.other_version(tmp_path) == line


@pytest.mark.parametrize(("make", "line"), [(False, "is no folder"), (True, "has no results")])
def test_folders_without_results_are_refused_before_rendering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], make: bool, line: str
) -> None:
    folder = tmp_path / "mine"
    if make:
        folder.mkdir()
    monkeypatch.setenv(yours.FOLDERS, str(folder))
    with pytest.raises(UsageError, match=line):
        yours.folders()
    assert command.main(["--engine", "embedded"]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1
