"""The provenance page's summary: runs by allocation and experiment, and whether their sources have changed."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from experiments.store import evidence
from experiments.store import provenance as origins
from experiments.store.parquet import Run
from report import known_runs
from report.figures import provenance
from tests.p1_runs import lines


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Two runs of Problem 1 and one of Problem 2 in one allocation, then one of Problem 1 in another."""
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    monkeypatch.setattr("experiments.machine.allocation.current", lambda: "here")

    def run(experiment: str, name: str, day: int, devices: int, **other: Any) -> Run:
        at = datetime(2026, 1, day, tzinfo=UTC)
        made = origins.provenance(experiment, name, {}, seed=0, device="NVIDIA H100", device_count=devices, started=at)
        sources = {"experiments/usage.py": "0" * 64, "experiments/jobs.py": "1" * 64} if other.pop("old", False) else {}
        return Run(Path(name), made.model_copy(update={"sources": sources, "started": at} | other), rows=3)

    return [
        run("p1_horovod", "b", 2, 2),
        run("p1_horovod", "a", 1, 1, old=True),
        run("p2_strategy", "c", 1, 1),
        run("p1_horovod", "d", 3, 4, allocation="there", git_dirty=True),
    ]


def test_runs_are_summed_up_by_allocation_and_experiment(runs: list[Run]) -> None:
    head, *rows = lines(provenance.tbl_provenance(known_runs.known(runs)))
    assert head == ["Allocation", "Experiment", "Devices", "Runs", "Sources", "Day"]
    assert rows == [
        ["here", "p1_horovod", "2 × H100", "2", "1 current, 1 stale", "01 Jan"],
        ["", "p2_strategy", "1 × H100", "1", "1 current", "01 Jan"],
        ["there", "p1_horovod", "4 × H100", "1", "1 current", "03 Jan"],
    ]


def test_the_summary_counts_changes_and_uncommitted_work(runs: list[Run]) -> None:
    assert provenance.text_provenance_summary(known_runs.known(runs)) == (
        "4 runs are stored; the sources of 1 of them have changed since, for 1 in ways that could change numbers; 1 "
        "were made in a working tree with changes that were not committed."
    )


def test_settings_and_allocation_stand_with_the_runs(runs: list[Run]) -> None:
    one = runs[0].provenance.model_copy(update={"settings": {"NCCL_ALGO": "Ring"}})
    text = provenance.text_provenance_runs(known_runs.known([Run(Path("b"), one, 3)]))
    assert "allocation here" in text and "<li>Settings: <code>NCCL_ALGO=Ring</code></li>" in text and "3 rows" in text


def test_the_file_has_a_row_for_each_run(runs: list[Run]) -> None:
    rows = list(csv.DictReader(io.StringIO(provenance.csv(known_runs.known(runs)))))
    assert [(row["run_id"], row["allocation"], row["state"], row["rows"]) for row in rows] == [
        ("b", "here", "current", "3"),
        ("a", "here", "stale", "3"),
        ("c", "here", "current", "3"),
        ("d", "there", "current", "3"),
    ]
    assert json.loads(rows[1]["changed"]) == ["experiments/jobs.py"]  # no number depends on usage.py
    assert rows[0]["git_commit"] == "0" * 40 and rows[3]["git_dirty"] == "True"
    assert len({row["command"] for row in rows}) == 1 and rows[0]["device"] == "NVIDIA H100"


def test_a_run_has_an_anchor_and_its_state_is_found_once(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    found = known_runs.known(runs)
    monkeypatch.setattr("experiments.store.provenance.Provenance.changes", lambda _: pytest.fail("looked again"))
    assert '<span id="run-d"></span>' in provenance.text_provenance_runs(found)
    assert provenance.tbl_provenance_runs(found) and provenance.tbl_provenance(found)


def test_checks_say_how_many_runs_they_reach_and_what_fails() -> None:
    found = evidence.Verdict(runs=3)
    for name in ("a", "b", "c"):
        found.note(f"p4_cutout/{name}", "log", ["its log says <b>1</b>, its rows 2", "and more"] if name == "b" else [])
    head, *rows = lines(provenance.tbl_provenance_checks(found))
    assert head == ["Check", "What must hold", "Runs", "Failed"]
    assert {row[0]: row[2:] for row in rows}["log"] == ["3", "1"]
    text = provenance.text_provenance_checks(found)
    assert text.startswith("2 problems:\n\n- `p4_cutout/b`, log: its log says \\<b\\>1\\<\\/b\\>")
    assert text.count("\n- ") == 2 + len(evidence.UNKNOWABLE)
    assert provenance.text_provenance_checks(evidence.Verdict()).startswith("No run fails.")
