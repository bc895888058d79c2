"""The provenance, and P4, chapters' cells run on any set of results: none, current, stale, shortened."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from experiments.store import epochs, evidence, ledger, parquet, schemas
from experiments.store.files import ROOT
from experiments.store.provenance import Provenance, provenance, run_id
from report import show
from report.figures import (
    augmentation_kernels,
    augmentation_runs,
    augmentation_speed,
    horovod_costs,
    horovod_runs,
    scaling_runs,
    strategy_beyond,
    strategy_runs,
)

REPORT = Path(show.__file__).parent
READERS = [epochs.read, evidence.verify, parquet.runs, horovod_runs.load, horovod_costs.load_sums, strategy_runs.load]
READERS += [strategy_beyond.load_input, scaling_runs.load, augmentation_runs.load]
READERS += [augmentation_speed.load_peers, augmentation_kernels.load_kernels, augmentation_speed.load_splits]
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def run(chapter: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """The Markdown that the chapter's cells display, and their variables."""
    texts: list[str] = []
    monkeypatch.setattr(show, "display", lambda data, raw: texts.append(data.get("text/markdown", f"{list(data)}")))
    monkeypatch.setattr(parquet.read, "__defaults__", (results, None))
    for reader in READERS:
        others = (reader.__defaults__ or ())[1:]
        monkeypatch.setattr(reader, "__defaults__", (results, *others))
    monkeypatch.delenv("QUARTO_EXECUTE_INFO", raising=False)
    source = (REPORT / chapter).read_text()
    names: dict[str, Any] = {}
    for code in re.findall(r"^```\{python\}\n(.*?)^```$", source, flags=re.MULTILINE | re.DOTALL):
        exec(compile(code, chapter, "exec"), names)
    for expression in re.findall(r"`\{python\} ([^`]+)`", source):
        texts.append(str(eval(expression, names)))
    return "\n\n".join(texts), names


def write(results: Path, monkeypatch: pytest.MonkeyPatch, epochs: int = 2, **changes: Any) -> Provenance:
    """A run of p4_cutout whose error halves with every epoch."""
    monkeypatch.setenv("DLPERF_COMMIT", "0123456789abcdef0123456789abcdef01234567")
    text = {"dataset": "cifar10", "augment": "cutout", "precision": "fp32", "engine": "plain", "schedule": "authors"}
    values: dict[str, Any] = {f.name: 1 if f.type == pa.int64() else 0.5 for f in schemas.SCHEMAS["p4_cutout"]}
    values |= text | {"M": 1, "batch_size": 64, "epochs_planned": epochs} | changes
    depth = values.pop("depth", 44)
    seed = values.pop("seed", 0)
    config = {k: values[k] for k in ("dataset", "augment", "M", "epochs_planned", "schedule", "precision")}
    config |= {"depth": depth, "seed": seed}
    rows = [values | {"epoch": e, "val_error": 0.2 / 2**e, "wall_seconds": 10.0 * e} for e in range(1, epochs + 1)]
    name = run_id("run", config)
    origin = provenance("p4_cutout", name, config, seed=seed, device="a device", started=STARTED)
    parquet.write(pd.DataFrame(rows), origin, results=results)
    return origin


@pytest.mark.parametrize("chapter", [p.name for p in sorted(REPORT.glob("*.qmd"))])
def test_chapters_run_without_results(chapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = run(chapter, tmp_path, monkeypatch)
    assert not re.search(r"\bnan\b", text)


def test_provenance_names_all_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = write(tmp_path, monkeypatch)
    text, _ = run("provenance.qmd", tmp_path, monkeypatch)
    for part in (
        origin.run_id,
        "`0123456`",
        "p4_cutout",
        "a device",
        html.escape(origin.host_cpu),  # what only pages list is HTML
        html.escape(origin.command),
        "2026-01-02 03:04",
    ):
        assert part in text
    assert f"<code>{origin.source_hash[:12]}</code>, unchanged since" in text and "| current |" in text
    assert "the sources of 0 of them have changed" in text


def test_changes_that_leave_numbers_are_told_with_their_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "experiments/p4_cutout.py"
    now = ledger.file_hash(ROOT / source)
    known = (ledger.Change(source, "0" * 64, source, now, "clearer words"),)
    monkeypatch.setattr("experiments.store.ledger.changes", lambda: known)
    monkeypatch.setattr("experiments.store.provenance.loaded_sources", lambda: {source: "0" * 64})
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    write(tmp_path, monkeypatch)
    text, _ = run("provenance.qmd", tmp_path, monkeypatch)
    assert f"changed since: <code>{source}</code> (clearer words)" in text and "| same numbers |" in text.replace(
        "\u00a0", " "
    )
    assert "the sources of 1 of them have changed since, for 0 in ways that could change numbers" in text


def test_provenance_says_which_sources_are_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.store.provenance.loaded_sources", lambda: {"experiments/p4_cutout.py": "0" * 64})
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    write(tmp_path, monkeypatch)
    text, _ = run("provenance.qmd", tmp_path, monkeypatch)
    assert "changed since: <code>experiments/p4_cutout.py</code>" in text and "| stale |" in text
    assert "the sources of 1 of them have changed" in text
