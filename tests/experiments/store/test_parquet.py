"""The results store: what is written comes back whole, bad files are named, and provenance tells where from."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.cli import UsageError
from experiments.machine.device_names import short_name
from experiments.store import parquet, schemas
from experiments.store.files import RESULTS, ROOT, check_writable, write_atomically
from experiments.store.ledger import file_hash
from experiments.store.provenance import Provenance, git_state, provenance, run_id

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provenance that does not depend on the state of this checkout."""
    monkeypatch.setenv("DLPERF_COMMIT", COMMIT)


def counts(*values: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "net": "AlexNet",
            "quantity": "parameters",
            "counter": "torch",
            "value": list(values),
            "layers": pd.array([None] * len(values), dtype="Int64"),
            "kernel": pd.array([3] * len(values), dtype="Int64"),
        }
    )


def origin(config: dict[str, Any] | None = None, **changes: Any) -> Provenance:
    config = {"nets": ["AlexNet"]} if config is None else config
    run = run_id("all", config)
    made = provenance("p3_crosscheck", run, config, seed=0, device="cpu", started=STARTED)
    return made.model_copy(update=changes)


def epochs(dataset: str, run: int = 2) -> pd.DataFrame:
    """Rows of p4_cutout with every column filled by its type."""
    values: dict[str, Any] = {}
    for field in schemas.SCHEMAS["p4_cutout"]:
        values[field.name] = "x" if field.type == pa.string() else 1 if field.type == pa.int64() else 0.5
    return pd.DataFrame([values | {"dataset": dataset, "epoch": k + 1} for k in range(run)])


# ---- round trip ----------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    made = origin()
    path = parquet.write(counts(7, 8), made, log="one\ntwo\n", results=tmp_path)
    assert path == tmp_path / "p3_crosscheck" / f"{made.run_id}.parquet"
    assert path.with_suffix(".log").read_text() == "one\ntwo\n"
    read = parquet.read("p3_crosscheck", tmp_path)
    assert read["value"].tolist() == [7, 8]
    assert read["layers"].isna().all() and read["kernel"].tolist() == [3, 3]
    assert set(read["run_id"]) == {made.run_id} and set(read["kind"]) == {"measured"}
    assert set(read["device"]) == {"cpu"} and set(read["seed"]) == {0}
    assert [(run.path, run.provenance, run.rows) for run in parquet.runs(tmp_path)] == [(path, made, 2)]


def test_units_and_meanings_travel_in_the_file(tmp_path: Path) -> None:
    schema = pq.read_schema(parquet.write(counts(1), origin(), results=tmp_path))
    assert schema.field("value").metadata[b"unit"] == b"count"
    for field in schema:
        assert field.metadata[b"unit"] and field.metadata[b"doc"]


def test_every_column_of_every_schema_has_a_unit_and_a_meaning() -> None:
    for schema in schemas.SCHEMAS.values():
        for field in schema:
            assert field.metadata[b"unit"] and field.metadata[b"doc"]


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    frame = counts(5)
    parquet.write(frame[frame.columns[::-1]], origin(), results=tmp_path)
    assert parquet.read("p3_crosscheck", tmp_path)["value"].tolist() == [5]


def test_running_again_replaces_and_another_configuration_adds(tmp_path: Path) -> None:
    parquet.write(counts(1, 2, 3), origin(), results=tmp_path)
    parquet.write(counts(4), origin(started=datetime.now(UTC), git_commit="f" * 40), results=tmp_path)
    assert parquet.read("p3_crosscheck", tmp_path)["value"].tolist() == [4]
    parquet.write(counts(5), origin({"nets": ["VGG"]}), results=tmp_path)
    assert sorted(parquet.read("p3_crosscheck", tmp_path)["value"]) == [4, 5]
    assert len(parquet.runs(tmp_path)) == 2


def test_without_results_the_frame_is_empty_but_has_all_columns(tmp_path: Path) -> None:
    read = parquet.read("p4_cutout", tmp_path)
    assert read.empty
    assert set(schemas.SCHEMAS["p4_cutout"].names) < set(read.columns)
    assert {"run_id", "kind", "device", "started"} < set(read.columns)
    assert parquet.runs(tmp_path) == []


def test_empty_and_full_frames_have_the_same_columns(tmp_path: Path) -> None:
    empty = parquet.read("p3_crosscheck", tmp_path)
    parquet.write(counts(1), origin(), results=tmp_path)
    assert list(parquet.read("p3_crosscheck", tmp_path).columns) == list(empty.columns)


def test_projected_runs_can_be_told_from_measured_ones(tmp_path: Path) -> None:
    parquet.write(counts(1), origin(), results=tmp_path)
    parquet.write(counts(2), origin({"nodes": 8}, kind="projected"), results=tmp_path)
    read = parquet.read("p3_crosscheck", tmp_path)
    assert dict(zip(read["value"], read["kind"], strict=True)) == {1: "measured", 2: "projected"}


def test_synthetic_data_can_be_told_from_cifar10(tmp_path: Path) -> None:
    for dataset in ("cifar10", "synthetic"):
        config = {"dataset": dataset, "M": 1}
        run = run_id("m1", config)
        made = provenance("p4_cutout", run, config, seed=0, device="cpu", started=STARTED)
        parquet.write(epochs(dataset), made, results=tmp_path)
    read = parquet.read("p4_cutout", tmp_path)
    assert read.groupby("dataset")["run_id"].nunique().to_dict() == {"cifar10": 1, "synthetic": 1}
    assert not schemas.SCHEMAS["p4_cutout"].field("dataset").nullable


# ---- what does not fit is not written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.drop(columns="value"), "missing or unknown columns: value"),
        (lambda f: f.assign(extra=1), "missing or unknown columns: extra"),
        (lambda f: f.assign(value="many"), "rows do not fit the schema"),
        (lambda f: f.assign(value=1.5), "rows do not fit the schema"),
        (lambda f: f.assign(value=float("nan")), "rows do not fit the schema"),
        (lambda f: f.assign(value=None), "rows do not fit the schema"),
        (lambda f: f.assign(net=None), "rows do not fit the schema"),
        (lambda f: f.assign(net=3), "rows do not fit the schema"),
        (lambda f: f.assign(value=2**64), "rows do not fit the schema"),
        (lambda f: f.iloc[:0], "must have rows"),
    ],
)
def test_rows_that_break_the_schema(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], match: str) -> None:
    made = origin()
    with pytest.raises(parquet.SchemaError, match=match) as caught:
        parquet.write(change(counts(1)), made, results=tmp_path)
    assert made.run_id in str(caught.value)
    assert not list(tmp_path.rglob("*.parquet"))


def test_float_columns_refuse_nan_in_a_measurement(tmp_path: Path) -> None:
    """A loss that became NaN must not turn into an empty cell."""
    made = provenance("p4_cutout", "m1-x", {}, seed=0, device="cpu", started=STARTED)
    with pytest.raises(parquet.SchemaError, match="train_loss"):
        parquet.write(epochs("cifar10").assign(train_loss=float("nan")), made, results=tmp_path)


def test_unknown_experiments(tmp_path: Path) -> None:
    made = origin(experiment="p9_unknown")
    with pytest.raises(parquet.SchemaError, match="no schema for experiment 'p9_unknown'"):
        parquet.write(counts(1), made, results=tmp_path)
    with pytest.raises(parquet.SchemaError, match="no schema for experiment 'p9_unknown'"):
        parquet.read("p9_unknown", tmp_path)


# ---- atomic writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["fsync", "write"])
def test_a_full_disk_leaves_the_earlier_run_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    made = origin()
    path = parquet.write(counts(1), made, log="first", results=tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:

        class Full:
            def __init__(self, stream: Any) -> None:
                self.stream = stream

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *_: object) -> None:
                self.stream.close()

            write = full

        opened = Path.open
        monkeypatch.setattr(Path, "open", lambda self, *a, **k: Full(opened(self, *a, **k)))
    with pytest.raises(OSError, match="No space left"):
        parquet.write(counts(2), made, log="second", results=tmp_path)
    monkeypatch.undo()
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert path in before


def test_a_real_full_disk(tmp_path: Path) -> None:
    """The kernel's own refusal, by a limit on file sizes, in a process of its own."""
    path = parquet.write(counts(1), origin(), results=tmp_path)
    before = path.read_bytes()
    script = f"""
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from experiments.store.files import write_atomically
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        write_atomically(Path({str(path)!r}), bytes(100_000))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 1 and "File too large" in done.stderr
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_killed_writer_leaves_one_whole_version(tmp_path: Path) -> None:
    path = tmp_path / "p3_crosscheck" / "run.parquet"
    script = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from experiments.store.files import write_atomically
        k = 0
        while True:
            write_atomically(Path({str(path)!r}), bytes([k % 256]) * 3_000_000)
            k += 1
            if k == 1:
                print("writing", flush=True)
    """
    for wait in (0.0, 0.003, 0.007, 0.013, 0.029):
        writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        content = path.read_bytes()
        assert len(content) == 3_000_000 and len(set(content)) == 1
    assert all(name.endswith(".tmp") for name in os.listdir(path.parent) if name != path.name)


def test_leftovers_of_a_killed_writer_are_not_read(tmp_path: Path) -> None:
    path = parquet.write(counts(1), origin(), results=tmp_path)
    (path.parent / f".{path.name}.99.tmp").write_bytes(b"half")
    assert len(parquet.runs(tmp_path)) == 1
    assert parquet.read("p3_crosscheck", tmp_path)["value"].tolist() == [1]


def test_the_next_writer_removes_leftovers_of_killed_ones(tmp_path: Path) -> None:
    done = subprocess.Popen(["true"])
    done.wait()  # its process number is now nobody's
    path = tmp_path / "a[1].ckpt"
    names = [f".{path.name}.{done.pid}.tmp", f".{path.name}.{os.getppid()}.tmp", f".b.ckpt.{done.pid}.tmp"]
    for name in names:
        (tmp_path / name).touch()
    write_atomically(path, b"new")
    assert set(os.listdir(tmp_path)) == {path.name, *names[1:]}  # a live writer's and another target's stay


def test_a_log_that_cannot_be_written_leaves_the_earlier_run_and_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = origin()
    parquet.write(counts(1), made, log="first", results=tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    opened = Path.open
    for suffix in (".log", ".parquet"):

        def full(self: Path, *a: Any, suffix: str = suffix, **k: Any) -> Any:
            if suffix in self.name:
                raise OSError(errno.ENOSPC, "No space left on device")
            return opened(self, *a, **k)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", full)
            with pytest.raises(OSError, match="No space left"):
                parquet.write(counts(2), made, log="second", results=tmp_path)
        assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        check_writable(tmp_path / "file")


# ---- bad files stop with their name --------------------------------------------------------------------------------


def stopped(path: Path, match: str) -> None:
    for reading in (lambda: parquet.read("p3_crosscheck", path.parents[1]), lambda: parquet.runs(path.parents[1])):
        with pytest.raises(parquet.SchemaError, match=match) as caught:
            reading()
        assert str(path) in str(caught.value)


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def with_origin(table: pa.Table, **changes: Any) -> pa.Table:
    kept = json.loads(table.schema.metadata[parquet.METADATA_KEY])
    return table.replace_schema_metadata({parquet.METADATA_KEY: json.dumps(kept | changes).encode()})


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return parquet.write(counts(*range(50)), origin(), results=tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.99])
def test_truncated_files(stored: Path, kept: float) -> None:
    content = stored.read_bytes()
    stored.write_bytes(content[: int(kept * len(content))])
    stopped(stored, "cannot be read")


def test_files_of_another_kind(stored: Path) -> None:
    stored.write_bytes(b"PAR1 this is not parquet PAR1")
    stopped(stored, "cannot be read")
    stored.unlink()
    stored.mkdir()
    stopped(stored, "cannot be read|no provenance")


def test_flipped_bytes_never_end_in_another_error(stored: Path) -> None:
    """Damage is either found, with the file's name, or leaves a file that reads (no checksums in unused bytes)."""
    content = stored.read_bytes()
    found = 0
    for position in range(0, len(content), max(1, len(content) // 150)):
        stored.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            parquet.read("p3_crosscheck", stored.parents[1])
        except parquet.SchemaError as error:
            assert str(stored) in str(error)
            found += 1
    assert found > 20


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.drop_columns(["value"]), "columns or types break the schema"),
        (lambda t: t.append_column("more", t["value"]), "columns or types break the schema"),
        (lambda t: t.set_column(3, "value", t["value"].cast(pa.float64())), "columns or types break the schema"),
        (lambda t: t.select(t.column_names[::-1]), "columns or types break the schema"),
        (lambda t: t.replace_schema_metadata(None), "has no provenance"),
        (lambda t: t.replace_schema_metadata({parquet.METADATA_KEY: b"{"}), "cannot be read"),
        (lambda t: t.replace_schema_metadata({parquet.METADATA_KEY: b"{}"}), "cannot be read"),
        (lambda t: with_origin(t, git_commit="main"), "cannot be read"),
        (lambda t: with_origin(t, host_cores=0), "cannot be read"),
        (lambda t: with_origin(t, kind="guessed"), "cannot be read"),
        (lambda t: with_origin(t, more=1), "cannot be read"),
        (lambda t: with_origin(t, run_id="another"), "names another run"),
        (lambda t: with_origin(t, experiment="p4_cutout"), "names another run"),
        (lambda t: t.slice(0, 0), "has no rows"),
    ],
)
def test_files_that_break_the_schema(stored: Path, change: Callable[[pa.Table], pa.Table], match: str) -> None:
    rewritten(stored, change)
    stopped(stored, match)


def test_the_rewriting_itself_is_harmless(stored: Path) -> None:
    """So that the test above can fail for nothing but its change."""
    rewritten(stored, with_origin)
    assert len(parquet.read("p3_crosscheck", stored.parents[1])) == 50


def test_empty_cells_in_required_columns(stored: Path) -> None:
    field = schemas.SCHEMAS["p3_crosscheck"].field("value").with_nullable(True)
    rewritten(stored, lambda t: t.set_column(3, field, pa.array([None] * 50, pa.int64())))
    stopped(stored, "columns or types break the schema")


def test_a_renamed_file_is_not_taken_for_another_run(stored: Path) -> None:
    other = stored.rename(stored.with_name("other.parquet"))
    stopped(other, "names another run")


def test_results_of_an_unknown_experiment(tmp_path: Path, stored: Path) -> None:
    folder = tmp_path / "p9_unknown"
    folder.mkdir()
    (folder / stored.name).write_bytes(stored.read_bytes())
    with pytest.raises(parquet.SchemaError, match=r"p9_unknown.*no schema"):
        parquet.runs(tmp_path)


# ---- provenance ----------------------------------------------------------------------------------------------------


def test_run_ids_depend_on_the_configuration_alone() -> None:
    base = {"M": 4, "seed": 0, "augment": "cutout"}
    assert run_id("m4", base) == run_id("m4", dict(reversed(base.items())))
    different = [{**base, "M": 8}, {**base, "seed": 1}, {**base, "more": None}, {"M": "4", "seed": 0}]
    assert len({run_id("m4", config) for config in [base, *different]}) == 5
    assert run_id("m4", base).startswith("m4-")


def test_run_ids_are_the_same_in_every_process() -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from experiments.store.provenance import run_id; "
    script += "print(run_id('m4', {'M': 4, 'augment': 'cutout'}))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": k},
        ).stdout.strip()
        for k in ("1", "2")
    }
    assert seen == {run_id("m4", {"M": 4, "augment": "cutout"})}


def test_what_provenance_holds() -> None:
    made = origin()
    assert made.git_commit == COMMIT and made.git_dirty is False
    assert made.started == STARTED and made.ended > STARTED and made.ended.tzinfo is not None
    assert made.host_cores == len(os.sched_getaffinity(0)) and made.host_cpu
    assert made.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert made.command.startswith("python ")
    assert made.device_count == 1 and made.seed == 0
    assert Provenance.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(("given", "commit", "dirty"), [(COMMIT, COMMIT, False), (f"{COMMIT}-dirty", COMMIT, True)])
def test_commit_from_the_environment(monkeypatch: pytest.MonkeyPatch, given: str, commit: str, dirty: bool) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", given)
    assert (origin().git_commit, origin().git_dirty) == (commit, dirty)


@pytest.mark.parametrize("given", ["main", COMMIT[:12], COMMIT.upper(), f"{COMMIT}-clean", f"{COMMIT}\n", "-dirty"])
def test_bad_commits_from_the_environment(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", given)
    with pytest.raises(UsageError, match="DLPERF_COMMIT must be a commit of 40 hex digits") as caught:
        origin()
    assert "\n" not in str(caught.value)


def test_commit_from_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLPERF_COMMIT")
    monkeypatch.setattr("experiments.store.provenance.ROOT", tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet")
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert git_state() == (head, False)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "run.parquet").write_text("new")
    assert git_state() == (head, False)  # writing a run does not make the next one dirty
    (tmp_path / "code.py").write_text("2")
    assert git_state() == (head, True)


def test_no_commit_to_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLPERF_COMMIT")
    monkeypatch.setattr("experiments.store.provenance.ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="DLPERF_COMMIT"):
        git_state()


def test_sources_that_changed_since_are_told(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    source = tmp_path / "experiments" / "p3.py"
    source.write_text("a = 1\n")
    gone = "experiments/gone.py"
    made = origin(sources={"experiments/p3.py": file_hash(source)})
    assert made.stale(tmp_path) == []
    source.write_text("a = 2\n")
    assert made.stale(tmp_path) == ["experiments/p3.py"]
    assert origin(sources={gone: "0" * 64}).stale(tmp_path) == [gone]
    assert origin(sources={"experiments/store.py": "0" * 64}).stale() == []  # no number depends on it


def test_short_names_of_devices() -> None:
    assert short_name("Intel(R) Xeon(R) Processor") == "Intel Xeon"
    assert short_name("NVIDIA H100 80GB HBM3") == "NVIDIA H100"
    assert short_name("AMD EPYC") == "AMD EPYC"


def test_sources_are_those_that_ran() -> None:
    """In a process of its own: the modules that were imported, and their SOURCE, whose change could change numbers."""
    script = f"""
        import os, sys
        sys.path.insert(0, {str(ROOT)!r})
        from datetime import UTC, datetime
        from experiments.p4 import conventional_loop, cuda_kernels
        from experiments.store.provenance import Code, provenance
        code = Code.now()
        from experiments.machine import cores
        from experiments.p4 import augment
        made = provenance("p4_cutout", "x", {{}}, seed=0, device="cpu", started=datetime.now(UTC), code=code)
        print(*sorted(code.sources))
        print(*sorted(made.sources.keys() - code.sources.keys()))
        print(made.stale())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "experiments/p4/cifar10.py experiments/p4/conventional_loop.py experiments/p4/cuda_kernels.cu "
        "experiments/p4/cuda_kernels.py experiments/p4/resnet.py",
        "experiments/machine/cores.py experiments/p4/augment.py",
        "[]",
    ]


# ---- what is committed ---------------------------------------------------------------------------------------------


def test_committed_results_read_cleanly() -> None:
    found = parquet.runs()
    assert len(found) == len(list(RESULTS.rglob("*.parquet")))
    for run in found:
        assert run.provenance.started < run.provenance.ended
        assert run.provenance.sources and run.provenance.command.startswith("python ")
        assert run.provenance.run_id.endswith(run_id("", run.provenance.config, run.provenance.settings))
    for experiment in sorted({run.provenance.experiment for run in found}):
        versions = range(1, schemas.version(experiment) + 1)
        frame = pd.concat([parquet.read(experiment, version=version) for version in versions])
        assert len(frame) == sum(run.rows for run in found if run.provenance.experiment == experiment)


def test_committed_cutout_runs_are_of_real_data() -> None:
    frame = parquet.read("p4_cutout")
    assert set(frame["dataset"]) <= {"cifar10"}
    for _, run in frame.groupby("run_id"):
        assert run["epoch"].tolist() == list(range(1, len(run) + 1))
        assert run["val_error"].between(0, 1).all()
