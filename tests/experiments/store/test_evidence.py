"""Each planted lie about a run is found and named. Digests and manifest are made to fit it, so that only it shows."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.store import checksums, evidence, parquet, schemas
from experiments.store.files import RESULTS
from tools import verify_results

P4 = "p4_cutout/cifar10-basic-M01-e100-authors-bf16-cuda-s{}-*"
RUNS = {
    "p4": P4.format(0),
    "other seed": P4.format(1),
    "speed": "p4_throughput/*M01*",
    "split": "p4_split/*-2-local-r1-*",
    "sums": "allreduce/nccl-p02-h1-r1-*",
    "again": "allreduce/nccl-p02-h1-r2-*",
    "p1": "p1_horovod/tensorflow-cpu-2-r1-31569e99-*",
}


def path_of(name: str, results: Path) -> Path:
    return sorted(results.glob(f"{RUNS[name]}.parquet"))[0]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A few real runs."""
    for name in RUNS:
        real = path_of(name, RESULTS)
        (tmp_path / real.parent.name).mkdir(exist_ok=True)
        for file in (real, real.with_suffix(".log")):
            shutil.copy(file, tmp_path / real.parent.name)
    checksums.write_manifest(tmp_path)
    return tmp_path


def plant(
    results: Path, name: str, rows: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows, **origin: Any
) -> str:
    """Store a run anew with changes of rows and provenance; gives its name."""
    path = path_of(name, results)
    run, found = parquet.read_run(path)
    columns = schemas.of(run.provenance.experiment).names
    parquet.write(rows(found)[columns], run.provenance.model_copy(update=origin), results=results)
    checksums.write_manifest(results)
    return f"{path.parent.name}/{path.stem}"


def faster(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(images_per_second=2 * rows.images_per_second)


def found(results: Path) -> dict[str, list[tuple[str, str]]]:
    """What is wrong, by run."""
    wrong: dict[str, list[tuple[str, str]]] = {}
    for run, check, what in evidence.verify(results).problems:
        wrong.setdefault(run, []).append((check, what))
    return wrong


def test_the_stored_runs_hold(results: Path) -> None:
    verdict = evidence.verify(results)
    assert verdict.problems == [] and verdict.runs == len(RUNS)
    assert {check: verdict.checked[check] for check in evidence.CHECKS} == dict.fromkeys(evidence.CHECKS, len(RUNS))


def other_seed(results: Path) -> Callable[[pd.DataFrame], pd.DataFrame]:
    error = parquet.read_run(path_of("other seed", results))[1].val_error
    return lambda rows: rows.assign(val_error=error)


@pytest.mark.parametrize(
    ("name", "rows", "check", "message"),
    [
        ("speed", faster, "log", "its log says rate"),
        ("split", faster, "plausibility", "images_per_second is"),
        ("split", lambda r: faster(r).assign(seconds=r.seconds / 2), "log", "its log says images_per_second"),
        ("p4", lambda r: r.assign(train_seconds=r.train_seconds / 2), "plausibility", "wall_seconds is"),
        ("p4", lambda r: r.assign(val_error=r.val_error - 0.001), "log", "its log says val_percent"),
        ("p4", lambda r: r.assign(val_error=r.val_error + 0.00001), "plausibility", "val_error"),
        ("p4", lambda r: r[:-1], "plausibility", "it has 99 of 100 epochs"),
        ("p4", lambda r: r.assign(images=2 * r.images), "plausibility", "images is"),
        ("sums", lambda r: r.assign(bus_bandwidth=2 * r.bus_bandwidth), "plausibility", "bus_bandwidth is"),
        ("p1", lambda r: r.assign(seconds=r.seconds * 1.5), "plausibility", "begins before"),
        ("p1", lambda r: r[r["rank"] == 0], "plausibility", "not all of 2 have rows"),
        ("p1", lambda r: r.assign(loss=r.loss.where(r["rank"] > 0, 2 * r.loss)), "log", "its log says loss"),
        ("p1", lambda r: r.assign(began=r.began * 1000, seconds=r.seconds * 1000), "plausibility", "its rows last"),
    ],
)
def test_planted_rows(
    results: Path, name: str, rows: Callable[[pd.DataFrame], pd.DataFrame], check: str, message: str
) -> None:
    run = plant(results, name, rows)
    wrong = found(results)
    assert list(wrong) == [run]
    assert any(of == check and message in what for of, what in wrong[run]), wrong


def test_another_seeds_errors(results: Path) -> None:
    run = plant(results, "p4", other_seed(results))
    assert any(check == "log" and "val_percent" in what for check, what in found(results)[run])


def test_a_log_that_says_otherwise(results: Path) -> None:
    log = path_of("p4", results).with_suffix(".log")
    log.write_text(log.read_text().replace("54.75%  74,131", "54.74%  74,131"))
    checksums.write_manifest(results)
    assert [(check, what.partition(":")[0]) for check, what in found(results)[f"p4_cutout/{log.stem}"]] == [
        ("log", "its log says val_percent 54.74, its rows 54.75")
    ]


@pytest.mark.parametrize(
    ("name", "origin", "message"),
    [
        ("p4", {"device": "NVIDIA H100 80GB HBM3"}, "its log names the device NVIDIA H200"),
        ("p1", {"device": "NVIDIA H200"}, "its rows are of a cpu"),
        ("sums", {"device": "NVIDIA H200"}, "its configuration names the device"),
        ("p4", {"config": {"seed": 5}}, "its name does not follow"),
        ("p4", {"settings": {"NCCL_ALGO": "Ring"}}, "its name does not follow"),
        ("p4", {"source_hash": "0" * 64}, "the hash of its sources is of others"),
        ("p4", {"versions": {}}, "it names no sources, no version"),
    ],
)
def test_planted_provenance(results: Path, name: str, origin: dict[str, Any], message: str) -> None:
    run = plant(results, name, **origin)
    assert any(message in what for _, what in found(results)[run])


def test_a_device_that_its_allocation_does_not_have(results: Path) -> None:
    runs = [parquet.run(path_of(name, results)).provenance for name in ("sums", "again")]
    made = [run.model_copy(update={"allocation": "here", "config": {}, "device": run.device}) for run in runs]
    made += [made[0].model_copy(update={"device": "NVIDIA H200", "run_id": "third"})]
    verdict = evidence.Verdict()
    evidence._allocations(verdict, made)
    assert [(run, check) for run, check, _ in verdict.problems] == [("allreduce/third", "provenance")]


def test_times_in_another_order(results: Path) -> None:
    origin = parquet.run(path_of("p4", results)).provenance
    run = plant(results, "p4", ended=origin.started - timedelta(seconds=1))
    assert any("before it starts" in what for _, what in found(results)[run])


def test_a_source_that_the_commit_does_not_have(results: Path) -> None:
    origin = parquet.run(path_of("p4", results)).provenance
    sources = origin.sources | {next(iter(origin.sources)): "0" * 64}
    digest = hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()
    run = plant(results, "p4", sources=sources, source_hash=digest)
    (problem,) = found(results)[run]
    assert problem[0] == "ledger" and "is not that of its commit" in problem[1]


@pytest.mark.parametrize("suffix", [".parquet", ".log"])
def test_files_that_are_not_as_listed(results: Path, suffix: str) -> None:
    changed, gone = path_of("p4", results).with_suffix(suffix), path_of("p1", results).with_suffix(suffix)
    changed.write_bytes(changed.read_bytes() + b"\n")
    gone.unlink()
    wrong = found(results)
    assert ("hashes", "is listed in the manifest and not there") in wrong[f"p1_horovod/{gone.name}"]
    assert wrong[f"p4_cutout/{changed.stem}"][0][0] == "hashes"


def test_a_run_that_is_not_listed_and_one_that_cannot_be_read(results: Path) -> None:
    new = path_of("sums", results)
    new.with_suffix(".log").unlink()
    lines = (results / checksums.MANIFEST).read_text().splitlines(keepends=True)
    (results / checksums.MANIFEST).write_text("".join(line for line in lines if new.stem not in line))
    bad = path_of("p4", results)
    bad.write_bytes(b"PAR1")
    wrong = found(results)
    assert wrong[f"allreduce/{new.stem}"] == [
        ("hashes", f"{new.name} is not in the manifest (after a new run: make manifest)")
    ]
    assert [check for check, _ in wrong[f"p4_cutout/{bad.stem}"]] == ["hashes", "schema"]


def test_the_script_names_each_run_and_fails(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_results.main(["--results", str(results)]) == 0
    assert f"log              {len(RUNS)} of {len(RUNS)} runs checked, 0 failed" in capsys.readouterr().out
    run = plant(results, "split", faster)
    assert verify_results.main(["--results", str(results)]) == 1
    assert f"{run}: plausibility: row 1: images_per_second is" in capsys.readouterr().out
    assert verify_results.main(["--results", str(results), "--manifest"]) == 0
    assert "14 files listed" in capsys.readouterr().out


def test_what_no_check_can_know_passes(results: Path) -> None:
    """As `evidence.UNKNOWABLE` says: rows that no log has, changed alike."""
    plant(results, "p1", lambda r: r.assign(loss=r.loss.where(r["rank"] == 0, 2 * r.loss)))
    assert found(results) == {}


@pytest.mark.slow
def test_all_stored_runs_hold() -> None:
    assert evidence.verify().problems == []
