"""A chapter's source, taken apart for the embedded engine: text, and the cells and inline expressions to execute."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NoReturn

import yaml

from report.sources import BookError, is_title

OPTIONS = {"label", "fig-cap", "tbl-cap", "echo"}
BLOCK = re.compile(
    r"\{(#(fig|tbl)-[\w-]+|\.content-visible\s+when-format=\"(html|typst)\""
    r"|\.callout-(note|tip|important|warning|caution)(\s+(title=\"[^\"]*\"|collapse=\"(true|false)\"))*)\}"
)
INLINE = re.compile(r"(?<!`)`\{python\}[ \t]([^`]+)`(?!`)")


@dataclasses.dataclass
class Cell:
    """A code cell or an inline expression; `line` is the chapter's line on which the code starts."""

    line: int
    source: str
    options: dict[str, Any]
    inline: bool = False


def parse(name: str, source: str) -> list[str | Cell]:
    """A chapter's text and cells in order. Raises BookError at what the engine doesn't know."""

    def fail(line: int, what: str) -> NoReturn:
        raise BookError(f"{name}:{line}: {what}")

    parts: list[str | Cell] = []
    fence, fence_line = "", 0
    code: list[str] | None = None
    blocks: list[int] = []  # the lines on which the open ones start
    lines, titles = source.splitlines(), 0
    for number, line in enumerate(lines, 1):
        mark = re.match(r"\s*(`{3,}|~{3,})\s*([^`]*?)\s*$", line)
        if fence:
            closing = mark and mark[1].startswith(fence) and not mark[2]
            fence = "" if closing else fence
            if code is None:
                parts.append(line + "\n")
            elif closing:
                parts.append(Cell(fence_line + 1, "\n".join(code), cell_options(code, fence_line + 1, fail)))
                code = None
            else:
                code.append(line)
            continue
        if mark:
            fence, fence_line, code = mark[1], number, [] if mark[2] == "{python}" else None
            if code is None and re.match(r"\{\w", mark[2]):
                fail(number, f"unknown code block {mark[2]}; known is {{python}}, with its options on #| lines")
        elif (number == 1 and line.rstrip() == "---") or "{{<" in line:
            fail(number, "the embedded engine knows neither front matter nor shortcodes")
        elif block := re.match(r"\s*:{3,}\s*(.*?)\s*:*$", line):
            if block[1] and not BLOCK.fullmatch(block[1]):
                fail(number, f"unknown block {block[1]}")
            if not block[1] and not blocks:
                fail(number, "::: closes no block")
            blocks = [*blocks, number] if block[1] else blocks[:-1]
        elif not blocks and is_title(line, *(("", *lines, "")[i] for i in (number - 1, number + 1))):
            titles += 1
            if titles > 1:
                fail(number, "a second heading of level 1; make it level 2, or a chapter of its own")
        if code is None:
            end = 0
            for match in INLINE.finditer(line):
                parts += [line[end : match.start()], Cell(number, match[1].strip(), {}, inline=True)]
                end = match.end()
            parts.append(line[end:] + "\n")
    if fence or blocks:
        fail(fence_line if fence else blocks[-1], "the block is not closed")
    return parts


def cell_options(code: list[str], line: int, fail: Any) -> dict[str, Any]:
    """The checked options in a cell's leading `#|` lines."""
    count = next((i for i, text in enumerate(code) if not text.startswith("#|")), len(code))
    options: dict[str, Any] = {}
    for i, text in enumerate(code[:count]):
        try:
            option = yaml.safe_load(text.removeprefix("#|"))
        except yaml.YAMLError:
            option = None
        if not isinstance(option, dict) or not set(option) <= OPTIONS:
            fail(line + i, f"unknown cell option {text}; known are {', '.join(sorted(OPTIONS))}, each on one line")
        options |= option
    for kind in ("fig", "tbl"):
        if (f"{kind}-cap" in options) != str(options.get("label", "")).startswith(f"{kind}-"):
            fail(line, f"{kind}-cap and a label that starts with {kind}- need each other")
    return options
