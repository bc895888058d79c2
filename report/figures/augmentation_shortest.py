"""Problem 4: the shortest schedule with which every seed reaches 94 %, for each M.

The released schedule hides what M buys: whatever M is, a run crosses 94 % where the learning rate falls. Here the
schedule is scaled to E epochs, and E is made as small as it may be. Errors and epochs are pooled over allocations of
one device model, times are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import altair as alt
import pandas as pd

from experiments.p4.wanted import BATCH, CAP, LENGTHS, SEARCHED_M, between
from report import palette, show
from report.answers import Missing
from report.comparisons import pooled
from report.estimates import ENOUGH, estimate
from report.figures.augmentation import coloured, goal_rule
from report.figures.augmentation_runs import (
    PLACE,
    SETTING,
    by_allocation,
    by_m,
    comparable,
    finished,
    goal_text,
    gpu,
    median_range,
    placed_as,
    pooled_text,
)
from report.used import selects

UPDATES = 50_000 // BATCH  # in an epoch, whatever M is
PROGRAM = [name for name in PLACE if name != "device"]  # the device may differ from the other figures'
SHORTEST_BY = "python experiments/p4_all.py --parts shortest"


class Length(NamedTuple):
    """The runs of one M, one length E and one device model: a run a seed."""

    m: int
    epochs: int
    gpu: str
    runs: pd.DataFrame

    @property
    def there(self) -> pd.DataFrame:
        """The runs that reach 94 %."""
        return self.runs[self.runs.goal_epoch.notna()]

    @property
    def enough(self) -> bool:
        """Three seeds or more, and all of them are there."""
        return len(self.there) == len(self.runs) >= ENOUGH

    @property
    def too_short(self) -> bool:
        """One seed that isn't there shows it."""
        return len(self.there) < len(self.runs)


@selects
def scaled(epochs: pd.DataFrame) -> pd.DataFrame:
    """Cutout runs whose schedule was scaled to their length, in the precision and by the code of most of them."""
    runs = finished(epochs)
    asked = runs[(runs.augment == "cutout") & (runs.schedule == "scaled")]
    if asked.empty:
        return asked
    most = max((own for _, own in asked.groupby(PROGRAM)), key=len)
    return placed_as(asked, most, PROGRAM).sort_values(["device", "M", "epochs_planned", "seed"])


def _lengths(runs: pd.DataFrame) -> list[Length]:
    """The runs of each M, E and device model, after a check that they differ in nothing but seed and allocation."""
    groups = [own for _, own in runs.groupby(["device", "M", "epochs_planned"])]
    for own in groups:
        pooled(own, "last", SETTING)
    firsts = [own.iloc[0] for own in groups]
    return [
        Length(int(one["M"]), int(one.epochs_planned), gpu(one.device), own)
        for one, own in zip(firsts, groups, strict=True)
    ]


@selects
def shortest(epochs: pd.DataFrame) -> list[tuple[Length, Length | None]]:
    """For each device model and M the fewest epochs with which every seed is there, of three or more, and the most with
    which one isn't. Only where the search is over."""
    found = []
    for _, own in groupby(_lengths(scaled(epochs)), key=lambda length: (length.gpu, length.m)):
        tried = list(own)
        least = next((length for length in tried if length.enough), None)
        short = next((length for length in reversed(tried) if length.too_short), None)
        if least and not between(short.epochs if short else 0, least.epochs):
            found.append((least, short))
    return found


@selects
def _never(epochs: pd.DataFrame) -> list[Length]:
    """For each device model and M the runs that don't all reach 94 % in as many epochs as the homework allows."""
    return [own for own in _lengths(scaled(epochs)) if own.too_short and own.epochs == CAP]


def fig_p4_shortest(epochs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The lowest error of a run against its schedule's length, for each M: a point a seed.

    A line goes through the medians of three seeds or more: single runs say too little of what lies between them.
    """
    runs = scaled(epochs)
    if runs.empty:
        return _missing(SEARCHED_M)
    found = [own.runs.assign(error=own.runs.best.median(), seeds=len(own.runs), GPU=own.gpu) for own in _lengths(runs)]
    frame = pd.concat(found)[["M", "epochs_planned", "GPU", "seed", "best", "error", "seeds"]]
    log = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(values=sorted({*LENGTHS, *map(int, frame.epochs_planned)}), labelOverlap=True, format="d")
    x = alt.X("epochs_planned:Q", title="epochs of the schedule, E (log)", scale=log, axis=axis)
    y = alt.Y(title="lowest validation error (%, log)", scale=log)
    base = alt.Chart(frame).encode(x=x, color=coloured(frame["M"]))
    points = base.mark_point(**palette.MEASURED_POINT).encode(
        y=y.field("best").type("quantitative"),
        shape=alt.Shape("GPU:N", title="GPU", legend=alt.Legend() if frame.GPU.nunique() > 1 else None),
        tooltip=["M", alt.Tooltip("epochs_planned", title="E"), "GPU", "seed", alt.Tooltip("best", format=".2f")],
    )
    layers: list[alt.Chart] = [goal_rule(), points]
    if (frame.seeds >= ENOUGH).any():
        enough = base.transform_filter(alt.datum.seeds >= ENOUGH)
        layers.insert(1, enough.mark_line().encode(y=y.field("error").type("quantitative"), detail="GPU"))
    return alt.layer(*layers)


def tbl_p4_both(epochs: pd.DataFrame) -> str | Missing:
    """For each M what it takes to 94 % with the authors' schedule and with the shortest that takes all seeds there.

    Both on the figures' GPU model; all times are of the allocation that ran most of the shortest schedules.
    """
    authors = by_m(comparable(finished(epochs)))
    device = {own.device.iloc[0] for own in authors.values()}
    short = {least.m: least.runs for least, _ in shortest(epochs) if set(least.runs.device) == device}
    never = {own.m: own for own in _never(epochs) if set(own.runs.device) == device}
    if not short:
        return _missing(SEARCHED_M)
    place, _ = max(by_allocation(pd.concat(short.values())), key=lambda group: len(group[1]), default=(None, None))

    def cells(runs: pd.DataFrame) -> tuple[str, ...]:
        """Epoch, updates and minutes to 94 %; of runs that aren't all there, no more than how many are."""
        if runs.goal_epoch.isna().any():
            return goal_text(runs), "–", "–"
        at, times = runs.goal_epoch.median(), runs.goal_seconds[runs.allocation == place] / 60
        return f"{at:g}", show.count(round(UPDATES * at)), median_range(times) if len(times) else "–"

    none = ("–",) * 3
    theirs = {m: cells(runs) for m, runs in authors.items()}
    ours: dict[int, tuple[str, ...]] = {}
    for m, own in never.items():
        ours[m] = (f"{len(own.there)} of {len(own.runs)} in {CAP}", *none[1:])
    for m, runs in short.items():
        epoch, *took = cells(runs)
        ours[m] = (f"{epoch} of {runs.epochs_planned.iloc[0]}", *took)
    lines = [(m, *theirs.get(m, none), *ours.get(m, none)) for m in sorted({*authors, *short})]
    heads = ["M", "Authors': epoch", "Updates", "Minutes", "Shortest: epoch", "Updates", "Minutes"]
    return show.table_text(lines, heads, "rrrrrrr")


def tbl_p4_shortest(epochs: pd.DataFrame) -> str | Missing:
    """What each M and E reach, and what that takes: epochs, updates, gradient evaluations, wall clock.

    Of the lengths that the search tries, as budgets of gradient evaluations have a table of their own. The wall clock
    is of the allocation in which most runs reach 94 %.
    """
    runs = scaled(epochs)
    if runs.empty:
        return _missing(SEARCHED_M)
    allocations = [group for _, group in by_allocation(runs[runs.goal_epoch.notna()])]
    most = max(allocations, key=len, default=runs.iloc[:0])
    lines = []
    for own in (own for own in _lengths(runs) if own.epochs in LENGTHS):
        at = own.there.goal_epoch.median()
        reach = f"{len(own.there)} of {len(own.runs)}" + (f", at {at:g}" if len(own.there) else "")
        took = (show.count(round(UPDATES * at)), f"{own.m * at:,g}") if len(own.there) else (None, None)
        times = most[most.run_id.isin(own.runs.run_id)].goal_seconds / 60
        clock = median_range(times) if len(times) else None
        lines.append((f"{own.m}, {own.epochs}", own.gpu, pooled_text(own.runs), reach, *took, clock))
    heads = ["M, E", "GPU", "Error", "94 % at epoch", "Updates", "Epochs × M", "Minutes"]
    return show.table_text(lines, heads, "llrrrrr")


def text_p4_shortest(epochs: pd.DataFrame) -> str:
    """For each M the shortest schedule of those tried with which three seeds or more all reach 94 %, the longest with
    which a seed doesn't, and what the largest M takes beside the smallest: updates, gradients, wall clock."""
    said = []
    for name, found in groupby(shortest(epochs), key=lambda pair: pair[0].gpu):
        pairs = list(found)
        parts = [f"{own.epochs} with M = {own.m}{f' ({_missed(failed)})' if failed else ''}" for own, failed in pairs]
        least = [own for own, _ in pairs]
        epoch = show.listing(f"{own.there.goal_epoch.median():g}" for own in least)
        said.append(
            f"On {name}s the fewest epochs with which all seeds reach 94 % are {show.listing(parts)}; they are there "
            f"at epoch {epoch}.{_bought(least[0], least[-1])}"
        )
    if never := _never(epochs):
        reached = show.listing(f"{len(own.there) or 'none'} of {_seeds(own)} with M = {own.m}" for own in never)
        said.append(f"With {CAP} epochs, {reached} reach 94 %.")
    return " ".join(said)


def _seeds(length: Length) -> str:
    return f"{len(length.runs)} seed{'s' * (len(length.runs) > 1)}"


def _missed(length: Length) -> str:
    missing = len(length.runs) - len(length.there)
    which = "the one seed tried" if len(length.runs) == 1 else f"{missing} of {_seeds(length)}"
    return f"with {length.epochs}, {which} miss{'es' * (missing == 1)} it"


def _bought(few: Length, many: Length) -> str:
    """What the larger M takes until 94 %, beside the smaller."""
    if few.m == many.m:
        return ""
    updates = estimate(lambda a, b: a / b, many.there.goal_epoch, few.there.goal_epoch)
    more = many.m / few.m
    gradients = replace(updates, value=more * updates.value, low=more * updates.low, high=more * updates.high)
    said = [f"{updates.brief('times')} the updates", f"{gradients.brief('times')} the gradient evaluations"]
    both = [own for _, own in by_allocation(pd.concat([few.there, many.there])) if own.M.nunique() > 1]
    if both:
        times = max(both, key=len)
        of, to = (times.goal_seconds[times["M"] == own.m] for own in (many, few))
        said.append(f"{estimate(lambda a, b: a / b, of, to).brief('times')} the wall clock in the same allocation")
    return f" Until then M = {many.m} takes, beside M = {few.m}, {show.listing(said)}."


def text_p4_shortest_missing(epochs: pd.DataFrame) -> str | Missing:
    """What settles the M that the comparison asks for, if anything: the shortest schedule, or a seed that isn't there
    after as many epochs as the homework allows."""
    decided = {own.m for own, _ in shortest(epochs)}
    decided |= {own.m for own in _never(epochs)}
    wanting = [m for m in SEARCHED_M if m not in decided]
    return _missing(wanting) if wanting else ""


def _missing(wanting: Sequence[int]) -> Missing:
    """Says that these M have no shortest schedule yet."""
    what = "Three seeds that all reach 94 % with as few epochs as possible"
    return Missing(f"{what}, for M = {show.listing(wanting)}", SHORTEST_BY)
