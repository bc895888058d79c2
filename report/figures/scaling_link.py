"""N GPUs from one GPU's step and an all-reduce that was timed by itself, and what such all-reduces take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import altair as alt
import pandas as pd
import sympy

from derivations import scaling
from experiments.machine.device_names import short_name
from experiments.scaling.link import fit_link
from experiments.scaling.series import records
from report import palette, show
from report.answers import Answer, Missing
from report.figures.horovod_runs import rate_text
from report.figures.scaling_runs import FIT, SUMS, batch, between, signed

EXPOSED, HIDDEN = "link, nothing hidden", "link, backward pass hides"
LIBRARIES = {"nccl": "NCCL", "gloo": "Gloo"}
PREFIXES = ("B", "KiB", "MiB", "GiB")
WIDTH, HEIGHT = 560, 150


# ---- from one GPU to several ---------------------------------------------------------------------------------------


def linked(rows: pd.DataFrame) -> pd.DataFrame:
    """The GPUs' points that were predicted from one GPU and the link: a row each, with `exposed` and `hidden`."""
    keys = ["series", "learners", "per_learner_batch"]
    exposed, hidden = (rows[rows.method == method] for method in (EXPOSED, HIDDEN))
    # A job that ran in several allocations has both bounds of each, in the same order.
    exposed, hidden = (bound.assign(nth=bound.groupby(keys).cumcount()) for bound in (exposed, hidden))
    both = exposed.merge(hidden[[*keys, "nth", "predicted"]], on=[*keys, "nth"], suffixes=("", "_hidden"))
    both = both.rename(columns={"predicted": "exposed", "predicted_hidden": "hidden"})
    device = both.series.str.split(", ").str[1]
    return both.assign(device=device, share=both.exposed_seconds / (both.compute_seconds + both.exposed_seconds))


def answer_scaling_link(rows: pd.DataFrame) -> Answer | Missing:
    """How far the prediction from one GPU and its link is off, by device and number of GPUs."""
    found = linked(rows)
    if found.empty:
        return Missing("GPUs and their link in one allocation", f"{SUMS}\n{FIT}")
    parts = []
    for device, own in found.groupby("device"):
        each = [f"{between(points.error)} for {p} GPUs" for p, points in own.groupby("learners")]
        parts.append(f"on {device}, {show.listing(each)}")
    sentence = (
        "One GPU's step and a separately timed all-reduce, both from the same allocation, predict Horovod's "
        f"throughput on several GPUs with these errors: {'; '.join(parts)}. Nothing is fitted to a job of several GPUs."
    )
    devices = show.listing(dict.fromkeys(found.device))
    return Answer("5.1", sentence, devices, len(found), "projected", "tbl-scaling-link")


def tbl_scaling_link(rows: pd.DataFrame) -> str | Missing:
    """Measured images/s of several GPUs beside what one GPU and the link project."""
    found = linked(rows)
    if found.empty:
        return Missing("GPUs and their link in one allocation", f"{SUMS}\n{FIT}")
    lines = [
        (
            *(f"{p.series.removeprefix('Horovod ')}", batch(p), p.learners),
            *(rate_text(p.observed), rate_text(p.exposed), rate_text(p.hidden), signed(p.error)),
        )
        for p in records(found.sort_values(["series", "per_learner_batch", "learners"]))
    ]
    headers = ["Horovod", "Batch", "GPUs", "Measured", "Nothing hidden", "All hidden", "Error"]
    return show.table_text(show.once(lines), headers, "lrrrrrr")


def text_scaling_link(rows: pd.DataFrame) -> str:
    """What part of a step the all-reduce is, and so where the error doesn't come from."""
    found = linked(rows)
    if found.empty:
        return "Without these rows, what the prediction lacks stays unknown."
    most = found.iloc[int(found.share.argmax())]
    return (
        f"The all-reduce alone takes at most {show.percent(most.share, 1)} of a predicted step ({batch(most)} images a "
        "GPU). A larger error has another cause: what Horovod adds to the work of the host (@sec-p1-gpu), and waiting "
        "for the slowest GPU."
    )


# ---- all-reduces ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """All-reduces of one allocation and number of learners: medians of the windows, and the ring fitted to them."""

    name: str
    learners: int
    seconds: dict[int, float]  # by bytes
    alpha: float
    beta: float

    def fitted(self, size: float) -> float:
        """The ring's time for so many bytes (s)."""
        return float(_ring()(self.learners, size, self.alpha, self.beta))

    def bus(self, size: float, seconds: float) -> float:
        """What each link of a ring carries, 2(p−1)/p of the vector, over the time (byte/s)."""
        return 2 * (self.learners - 1) / self.learners * size / seconds


@cache
def _ring() -> Any:
    """`ring_seconds` as a function of p, n, α and β: hundreds of substitutions would take seconds."""
    return sympy.lambdify((scaling.p, scaling.n, scaling.alpha, scaling.beta), scaling.ring())


def links(sums: pd.DataFrame) -> list[Link]:
    """The links, each from the allocation that timed most sizes of vectors; its runs are one series."""
    found = []
    named = sums.assign(link=[_name(row) for row in records(sums)])
    for _, alike in named.groupby(["link", "learners"]):
        _, own = max(alike.groupby("allocation"), key=lambda one: one[1].bytes.nunique())
        medians = own.groupby("bytes", as_index=False).seconds.median()
        seconds = dict(zip(medians.bytes.astype(int), medians.seconds, strict=True))
        name, p = str(own.link.iloc[0]), int(own.learners.iloc[0])
        found.append(Link(name, p, seconds, *fit_link(list(seconds), list(seconds.values()), p)))
    return found


def _name(row: Any) -> str:
    over = "one host" if pd.isna(row.gbit) else f"{row.hosts} hosts, {row.gbit:g} Gbit/s"
    cores = f", {row.threads} cores each" if row.threads > 1 else ""
    return f"{LIBRARIES[row.backend]}, {short_name(row.device)}{cores}, {over}"


def binary(size: float) -> str:
    """Bytes with a binary prefix: 16 MiB."""
    prefix = min(3, max(0, int(size).bit_length() - 1) // 10)
    return f"{size / 1024**prefix:.3g} {PREFIXES[prefix]}"


def fig_scaling_links(sums: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Bus bandwidth against the vector: medians of the windows, and the fitted ring."""
    if sums.empty:
        return Missing("All-reduces of vectors of all sizes", SUMS)
    marks = pd.DataFrame(
        {"link": f"{link.name}, {link.learners} learners", "bytes": size, "size": binary(size)}
        | {"bus": link.bus(size, seconds), "fitted": link.bus(size, link.fitted(size))}
        for link in links(sums)
        for size, seconds in link.seconds.items()
    )
    exponents = [int(marks.bytes.min()).bit_length() - 1, int(marks.bytes.max()).bit_length() - 1]
    ticks = [2**k for k in range(exponents[0], exponents[1] + 1, 5)]
    labels = {str(tick): binary(tick) for tick in ticks}
    x = alt.X(
        "bytes:Q",
        title="vector (bytes, log)",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=alt.Axis(values=ticks, labelExpr=f"{labels}[datum.value]"),
    )
    axis = alt.Axis(format="~s", values=[10.0**k for k in range(3, 13)])
    legend = alt.Legend(title=None, columns=1, labelLimit=300)
    names = list(marks.link.unique())
    color = alt.Color("link:N", scale=alt.Scale(domain=names, range=palette.series(names)), legend=legend)
    title = "bus bandwidth (byte/s, log)"
    base = alt.Chart(marks).encode(x=x, color=color)
    line = base.mark_line(strokeWidth=1.5).encode(
        y=alt.Y("fitted:Q", title=title, scale=alt.Scale(type="log"), axis=axis), detail="link:N"
    )
    tips = ["link", alt.Tooltip("size", title="vector"), alt.Tooltip("bus", format=".3s", title="bus (byte/s)")]
    points = base.mark_point(**palette.MEASURED_POINT | {"size": 40}).encode(
        y=alt.Y("bus:Q", title=title),
        shape=alt.Shape("link:N", scale=alt.Scale(domain=names), legend=legend),
        tooltip=tips,
    )
    return alt.layer(line, points).properties(width=WIDTH, height=HEIGHT)


def tbl_scaling_links(sums: pd.DataFrame) -> str | Missing:
    """Fitted latency and speed, the measured bandwidth of the largest vector, and the fit's largest error."""
    if sums.empty:
        return Missing("All-reduces of vectors of all sizes", SUMS)
    lines = []
    for link in links(sums):
        largest = max(link.seconds)
        given = {scaling.p: link.learners, scaling.alpha: link.alpha, scaling.beta: link.beta}
        half = binary(float(scaling.half_size().subs(given))) if link.alpha and link.beta else None
        errors = {size: link.fitted(size) / t - 1 for size, t in link.seconds.items()}
        worst = max(errors, key=lambda size: abs(errors[size]))
        lines.append(
            (
                *(link.name, link.learners, rate_text(1e6 * link.alpha)),
                f"{1e-9 / link.beta:.3g}" if link.beta else None,
                f"{link.bus(largest, link.seconds[largest]) / 1e9:.3g}",
                *(half, f"{signed(errors[worst], 0)} at {binary(worst)}"),
            )
        )
    headers = ["Link", "p", "α (µs)", "1/β (GB/s)", "Bus (GB/s)", "Half at", "Largest error"]
    return show.table_text(lines, headers, "lrrrrrr")
