"""Charts, tables, formulas, callouts and number formats for the chapters: one look for all, for HTML and PDF.

Every function displays its output itself, so it works anywhere in a cell. Chapters call `setup()` in their first cell.
"""

from __future__ import annotations

import base64
import html
import inspect
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
from IPython.display import display

from report import alt_text, hop, line_ends, vega, yours
from report.answers import Answer, Missing
from report.palette import CATEGORIES, ORDERED

CONFIG: dict[str, Any] = {
    "background": "white",
    "font": "sans-serif",
    "view": {"continuousWidth": 560, "continuousHeight": 260, "discreteWidth": 560, "stroke": None},
    "range": {"category": CATEGORIES, "ordinal": {"scheme": ORDERED, "extent": [0, 0.88]}, "ramp": {"scheme": ORDERED}},
    "axis": {"labelFontSize": 12, "labelSeparation": 5, "titleFontSize": 13, "titleFontWeight": "normal"},
    "axisQuantitative": {"gridColor": "#e5e5e5"},
    "legend": {"orient": "top", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
    "header": {"labelFontSize": 12, "titleFontSize": 13},
    "title": {"fontSize": 13, "fontWeight": "normal", "anchor": "start", "subtitleFontSize": 12},
    "bar": {"color": CATEGORIES[0]},
    "line": {"color": CATEGORIES[0]},
    "point": {"color": CATEGORIES[0]},
    "style": {line_ends.STYLE: {"fontSize": 12}},
}

# Altair copies charts whenever it lays them over each other, to the last of an axis's eighty attributes, and it looks
# through five hundred classes for each channel that a text gives. Here charts share these parts, which nobody changes
# once they are made: their setters, as in y.field("error"), give another one. And a text makes one of its channel.
CHANNELS = (alt.X, alt.Y, alt.Y2, alt.Color, alt.Shape, alt.StrokeDash, alt.Detail, alt.Order, alt.Text, alt.Tooltip)
WHOLE: tuple[Any, ...] = (alt.MarkDef, *CHANNELS)

_FENCE = "`" * 8  # longer than any run of backticks in what it encloses
_bundle_shown = False
_page = hop.Page()


def setup(root: str = "../") -> None:
    """Start a page, from which `root` leads to the book's: its first chart brings the Vega bundle where Quarto renders.

    Quarto may keep one kernel for many renders, so the module can't tell by itself where a page starts.
    """
    global _bundle_shown, _page
    _bundle_shown, _page = False, hop.Page(root)
    alt.data_transformers.disable_max_rows()
    # A chart is validated when it is displayed, once and whole, and not each of its parts while it is put together.
    alt.utils.schemapi.DEBUG_MODE = False
    for part in WHOLE:
        part.__deepcopy__ = lambda self, *_: self
        part.copy = lambda self, *_, **__: type(self)(*self._args, **self._kwds)
        part.from_dict = classmethod(lambda cls, found, **_: cls(**found))
    pd.options.mode.string_storage = "python"  # the frames are short: Arrow's strings take several times as long


# ---- charts --------------------------------------------------------------------------------------------------------


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The chart's Vega-Lite specification in this document's look."""
    spec = chart.to_dict() | {"config": json.loads(json.dumps(CONFIG))}
    room = round(line_ends.room(spec))
    return spec | ({"usermeta": {"room": room}} if room else {})  # for a page that fits the chart to its column


def chart(chart: alt.TopLevelMixin, under: str = "", what: str = "") -> None:
    """Display an Altair chart: interactive in HTML, as SVG in the PDF. `under`: HTML to put under it; `what`: a
    sentence that its alternative text begins with.

    Lay several views out above each other, not side by side: they must fit a phone.
    """
    _chart(specification(chart), under, what)


def _chart(spec: dict[str, Any], under: str, what: str) -> None:
    words = alt_text.described(spec, what)
    spec = spec | {"description": words}
    _image(lambda: _script() + vega.drawing(spec), vega.svg(spec), words, under)


def _script() -> str:
    """The Vega bundle, before the first chart of a page of Quarto's; the embedded engine's pages link to it."""
    global _bundle_shown
    if _bundle_shown or "QUARTO_EXECUTE_INFO" not in os.environ:
        return ""
    _bundle_shown = True
    return f"{vega.script()}\n"


def picture(png: bytes, under: str = "", what: str = "") -> None:
    """Display a PNG image, with HTML under it and an alternative text."""
    data = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    width, height = (int.from_bytes(png[start : start + 4]) for start in (16, 20))  # as each PNG begins
    size = f'width="{width}" height="{height}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><image href="{data}" {size}/></svg>'
    _image(lambda: f'<img src="{data}" {size} alt="{html.escape(what)}">', svg, what, under)


def _image(page: Callable[[], str], svg: str, what: str, under: str) -> None:
    """Display what pages show as HTML and the PDF as SVG. Without JavaScript a page shows the SVG, too."""
    if os.environ.get("DLPERF_ENGINE") == "embedded":
        display({"text/html": page() + under, "image/svg+xml": svg}, metadata={"alt": what}, raw=True)
    elif "QUARTO_EXECUTE_INFO" in os.environ:
        # Not as text/html: Quarto adds require.js and jQuery from a CDN to pages with such an output.
        if _format() == "typst":
            quoted, words = (json.dumps(text, ensure_ascii=False) for text in (svg, what))
            return markdown(raw("typst", f'#image(bytes({quoted}), format: "svg", width: 100%, alt: {words})'))
        shown = page()
        source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
        markdown(raw("html", shown + vega.without_script(source, what) * ("<script" in shown) + under))
    else:
        display({"image/svg+xml": svg}, raw=True)


def _format() -> str:
    """The format that Quarto is making: html or typst. It runs the chapters once for each."""
    information = json.loads(Path(os.environ["QUARTO_EXECUTE_INFO"]).read_text(encoding="utf-8"))
    return information["format"]["identifier"]["target-format"]


# ---- text ----------------------------------------------------------------------------------------------------------


def markdown(text: str) -> None:
    """Display Markdown: sentences that depend on the data, with references and citations."""
    display({"text/markdown": text}, raw=True)


def raw(kind: str, text: str) -> str:
    """Markdown that one format alone takes, as it is: html or typst."""
    return f"{_FENCE}{{={kind}}}\n{text}\n{_FENCE}"


def table_text(
    rows: pd.DataFrame | Iterable[Sequence[Any]], headers: Sequence[str] | None = None, align: str | None = None
) -> str:
    """A Markdown pipe table, from a frame or from rows with headers.

    `align` has l, r or c for each column; without it columns of numbers go right. Raises ValueError when rows,
    headers and alignment differ in length.
    """
    if isinstance(rows, pd.DataFrame):
        headers = [str(name) for name in rows.columns] if headers is None else headers
        rows = list(rows.itertuples(index=False, name=None))
    if headers is None:
        raise ValueError("a table from rows needs headers")
    cells = [[cell(value) for value in row] for row in rows]
    if wrong := [row for row in cells if len(row) != len(headers)]:
        raise ValueError(f"a row has {len(wrong[0])} cells under {len(headers)} headers: {wrong[0]}")
    columns = [[row[i] for row in cells] for i in range(len(headers))]
    align = "".join("r" if _numeric(column) else "l" for column in columns) if align is None else align
    if len(align) != len(headers) or set(align) - set("lrc"):
        raise ValueError(f"align needs l, r or c for each of {len(headers)} columns, not {align!r}")
    heads = [cell(h).replace("\u00a0", " ") for h in headers]  # which wrap before a table is too wide
    # Pandoc shares out a wide table's width by the length of these rules.
    widths = [max(3, *(len(text) for text in [head, *column])) for head, column in zip(heads, columns, strict=True)]
    rules = [
        {"l": ":" + "-" * (w - 1), "r": "-" * (w - 1) + ":", "c": ":" + "-" * (w - 2) + ":"}[a]
        for a, w in zip(align, widths, strict=True)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, rules, *cells])


def once(rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """Rows whose first cell is left empty where it says the same as in the row above."""
    shown: list[Sequence[Any]] = []
    above: Any = None
    for row in rows:
        shown.append(("", *row[1:]) if row[0] == above else row)
        above = row[0]
    return shown


def cell(value: Any) -> str:
    """A table cell's text: a dash for nothing, grouped integers, four digits of a float."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (hasattr(value, "dtype") and value.dtype.kind in "iu"):
        return count(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value).replace("|", "\\|").replace("\n", " ")
    # A short cell stays on one line, and so does a calculation; where room is short, what is in parentheses goes below.
    if not set(text) & set("`@$[") and len(text) <= (32 if re.fullmatch(r"[\d\W]+", text) else 16):
        text = re.sub(r"(?<=\w)([-–])(?=\w)", "\u2060\\1\u2060", re.sub(r" (?!\()", "\u00a0", text))
    return text


_NUMBER = re.compile(r"[*]*[-−+±≈]?\d[\d,.×·=()+–/\s\u2060]*([%a-zA-Z]{1,3})?[*]*$")


def _numeric(column: list[str]) -> bool:
    filled = [text for text in column if text not in ("", "–")]
    return bool(filled) and all(_NUMBER.match(text) for text in filled)


def callout(kind: str, text: str, title: str | None = None) -> None:
    """Display a callout: note, tip, important, warning or caution. Raises ValueError for another kind."""
    if kind not in ("note", "tip", "important", "warning", "caution"):
        raise ValueError(f"unknown kind of callout: {kind}")
    heading = f"## {title}\n\n" if title else ""
    markdown(f"::: {{.callout-{kind}}}\n{heading}{text}\n:::")


def missing(what: str, command: str) -> None:
    """Say which results are missing and which command makes them."""
    callout(
        "important",
        f"{what}: `results/` has no such runs yet. Make them with\n\n```\n{command}\n```",
        "Results missing",
    )


def result(function: Callable[..., Any], *arguments: Any) -> None:
    """Display what a function of `report.figures` makes of its arguments: a chart, a text or table, a PNG, an answer,
    or what is missing. On the web, the function, the rows and the runs stand under a figure or table (`report.hop`).
    What it makes of a reader's own results comes first (`report.yours`)."""
    what = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
    for whose, made, runs in yours.made(function, arguments):
        if isinstance(made, Missing):
            missing(f"{whose}: {made.what}" if whose else made.what, made.command)
        elif isinstance(made, Answer):
            markdown(made.markdown(whose))
        else:
            spec = specification(made) if isinstance(made, alt.TopLevelMixin) else None
            under = _page.line(function, arguments, made if spec is None else spec, runs)
            if spec is not None:
                _chart(spec, under, what)
            elif isinstance(made, bytes):
                picture(made, under, what)
            else:
                markdown(made + (f"\n\n{raw('html', under)}" if under else ""))


# ---- numbers -------------------------------------------------------------------------------------------------------


def count(value: Any) -> str:
    """An integer in groups of three digits: 1,234,567."""
    return f"{int(value):,}"


def si(value: float, digits: int = 3) -> str:
    """A number with a decimal prefix, to that many significant digits: 61.0 M."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{_significant(value / scale, digits)} {prefix}"
    return _significant(value, digits)


def _significant(value: float, digits: int) -> str:
    if not value:
        return "0"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction of one as a percentage: 19.14 %."""
    return f"{100 * fraction:.{digits}f} %"


def seconds(value: float) -> str:
    """A duration, in the unit that reads best: 0.85 s, 42.0 s, 281 s, 12.3 min, 2.05 h; a dash where it is unknown."""
    if pd.isna(value):
        return "–"
    if value < 99.95:
        return f"{_significant(value, 3 if value >= 10 else 2)} s"
    if value < 600:
        return f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 5400 else f"{value / 3600:.2f} h"


def mean_range(values: Iterable[float], form: Any = "{:.2f}") -> str:
    """The mean and, of several values, the range: 6.51 (6.40–6.70). `form` is a format string or a function."""
    numbers = list(values)
    if not numbers:
        return "–"
    write = form if callable(form) else form.format
    mean = write(sum(numbers) / len(numbers))
    return mean if len(numbers) == 1 else f"{mean} ({write(min(numbers))}–{write(max(numbers))})"


def capitalised(text: str) -> str:
    """A sentence's text with a capital first letter, the others as they are."""
    return f"{text[0].upper()}{text[1:]}"


def listing(items: Iterable[Any]) -> str:
    """Items as a sentence lists them: 1, 2 and 8."""
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"
