"""Renders that fail or are stopped: one line that says why, and a whole book or none."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.store.files import HOST, ROOT
from report import __main__ as command
from report.engine import Book, pandoc, render
from report.output import LIST, put
from report.sources import BookError
from tests.small_books import book, cell


def test_a_failing_cell_fails_the_render_and_keeps_the_old_book(tmp_path: Path) -> None:
    small = book(tmp_path, good="# Good\n", bad=cell("#| echo: false", "x = 1", "x / 0"))
    made = tmp_path / "made"
    made.mkdir()
    (made / "index.html").write_text("old", encoding="utf-8")
    put(made, small.output, ["html"], "a.pdf")
    with pytest.raises(BookError) as error:
        render(small, ["html"])
    assert error.value.code == 1
    assert "Traceback (most recent call last)" in str(error.value)
    assert str(error.value).endswith("report/bad.qmd:6: the cell failed: ZeroDivisionError: division by zero")
    assert sorted(path.name for path in small.output.iterdir()) == [LIST, "index.html"]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".book-")]


def test_all_failing_chapters_are_told_and_nothing_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small = book(tmp_path, a=cell("1 / 0"), b=cell("import nothing_of_that_name"), c="# Good\n")
    with pytest.raises(BookError) as error:
        render(small, ["html"])
    assert "report/a.qmd:4: the cell failed: ZeroDivisionError" in str(error.value)
    assert "report/b.qmd:4: the cell failed: ModuleNotFoundError: No module named" in str(error.value)
    assert capfd.readouterr() == ("", "")  # a chapter without cells needs no kernel, and the others failed


def test_ctrl_c_ends_the_kernels_and_says_one_line(tmp_path: Path) -> None:
    """In a process of its own, whose only cell waits; it says so by a file."""
    book(
        tmp_path, a=cell("import time, pathlib", f"pathlib.Path({str(tmp_path / 'here')!r}).touch()", "time.sleep(60)")
    )
    code = f"""
        import sys; sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from experiments.cli import exit_status
        from report.engine import Book, render
        small = Book.read(Path({str(tmp_path)!r}))
        raise SystemExit(exit_status("report", lambda: render(small, ["html"]) or 0, "the book is as it was"))
    """
    (tmp_path / "temporary").mkdir()
    settings = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=settings, start_new_session=True)
    while not (tmp_path / "here").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "report: interrupted; the book is as it was\n"
    assert process.returncode == 130 and not (tmp_path / "_book").exists()
    assert not list((tmp_path / "temporary").glob("book-*"))


def test_a_failing_inline_expression_is_named(tmp_path: Path) -> None:
    small = book(tmp_path, bad="# T\n\nText\nand `{python} nothing`.\n")
    with pytest.raises(
        BookError, match=r"report/bad\.qmd:4: the cell failed: NameError: name 'nothing' is not defined$"
    ):
        render(small, ["html"])


def test_only_a_book_is_replaced(tmp_path: Path) -> None:
    small = book(tmp_path, a="# T\n")
    small.output.mkdir()
    (small.output / "precious.txt").write_text("x", encoding="utf-8")
    with pytest.raises(BookError, match="holds something else"):
        render(small, ["html"])


def test_missing_chapter_is_named(tmp_path: Path) -> None:
    book(tmp_path, a="# T\n")
    (tmp_path / "report/a.qmd").unlink()
    with pytest.raises(BookError, match=r"report/a\.qmd is not a file of the book"):
        Book.read(tmp_path)


def fake_quarto(folder: Path, version: str, code: int = 0) -> Path:
    """A quarto that answers its version and writes its arguments down."""
    program = folder / "quarto"
    script = f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit\necho "$@" "$QUARTO_PYTHON" > {folder}/log\n'
    program.write_text(f"{script}exit {code}\n", encoding="utf-8")
    program.chmod(0o755)
    return folder / "log"


def test_quarto_renders_where_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = fake_quarto(tmp_path, "1.10.3", code=7)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert command.main(["--to", "pdf", "--output-dir", str(tmp_path / "out")]) == 7
    assert re.match(r"render .* --output-dir .*/book --to typst .*python", log.read_text(encoding="utf-8"))
    assert not (tmp_path / "out").exists()


def test_an_old_quarto_is_named_where_the_embedded_engine_steps_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_quarto(tmp_path, "1.9.2")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done: list[list[str]] = []
    monkeypatch.setattr(command, "render", lambda book, formats: done.append(formats))
    assert command.main(["--to", "pdf"]) == 0 and done == [["pdf"]]
    captured = capsys.readouterr()
    assert "version 1.9.2 is on PATH; the embedded engine renders instead" in captured.err
    assert "with the embedded engine" in captured.out


@pytest.mark.parametrize("version", ["1.9.2", None])
def test_engine_quarto_without_quarto_says_so(
    version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if version:
        fake_quarto(tmp_path, version)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere" if not version else f"{tmp_path}:/bin")
    assert command.main(["--engine", "quarto"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (f"version {version}" if version else "none") in error and "--engine embedded" in error


def interrupted(folder: Path, number: int) -> subprocess.CompletedProcess[str]:
    """A render that got a signal while a cell ran."""
    small = book(
        folder, a=cell("import pathlib, time", f"pathlib.Path({str(folder / 'began')!r}).touch()", "time.sleep(60)")
    )
    code = f"""
        import signal, sys
        from pathlib import Path
        from report import __main__ as command
        from report.engine import Book
        signal.signal(signal.SIGINT, signal.default_int_handler)
        small = Book.read(Path({str(small.root)!r}))
        command.Book.read = lambda *_: small
        sys.exit(command.main(["--engine", "embedded", "--to", "html"]))
    """
    command_line = [sys.executable, "-c", textwrap.dedent(code)]
    render_ = subprocess.Popen(command_line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    render_.send_signal(number)
    out, err = render_.communicate(timeout=30)
    return subprocess.CompletedProcess(command_line, render_.returncode, out, err)


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
    ],
)
def test_a_signal_ends_the_render_in_one_line(tmp_path: Path, number: int, status: int, word: str) -> None:
    done = interrupted(tmp_path, number)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"report: {word}; the book is as it was\n")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".book-", "_book"))]


def test_an_endless_cell_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("report.execution.CELL_TIMEOUT", 1)
    small = book(tmp_path, a="# T\n\nIt is `{python} 1`.\n\n```{python}\nwhile True:\n    pass\n```\n")
    with pytest.raises(BookError, match=r"^report/a\.qmd:6: the cell took more than 1 s$"):
        render(small, ["html"])


def test_a_damaged_results_file_is_told_in_one_line(tmp_path: Path) -> None:
    fail = "from experiments.store.parquet import SchemaError", "raise SchemaError('a.parquet: is damaged')"
    small = book(tmp_path, a=cell(*fail))
    with pytest.raises(BookError) as error:
        render(small, ["html"])
    assert str(error.value) == "report/a.qmd:5: the cell failed: SchemaError: a.parquet: is damaged"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"book": 3}, "no readable book"),
        ({"book": {"title": ["x"]}}, "title must be text, not ['x']"),
        ({"book": {"author": 3}}, "book.author must be a name, or a list of names"),
        ({"book": {"chapters": 5}}, "no readable book"),
        ({"book": {"chapters": [{"part": "x"}]}}, "is not a file of the book"),
        ({"lang": 3}, "lang must be text, not 3"),
        ({"execute": {"echo": "often"}}, "echo must be true or false, not 'often'"),
        ({"project": {"output-dir": 7}}, "no readable book"),
        ({"project": []}, "no readable book"),
        ({"bibliography": ["references.bib"]}, "is not a file of the book"),
    ],
)
def test_wrong_types_in_the_configuration(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    small = book(tmp_path, a="# T\n")
    config = yaml.safe_load((small.root / "_quarto.yml").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (tmp_path / "_quarto.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(BookError) as error:
        Book.read(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value) and error.value.code == 2


@pytest.mark.parametrize("name", ["_quarto.yml", "report/a.qmd"])
def test_sources_in_another_encoding(tmp_path: Path, name: str) -> None:
    small = book(tmp_path, a="# T\n")
    (tmp_path / name).write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises(BookError, match=rf"{re.escape(name)}:1: not UTF-8 \(byte 0xf6\)"):
        render(Book.read(small.root), ["html"])


def test_leftovers_of_killed_renders_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = book(tmp_path, a="# T\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = subprocess.Popen(["true"])
    done.wait()  # its process number is now nobody's
    dead, live, foreign = (f"book-{host}-{pid}-x" for host, pid in
                           [(HOST, done.pid), (HOST, os.getppid()), ("0badc0de", done.pid)])  # fmt: skip
    for name in (dead, live, foreign):
        (tmp_path / name / "book").mkdir(parents=True)
    render(small, ["html"])
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("book-")} == {live, foreign}


def test_a_killed_pandoc_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "pandoc"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr("report.surroundings.pandoc_path", lambda: killed)
    with pytest.raises(BookError, match=r"^the book: pandoc: was killed by signal 9$"):
        pandoc("the book", "x")
