"""The provenance, and P4, chapters' cells run on any set of results: none, current, stale, shortened."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from experiments.scaling import published
from experiments.scaling.predictions import predictions
from experiments.scaling.series import POINTS
from experiments.store import epochs, ledger, parquet, schemas
from experiments.store.files import ROOT
from experiments.store.provenance import Provenance, provenance, run_id
from report import show
from report.figures import horovod_costs, horovod_runs, strategy_beyond, strategy_runs

REPORT = Path(show.__file__).parent
READERS = [epochs.read, parquet.runs, horovod_runs.load, horovod_costs.load_sums, strategy_runs.load]
READERS += [strategy_beyond.load_input]
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def run(chapter: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """The Markdown that the chapter's cells display, and their variables."""
    texts: list[str] = []
    monkeypatch.setattr(show, "display", lambda data, raw: texts.append(data.get("text/markdown", f"{list(data)}")))
    monkeypatch.setattr(parquet.read, "__defaults__", (results, None))
    for reader in READERS:
        monkeypatch.setattr(reader, "__defaults__", (results,))
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
    assert "nan" not in text


def test_provenance_names_all_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = write(tmp_path, monkeypatch)
    text, _ = run("provenance.qmd", tmp_path, monkeypatch)
    for part in (
        origin.run_id,
        "`0123456`",
        "p4_cutout",
        "a device",
        origin.host_cpu,
        origin.command,
        "2026-01-02 03:04",
    ):
        assert part in text
    assert f"{origin.source_hash[:12]}`, unchanged since" in text and "| current |" in text
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
    assert f"changed since: `{source}` (clearer words)" in text and "| same numbers |" in text.replace("\u00a0", " ")
    assert "the sources of 1 of them have changed since, of 0 so that numbers might be others" in text


def test_provenance_says_which_sources_are_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.store.provenance.loaded_sources", lambda: {"experiments/p4_cutout.py": "0" * 64})
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    write(tmp_path, monkeypatch)
    text, _ = run("provenance.qmd", tmp_path, monkeypatch)
    assert "changed since: `experiments/p4_cutout.py`" in text and "| stale |" in text
    assert "the sources of 1 of them have changed" in text


def test_the_scaling_chapter_fits_the_links_of_all_reduces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings of known latency and speed; a window that was disturbed changes nothing."""
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    for p, gbit, latency, per_byte in ((2, None, 1e-5, 1e-11), (4, 10.0, 2e-4, 1e-9)):
        rows = []
        for size, window in [(1 << k, window) for k in range(10, 31, 5) for window in (1, 2, 3)]:
            seconds = 2 * (p - 1) * (latency + size / p * per_byte) * (50 if window == 2 and size == 1024 else 1)
            same: dict[str, Any] = {
                "backend": "gloo",
                "device_kind": "cpu",
                "hosts": 1 if gbit is None else 2,
                "gbit": gbit,
                "threads": 1,
            }
            timed = {"bytes": size, "window": window, "iterations": 1, "seconds": seconds, "learners": p}
            rates = {"algorithm_bandwidth": size / seconds, "bus_bandwidth": 2 * (p - 1) / p * size / seconds}
            rows.append(same | timed | rates)
        config = {"learners": p}
        name = run_id("gloo", config)
        origin = provenance("allreduce", name, config, seed=None, device="a device", started=STARTED)
        parquet.write(pd.DataFrame(rows).astype({"gbit": float}), origin, results=tmp_path)
    text, _ = run("scaling-model.qmd", tmp_path, monkeypatch)
    plain = text.replace("\u00a0", " ")
    assert re.search(r"\| Gloo, a device, 2 hosts, 10 Gbit/s +\| +4 \| +200 \| +1 \| +0\.999 \| 781 KiB", plain)
    assert re.search(r"\| Gloo, a device, one host +\| +2 \| +10\.0 \| +100 \| +99\.8 \| +1\.91 MiB", plain)
    assert "experiments/allreduce.py" not in plain and "nan" not in text


def test_the_scaling_chapter_tells_measured_from_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    own = {"series": "Horovod on a device", "setting": "here", "network": "ResNet-50", "source": "measured"}
    extra = pd.DataFrame([own | {"learners": p, "images_per_second": 100.0 * p**0.9} for p in (1, 2, 4, 8)])
    rows = predictions(published.load(), extra.reindex(columns=POINTS), draws=100)
    name = run_id("fit", {})
    origin = provenance("scaling_fit", name, {}, seed=0, device="cpu", started=STARTED, kind="projected")
    parquet.write(pd.DataFrame(rows).astype({"freedom": "Int64"}), origin, results=tmp_path)
    text, names = run("scaling-model.qmd", tmp_path, monkeypatch)
    assert list(names["late"].learners) == [8] and not names["held"].series.str.startswith("Horovod on").any()
    assert "Published curves only" not in text and "Horovod on a device" in text.replace("\u00a0", " ")
    assert "nan" not in text
