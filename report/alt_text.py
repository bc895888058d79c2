"""The words that stand in for a chart: what it shows, its axes, and where each series begins and ends."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SERIES = 8  # that a text names at most
MARKS = ["point", "circle", "tick", "bar", "line", "area"]  # the first that a series has tells its values

Row = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One mark of a view with the data and the encoding that it inherits."""

    mark: str
    rows: list[Row]
    encoding: dict[str, Any]

    def field(self, channel: str) -> str:
        """The column that a channel shows; empty where it shows none as it is."""
        asked = self.encoding.get(channel, {})
        return "" if "aggregate" in asked or "bin" in asked else str(asked.get("field", ""))

    def kind(self, channel: str) -> str:
        """quantitative, nominal, ordinal or temporal; empty where the channel is not used."""
        return str(self.encoding.get(channel, {}).get("type", ""))


def described(spec: dict[str, Any], what: str = "") -> str:
    """What a chart (a Vega-Lite specification) shows, for readers who can't see it: `what`, then each view's title and
    axes, and of each series the first and the last value along the axis, or its range."""
    views = [text for view in _views(spec) if (text := _view(view, spec.get("datasets", {})))]
    return " ".join([what] * bool(what) + [f"{view}." for view in dict.fromkeys(views)])


def _views(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The views that stand side by side or below each other, each with the data that it inherits."""
    parts = [part for name in ("vconcat", "hconcat", "concat") for part in spec.get(name, [])]
    if not parts:
        yield spec
    for part in parts:
        yield from _views({"data": spec.get("data", {})} | part)


def _view(view: dict[str, Any], datasets: dict[str, list[Row]]) -> str:
    units = list(_units(view, view.get("data", {}), {}, datasets))
    channels: dict[str, Any] = {}
    for unit in units:
        for name, channel in unit.encoding.items():
            channels.setdefault(name, channel)
    axes = [title for name in ("y", "x") if (title := _title(channels.get(name, {})))]
    title = view.get("title", "")
    title = title.get("text", "") if isinstance(title, dict) else title
    shown = [" ".join(title) if isinstance(title, list) else title, " against ".join(axes), _courses(units)]
    return ": ".join(part for part in shown if part)


def _units(
    view: dict[str, Any], data: dict[str, Any], encoding: dict[str, Any], datasets: dict[str, list[Row]]
) -> Iterator[Unit]:
    """The view, or those that are layered in it, with what they inherit."""
    data, encoding = view.get("data", data), encoding | view.get("encoding", {})
    if "layer" not in view:
        mark = view.get("mark", "")
        rows = _kept(datasets.get(str(data.get("name")), []), view.get("transform", []))
        yield Unit(mark["type"] if isinstance(mark, dict) else mark, rows, encoding)
    for inner in view.get("layer", []):
        yield from _units(inner, data, encoding, datasets)


def _kept(rows: list[Row], transforms: list[dict[str, Any]]) -> list[Row]:
    """The rows that filters for one value of a field let through; none where Vega works out more than that."""
    for transform in transforms:
        test = transform.get("filter")
        if not isinstance(test, dict) or test.keys() != {"field", "equal"}:
            return []
        rows = [row for row in rows if row.get(test["field"]) == test["equal"]]
    return rows


def _courses(units: list[Unit]) -> str:
    """Each series with its values, as the view's lines, points, bars or ticks show it; named ones, if any."""
    drawn = [unit for unit in units if unit.mark in MARKS]
    drawn.sort(key=lambda unit: MARKS.index(unit.mark))
    shaped = [unit for unit in drawn if unit.field("shape")]  # lines without shapes pass through several measures
    found: dict[str, str] = {}
    for unit in shaped or drawn:
        for name, rows in _series(unit).items():
            found[name] = found.get(name) or _course(unit, rows)
    if len(found) > 1:
        found.pop("", None)
    told = [": ".join(filter(None, one)) for one in found.items() if any(one)]
    more = f" and {len(told) - SERIES} more" if len(told) > SERIES else ""
    return "; ".join(told[:SERIES]) + more


def _series(unit: Unit) -> dict[str, list[Row]]:
    """The rows of each colour and shape, or of each name where names are an axis; of all under no name otherwise."""
    named = [c for c in ("color", "shape", "y", "x") if unit.kind(c) in ("nominal", "ordinal") and unit.field(c)]
    fields = dict.fromkeys(unit.field(c) for c in named if c in ("color", "shape"))
    split = list(fields) or [unit.field(c) for c in named[:1] if _measure(unit)]
    what = _title(unit.encoding.get("color", {}))  # of series that are numbers
    groups: dict[str, list[Row]] = {}
    for row in unit.rows:
        names = [row.get(field) for field in split]
        if None not in names:
            name = ", ".join(filter(None, map(_name, names)))
            groups.setdefault(f"{what} {name}" if what and _is_number(names[0]) else name, []).append(row)
    return groups


def _measure(unit: Unit) -> str:
    """The axis whose values are told: y, or x where y holds names."""
    return next((c for c in ("y", "x") if unit.kind(c) == "quantitative" and unit.field(c)), "")


def _course(unit: Unit, rows: list[Row]) -> str:
    """From the first value along the other axis to the last, medians where there are several; else their range."""
    measure = _measure(unit)
    if not measure:
        return ""
    value, along = unit.field(measure), unit.field("x")
    if rows and (title := _title(unit.encoding.get("x", {}))) in rows[0]:
        along = title  # where points stand a little beside their place, the axis names the column that has it
    if measure == "y" and unit.kind("x") == "quantitative" and along:
        at: dict[float, list[float]] = {}
        for row in rows:
            if _is_number(row.get(along)) and _is_number(row.get(value)):
                at.setdefault(row[along], []).append(row[value])
        places = [min(at), max(at)] if len(at) > 1 else list(at)
        return " to ".join(f"{_number(statistics.median(at[place]))} at {_number(place)}" for place in places)
    values = [row[value] for row in rows if _is_number(row.get(value))]
    return " to ".join(dict.fromkeys(map(_number, (min(values), max(values))))) if values else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(value: Any) -> str:
    return _number(value) if _is_number(value) else str(value)


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _title(channel: dict[str, Any]) -> str:
    title = channel.get("title") or channel.get("field") or ""
    return " ".join(title) if isinstance(title, list) else str(title)
