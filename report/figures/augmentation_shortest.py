"""Problem 4: the shortest schedule with which every seed reaches 94 %, for each M.

The released schedule hides what M buys: whatever M is, a run crosses 94 % where the learning rate falls. Here the
schedule is scaled to E epochs, and E is made as small as it may be. Errors and epochs are pooled over allocations of
one device model, times are not.
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import altair as alt
import pandas as pd

from report import palette, show
from report.answers import Missing
from report.comparisons import pooled
from report.estimates import ENOUGH
from report.figures.augmentation import coloured, goal_rule
from report.figures.augmentation_runs import (
    BATCH,
    PLACE,
    SCRIPT,
    SETTING,
    by_allocation,
    finished,
    gpu,
    median_range,
    placed_as,
    pooled_text,
)
from report.used import selects

LENGTHS = (10, 15, 20, 30, 40, 60, 80, 100)  # the epochs E that are tried
ASKED_M = (1, 4, 8, 32)
UPDATES = 50_000 // BATCH  # in an epoch, whatever M is
PROGRAM = [name for name in PLACE if name != "device"]  # the device may differ from the other figures'
SHORTEST_BY = "for seed in 0 1 2; do " + SCRIPT + " --schedule scaled --epochs {e} --M {m} --seed $seed; done"


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
    return placed_as(asked, most, PROGRAM).sort_values(["M", "epochs_planned", "device", "seed"])


def _lengths(runs: pd.DataFrame) -> list[Length]:
    """The runs of each M, E and device model, after a check that they differ in nothing but seed and allocation."""
    groups = [own for _, own in runs.groupby(["M", "epochs_planned", "device"])]
    for own in groups:
        pooled(own, "last", SETTING)
    firsts = [own.iloc[0] for own in groups]
    return [
        Length(int(one["M"]), int(one.epochs_planned), gpu(one.device), own)
        for one, own in zip(firsts, groups, strict=True)
    ]


def fig_p4_shortest(epochs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The lowest error of a run against its schedule's length, for each M: a point a seed.

    A line goes through the medians of three seeds or more: single runs say too little of what lies between them.
    """
    runs = scaled(epochs)
    if runs.empty:
        return _missing(dict.fromkeys(ASKED_M, 60))
    found = [own.runs.assign(error=own.runs.best.median(), seeds=len(own.runs), GPU=own.gpu) for own in _lengths(runs)]
    frame = pd.concat(found)[["M", "epochs_planned", "GPU", "seed", "best", "error", "seeds"]]
    log = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(values=sorted({*LENGTHS, *map(int, frame.epochs_planned)}), labelOverlap=True, format="d")
    x = alt.X("epochs_planned:Q", title="epochs of the schedule, E (log)", scale=log, axis=axis)
    y = alt.Y(title="lowest validation error (%, log)", scale=log)
    base = alt.Chart(frame).encode(x=x, color=coloured(frame["M"]))
    points = base.mark_point(**palette.MEASURED_POINT).encode(
        y=y.field("best").type("quantitative"),
        shape=alt.Shape("GPU:N", title="GPU"),
        tooltip=["M", alt.Tooltip("epochs_planned", title="E"), "GPU", "seed", alt.Tooltip("best", format=".2f")],
    )
    layers: list[alt.Chart] = [goal_rule(), points]
    if (frame.seeds >= ENOUGH).any():
        enough = base.transform_filter(alt.datum.seeds >= ENOUGH)
        layers.insert(1, enough.mark_line().encode(y=y.field("error").type("quantitative"), detail="GPU"))
    return alt.layer(*layers)


def tbl_p4_shortest(epochs: pd.DataFrame) -> str | Missing:
    """What each M and E reach, and what that takes: epochs, updates, gradient evaluations, wall clock.

    The wall clock is of the allocation in which most runs reach 94 %.
    """
    runs = scaled(epochs)
    if runs.empty:
        return _missing(dict.fromkeys(ASKED_M, 60))
    allocations = [group for _, group in by_allocation(runs[runs.goal_epoch.notna()])]
    most = max(allocations, key=len, default=runs.iloc[:0])
    lines = []
    for own in _lengths(runs):
        at = own.there.goal_epoch.median()
        reach = f"{len(own.there)} of {len(own.runs)}" + (f", at {at:g}" if len(own.there) else "")
        took = (show.count(round(UPDATES * at)), f"{own.m * at:,g}") if len(own.there) else (None, None)
        times = most[most.run_id.isin(own.runs.run_id)].goal_seconds / 60
        clock = median_range(times) if len(times) else None
        lines.append((f"{own.m}, {own.epochs}", own.gpu, pooled_text(own.runs), reach, *took, clock))
    heads = ["M, E", "GPU", "Error", "94 % at epoch", "Updates", "Epochs × M", "Minutes"]
    return show.table_text(lines, heads, "llrrrrr")


def text_p4_shortest(epochs: pd.DataFrame) -> str:
    """For each M the shortest schedule of those tried with which three seeds or more all reach 94 %, and the longest
    with which a seed doesn't."""
    lengths = _lengths(scaled(epochs))
    said: list[str] = []
    short: dict[str, list[str]] = {}
    found = {own.m for own in lengths if own.enough}
    for (m, name), group in groupby(lengths, key=lambda own: (own.m, own.gpu)):
        tried = list(group)
        least = next((own for own in tried if own.enough), None)
        failed = next((own for own in reversed(tried) if own.too_short), None)
        if least:
            at = least.there.goal_epoch.median()
            said.append(
                f"With M = {m} and {least.epochs} epochs all {len(least.runs)} seeds reach 94 % on {name}s: at epoch "
                f"{at:g}, after {show.count(round(UPDATES * at))} updates and {m * at:,g} times as many gradients as "
                f"the training set has images{f'; {_missed(failed)}' if failed else ''}."
            )
        elif failed and m not in found:
            short.setdefault(name, []).append(f"M = {m} with {failed.epochs}")
    said += [f"On {name}s a seed misses 94 % for {show.listing(jobs)} epochs." for name, jobs in short.items()]
    return " ".join(said)


def _missed(length: Length) -> str:
    missing, tried = len(length.runs) - len(length.there), len(length.runs)
    seeds = "the one seed tried misses" if tried == 1 else f"{missing} of {tried} seeds miss"
    return f"with {length.epochs} epochs {seeds} it"


def text_p4_shortest_missing(epochs: pd.DataFrame) -> str | Missing:
    """What decides the M that the comparison asks for, if anything: three seeds that are there, or one that isn't after
    as many epochs as the homework allows."""
    lengths = _lengths(scaled(epochs))
    decided = {own.m for own in lengths if own.enough or (own.too_short and own.epochs == LENGTHS[-1])}
    failed = {m: max((own.epochs for own in lengths if own.m == m and own.too_short), default=0) for m in ASKED_M}
    wanting = {m: next(e for e in LENGTHS if e > max(failed[m], 50)) for m in ASKED_M if m not in decided}
    return _missing(wanting) if wanting else ""


def _missing(wanting: dict[int, int]) -> Missing:
    """Says that these M have no shortest schedule yet; their E is to be tried next."""
    return Missing(
        f"Three seeds that all reach 94 % with as few epochs as possible, for M = {show.listing(wanting)}",
        "\n".join(SHORTEST_BY.format(e=e, m=m) for m, e in wanting.items()),
    )
