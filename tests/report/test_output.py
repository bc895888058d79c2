"""The output folder: only what a rendering wrote is replaced, a format at a time; the rest is the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from report import output
from report.output import LIST
from report.sources import BookError

PDF = "book.pdf"


def made(folder: Path, *names: str, text: str = "new") -> Path:
    """A rendering that has these files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def files(folder: Path) -> dict[str, str]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text(encoding="utf-8") for name, path in found.items() if name != LIST}


def test_a_format_replaces_only_itself(tmp_path: Path) -> None:
    out = tmp_path / "out"
    output.put(made(tmp_path / "a", "index.html", "report/old.html", PDF, text="first"), out, ["html", "pdf"], PDF)
    output.put(made(tmp_path / "b", "data.csv", PDF, text="second"), out, ["pdf"], PDF)
    assert files(out) == {"index.html": "first", "report/old.html": "first", PDF: "second"}
    output.check(out, ["index.html", PDF])
    output.put(made(tmp_path / "c", "index.html", text="third"), out, ["html"], PDF)
    assert files(out) == {"index.html": "third", PDF: "second"} and not (out / "report").exists()


def test_files_beside_the_book_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    output.put(made(tmp_path / "a", "index.html"), out, ["html"], PDF)
    made(out, "thesis.docx", "report/notes.txt", text="mine")
    output.put(made(tmp_path / "b", "index.html", "report/p1.html"), out, ["html"], PDF)
    output.put(made(tmp_path / "c", "index.html"), out, ["html"], PDF)
    assert files(out) == {"index.html": "new", "thesis.docx": "mine", "report/notes.txt": "mine"}


def test_a_users_file_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    output.put(made(tmp_path / "a", "index.html"), out, ["html"], PDF)
    made(out, PDF, text="mine")
    with pytest.raises(BookError, match=r"book\.pdf is not a rendering's; move it away"):
        output.check(out, [PDF])
    with pytest.raises(BookError, match=r"book\.pdf is not a rendering's"):
        output.put(made(tmp_path / "b", PDF), out, ["pdf"], PDF)
    assert files(out) == {"index.html": "new", PDF: "mine"}


def test_a_rendering_that_was_killed_at_its_first_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".{LIST}.00000000.1.ab.tmp").touch()
    output.check(tmp_path, ["index.html"])


@pytest.mark.parametrize("name", ["index.html", "thesis.docx"])
def test_a_folder_without_a_list_is_refused(name: str, tmp_path: Path) -> None:
    made(tmp_path / "out", name, text="mine")
    with pytest.raises(BookError, match=f"out holds something else than a rendering \\({name}\\); name another"):
        output.check(tmp_path / "out")
    assert files(tmp_path / "out") == {name: "mine"}


def test_a_folder_that_cannot_be_one_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for place in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(BookError, match=r"can't be written to \(.*\); name another output directory"):
            output.check(place)
    output.check(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


def test_a_damaged_list_is_named(tmp_path: Path) -> None:
    made(tmp_path, LIST, text="[")
    with pytest.raises(BookError, match="not a rendering's list"):
        output.check(tmp_path)
