"""The homework's K80: Problem 2's throughput, time and cost as the scaling model projects them, and the prices."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from experiments.scaling import prices, published
from experiments.scaling.series import records
from report import palette, show
from report.answers import Answer, Missing
from report.estimates import word
from report.figures.horovod_runs import rate_text
from report.figures.scaling_runs import FIT, batch, interval, loss_per_doubling, signed
from report.figures.strategy_k80 import k80
from report.figures.strategy_runs import BASES, EPOCHS, IMAGES

NONE = Missing("The projection for the K80", FIT)
WIDTH = 560


def jobs(rows: pd.DataFrame) -> pd.DataFrame:
    """The homework's jobs: those of `strategy_k80.k80`, with efficiency relative to one learner of the same job."""
    found = k80(rows)
    alone = found.groupby("scaling").rate.transform("first")
    return found.assign(efficiency=found.rate / found.learners / alone)


def providers() -> dict[str, float]:
    """US dollars for an hour of one K80, by provider: the first word of a price's source, dearest first."""
    return {row.source.split()[0]: row.price_usd_per_hour for row in records(prices.of("K80"))}


def costs(job: Any) -> dict[str, float]:
    """US dollars for ten epochs of a job, by provider."""
    return {name: prices.cost(price, job.learners, job.ten_seconds) for name, price in providers().items()}


def answer_scaling_k80(rows: pd.DataFrame) -> Answer | Missing:
    """Problem 2's ten epochs on one K80 and on the most, weak and strong: time, and cost by provider."""
    found = jobs(rows)
    if found.empty:
        return NONE
    parts = []
    for scaling, own in found.groupby("scaling", sort=False):
        few, many = (own.loc[own.learners == p].iloc[0] for p in (own.learners.min(), own.learners.max()))
        first, last = costs(few), costs(many)
        dollars = ", ".join(f"{first[name]:.2f} and {last[name]:.2f} USD at {name}'s price" for name in first)
        parts.append(
            f"{show.seconds(few.ten_seconds)} on {word(few.learners)} K80 and {show.seconds(many.ten_seconds)} on "
            f"{many.learners} with {scaling} scaling ({dollars})"
        )
    sentence = f"Problem 2's ten epochs, with images of 224 × 224 pixels, would take {'; and '.join(parts)}."
    return Answer("5.3", sentence, "K80 in nodes of eight", 0, "projected", "tbl-scaling-k80")


def fig_scaling_k80(rows: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Projected throughput with its intervals, and what was published for 64 images a learner."""
    found = jobs(rows)
    if found.empty:
        return NONE
    projected = found[["scaling", "learners", "rate", "low", "high"]].assign(kind=found.scaling + ", projected")
    seen = published_rates().assign(kind="published, 64 images each")
    frame = pd.concat([projected, seen], ignore_index=True)
    frame[["rate", "low", "high"]] /= frame[["learners"]].to_numpy()
    kinds = [*projected.kind.unique(), *seen.kind.unique()]
    legend = alt.Legend(title=None, columns=2)
    title = "images/s of each learner"
    ticks = alt.Axis(values=[1, 2, 4, 8, 16])
    log = alt.Scale(type="log", base=2, nice=False, padding=12)
    x = alt.X("learners:Q", title="learners (K80)", scale=log, axis=ticks)
    y = alt.Y("rate:Q", title=title, scale=alt.Scale(zero=False))
    colours = [*palette.SCALINGS.values(), "black"]
    color = alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=colours), legend=legend)
    shapes = alt.Scale(domain=kinds, range=["circle", "square", "diamond"])
    shape = alt.Shape("kind:N", scale=shapes, legend=legend)
    tips = ["kind", "learners", alt.Tooltip("rate", format=".1f", title=title)]
    base = alt.Chart(frame).encode(x=x, color=color)
    own, others = base.transform_filter("isValid(datum.low)"), base.transform_filter("!isValid(datum.low)")
    line = own.mark_line(**palette.PROJECTED_LINE).encode(y=y)
    bars = own.mark_rule().encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    points = own.mark_point(filled=False, size=60, opacity=1).encode(y=y, shape=shape, tooltip=tips)
    printed = others.mark_point(**palette.MEASURED_POINT).encode(y=y, shape=shape, tooltip=tips)
    return alt.layer(bars, line, printed, points).properties(width=WIDTH, height=150)


def published_rates() -> pd.DataFrame:
    """Published images/s of one node and, for more learners, of the cluster, with 64 images each."""
    frame = published.load()
    frame = frame[frame.per_learner_batch == BASES["weak"]]
    node = frame[frame.series == published.K80_NODE]
    cluster = frame[(frame.series == published.K80_CLUSTER) & (frame.learners == 2 * node.learners.max())]
    return pd.concat([node, cluster])[["learners", "value"]].rename(columns={"value": "rate"})


def tbl_scaling_k80(rows: pd.DataFrame) -> str | Missing:
    """Throughput with its interval, efficiency, and time and cost of ten epochs."""
    found = jobs(rows)
    if found.empty:
        return NONE
    lines = [
        (
            *(job.scaling, job.learners, f"{rate_text(job.rate)} ({interval(job)})", show.percent(job.efficiency, 0)),
            *(show.seconds(job.ten_seconds), *(f"{cost:.2f}" for cost in costs(job).values())),
        )
        for job in records(found)
    ]
    headers = ["Scaling", "N", "Images/s (interval)", "Efficiency", "Ten epochs"]
    headers += [f"{name} (USD)" for name in providers()]
    return show.table_text(show.once(lines), headers, "lrrrr" + "r" * len(providers()))


def text_scaling_k80(rows: pd.DataFrame) -> str:
    """How far to trust it: the held-out point of a node, and the published cluster of two."""
    found = jobs(rows)
    if found.empty:
        return "There is no projection to judge."
    node = rows[(rows.method == "curve") & (rows.series == published.K80_NODE)]
    eight = show.listing(f"{signed(p.error)} with {batch(p)} images each" for p in records(node[node.learners == 8]))
    rates = published_rates()
    two = rates[rates.learners == rates.learners.max()].iloc[0]
    weak = found[(found.scaling == "weak") & (found.learners == two.learners)].iloc[0]
    seen = node[(node.role == "fitted") & (node.per_learner_batch == BASES["weak"])]
    ruled = loss_per_doubling(seen, two.learners)
    return (
        f"For 8 GPUs of one node, which the fit has not seen, the projection is off by {eight}. For {two.learners:.0f} "
        f"GPUs in two nodes the same source publishes {rate_text(two.rate)} images/s, summed by parameter servers; the "
        f"projection is {rate_text(weak.rate)} ({signed(weak.rate / two.rate - 1)}), and a constant loss per doubling "
        f"from {show.listing(f'{p}' for p in seen.learners)} GPUs gives {rate_text(ruled)} "
        f"({signed(ruled / two.rate - 1)})."
    )


def text_scaling_k80_basis(rows: pd.DataFrame) -> str:
    """What the projection was fitted to, the link between its nodes, and what ten epochs are."""
    node = rows[(rows.method == "curve") & (rows.series == published.K80_NODE) & (rows.role == "fitted")]
    gbit = rows[rows.method == "homework"].link_gbit_per_second.max()
    if node.empty or pd.isna(gbit):
        return "There is no projection to describe."
    sizes, batches = (show.listing(f"{n:g}" for n in dict.fromkeys(node[c])) for c in ("learners", "per_learner_batch"))
    return (
        f"The model is fitted to TensorFlow's published runs on {sizes} GPUs of Amazon's p2.8xlarge [@tensorflow2017], "
        f"with {batches} images each; other batches are extrapolated. Two nodes follow @eq-hierarchical: inside, "
        "communication is that of eight learners; between the nodes, eight rings share one network card of "
        f"{gbit:g} Gbit/s, without latency and with nothing hidden. Ten epochs are {EPOCHS} × {IMAGES:,} images, "
        "without tests and set-up."
    )


# ---- prices --------------------------------------------------------------------------------------------------------


def tbl_scaling_prices(rows: pd.DataFrame) -> str:
    """Each price, and the throughput that its device needs to be as cheap as a K80 at its dearest price."""
    found, table = jobs(rows), prices.load()
    alone = found[(found.scaling == "weak") & (found.learners == 1)].rate.max() if len(found) else None
    dearest = prices.of("K80").price_usd_per_hour[0]
    lines = [
        (
            *(i, row.device, f"{row.price_usd_per_hour:g}", row.date, row.region),
            rate_text(alone * row.price_usd_per_hour / dearest) if alone else None,
        )
        for i, row in enumerate(records(table), 1)
    ]
    headers = ["No.", "Device", "USD/h", "Date", "Region", "Images/s needed"]
    return show.table_text(lines, headers, "rlrllr")


def text_scaling_prices() -> str:
    """The sources of the prices, by number."""
    return "\n".join(f"{i}. {source}." for i, source in enumerate(prices.load().source, 1))
