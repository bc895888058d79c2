"""One hop from a figure or table to what made it: its function, the rows that it draws, and the runs that it uses.

One line under it, on the web alone. What the line links to is written where the engine puts the book: the embedded
engine names the folder in DLPERF_BOOK, and with Quarto it is the project's, from where Quarto copies what is linked.
"""

from __future__ import annotations

import dataclasses
import html
import inspect
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.store.files import ROOT
from report import literal
from report.known_runs import stale

ROWS = "report/rows"  # from the book's root
PROVENANCE = "report/provenance.html"
NAMED = ("fig_", "tbl_")


def label(function: Callable[..., Any], arguments: Sequence[Any] = ()) -> str:
    """The label of what a function draws: `tbl_answers(found, "p1")` is tbl-answers-p1."""
    return "-".join([function.__name__.replace("_", "-"), *(a for a in arguments if isinstance(a, str))])


def book() -> Path | None:
    """The folder that files of the book are written to; none outside of a rendering."""
    if named := os.environ.get("DLPERF_BOOK"):
        return Path(named)
    return ROOT if "QUARTO_EXECUTE_INFO" in os.environ else None


def write(name: str, text: str) -> None:
    """Write a file of the book, by its path from the book's root; nothing outside of a rendering."""
    if folder := book():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def drawn(made: Any, arguments: Sequence[Any] = ()) -> pd.DataFrame | None:
    """The rows that a chart's specification draws or a Markdown table has; of a picture those that it was made from. A
    chart of several data sets has their number in the column `data`. None where it makes its data in the browser."""
    if isinstance(made, str):
        return _table(made)
    if isinstance(made, dict):
        frames = [pd.DataFrame(rows) for rows in made.get("datasets", {}).values()]
        if len(frames) > 1:
            frames = [frame.assign(data=number) for number, frame in enumerate(frames, 1)]
        return pd.concat(frames, ignore_index=True) if frames else None
    frames = [a.drop(columns="png", errors="ignore") for a in arguments if isinstance(a, pd.DataFrame)]
    return frames[0] if frames else None


def _table(text: str) -> pd.DataFrame | None:
    """A Markdown pipe table as it reads; a first cell that `show.once` left empty has what stands above it."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[_plain(cell) for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in lines]
    if len(cells) < 3:
        return None
    frame = pd.DataFrame([cells[0], *cells[2:]])
    frame[0] = frame[0].where(frame[0] != "").ffill()
    return frame[1:].set_axis(frame.iloc[0].tolist(), axis="columns")


def _plain(cell: str) -> str:
    return cell.replace("\u2060", "").replace("\u00a0", " ").replace("\\|", "|").replace("`", "").strip()


@cache
def repository() -> str | None:
    """Where the code can be read on the web, by `repo-url` and `repo-branch` in _quarto.yml."""
    settings = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["book"]
    url = settings.get("repo-url")
    return f"{url.rstrip('/')}/blob/{settings.get('repo-branch', 'main')}" if url else None


def _code(function: Callable[..., Any]) -> str:
    """The function and its line: a link where the repository is on the web, else the path."""
    plain = inspect.unwrap(function)
    path = Path(inspect.getfile(plain)).resolve().relative_to(ROOT).as_posix()
    line = inspect.getsourcelines(plain)[1]
    if url := repository():
        return f'<a href="{url}/{path}#L{line}" title="{plain.__name__}, {path}:{line}">code</a>'
    return f'<span title="{plain.__name__}">code: {path}:{line}</span>'


def _runs(ids: Sequence[str], root: str) -> str:
    links = ", ".join(f'<a href="{root}{PROVENANCE}#run-{html.escape(one)}">{html.escape(one)}</a>' for one in ids)
    earlier = len(stale() & set(ids))
    said = f"{len(ids)} run{'s' * (len(ids) > 1)}" + f", {earlier} by earlier code" * (earlier > 0)
    return f"<details><summary>{said}</summary>{links}</details>"


@dataclasses.dataclass(frozen=True)
class Page:
    """The page that is being rendered: `root` leads from it to the book's root."""

    root: str = "../"

    def line(self, function: Callable[..., Any], arguments: Sequence[Any], made: Any, runs: Sequence[str]) -> str:
        """The line under a figure or table, as HTML; the rows are written on the way. Empty outside of a rendering."""
        if not function.__name__.startswith(NAMED) or book() is None:
            return ""
        parts = [_code(function)]
        rows, name = drawn(made, arguments), f"{ROWS}/{label(function, arguments)}.csv"
        if rows is not None:
            write(name, literal.csv(rows))
            parts.append(f'<a href="{self.root}{name}">rows</a>')
        parts += [_runs(runs, self.root)] if runs else []
        return f'<div class="hop">{" · ".join(parts)}</div>'
