"""Chapters as text: encodings, one heading of the first level, authors; and no word of a book is lost."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from report import sources
from report.engine import BookError, parse, render
from tests.small_books import book, text_of


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.qmd").write_bytes(b"\xef\xbb\xbf# T\r\n\r\nText.\r\n")
    assert sources.read(tmp_path, "a.qmd") == "# T\n\nText.\n"


def test_other_encodings_are_named_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.qmd").write_bytes("# T\n\nCafé\n".encode("latin-1"))
    with pytest.raises(BookError, match=r"^a\.qmd:3: not UTF-8 \(byte 0xe9\); save the file as UTF-8$"):
        sources.read(tmp_path, "a.qmd")


@pytest.mark.parametrize("second", ["# Two", "Two\n===", "#"])
def test_a_second_title_is_named_with_file_and_line(second: str) -> None:
    with pytest.raises(BookError, match=r"^a\.qmd:5: a second heading of level 1; make it level 2, or a chapter"):
        parse("a.qmd", f"# One\n\nText.\n\n{second}\n\nMore.\n")


@pytest.mark.parametrize(
    "text",
    ["```\n\n# a comment\n```", "Text\n# 2 of it", "::: {.callout-tip}\n# Title\n:::", "## Part\n\n#hash"],
)
def test_what_only_looks_like_a_title_is_none(text: str) -> None:
    parse("a.qmd", f"# One\n\n{text}\n")


def test_a_chapter_without_a_title_is_named(tmp_path: Path) -> None:
    small = book(tmp_path, a="Only text.\n", b="# B\n")
    with pytest.raises(BookError, match=r"^report/a\.qmd:1: a chapter needs one heading of level 1, this one has 0$"):
        render(small, ["html"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Ann", "Ann"),
        (["Ann", "Bo"], "Ann and Bo"),
        ([{"name": "Ann", "orcid": "0"}, "Bo", "Cy"], "Ann, Bo and Cy"),
    ],
)
def test_authors_are_told_apart(given: object, expected: str) -> None:
    assert sources.authors(given) == expected


@pytest.mark.parametrize("given", [None, [], [3], [{"orcid": "0"}]])
def test_other_authors_are_refused(given: object) -> None:
    with pytest.raises(TypeError, match=r"book\.author must be a name"):
        sources.authors(given)


CHAPTER = """{bom}# {name} title

{name}-paragraph with *{name}-emphasis*, `{name}-code` and a note.[^{name}]

[^{name}]: The {name}-footnote.

---
{name}-key: {name}-value
---

> {name}-quotation

- {name}-item
    1. {name}-nested

| {name}-head |
|---|
| {name}-cell |

{name}-term
:   {name}-definition

::: {{.callout-note}}
# {name}-called

{name}-boxed
:::

    {name}-verbatim

<div>{name}-raw</div>

## {name}-section

{name}-last
"""


def words(text: str) -> set[str]:
    """The words that begin with a chapter's name."""
    return set(re.findall(r"\b(?:anna|berta)-\w+", text))


def test_no_word_of_a_book_is_lost(tmp_path: Path) -> None:
    texts = {name: CHAPTER.format(name=name, bom=bom) for name, bom in (("anna", "\ufeff"), ("berta", ""))}
    small = book(tmp_path, **texts)
    render(small, ["html", "pdf"])
    for name, text in texts.items():
        page = text_of((small.output / f"report/{name}.html").read_text(encoding="utf-8"))
        assert words(text) - words(page) == set()
    if shutil.which("pdftotext"):
        pdf = subprocess.run(["pdftotext", str(small.output / small.pdf_name), "-"], capture_output=True, text=True)
        lost = words("".join(texts.values())) - words(pdf.stdout.replace("-\n", "-"))
        assert lost == set()
