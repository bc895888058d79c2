"""Small books for the embedded engine."""

import re
from pathlib import Path

import yaml

from report.engine import Book

BIBLIOGRAPHY = """@article{he2016,
  author = {He, Kaiming}, title = {Residual Learning}, journal = {Journal}, year = {2016}
}
"""


def book(folder: Path, **chapters: str) -> Book:
    """A book of a preface and these chapters in `folder`."""
    files = {"index.qmd": "# Preface {.unnumbered}\n\nSee @sec-first.\n"} if "first" in chapters else {}
    files |= {f"report/{name}.qmd": text for name, text in chapters.items()}
    (folder / "report").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "references.bib").write_text(BIBLIOGRAPHY, encoding="utf-8")
    config = {
        "project": {"type": "book", "output-dir": "_book"},
        "book": {"title": "A small book: tested", "author": "Someone", "chapters": list(files)},
        "bibliography": "references.bib",
        "execute": {"echo": False},
    }
    (folder / "_quarto.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return Book.read(folder)


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html)).replace("\u00a0", " ")


def cell(*lines: str) -> str:
    return "\n".join(["# T", "", "```{python}", *lines, "```", ""])
