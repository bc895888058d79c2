"""Files are written whole or not at all, whatever happens to their writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.store import files, parquet
from experiments.store.files import ROOT, check_writable, write_atomically
from tests.stored_run import counts, origin

pytestmark = pytest.mark.usefixtures("fixed_commit")


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

        def open_full(self: Path, mode: str = "r", **others: Any) -> Any:
            stream = opened(self, mode, **others)
            return Full(stream) if "x" in mode else stream

        monkeypatch.setattr(Path, "open", open_full)
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
    kept = [
        f".{path.name}.{files.HOST}.{os.getppid()}.0a.tmp",  # of a live writer
        f".b.ckpt.{files.HOST}.{done.pid}.0a.tmp",  # of another file
        f".{path.name}.0badc0de.{done.pid}.0a.tmp",  # of another host, where the number may be a live writer's
    ]
    for name in [f".{path.name}.{files.HOST}.{done.pid}.0a.tmp", *kept]:
        (tmp_path / name).touch()
    write_atomically(path, b"new")
    assert set(os.listdir(tmp_path)) == {path.name, *kept}


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious, path = tmp_path / "precious", tmp_path / "run.parquet"
    precious.write_bytes(b"kept")
    monkeypatch.setattr("secrets.token_hex", lambda _: "0a")
    planted = tmp_path / f".{path.name}.{files.HOST}.{os.getpid()}.0a.tmp"
    planted.symlink_to(precious)
    with pytest.raises(FileExistsError, match=r"run\.parquet"):
        write_atomically(path, b"new")
    assert precious.read_bytes() == b"kept" and planted.is_symlink() and not path.exists()


def test_writers_with_one_process_number_do_not_meet(tmp_path: Path) -> None:
    """As in two containers that share a folder: each writes whole files, and no write fails."""
    path = tmp_path / "run.parquet"
    script = f"""
        import os, sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from experiments.store.files import write_atomically
        os.getpid = lambda: 1
        for _ in range(100):
            write_atomically(Path({str(path)!r}), sys.argv[1].encode() * 100_000)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    writers = [subprocess.Popen([*command, letter], stderr=subprocess.PIPE, text=True) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 100_000 and len(set(content)) == 1
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert os.listdir(tmp_path) == [path.name]


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


def test_a_temporary_folder_goes_with_its_block_and_those_of_killed_processes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = subprocess.Popen(["true"])
    done.wait()  # its process number is now nobody's
    dead, live = (tmp_path / f"a-{files.HOST}-{pid}-x" for pid in (done.pid, os.getppid()))
    foreign, other = tmp_path / f"a-0badc0de-{done.pid}-x", tmp_path / f"b-{files.HOST}-{done.pid}-x"
    for folder in (dead, live, foreign, other):
        (folder / "below").mkdir(parents=True)
    with files.temporary_folder("a") as made:
        assert made.is_dir() and made.name.startswith(f"a-{files.HOST}-{os.getpid()}-")
    assert set(tmp_path.iterdir()) == {live, foreign, other}
