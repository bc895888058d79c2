"""Problem 4: the shortest schedule with which every seed reaches 94 %, for each M.

The released schedule hides what M buys: whatever M is, a run crosses 94 % where the learning rate falls. Here the
schedule is scaled to E epochs, and E is made as small as it may be. Errors and epochs are pooled over allocations,
times are not.
"""

from __future__ import annotations

import altair as alt
import pandas as pd

from report import palette, show
from report.answers import Missing
from report.comparisons import pooled
from report.estimates import ENOUGH
from report.figures.augmentation import coloured, goal_rule
from report.figures.augmentation_runs import (
    BATCH,
    SCRIPT,
    SETTING,
    by_allocation,
    finished,
    main,
    median_range,
    placed_as,
    pooled_text,
)
from report.used import selects

LENGTHS = (10, 15, 20, 30, 40, 60, 80, 100)  # the epochs E that are tried
UPDATES = 50_000 // BATCH  # in an epoch, whatever M is
SHORTEST_BY = "\n".join(f"{SCRIPT} --schedule scaled --epochs 30 --M 8 --seed {seed}" for seed in range(3))


@selects
def scaled(epochs: pd.DataFrame) -> pd.DataFrame:
    """Cutout runs whose schedule was scaled to their length, on the device and by the code of the other figures."""
    runs = finished(epochs)
    asked = runs[(runs.augment == "cutout") & (runs.schedule == "scaled")]
    shown = main(runs)
    if shown.empty:
        return asked.iloc[:0]
    return placed_as(asked, shown).sort_values(["M", "epochs_planned", "seed"])


def _groups(runs: pd.DataFrame) -> list[tuple[int, int, pd.DataFrame]]:
    """The runs of each M and E, after a check that they differ in nothing but seed and allocation."""
    groups = [own for _, own in runs.groupby(["M", "epochs_planned"])]
    found = [(int(own.M.iloc[0]), int(own.epochs_planned.iloc[0]), own) for own in groups]
    for _, _, own in found:
        pooled(own, "last", SETTING)
    return found


def fig_p4_shortest(epochs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The lowest error of a run against its schedule's length, for each M: a point a seed.

    A line goes through the medians of three seeds or more: single runs say too little of what lies between them.
    """
    runs = scaled(epochs)
    if runs.empty:
        return Missing("Schedules scaled to fewer epochs", SHORTEST_BY)
    found = [own.assign(error=own.best.median(), seeds=len(own)) for _, _, own in _groups(runs)]
    frame = pd.concat(found)[["M", "epochs_planned", "seed", "best", "error", "seeds"]]
    log = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(values=sorted({*LENGTHS, *map(int, frame.epochs_planned)}), labelOverlap=True, format="d")
    x = alt.X("epochs_planned:Q", title="epochs of the schedule, E (log)", scale=log, axis=axis)
    y = alt.Y(title="lowest validation error (%, log)", scale=log)
    base = alt.Chart(frame).encode(x=x, color=coloured(frame["M"]))
    points = base.mark_point(**palette.MEASURED_POINT).encode(
        y=y.field("best").type("quantitative"),
        tooltip=["M", alt.Tooltip("epochs_planned", title="E"), "seed", alt.Tooltip("best", format=".2f")],
    )
    layers: list[alt.Chart] = [goal_rule(), points]
    if (frame.seeds >= ENOUGH).any():
        enough = base.transform_filter(alt.datum.seeds >= ENOUGH)
        layers.insert(1, enough.mark_line().encode(y=y.field("error").type("quantitative")))
    return alt.layer(*layers)


def tbl_p4_shortest(epochs: pd.DataFrame) -> str | Missing:
    """What each M and E reach, and what that takes: epochs, updates, gradient evaluations, wall clock.

    The wall clock is of the allocation that ran most of them.
    """
    runs = scaled(epochs)
    if runs.empty:
        return Missing("Schedules scaled to fewer epochs", SHORTEST_BY)
    most = max((group for _, group in by_allocation(runs)), key=len, default=runs.iloc[:0])
    lines = []
    for m, e, own in _groups(runs):
        there = own[own.goal_epoch.notna()]
        at = there.goal_epoch.median()
        times = most[most.run_id.isin(own.run_id)].goal_seconds.dropna() / 60
        reach = f"{len(there)} of {len(own)}" + (f", at {at:g}" if len(there) else "")
        took = (show.count(round(UPDATES * at)), f"{m * at:,g}") if len(there) else (None, None)
        lines.append((m, e, pooled_text(own), reach, *took, median_range(times) if len(times) else None))
    heads = ["M", "E", "Error", "94 % at epoch", "Updates", "Epochs × M", "Minutes"]
    return show.table_text(lines, heads, "rrrrrrr")


def text_p4_shortest(epochs: pd.DataFrame) -> str | Missing:
    """For each M the shortest schedule of those tried with which three seeds or more all reach 94 %."""
    said, groups = [], _groups(scaled(epochs))
    for m in sorted({m for m, _, _ in groups}):
        tried = [(e, own) for n, e, own in groups if n == m and len(own) >= ENOUGH]
        enough = [(e, own) for e, own in tried if own.goal_epoch.notna().all()]
        if enough:
            e, own = enough[0]
            shorter = [other for other, _ in tried if other < e]
            not_with = f", not with {show.listing(shorter)}" if shorter else ""
            at = own.goal_epoch.median()
            said.append(
                f"M = {m} with {e} epochs{not_with}: at epoch {at:g}, after {show.count(round(UPDATES * at))} updates "
                f"and {m * at:,g} times as many gradients as the training set has images"
            )
        elif tried:
            said.append(f"M = {m} with none of {show.listing([e for e, _ in tried])} epochs")
    if not said:
        return Missing("The shortest schedule with which three seeds reach 94 %", SHORTEST_BY)
    return f"All seeds reach 94 %: {'; '.join(said)}."
