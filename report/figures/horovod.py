"""Problem 1's figures, tables and answers, part by part. Each takes the runs of `horovod_runs.load`."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from experiments.machine.device_names import short_name
from report import palette, show
from report.answers import Answer, Missing
from report.comparisons import Incomparable, length, ratio, relative, spread
from report.estimates import ENOUGH, word
from report.figures.horovod_runs import (
    HALF,
    LEARNERS,
    ON_CORES,
    ON_GPUS,
    SIZE,
    colours,
    devices,
    headlines,
    rate_text,
    rates_text,
    shown,
    unit,
)

ASKED = [1, 2, 4, 8, 16]
MADE_BY = f"{ON_CORES}\n{ON_GPUS}"


# ---- what was run --------------------------------------------------------------------------------------------------


def tbl_p1_settings(runs: pd.DataFrame) -> str | Missing:
    """The series of the figures: what a learner is and does, which sizes ran, and how often."""
    lines = []
    for name, group in shown(runs).groupby("series"):
        job, sizes = group.iloc[0], group.groupby("learners").size()
        where = short_name(job.device) + (f", {job.threads} core" if job.device_kind == "cpu" else "")
        lengths = sorted({(int(epochs), int(steps)) for epochs, steps in zip(group.epochs, group.steps, strict=True)})
        each = f"{sizes.min()}" + (f" to {sizes.max()}" if sizes.max() > sizes.min() else "")
        lines.append(
            (name, where, show.listing(sizes.index), f"{job.image_size}\u00a0px", int(job.batch_size),
             show.listing(f"{epochs}\u00a0×\u00a0{steps // epochs}" for epochs, steps in lengths), each)
        )  # fmt: skip
    headers = ["Series", "A learner", "N", "Images", "B", "Epochs × steps", "Runs each"]
    return show.table_text(lines, headers, "lllrrrr") if lines else Missing("What was run", MADE_BY)


def text_p1_order(runs: pd.DataFrame) -> str:
    """In which order each series' repetitions ran: sizes in turn, or one size after the other."""
    in_turn: dict[bool, list[str]] = {True: [], False: []}
    for name, group in shown(runs).groupby("series"):
        order = group.sort_values("started").learners.tolist()
        sizes = set(order)
        if len(order) > len(sizes):
            in_turn[set(order[: len(sizes)]) == sizes].append(str(name))
    told = {True: "Sizes ran in turn, so that a drift of the host falls on all", False: "One size ran after the other"}
    parts = [f"{what}: {'; '.join(in_turn[turn])}" for turn, what in told.items() if in_turn[turn]]
    return f"{'. '.join(parts)}." if parts else "No job of these series was repeated."


def text_p1_not_run(runs: pd.DataFrame) -> str:
    """Which of the homework's sizes no GPU job had."""
    missing = [n for n in ASKED if n not in set(runs[runs.device_kind == "gpu"].learners)]
    if not missing:
        return "All of the homework's numbers of GPUs were run."
    sizes = show.listing(missing)
    return f"Of the homework's numbers of GPUs, {sizes} were not run; CPU cores and @sec-scaling-k80 stand in."


# ---- 1.1 throughput and run time -----------------------------------------------------------------------------------


def answer_p1_throughput(runs: pd.DataFrame) -> Answer | Missing:
    """1.1: from one learner to the most, images per second and the seconds of the job's epochs."""
    series = headlines(runs)
    if not series:
        return Missing("Throughput and run time", MADE_BY)
    texts = [_growth(one) for one in series]
    return Answer(
        "1.1",
        f"{' '.join(texts)} Each learner takes the same number of steps whatever N is, so the ideal run time is "
        "constant.",
        devices(series),
        sum(map(len, series)),
        "measured",
        "fig-p1-throughput",
    )


def _growth(one: pd.DataFrame) -> str:
    """Throughput and run time of a series' smallest job and of its largest."""
    job, few, n = one.iloc[0], int(one.learners.min()), int(one.learners.max())
    least, most = (one[one.learners == size].median(numeric_only=True) for size in (few, n))
    grows = (
        f"From {word(few)} to {unit(job, n)}, throughput grows from {rate_text(least.rate)} to {rate_text(most.rate)}"
    )
    try:
        change = ratio(one, of={"learners": n}, to={"learners": few}, value="train_seconds").change
        times = (
            f"The {length(job.to_dict())} take {show.seconds(most.train_seconds)} instead of "
            f"{show.seconds(least.train_seconds)}, {change.text(signed=True)}"
        )
    except Incomparable as error:
        times = f"The run times can't be compared: {error}"
    setups = f"{show.seconds(most.setup_seconds)} instead of {show.seconds(least.setup_seconds)}"
    return f"{grows} images/s. {times}; set-up takes {setups}."


def fig_p1_throughput(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Images per second of all learners against their number: a panel for GPUs and one for cores."""
    points = spread(shown(runs))
    if points.empty:
        return Missing("Throughput", MADE_BY)
    kept = points[["series", "device_kind", "learners", "value", "low", "high", "repetitions"]]
    panels: list[Any] = []
    for kind, what in (("gpu", "GPU"), ("cpu", "CPU")):
        here = kept[kept.device_kind == kind]
        if len(here):
            panels.append(_panel(runs, here, f"images/s, {what} learners"))
    return alt.vconcat(*panels).resolve_scale(color="independent")


def _panel(runs: pd.DataFrame, points: pd.DataFrame, title: str) -> Any:
    """Medians, joined by lines, with bars for the range of the repetitions."""
    color, tips = colours(runs, points), ["series", "learners", "value", "low", "high", "repetitions"]
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=True))
    base = alt.Chart(points).encode(x=LEARNERS, color=color)
    return alt.layer(
        base.mark_rule().encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_line().encode(y=y),
        base.mark_point(**palette.MEASURED_POINT).encode(y=y, tooltip=[_tip(name) for name in tips]),
    ).properties(**HALF)


def _tip(name: str) -> alt.Tooltip:
    return alt.Tooltip(name, format=",.1f") if name in ("value", "low", "high") else alt.Tooltip(name)


WITH, WITHOUT = "whole job, set-up included", "its epochs alone"


def fig_p1_time(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Run time with and without set-up against the number of learners. A panel has jobs of one length."""
    found = shown(runs)
    if found.empty:
        return Missing("Run time", MADE_BY)
    found = found.assign(length=[length(job) for job in found.to_dict("records")])
    panels: list[Any] = []
    for (_, job_length), group in found.groupby(["device_kind", "length"], sort=True):
        both = pd.concat(
            spread(group, value=value).assign(measure=measure)
            for value, measure in (("job_seconds", WITH), ("train_seconds", WITHOUT))
        )
        both = both[["series", "measure", "learners", "value", "low", "high", "repetitions"]]
        title = ["run time (s)", str(job_length)]
        panels.append(_times(runs, both, title))
    return alt.vconcat(*panels[::-1]).resolve_scale(color="independent", shape="shared")


def _times(runs: pd.DataFrame, points: pd.DataFrame, title: list[str]) -> Any:
    shape = alt.Shape("measure:N", title=None, scale=alt.Scale(domain=[WITH, WITHOUT], range=["circle", "triangle-up"]))
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=True))
    base = alt.Chart(points).encode(x=LEARNERS, color=colours(runs, points))
    tips = ["series", "measure", "learners", "value", "low", "high", "repetitions"]
    return alt.layer(
        base.mark_rule().encode(y=alt.Y("low:Q", title=title), y2="high:Q", detail="measure:N"),
        base.mark_line(strokeWidth=1.5).encode(y=y, detail="measure:N"),
        base.mark_point(**palette.MEASURED_POINT).encode(y=y, shape=shape, tooltip=[_tip(name) for name in tips]),
    ).properties(**HALF)


# ---- 1.2 scaling against ideal -------------------------------------------------------------------------------------


def answer_p1_scaling(runs: pd.DataFrame) -> Answer | Missing:
    """1.2: the largest job's throughput over one learner's, and the part of the ideal that it is."""
    series = [one for one in headlines(runs) if (one.learners == 1).any()]
    if not series:
        return Missing("Scaling", MADE_BY)
    texts: list[str] = []
    for one in series:
        job, n = one.iloc[0], int(one.learners.max())
        speedup = ratio(one, of={"learners": n}, to={"learners": 1}).value
        part = ratio(one, of={"learners": n}, to={"learners": 1}, ideal=n).text(after="of ideal")
        more = "" if texts else " Horovod trains"
        as_one = "" if texts else " images per second as on one"
        texts.append(f"on {unit(job, n)}{more} {speedup:.2f} times as many{as_one}, {part}")
    return Answer(
        "1.2",
        f"{show.capitalised('; '.join(texts))}.",
        devices(series),
        sum(int(one.learners.isin([1, one.learners.max()]).sum()) for one in series),
        "measured",
        "fig-p1-scaling",
    )


def fig_p1_scaling(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Throughput relative to one learner of the same series, beside the ideal."""
    found = _relative(runs)
    if found.empty:
        return Missing("Scaling", MADE_BY)
    most = int(found.learners.max())
    both = alt.Scale(type="log", base=2)
    title = "throughput over one learner's"
    y = alt.Y("speedup:Q", title=title, scale=both, axis=alt.Axis(values=[1, 2, 4, 8, 16]))
    ideal = alt.Chart(pd.DataFrame({"learners": [1, most], "speedup": [1, most]}))
    points = found[["series", "learners", "speedup", "speedup_low", "speedup_high", "efficiency", "repetitions"]]
    base = alt.Chart(points).encode(x=LEARNERS, color=colours(runs, points))
    tips = [alt.Tooltip("speedup", format=".2f"), alt.Tooltip("efficiency", format=".1%"), "repetitions"]
    return alt.layer(
        ideal.mark_line(**palette.IDEAL_LINE).encode(x=LEARNERS, y=y),
        ideal.transform_filter(f"datum.learners == {most}")
        .mark_text(align="left", dx=6, text="ideal", fontSize=12)
        .encode(x=LEARNERS, y=y),
        base.mark_rule().encode(y=alt.Y("speedup_low:Q", title=title, scale=both), y2="speedup_high:Q"),
        base.mark_line(point=palette.MEASURED_POINT).encode(y=y, tooltip=["series", "learners", *tips]),
    ).properties(**SIZE)


def tbl_p1_scaling(runs: pd.DataFrame) -> str | Missing:
    """Throughput, speed-up and parallel efficiency of each job."""
    lines, own = [], shown(runs)
    for job in _relative(runs).to_dict("records"):
        n, part = int(job["learners"]), job["estimate"]
        interval = f"{100 * part.low:.1f}–{100 * part.high:.1f} %"
        if part.repetitions < ENOUGH:
            interval = "one run" if part.repetitions == 1 else f"{interval} ({part.repetitions} runs)"
        rates = own[(own.series == job["series"]) & (own.learners == n)].rate
        efficiency = show.percent(part.value, 1) + " (above ideal)" * part.flagged
        lines.append(
            (job["series"], n, rates_text(rates), f"{job['speedup']:.2f}", efficiency,
             "–" if n == 1 else interval)
        )  # fmt: skip
    headers = ["Series", "N", "Images/s (range)", "Speed-up", "Efficiency", "95 % interval"]
    return show.table_text(show.once(lines), headers, "lrrrrr") if lines else Missing("Scaling", MADE_BY)


def _relative(runs: pd.DataFrame) -> pd.DataFrame:
    """`relative` of the series that have one learner."""
    found = shown(runs)
    with_one = found[found.groupby("series").learners.transform("min") == 1] if len(found) else found
    return relative(with_one).sort_values(["series", "learners"]) if len(with_one) else with_one


# ---- 1.3 effective batch -------------------------------------------------------------------------------------------


def answer_p1_batch(runs: pd.DataFrame) -> Answer | Missing:
    """1.3: the effective batch, and that a learner's batch stays. Raises ValueError where the rows say otherwise."""
    series = headlines(runs)
    if not series:
        return Missing("Effective batches", MADE_BY)
    averaging = runs[runs.allreduce.astype(bool)]
    if wrong := averaging[averaging.effective_batch != averaging.learners * averaging.batch_size].run_id.tolist():
        raise ValueError(f"the effective batch is not N times a learner's in {', '.join(wrong)}")
    grown = [
        f"{show.count(one.effective_batch.min())} to {show.count(one.effective_batch.max())} images on "
        f"{word(one.learners.min())} to {unit(one.iloc[0], int(one.learners.max()))}"
        for one in series
    ]
    return Answer(
        "1.3",
        f"N learners with $B$ images each average over $N B$ images: {show.listing(grown)}. $B$ is the same for every "
        "N, so each learner's work stays constant while the effective batch grows. Used like this, Horovod employs "
        "**weak scaling**.",
        devices(_by_device(averaging)),
        len(averaging),
        "derived",
        "tbl-p1-batch",
    )  # fmt: skip


def _by_device(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs of each device, GPUs first."""
    order = runs.sort_values(["device_kind", "device"], ascending=[False, True])
    return [own for _, own in order.groupby("device", sort=False)]


def tbl_p1_batch(runs: pd.DataFrame) -> str | Missing:
    """The effective batch of each job of the shown series."""
    found = shown(runs)
    sizes = sorted({int(n) for n in found.learners}) if len(found) else []
    lines = []
    for name, group in found.groupby("series") if len(found) else ():
        batches = group.groupby("learners").effective_batch.first()
        lines.append((name, int(group.batch_size.iloc[0]), *(batches.get(n) for n in sizes)))
    headers = ["Series", "B", *(f"N = {n}" for n in sizes)]
    return show.table_text(lines, headers, "l" + "r" * (len(sizes) + 1)) if lines else Missing("Batches", MADE_BY)
