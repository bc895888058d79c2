"""The charts that Problem 2's figures share: a panel a series, one below the other, against the number of learners."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from report import line_ends, palette, show
from report.comparisons import spread
from report.figures.strategy_k80 import k80
from report.figures.strategy_runs import AXIS, LOADS, over

WIDTH = 560
K80_PANEL = "K80, 224 px: projected from published runs"
BATCHES = f"{LOADS['weak']}; {LOADS['strong']}".replace(", ", ": ")
TICKS = [m * 10.0**e for e in range(-4, 7) for m in (1, 1.5, 2, 3, 5, 7)]
STYLES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("measured", {}, palette.MEASURED_POINT),
    ("projected", palette.PROJECTED_LINE, palette.PROJECTED_POINT),
]
# What a point has, beside the series that it belongs to. `measure` tells apart what is drawn with another mark.
COLUMNS = ["panel", "scaling", "measure", "learners", "value", "low", "high", "repetitions", "basis"]


def panels(
    points: pd.DataFrame,
    title: str,
    *,
    log: bool = False,
    height: int = 105,
    measures: Sequence[str] = ("",),
    legend: bool = True,
    apart: float = 0.0,
) -> alt.TopLevelMixin:
    """Points with COLUMNS, panel by panel in the order of the frame, each with scales of its own; bars from `low` to
    `high`. Lines have their names at their ends; the first panel says what these mean where there is a `legend`.

    What is projected is hollow, and its lines are dashed. A measure has a mark of its own. `apart`: by which part of
    the learners weak scaling is moved to the left and strong to the right, where bars would hide each other.
    """
    frame = points[COLUMNS].assign(load=points.scaling.map(LOADS))
    frame["edge"] = frame.learners * (1 + apart)  # where names begin
    frame["x"] = frame.learners * (1 + apart * frame.scaling.map({"weak": -1, "strong": 1}))
    views: list[Any] = []
    for panel in dict.fromkeys(frame.panel):
        own, first = frame[frame.panel == panel], legend and not views
        heading = alt.Title(panel.split("\n"), subtitle=BATCHES if first else alt.Undefined)
        views.append(_panel(own, title, log, measures, first, height).properties(title=heading, height=height))
    return alt.vconcat(*views).resolve_scale(color="independent", shape="independent")


def _learners(own: pd.DataFrame) -> dict[str, Any]:
    """The axis of a panel: from its fewest learners to its most."""
    sizes = sorted({int(n) for n in own.learners})
    scale = alt.Scale(type="log", base=2, nice=False, domain=[0.88 * sizes[0], 1.13 * sizes[-1]])
    return {"title": "learners", "scale": scale, "axis": alt.Axis(values=sizes, format="d")}


def _values(own: pd.DataFrame, log: bool) -> tuple[alt.Scale, alt.Axis]:
    if not log:
        return alt.Scale(zero=True), alt.Axis(tickCount=5)
    least, most = own[["value", "low"]].min().min(), own[["value", "high"]].max().max()
    ticks = [tick for tick in TICKS if 0.5 * least <= tick <= 2 * most]
    axis = alt.Axis(values=ticks, labelOverlap="greedy", format="~g")
    return alt.Scale(type="log", nice=False, padding=12), axis


def _panel(own: pd.DataFrame, title: str, log: bool, measures: Sequence[str], legend: bool, height: int) -> Any:
    scale = alt.Scale(domain=list(LOADS.values()), range=[palette.SCALINGS[name] for name in LOADS])
    color = alt.Color("load:N", title=None, legend=None, scale=scale)
    shapes: dict[str, Any] = {"domain": list(measures), "range": ["circle", "triangle-up"][: len(measures)]}
    several = alt.Legend(orient="top", columns=1, labelLimit=320) if legend and len(measures) > 1 else None
    shape = alt.Shape("measure:N", title=None, legend=several, scale=alt.Scale(**shapes))
    heights, axis = _values(own, log)
    y = alt.Y("value:Q", title=title, scale=heights, axis=axis)
    tips = ["learners", alt.Tooltip("load", title="scaling"), alt.Tooltip("value", format=",.4~g", title=title)]
    tips += [alt.Tooltip(name, format=",.4~g") for name in ("low", "high")] + ["repetitions", "basis"]
    base = alt.Chart(own).encode(x=alt.X("x:Q", **_learners(own)), color=color)
    layers = [base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=title, scale=heights), y2="high:Q")]
    for basis, line, point in STYLES:
        if basis in set(own.basis):
            of_basis = base.transform_filter(alt.FieldEqualPredicate(field="basis", equal=basis))
            layers.append(of_basis.mark_line(**line).encode(y=y, detail="measure:N"))
            layers.append(of_basis.mark_point(**point).encode(y=y, shape=shape, tooltip=tips))
    beside = base.encode(x=alt.X("edge:Q", **_learners(own)))
    layers += line_ends.labels(
        beside, own, palette.SCALINGS, {name: name for name in LOADS}, ["scaling", "measure"], y, height
    )
    return alt.layer(*layers).properties(width=WIDTH)


def curves(points: pd.DataFrame, measures: Sequence[str]) -> alt.TopLevelMixin:
    """Points with COLUMNS as a line a `panel`, all in one view; a view a measure, which titles its axis."""
    names = list(dict.fromkeys(points.panel))
    frame = points[COLUMNS].assign(panel=points.panel.str.replace("\n", " "))
    names = [name.replace("\n", " ") for name in names]
    legend = alt.Legend(orient="top", columns=1, labelLimit=340)
    scale = alt.Scale(domain=names, range=palette.series(names))
    views: list[Any] = []
    for title in measures:
        color = alt.Color("panel:N", title=None, scale=scale, legend=None if views else legend)
        own = frame[frame.measure == title]
        y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5))
        base = alt.Chart(own).encode(x=alt.X("learners:Q", **_learners(frame)), color=color)
        tips = ["panel", "learners", alt.Tooltip("value", format=".3f", title=title)]
        tips += [alt.Tooltip(name, format=".3f") for name in ("low", "high")] + ["repetitions", "basis"]
        layers = [base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=title), y2="high:Q")]
        for basis, line, point in STYLES:
            if basis in set(own.basis):
                of_basis = base.transform_filter(alt.FieldEqualPredicate(field="basis", equal=basis))
                layers.append(of_basis.mark_line(**line).encode(y=y))
                layers.append(of_basis.mark_point(**point).encode(y=y, tooltip=tips))
        views.append(alt.layer(*layers).properties(width=WIDTH, height=120))
    return alt.vconcat(*views).resolve_scale(color="independent")


def points_of(frame: pd.DataFrame, value: str, measure: str = "") -> pd.DataFrame:
    """The median and range of each job, with COLUMNS; series in the order of the frame."""
    found = spread(frame, [*AXIS, "scaling", "base"], value)
    basis = found.basis if "basis" in found else "measured"
    return sorted_like(frame, found.assign(panel=titles(found), measure=measure, basis=basis))


def sorted_like(frame: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """The points' series in the order in which the frame has them."""
    order = {name: i for i, name in enumerate(dict.fromkeys(frame.series))}
    return points.sort_values("series", key=lambda names: names.map(order), kind="stable")


def titles(points: pd.DataFrame) -> list[str]:
    """A panel's title for each point: its series, and which of its learners are on several hosts."""
    title = {}
    for name, own in points.groupby("series"):
        apart = ""
        for learners, jobs in own[own.hosts > 1].groupby("learners"):
            all_there = set(own.scaling[own.learners == learners]) == set(jobs.scaling)
            which = "" if all_there else f"{show.listing(sorted(set(jobs.scaling)))}, "
            apart += f"; {which}{learners} on {over(jobs.iloc[0])}"
        title[name] = "\n".join(textwrap.wrap(f"{name}{apart}", 52))
    return [title[name] for name in points.series]


def of_k80(value: str, low: str, high: str, measure: str = "") -> pd.DataFrame:
    """The homework's own machine, projected by the scaling model, with COLUMNS."""
    jobs = k80()
    constant: dict[str, Any] = {"panel": K80_PANEL, "measure": measure, "repetitions": 0, "basis": "projected"}
    return jobs.assign(value=jobs[value], low=jobs[low], high=jobs[high], **constant)[COLUMNS]


def contests(points: pd.DataFrame, order: Sequence[str]) -> alt.TopLevelMixin:
    """Throughput by implementation: a panel a comparison (`title`), a point a run, and the median as a black tick."""
    views = []
    for title in dict.fromkeys(points.title):
        own = points.loc[points.title == title, ["name", "rate", "repeat"]]
        own = own.assign(name=own["name"].str.removesuffix("AllReduce"))  # a phone has no room for it
        x = alt.X(
            "rate:Q", title="images/s", scale=alt.Scale(domain=[0, 1.05 * own.rate.max()]), axis=alt.Axis(tickCount=4)
        )
        y = alt.Y(
            "name:N", title=None, sort=[name.removesuffix("AllReduce") for name in order], axis=alt.Axis(labelLimit=220)
        )
        tips = ["name", "repeat", alt.Tooltip("rate", format=",.4~g", title="images/s")]
        base = alt.Chart(own).encode(x=x, y=y)
        median = base.encode(x=alt.X("median(rate):Q", title="images/s"))
        view = alt.layer(
            median.mark_tick(thickness=2, height=18, color="black"),
            base.mark_point(**palette.MEASURED_POINT | {"opacity": 0.8, "color": palette.device(title)}).encode(
                tooltip=tips
            ),
        )
        views.append(view.properties(width=WIDTH, height=22 * own["name"].nunique(), title=title))
    return alt.vconcat(*views)
