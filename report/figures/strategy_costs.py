"""Problem 2's training cost (2.3)."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from experiments.scaling import prices
from report import show
from report.answers import Answer, Missing
from report.comparisons import ratio
from report.figures.horovod_runs import devices
from report.figures.strategy import preferred
from report.figures.strategy_charts import COLUMNS, of_k80, panels, points_of, sorted_like
from report.figures.strategy_runs import (
    MADE_BY,
    at,
    drawn,
    each,
    each_row,
    ends,
    first,
    like,
    note,
    on_gpus,
    place,
    priced,
    repeated,
    sized,
    table,
    ten_epochs,
    timed,
)


def span(unit: str, learners: int, seconds: float) -> str | None:
    """Cost in US dollars, at the cheapest and at the dearest price: 0.41–1.03; None for a device without a price."""
    table = priced(unit)
    if table.empty:
        return None
    costs = [prices.cost(price, learners, seconds) for price in table.price_usd_per_hour]
    low, high = f"{min(costs):.2f}", f"{max(costs):.2f}"
    return low if low == high else f"{low}–{high}"


def answer_p2_cost(runs: pd.DataFrame) -> Answer | Missing:
    """2.3: what ten epochs cost on the fewest GPUs and on the most, and their ratio, which no price changes.

    Without jobs of ten whole epochs it is projected from the time of a step.
    """
    series = on_gpus(runs)
    measured = [whole for frame in series if (whole := ten_epochs(frame)).learners.nunique() > 1]
    used = measured or [frame for frame in series if frame.learners.nunique() > 1]
    if not used:
        return Missing("The cost of ten epochs on GPUs", MADE_BY)
    texts, ratios = [], []
    dollars: list[str] = []
    for frame in used:
        parts = []
        for scaling, one in each(frame):
            few, many = ends(one)
            times = [like(one, job).ten_seconds.median() for job in (few, many)]
            costs = [span(job.unit, job.learners, time) for job, time in zip((few, many), times, strict=True)]
            dollars += filter(None, costs)
            hours = [f"{job.learners * time / 3600:.2g}" for job, time in zip((few, many), times, strict=True)]
            shown = f"{costs[0]} and {costs[1]} USD" if costs[0] else f"{hours[0]} and {hours[1]} GPU-hours"
            # An ideal of one: N learners, each for the Nth part of the time. Projected times go with the inverse rate.
            ideal = few.learners / many.learners
            if measured:
                ratios.append(ratio(one, of=at(many), to=at(few), value="train_seconds", ideal=ideal))
            else:
                ratios.append(ratio(one, of=at(few), to=at(many), ideal=ideal))
            parts.append(
                f"{shown} with {scaling} scaling, {ratios[-1].brief('')} times as much on {many.learners} as on "
                f"{few.learners}"
            )
        few, many = ends(frame)
        verb = "costs" if measured else "would cost"
        texts.append(
            f"On {few.learners} and {many.learners} {place(few)}, training for ten epochs {verb} "
            f"{'; and '.join(parts)}."
        )
    if any("–" in cost for cost in dollars):
        texts.append("Ranges of USD run from the lowest price found to the highest.")
    sentence, count = " ".join([*texts, note(ratios)]), sum(map(len, used))
    return Answer("2.3", sentence, devices(used), count, "measured" if measured else "projected", "fig-p2-cost")


def fig_p2_cost(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Cost of ten epochs' training against the number of learners; hours × learners where there is no price."""
    found = drawn(timed(runs))
    if found.empty:
        return Missing("The cost of ten epochs", MADE_BY)
    found = preferred(found)
    found = found.assign(hours=found.learners * found.ten_seconds / 3600)
    points = points_of(found, "hours")
    at_price = {unit: priced(unit).price_usd_per_hour for unit in set(points.unit)}
    known = points[[len(at_price[unit]) > 0 for unit in points.unit]]
    least, most = ([limit(at_price[unit]) for unit in known.unit] for limit in (min, max))
    known = known.assign(value=known.value * least, low=known.value * least, high=known.value * most)
    projected = of_k80("ten_seconds", "ten_low", "ten_high")
    cheap, dear = (limit(priced("K80").price_usd_per_hour) for limit in (min, max))
    hours = projected.value * projected.learners / 3600
    projected = projected.assign(value=hours * cheap, low=hours * cheap, high=hours * dear)
    dollars = pd.concat([sorted_like(found, known)[COLUMNS], projected])
    views: list[Any] = [panels(dollars, "US dollars (log)", log=True, apart=0.03)]
    if len(unknown := points.drop(known.index)):
        views.append(panels(sorted_like(found, unknown)[COLUMNS], "hours × learners", legend=False))
    return alt.vconcat(*views)


def tbl_p2_cost(runs: pd.DataFrame) -> str | Missing:
    """Hours times learners and cost of ten epochs, for their training alone and for whole jobs."""
    found = drawn(timed(runs))
    lines = []
    for own in repeated(preferred(found)) if len(found) else ():
        job, training = first(own), own.ten_seconds.median()
        cost, hours = span(job.unit, job.learners, training), f"{job.learners * training / 3600:.2g}"
        whole = span(job.unit, job.learners, own.job_seconds.median()) if job.basis == "measured" else None
        time = "≈ " * (job.basis == "projected") + show.seconds(training)
        lines.append((job.series, sized(job), time, hours, cost, whole))
    headers = ["Run on", "Job", "Training", "Hours × N", "USD, training", "USD, whole job"]
    return table(lines, headers, "llrrrr", Missing("The cost of ten epochs", MADE_BY))


def text_p2_prices(runs: pd.DataFrame) -> str:
    """The prices of these runs' devices and the K80, each with its date and source."""
    units = [*dict.fromkeys(drawn(runs).unit), "K80"]
    listed = [
        f"- {unit}: {row.price_usd_per_hour:g} USD/h ({row.date}). {row.source}."
        for unit in units
        for row in each_row(priced(unit))
    ]
    without = [unit for unit in units if priced(unit).empty]
    return "\n".join(listed) + (f"\n- {show.listing(without)}: no price." if without else "")
