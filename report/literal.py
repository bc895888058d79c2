"""Results are data, never code: strings of stored runs as Markdown and CSV that show them as they are."""

from __future__ import annotations

import re

import pandas as pd

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
# What a spreadsheet computes. A number with a sign stays one.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,]+\s*%?$)")


def one_line(value: str) -> str:
    """The string with a space for each control character and line end."""
    return _CONTROL.sub(" ", value)


def text(value: str) -> str:
    """Markdown that shows the string, in one line."""
    return _PUNCTUATION.sub(r"\\\1", one_line(value))


def code(value: str) -> str:
    """Markdown that shows the string as code, in one line."""
    # Quarto looks for shortcodes in code as well; a word joiner, which has no width, keeps them from being one.
    shown = one_line(value).replace("{{<", "{\u2060{<")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{space}{shown}{space}{fence}"


def csv(frame: pd.DataFrame) -> str:
    """The frame as CSV in which a spreadsheet finds no formula: text that looks like one begins with an apostrophe."""

    def inert(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value

    columns = [inert(name) for name in frame.columns]
    return frame.map(inert).set_axis(columns, axis="columns").to_csv(index=False)
