"""Problem 4.3's epochs and wall clock to 94 %, times within one allocation only; and which M to take."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from experiments.p4.wanted import ALL_M
from report import show
from report.answers import Answer, Missing
from report.estimates import ENOUGH, verdict, word
from report.figures.augmentation import SERIES_BY, coloured, curves, goal_rule
from report.figures.augmentation_runs import (
    SETTING,
    by_allocation,
    by_m,
    comparable,
    difference,
    finished,
    goal_text,
    gpu,
    main,
    median_range,
    numbers,
    points,
    same_length,
    series,
    span,
)
from report.figures.augmentation_shortest import shortest
from report.used import selects


def answer_p4_augmentation(epochs: pd.DataFrame) -> Answer | Missing:
    """4.3: which M reach 94 %, at which epoch, why there, and the wall clock until then."""
    runs = finished(epochs)
    shown = series(runs)
    if shown.empty:
        return Missing("Cutout with batch augmentation", SERIES_BY)
    own = by_m(shown)
    at_drop = [m for m, group in own.items() if (group.goal_epoch == group.first_drop).all()]
    said = []
    if at_drop:
        said.append(
            f"M = {show.listing(at_drop)} reach{'es' * (len(at_drop) == 1)} 94 % accuracy at epoch "
            f"{numbers(own[at_drop[0]].first_drop)}, the first after the learning rate falls: the schedule sets that "
            "epoch, not M"
        )
    others = [m for m in own if m not in at_drop]
    reaching = [m for m in others if own[m].goal_epoch.notna().any()]
    for m in reaching:
        several = "s" * (own[m].goal_epoch.nunique() > 1)
        said.append(f"M = {m} reaches it at epoch{several} {goal_text(own[m])}")
    used = [shown, _shortest(epochs)]
    for m in (m for m in others if m not in reaching):
        used.append(_other_precisions(runs, own[m]))
        said.append(f"M = {m} does not reach it within {numbers(own[m].epochs)} epochs ({_missed(own[m], used[-1])})")
    return Answer(
        "4.3",
        " ".join(filter(None, [f"With cutout, {'. '.join(said)}.", clock_text(epochs), shortest_text(epochs)])),
        _places(shown),
        sum(map(len, used)),
        "measured",
        "fig-p4-m",
    )


def _places(shown: pd.DataFrame) -> str:
    """On what the runs were made: one H200, M = 2 on one H100."""
    own = shown[~shown.elsewhere]
    said = [f"one {gpu(own.device.iloc[0])}"]
    for device, others in shown[shown.elsewhere].groupby("device"):
        said.append(f"M = {numbers(others.M)} on one {gpu(str(device))}")
    return ", ".join(said)


def _other_precisions(runs: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """The runs that differ from these in precision alone, of each precision in which one reaches 94 %."""
    first = own.iloc[0]
    alike = [name for name in [*SETTING, "device", "code"] if name not in ("precision", "engine")]
    others = runs[(runs[alike] == first[alike]).all(axis=1) & (runs.precision != first.precision)]
    return others[others.groupby("precision").goal_epoch.transform("count") > 0]


def _missed(own: pd.DataFrame, others: pd.DataFrame) -> str:
    """The accuracy of runs that do not reach 94 %, and how many of another precision do."""
    said = [f"{100 - own['last'].median():.2f} % in {own.precision.iloc[0]}"]
    said += [
        f"in {precision}, {group.goal_epoch.count()} of {len(group)} runs reaches it, at epoch "
        f"{numbers(group.goal_epoch.dropna())}"
        for precision, group in others.groupby("precision")
    ]
    return "; ".join(said)


def text_p4_drop(epochs: pd.DataFrame) -> str:
    """What the error does in the one epoch in which the learning rate falls."""
    shown = series(finished(epochs))
    falls: dict[int, tuple[float, float]] = {}
    for m, own in by_m(shown[shown.first_drop.notna()]).items():
        error, drop = curves(epochs, own).set_index("epoch").error, own.first_drop.min()
        falls[int(m)] = error[drop - 1], error[drop]
    if not falls:
        return ""
    ends = [
        f"from {falls[m][0]:.2f} to {falls[m][1]:.2f} % with M = {m}" for m in dict.fromkeys((min(falls), max(falls)))
    ]
    points = sorted(before - after for before, after in falls.values())
    by = f" by {points[0]:.2f} to {points[-1]:.2f} points, whatever M is" if len(points) > 1 else ""
    first = numbers(shown.first_drop.dropna())
    return f"In epoch {first}, when the learning rate falls, the error falls{by}: {show.listing(ends)}."


def _clocks(own: pd.DataFrame) -> dict[int, pd.Series]:
    """The minutes to 94 % of each M all of whose runs here are there."""
    return {m: group.goal_seconds / 60 for m, group in by_m(own).items() if group.goal_epoch.notna().all()}


def clock_text(epochs: pd.DataFrame) -> str:
    """The wall clock to 94 % for each M, allocation by allocation; one all of whose M another has, too, is left out."""
    found = [_clocks(own) for _, own in by_allocation(comparable(finished(epochs)))]
    kept = [times for times in found if times and not any(set(times) < set(other) for other in found)]
    kept.sort(key=lambda times: list(times))
    parts = [f"{_minutes(times)} for M = {show.listing(times)}" for times in kept]
    if len(parts) > 1:
        parts = [f"{parts[0]} in one allocation", *(f"{part} in another" for part in parts[1:])]
    return f"The wall clock to 94 % is {show.listing(parts)}." if parts else ""


def _minutes(times: dict[int, pd.Series]) -> str:
    """The medians of some clocks."""
    return f"{show.listing(f'{own.median():.2f}' for own in times.values())} min"


def shortest_text(epochs: pd.DataFrame) -> str:
    """When the seeds of each M's shortest schedule reach 94 %, and the wall clock until then in the allocation that ran
    most M."""
    runs = _shortest(epochs)
    if runs.empty:
        return ""
    own = by_m(runs)
    lengths = show.listing(str(int(group.epochs_planned.iloc[0])) for group in own.values())
    at = show.listing(f"{group.goal_epoch.median():g}" for group in own.values())
    said = (
        f"With the shortest schedule that takes all seeds there ({lengths} epochs), M = {show.listing(own)} "
        f"reach{'es' * (len(own) == 1)} it at epoch {at}"
    )
    clocks = [_clocks(group) for _, group in by_allocation(runs)]
    if not clocks:
        return f"{said}."
    times = max(clocks, key=len)
    which = "" if set(times) == set(own) else f" for M = {show.listing(times)}"
    return f"{said}, after {_minutes(times)}{which} in one allocation."


def _shortest(epochs: pd.DataFrame) -> pd.DataFrame:
    """The runs of each M's shortest schedule that takes all seeds to 94 %, on the GPU model of most of them."""
    runs = [length.runs for length, _ in shortest(epochs)]
    models = [own for _, own in pd.concat(runs).groupby("device")] if runs else [finished(epochs).iloc[:0]]
    return max(models, key=len)


# ---- which M -------------------------------------------------------------------------------------------------------


def text_p4_choice(epochs: pd.DataFrame) -> str | Missing:
    """Which M to take with one GPU: the smallest that no larger one beats beyond noise, of those with three seeds; what
    it costs beside the smallest in the same allocation; and which M is there soonest."""
    runs = same_length(finished(epochs))
    own = by_m(runs, ENOUGH)
    if len(own) < 2:
        return Missing("Which M to take, from three seeds for each of two M,", SERIES_BY)
    least = min(own)
    chosen = next(m for m in own if not any(_better(own[n], own[m]) for n in own if n > m))
    gain = points(difference(own[least], own[chosen], ["M"]))
    costs = [
        group.epoch_seconds[group["M"] == chosen].median() / group.epoch_seconds[group["M"] == least].median()
        for _, group in by_allocation(runs)
        if {chosen, least} <= set(group.M)
    ]
    price = f", for {span(costs)} times the time of an epoch" if costs else ""
    larger = [m for m in own if m > chosen]
    rest = [f"no gain beyond noise from M = {show.listing(larger)}"] if larger else []
    smaller = max((m for m in own if m < chosen), default=chosen)
    better = [m for m in own if m > smaller and _better(own[m], own[smaller])]
    if better and chosen not in better:
        rest.append(f"M = {smaller} is within noise of it, but not of M = {show.listing(better)}")
    few = sorted({int(m) for m in runs.M} - set(own))
    rest += [f"M = {show.listing(few)} ran too few times for a verdict"] if few else []
    return (
        f"**Which M to take with one GPU:** M = {chosen}, whose error is {gain} below that of M = {least}{price}"
        f"{''.join(f'; {said}' for said in rest)}.{_soonest(epochs, runs)}"
    )


def _better(of: pd.DataFrame, than: pd.DataFrame) -> bool:
    """Whether some runs' error is below others' beyond noise."""
    return verdict(difference(of, than, ["M"]), 0) == "below"


def _soonest(epochs: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Which M reaches 94 % before all others that ran in an allocation with it, and what is sooner still there: an M
    with its shortest schedule."""
    clocks = {name: _clocks(own) for name, own in by_allocation(runs)}
    medians = {name: {m: own.median() for m, own in times.items()} for name, times in clocks.items()}
    several = {name: times for name, times in medians.items() if len(times) > 1}
    beaten = {m for times in several.values() for m in times if times[m] > min(times.values())}
    first = min({m for times in several.values() for m in times} - beaten, default=None)
    if first is None:
        return ""
    name = max(
        (name for name in several if first in several[name]), key=lambda name: len(runs[runs.allocation == name])
    )
    times = clocks[name]
    others = [m for m in times if m != first and len(times[m]) >= ENOUGH] or [m for m in times if m != first]
    count = min(len(times[m]) for m in [first, *others])
    few = f" ({word(count)} run{'s' * (count > 1)} each, too few for a verdict)" if count < ENOUGH else ""
    against = show.listing(f"{several[name][m]:.2f}" for m in others)
    said = (
        f" With the authors' schedule, M = {first} reaches 94 % soonest: after {several[name][first]:.2f} min, against "
        f"{against} with M = {show.listing(others)} in the same allocation{few}."
    )
    short = _shortest(epochs)
    scaled = _clocks(short[short.allocation == name])
    sooner = min(scaled, key=lambda m: scaled[m].median(), default=None)
    if sooner is not None and scaled[sooner].median() < several[name][first]:
        length = int(short.epochs_planned[short["M"] == sooner].iloc[0])
        said += f" Sooner still is M = {sooner} with its schedule scaled to {length} epochs: "
        said += f"{scaled[sooner].median():.2f} min (@sec-p4-shortest)."
    return said


# ---- the table and the figure --------------------------------------------------------------------------------------


def tbl_p4_time(epochs: pd.DataFrame) -> str | Missing:
    """By allocation and training: the epoch that reaches 94 %, and the wall clock until then or of all epochs."""
    shown = main(finished(epochs))
    shown = shown.assign(reached=shown.goal_epoch.notna())
    lines = []
    for (allocation, augment, m, _), own in shown.groupby(["allocation", "augment", "M", "reached"]):
        clock = own.goal_seconds.fillna(own.seconds) / 60
        times = [median_range(clock), f"{(clock + own.setup_seconds / 60).median():.2f}"] if allocation else ["–", "–"]
        reached = goal_text(own)
        lines.append((allocation or "several", f"{augment}, M = {m}", len(own), reached, *times))
    heads = ["Allocation", "Training", "Runs", "94 % at", "Minutes", "With set-up"]
    return show.table_text(show.once(lines), heads, "llrrrr") if lines else Missing("Times to 94 %", SERIES_BY)


@selects
def _several_m(epochs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs with cutout of each allocation in which several M ran."""
    return [(name, own) for name, own in by_allocation(series(finished(epochs))) if own.M.nunique() > 1]


def fig_p4_clock(epochs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The error against wall clock, a panel for each allocation in which several M ran."""
    panels = [_clock(curves(epochs, own), name) for name, own in _several_m(epochs)]
    if not panels:
        return Missing("Error against wall clock, of several M in one allocation,", SERIES_BY)
    return alt.vconcat(*panels).resolve_scale(x="shared", y="shared", color="shared")


def _clock(frame: pd.DataFrame, allocation: str) -> Any:
    log = alt.Scale(type="log", nice=False)
    lines = (
        alt.Chart(frame[["M", "epoch", "minutes", "error"]])
        .mark_line()
        .encode(
            x=alt.X("minutes:Q", title="wall clock (minutes, log)", scale=log),
            y=alt.Y("error:Q", title="error (%, log)", scale=log),
            color=coloured(ALL_M),
            order="epoch:Q",
            tooltip=["M", "epoch", alt.Tooltip("minutes", format=".2f"), alt.Tooltip("error", format=".2f")],
        )
    )
    return alt.layer(lines, goal_rule()).properties(width=560, height=150, title=f"allocation {allocation}")
