"""Problem 4, beyond the homework: equal gradient evaluations, and the schedule scaled to a run's length.

Errors and epoch counts are pooled over allocations.
"""

from __future__ import annotations

import altair as alt
import pandas as pd

from experiments.p4.wanted import ALL_M, BUDGETS
from report import show
from report.answers import Missing
from report.estimates import Estimate, verdict
from report.figures.augmentation import SERIES_BY, coloured, curves
from report.figures.augmentation_runs import (
    SAME,
    by_m,
    difference,
    finished,
    goal_text,
    numbers,
    place_text,
    pooled_text,
    series,
    span,
)
from report.figures.augmentation_shortest import UPDATES, scaled
from report.used import selects

BUDGETS_BY = "python experiments/p4_all.py --parts budgets"
SCHEDULES_BY = "python experiments/p4_all.py --parts authors,scaled"
CHANGES = {  # by verdict: what a schedule does to an error
    "above": "higher",
    "below": "lower",
    "within the noise of": "the same within noise",
    None: "open for want of runs",
}


# ---- equal gradient evaluations ------------------------------------------------------------------------------------


def fig_p4_evaluations(epochs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The error against gradient evaluations, epochs times M."""
    chosen = series(finished(epochs))
    if chosen.empty:
        return Missing("Error against gradient evaluations", SERIES_BY)
    log = alt.Scale(type="log", nice=False)
    frame = curves(epochs, chosen)
    return (
        alt.Chart(frame[["M", "epoch", "evaluations", "error"]])
        .mark_line()
        .encode(
            x=alt.X("evaluations:Q", title="epochs × M (log)", scale=log),
            y=alt.Y("error:Q", title="validation error (%, log)", scale=log),
            color=coloured(frame["M"]),
            order="epoch:Q",
            tooltip=["M", "epoch", "evaluations", alt.Tooltip("error", format=".2f")],
        )
    )


@selects
def _budgets(epochs: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    """Scaled runs of one device model whose epochs × M are the same budget to the next hundred, but whose M differ. (12
    epochs are as near as M = 8 comes to a budget of 100.)"""
    runs = scaled(epochs)
    runs = runs.assign(budget=100 * (runs.M * runs.epochs_planned / 100).round().astype(int))
    groups = runs[runs.budget.isin(BUDGETS)].groupby(["budget", "device"])
    return [(int(group.budget.iloc[0]), group) for _, group in groups if group.M.nunique() > 1]


def _above(of: pd.DataFrame, to: pd.DataFrame) -> Estimate:
    """How far (points) the error of a larger M lies above that of a smaller one with more epochs."""
    return difference(of, to, ["M", "epochs_planned"])


def tbl_p4_budget(epochs: pd.DataFrame) -> str | Missing:
    """Errors of runs with one budget of gradient evaluations but different M."""
    lines = []
    for budget, group in _budgets(epochs):
        own = by_m(group)
        least = own[min(own)]
        for m, runs in own.items():
            length = int(runs.epochs_planned.iloc[0])
            above = "–" if m == min(own) else _above(runs, least).brief("", digits=2)
            updates = show.count(length * UPDATES)
            lines.append((budget, m, length, pooled_text(runs), above, updates, len(runs)))
    heads = ["Epochs × M", "M", "Epochs", "Error", "Above the first", "Updates", "Runs"]
    missing = Missing("Equal gradient evaluations", BUDGETS_BY)
    return show.table_text(show.once(lines), heads, "rrrrrrr") if lines else missing


def text_p4_budget(epochs: pd.DataFrame) -> str:
    """Whether a larger M and fewer epochs end above or below the smallest M of each budget, beyond noise or not."""
    said, verdicts = [], set()
    for budget, group in _budgets(epochs):
        own = by_m(group)
        gaps = {m: _above(own[m], own[min(own)]) for m in own if m > min(own)}
        verdicts |= {verdict(gap, 0) for gap in gaps.values()}
        ends = show.listing(f"{gap.value:.2f}".replace("-", "−") for gap in gaps.values())
        said.append(f"with a budget of {budget}, M = {show.listing(gaps)} ended {ends} points above M = {min(own)}")
    if not said:
        return ""
    sense = ", all beyond noise: gradient evaluations are better spent on epochs than on instances"
    end = sense if verdicts == {"above"} else ": too few runs for a verdict" if None in verdicts else ""
    return f"{show.capitalised('; '.join(said))}{end}."


# ---- the schedule --------------------------------------------------------------------------------------------------


@selects
def _schedules(epochs: pd.DataFrame) -> list[pd.DataFrame]:
    """Cutout runs of one M, length, precision, device and code that have several schedules."""
    runs = finished(epochs)
    groups = runs[runs.augment == "cutout"].groupby(["M", "epochs_planned", "precision", *SAME])
    return [group for _, group in groups if group.schedule.nunique() > 1]


def _change(group: pd.DataFrame) -> Estimate:
    """What the scaled schedule adds to the last error (points)."""
    own = dict(list(group.groupby("schedule")))
    return difference(own["scaled"], own["authors"], ["schedule"])


def tbl_p4_schedule(epochs: pd.DataFrame) -> str | Missing:
    """The authors' schedule and the one scaled to the run's length: the epoch that reaches 94 %, the last error, and
    how far the scaled one's lies above."""
    lines = []
    for group in _schedules(epochs):
        for schedule, own in group.groupby("schedule"):
            first = own.iloc[0]
            name = f"{first['M']}, {place_text(first)}"
            above = _change(group).brief("", digits=2) if schedule == "scaled" else "–"
            lines.append((name, schedule, pooled_text(own), above, goal_text(own), len(own)))
    heads = ["M, GPU", "Schedule", "Error", "Above authors'", "94 % at epoch", "Runs"]
    missing = Missing("Both schedules with the same M, length, precision and device", SCHEDULES_BY)
    return show.table_text(show.once(lines), heads, "llrrrr") if lines else missing


def text_p4_schedule(epochs: pd.DataFrame) -> str:
    """When the learning rate first falls, with which M the scaled schedule changes the last error beyond noise, and
    which have not run with both. Where several places ran an M with both, the one with most runs counts."""
    groups = sorted(_schedules(epochs), key=len)
    found = {int(group.M.iloc[0]): _change(group) for group in groups}
    said = []
    for kind, meaning in CHANGES.items():
        if own := [m for m in sorted(found) if verdict(found[m], 0) == kind]:
            size = f" (by {span(abs(found[m].value) for m in own)} points)" if kind in ("above", "below") else ""
            said.append(f"{meaning} with M = {show.listing(own)}{size}")
    if not said:
        return ""
    absent = sorted(set(ALL_M) - set(found))
    rest = f" M = {show.listing(absent)} did not run with both schedules in one place." if absent else ""
    drops = {name: numbers(own.first_drop.dropna()) for name, own in pd.concat(groups).groupby("schedule")}
    return (
        f"With the scaled schedule the learning rate first falls at epoch {drops['scaled']}, not {drops['authors']}. "
        f"Beside the authors', its last error is {show.listing(said)}.{rest}"
    )
