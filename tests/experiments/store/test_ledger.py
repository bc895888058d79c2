"""The ledger: chains, renames and splits that keep runs current, its form, and that it holds no row too many."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from experiments.store import ledger, parquet
from experiments.store.files import ROOT
from experiments.store.ledger import Change
from experiments.store.provenance import Provenance, provenance

OLD, NEW, PART = "experiments/p3.py", "experiments/p3/nets.py", "experiments/p3/counts.py"
FIRST, SECOND = "1" * 64, "2" * 64


@pytest.fixture(autouse=True)
def _commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)


def put(root: Path, path: str, text: str) -> str:
    """Write a source; its hash."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    return ledger.file_hash(root / path)


def made_by(source: str, digest: str) -> Provenance:
    """A run that recorded one source."""
    started = datetime(2026, 1, 2, tzinfo=UTC)
    made = provenance("p3_crosscheck", "a-run", {}, seed=0, device="cpu", started=started)
    return made.model_copy(update={"sources": {source: digest}})


def known(monkeypatch: pytest.MonkeyPatch, *changes: Change) -> None:
    monkeypatch.setattr("experiments.store.ledger.changes", lambda: changes)


def test_a_chain_of_changes_counts_only_where_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = put(tmp_path, OLD, "a = 3\n")
    first, second = Change(OLD, FIRST, OLD, SECOND, "clearer"), Change(OLD, SECOND, OLD, now, "shorter")
    made = made_by(OLD, FIRST)
    for rows, reasons in (((), []), ((first,), []), ((second,), []), ((second, first), ["clearer", "shorter"])):
        known(monkeypatch, *rows)
        assert made.changes(tmp_path) == {OLD: reasons} and made.stale(tmp_path) == ([] if reasons else [OLD])
    put(tmp_path, OLD, "a = 4\n")
    assert made.stale(tmp_path) == [OLD]


def test_earlier_codes_are_told_apart_by_their_latest_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, OLD, "a = 4\n")
    part = put(tmp_path, PART, "b = 1\n")
    known(monkeypatch, Change(OLD, FIRST, NEW, SECOND, "moved"), Change(OLD, FIRST, PART, part, "split"))
    assert ledger.latest(OLD, FIRST, tmp_path) == ledger.latest(NEW, SECOND, tmp_path) == {(NEW, SECOND)}
    assert ledger.latest(OLD, "3" * 64, tmp_path) == {(OLD, "3" * 64)}
    assert ledger.latest(PART, part, tmp_path) == set()


def test_a_circle_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, OLD, "a = 3\n")
    known(monkeypatch, Change(OLD, FIRST, OLD, SECOND, "there"), Change(OLD, SECOND, OLD, FIRST, "back"))
    assert made_by(OLD, FIRST).stale(tmp_path) == [OLD]


def test_a_file_is_followed_to_its_new_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = put(tmp_path, NEW, "a = 3\n")
    known(monkeypatch, Change(OLD, FIRST, NEW, SECOND, "moved"), Change(NEW, SECOND, NEW, now, "shorter"))
    assert made_by(OLD, FIRST).changes(tmp_path) == {OLD: ["moved", "shorter"]}
    put(tmp_path, NEW, "a = 4\n")
    assert made_by(OLD, FIRST).stale(tmp_path) == [OLD]


def test_another_file_at_the_old_path_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, Change(OLD, FIRST, NEW, put(tmp_path, NEW, "a = 3\n"), "moved"))
    put(tmp_path, OLD, "something else\n")
    assert made_by(OLD, FIRST).changes(tmp_path) == {OLD: ["moved"]}


def test_all_parts_of_a_split_file_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, part = put(tmp_path, NEW, "a = 3\n"), put(tmp_path, PART, "b = 3\n")
    known(monkeypatch, Change(OLD, FIRST, NEW, now, "moved"), Change(OLD, FIRST, PART, part, "moved"))
    assert made_by(OLD, FIRST).changes(tmp_path) == {OLD: ["moved"]}
    put(tmp_path, PART, "b = 4\n")
    assert made_by(OLD, FIRST).stale(tmp_path) == [OLD]


def test_rows_that_no_source_leads_through_are_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, part = put(tmp_path, NEW, "a = 3\n"), put(tmp_path, PART, "b = 3\n")
    rows = (
        Change(OLD, FIRST, NEW, SECOND, "moved"),
        Change(OLD, FIRST, PART, part, "moved"),
        Change(NEW, SECOND, NEW, now, "shorter"),
    )
    more = Change(OLD, "3" * 64, OLD, FIRST, "older than every run")
    behind = Change(NEW, now, NEW, "4" * 64, "from what is there now")
    known(monkeypatch, more, *rows, behind)
    assert ledger.needed([(OLD, FIRST)], tmp_path) == list(rows)
    assert ledger.needed([(PART, part)], tmp_path) == []


HEAD = "source,before,becomes,after,reason\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must have the columns source, before, becomes, after, reason"),
        ("source,before,after,reason\n", "must have the columns"),
        (HEAD + "a,b,a,c,\n", "no empty cell"),
        (HEAD + "a,b,a,c\n", "must have the columns"),
        (HEAD + "a,b,a,c,why\na,b,a,c,because\n", "a change is listed twice"),
    ],
)
def test_the_ledgers_form_is_checked(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").write_text(text)
    with pytest.raises(ledger.LedgerError, match=said):
        ledger.read(tmp_path / "ledger.csv")


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.store.ledger.LEDGER", tmp_path / "ledger.csv")
    for rows in ((Change(OLD, FIRST, NEW, SECOND, 'moved: "nets", counts'),), ()):
        ledger.write(rows)
        assert ledger.changes() == rows


# ---- what is committed ---------------------------------------------------------------------------------------------


def test_no_row_is_left_that_no_stored_run_needs() -> None:
    recorded = {pair for run in parquet.runs() for pair in run.provenance.sources.items()}
    unneeded = set(ledger.changes()) - set(ledger.needed(recorded, ROOT))
    assert not unneeded, "run python tools/prove_move.py --prune"
    assert all(len(change.before) == len(change.after) == 64 for change in ledger.changes())


def test_only_the_kernels_make_runs_of_problems_3_and_4_stale() -> None:
    """Runs that take minutes of a GPU: nothing else is to be changed without a reason in the ledger, and those that the
    earlier kernels made all have the same ones."""
    kept = {"p3_crosscheck", "p4_cutout", "p4_images", "p4_kernels", "p4_masked_area", "p4_throughput"}
    made = [run.provenance for run in parquet.runs() if run.provenance.experiment in kept]
    assert {origin.experiment for origin in made} == kept
    earlier = {
        frozenset(end for path in origin.stale() for end in ledger.latest(path, origin.sources[path], ROOT))
        for origin in made
    } - {frozenset()}
    assert len(earlier) <= 1
    kernels = {"cuda_kernels.cu", "cuda_kernels.py", "cuda_tiles.cuh", "fused_engine.py", "fused_passes.py"}
    kernels |= {"triton_backward.py", "triton_forward.py"}
    assert {path for ends in earlier for path, _ in ends} <= {f"experiments/p4/{name}" for name in kernels}
