"""One hop: what the line under a figure says, which rows are written, and which runs a figure uses."""

from __future__ import annotations

import csv
import inspect
import json
import re
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest

from experiments.store.files import ROOT
from report import answers, hop, show, used
from report.answers import Answer, Missing
from report.engine import Book

CHAPTERS = {name: (ROOT / name).read_text(encoding="utf-8") for name in Book.read(ROOT).chapters}
RUNS = pd.DataFrame({"run_id": ["a", "a", "b", "c"], "learners": [1, 1, 2, 4], "rate": [10.0, 12.0, 20.0, 30.0]})


@used.selects
def several(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs.learners > 1]


@used.selects
def most(runs: pd.DataFrame) -> pd.DataFrame:
    found = several(runs)
    return found[found.learners == found.learners.max()]


def fig_rates(runs: pd.DataFrame) -> alt.TopLevelMixin:
    """A line under a point."""
    ideal = alt.Chart(pd.DataFrame({"learners": [1, 4]})).mark_line().encode(x="learners")
    return ideal + alt.Chart(several(runs)[["learners", "rate"]]).mark_point().encode(x="learners", y="rate")


def tbl_rates(runs: pd.DataFrame, which: str) -> str:
    return show.table_text(show.once([("H200 GPU", 1_234), ("H200 GPU", "a|b")]), ["On what", "Rate"])


def used_by(function: Any, *arguments: Any) -> list[str]:
    with used.Watch(arguments) as watch:
        function(*arguments)
    return watch.runs


@pytest.mark.parametrize(
    ("function", "runs"),
    [
        (len, ["a", "b", "c"]),  # selects nothing
        (several, ["b", "c"]),
        (most, ["c"]),  # the selection inside another doesn't count
        (lambda runs: most(several(runs)), ["c"]),  # nor one that another was made from
        (lambda runs: (most(runs), several(runs[runs.learners < 4])), ["b", "c"]),  # two of the same runs do
    ],
)
def test_a_figure_uses_the_runs_that_it_selects(function: Any, runs: list[str]) -> None:
    assert used_by(function, RUNS) == runs


def test_runs_are_found_in_whatever_holds_their_rows() -> None:
    two = RUNS[RUNS.learners == 2]
    assert used.runs_in([("x", two), {"y": RUNS[:1]}, 3, "z"]) == {"a", "b"}
    assert used.runs_in(Answer("1.1", "", "", 0, "derived", "fig")) == used.runs_in(two.rate.to_frame()) == frozenset()


def test_the_line_has_code_rows_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_BOOK", str(tmp_path))
    monkeypatch.setattr(hop, "repository", lambda: None)
    line = hop.Page("../").line(fig_rates, (RUNS,), fig_rates(RUNS).to_dict(), ["b", "c"])
    number = inspect.getsourcelines(fig_rates)[1]
    assert f'<span title="fig_rates">code: tests/report/test_hop.py:{number}</span>' in line
    assert '<a href="../report/rows/fig-rates.csv">rows</a>' in line
    assert '<summary>2 runs</summary><a href="../report/provenance.html#run-b">b</a>, ' in line
    with (tmp_path / "report/rows/fig-rates.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["data"], row["learners"], row["rate"]) for row in rows] == [
        ("1", "1", ""),
        ("1", "4", ""),
        ("2", "2", "20.0"),
        ("2", "4", "30.0"),
    ]
    monkeypatch.setattr(hop, "repository", lambda: "https://example.org/dlperf/blob/main")
    line = hop.Page("").line(fig_rates, (RUNS,), fig_rates(RUNS).to_dict(), ["b"])
    assert f'<a href="https://example.org/dlperf/blob/main/tests/report/test_hop.py#L{number}"' in line
    assert '<a href="report/rows/fig-rates.csv">' in line and "<summary>1 run</summary>" in line


def test_the_line_counts_runs_of_earlier_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_BOOK", str(tmp_path))
    monkeypatch.setattr(hop, "stale", lambda: frozenset({"b", "d"}))
    line = hop.Page().line(fig_rates, (RUNS,), fig_rates(RUNS).to_dict(), ["a", "b", "c"])
    assert "<summary>3 runs, 1 by earlier code</summary>" in line


def test_outside_of_a_rendering_and_under_text_there_is_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DLPERF_BOOK", raising=False)
    monkeypatch.delenv("QUARTO_EXECUTE_INFO", raising=False)
    assert hop.Page().line(fig_rates, (RUNS,), fig_rates(RUNS).to_dict(), ["b"]) == ""
    monkeypatch.setenv("DLPERF_BOOK", str(tmp_path))
    assert hop.Page().line(several, (RUNS,), "text", ["b"]) == "" and list(tmp_path.iterdir()) == []


def test_a_tables_rows_are_its_cells() -> None:
    found = hop.drawn(tbl_rates(RUNS, "p1"))
    assert found is not None and list(found.columns) == ["On what", "Rate"]
    assert found.values.tolist() == [["H200 GPU", "1,234"], ["H200 GPU", "a|b"]]
    assert hop.label(tbl_rates, (RUNS, "p1")) == "tbl-rates-p1"


def test_a_picture_has_the_rows_that_it_was_made_from() -> None:
    found = hop.drawn(b"\x89PNG", (RUNS.assign(png=b"\x89PNG"),))
    assert found is not None and list(found.columns) == list(RUNS.columns)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_label_is_its_functions_name(chapter: str) -> None:
    for cell in re.findall(r"^```\{python\}\n(.*?)^```$", CHAPTERS[chapter], re.DOTALL | re.MULTILINE):
        given = re.search(r"^#\| label: (\S+)$", cell, re.MULTILINE)
        call = re.search(r"^show\.result\(\w+\.(\w+)(?:, (.*))?\)$", cell, re.MULTILINE)
        if given and call:
            named = re.findall(r'"(\w+)"', call[2] or "")
            assert "-".join([call[1].replace("_", "-"), *named]) == given[1]


def test_questions_stand_in_the_chapters() -> None:
    text = re.sub(r"\s+", " ", "".join(CHAPTERS.values()))
    assert [part for part, question in answers.QUESTIONS.items() if question not in text] == []


def test_answers_have_one_shape() -> None:
    answer = Answer("1.2", "It scales.", "2 GPUs", 3, "measured", "fig-a")
    first, second = json.loads(answers.as_json({"1.2": answer, "2.2": Missing("The time", "python x.py")}))
    assert first == {
        "part": "1.2",
        "question": "How close does the throughput of N learners come to N times that of one?",
        "sentence": "It scales.",
        "device": "2 GPUs",
        "runs": 3,
        "basis": "measured",
        "figure": "fig-a",
    }
    assert second == {
        "part": "2.2",
        "question": "How long does training take for ten epochs?",
        "missing": "The time",
        "command": "python x.py",
    }
