"""The chapters as text: read as UTF-8, each with one heading of the first level, which the book's structure follows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

HEADING = re.compile(r" {0,3}#(?!#)(\s|$)")
UNDERLINE = re.compile(r"=+\s*$")


class BookError(Exception):
    """The book can't be rendered; `code` is the exit status: 2 for a wrong source, 1 for a failing cell."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def read(root: Path, name: str) -> str:
    """A chapter's text, without a byte-order mark. Raises BookError where it isn't UTF-8."""
    content = (root / name).read_bytes()
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        raise BookError(f"{name}:{line}: not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8") from error


def is_title(line: str, before: str, after: str) -> bool:
    """Whether a line is a heading of the first level, between the lines before and after; pandoc wants a blank one
    before it."""
    return not before.strip() and bool(HEADING.match(line) or (line.strip() and UNDERLINE.match(after)))


def authors(given: object) -> str:
    """The book's authors, of one name or several, each a text or a mapping with a name. Raises TypeError."""
    if not isinstance(given, list):
        given = [given]
    names = [one.get("name") if isinstance(one, dict) else one for one in given]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError("book.author must be a name, or a list of names")
    return _joined([str(name) for name in names])


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
