"""Names at the ends of lines, in place of a legend.

Labels are pushed apart as far as the PDF needs, whose views are the lowest. `show.specification` says how much room
they take, for pages that fit a chart to their column.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from report import palette
from report.vega import LOWER

STYLE = "end-label"
APART = 13.0  # pixels between the middles of two labels


def labels(
    base: alt.Chart,
    points: pd.DataFrame,
    colours: Mapping[Any, str],
    names: Mapping[Any, str],
    keys: Sequence[str],
    y: alt.Y,
    height: int,
    along: str = "learners",
) -> list[alt.Chart]:
    """A text for each line of `points` at its last point: `names` of its first key.

    base: the chart of these points, with its x. colours: of the lines, by their first key. keys: the columns that tell
    lines apart. y: the column and title of the values, and their scale. along: the column that ends with the line.
    """
    last = points.sort_values(along).groupby(list(keys), sort=False).tail(1)
    channel: Any = y.to_dict()
    field, scale = channel["field"], channel.get("scale", {})
    log, axis = scale.get("type") == "log", points[field].tolist()
    moved = nudges(last[field].tolist(), axis if log or scale.get("zero") is False else [0, *axis], LOWER * height, log)
    layers = []
    for place, row in zip(moved, last.to_dict("records"), strict=True):
        here = " && ".join(f"datum.{key} == {json.dumps(row[key])}" for key in [along, *keys])
        text = base.transform_filter(here).mark_text(align="left", dx=9, dy=round(place, 1), style=STYLE)
        name, colour = names[row[keys[0]]], palette.ink(colours[row[keys[0]]])
        layers.append(text.encode(y=y, text=alt.value(name), color=alt.value(colour)))
    return layers


def nudges(values: Sequence[float], axis: Sequence[float], height: float, log: bool) -> list[float]:
    """By how many pixels each label moves down (up where negative), so that all are APART and keep their order. `axis`
    has the values that the axis spans, `height` the pixels."""
    scale = math.log if log else float
    low, high = scale(min(axis)), scale(max(axis))
    at = [height * (1 - (scale(value) - low) / ((high - low) or 1)) for value in values]
    crowds: list[list[int]] = []

    def top(crowd: list[int]) -> float:
        """Where its first label stands so that all of them are as near to their lines as they can be."""
        return sum(at[i] - APART * place for place, i in enumerate(crowd)) / len(crowd)

    for i in sorted(range(len(at)), key=lambda i: at[i]):
        crowds.append([i])
        while len(crowds) > 1 and top(crowds[-2]) + APART * len(crowds[-2]) > top(crowds[-1]):
            crowds[-2:] = [crowds[-2] + crowds[-1]]
    placed = {i: top(crowd) + APART * place for crowd in crowds for place, i in enumerate(crowd)}
    return [placed[i] - at[i] for i in range(len(at))]


def room(spec: Any) -> float:
    """The pixels that the longest label of a specification takes to the right of the last points."""
    if isinstance(spec, list):
        return max(map(room, spec), default=0.0)
    if not isinstance(spec, dict):
        return 0.0
    mark = spec.get("mark")
    if isinstance(mark, dict) and mark.get("style") == STYLE:
        return 9 + 6.7 * len(spec["encoding"]["text"]["value"])
    return max((room(spec[key]) for key in ("layer", "vconcat") if key in spec), default=0.0)
