"""Provenance tells where a run comes from, and which of its sources have changed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from experiments.cli import UsageError
from experiments.store.files import ROOT
from experiments.store.ledger import file_hash
from experiments.store.provenance import Code, Provenance, changes, git_state, provenance, run_id
from tests.stored_run import COMMIT, STARTED, origin

pytestmark = pytest.mark.usefixtures("fixed_commit")


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
    with pytest.raises(UsageError, match=r"unknown git commit \(not a git repository.*\); .* DLPERF_COMMIT=<commit>"):
        git_state()


def test_gits_own_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        "fatal: detected dubious ownership in repository at '/w'\nTo add an exception, call:\n\n\tgit config --global "
    )
    said += "--add safe.directory /w\n"
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\nprintf '%s' \"{said}\" >&2\nexit 128\n")
    git.chmod(0o755)
    monkeypatch.delenv("DLPERF_COMMIT")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UsageError) as caught:
        git_state()
    assert str(caught.value) == (
        "unknown git commit (detected dubious ownership in repository at '/w': git config --global --add "
        "safe.directory /w); correct that, or set DLPERF_COMMIT=<commit>[-dirty]"
    )


def test_a_hooks_repository_is_not_the_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLPERF_COMMIT")
    expected = git_state()[0]
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert git_state()[0] == expected


def test_line_ends_of_a_checkout_change_no_hash(tmp_path: Path) -> None:
    for name, content in {"unix": b"a = 1\nb = 2\n", "windows": b"a = 1\r\nb = 2\r\n"}.items():
        (tmp_path / name).write_bytes(content)
    assert file_hash(tmp_path / "windows") == file_hash(tmp_path / "unix")


def test_quota_and_throttled_periods_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.machine.cpu_quota.cores", lambda: 0.5)
    monkeypatch.setattr("experiments.machine.cpu_quota.throttled", lambda: 100)
    code = Code.now()
    monkeypatch.setattr("experiments.machine.cpu_quota.throttled", lambda: 107)
    code = code.and_sources({"a": "b"})
    made = provenance("p3_crosscheck", "x", {}, seed=0, device="cpu", started=STARTED, code=code)
    assert (made.cpu_quota, made.throttled_periods, made.sources["a"]) == (0.5, 7, "b")


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


def test_sources_are_those_that_ran() -> None:
    """In a process of its own: the imported modules, their SOURCE and HEADERS, whose change could change numbers."""
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
        "experiments/p4/cifar10.py experiments/p4/conventional_loop.py experiments/p4/cuda_backward.cuh "
        "experiments/p4/cuda_forward.cuh experiments/p4/cuda_kernels.cu experiments/p4/cuda_kernels.py "
        "experiments/p4/cuda_tiles.cuh experiments/p4/resnet.py",
        "experiments/machine/cores.py experiments/p4/augment.py",
        "[]",
    ]


def test_changes_go_with_the_sources_a_run_names(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    now = file_hash(tmp_path / "a.py")
    # Of three runs the first and last name the source as it is; the second another text, which no ledger explains.
    runs = [origin(sources={"a.py": digest}) for digest in (now, "0" * 64, now)]
    assert changes(runs, tmp_path) == [{}, {"a.py": []}, {}]
