"""Problem 4.2 and 4.3: what was run, the baseline's error, and the error against the epoch for each M."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import altair as alt
import pandas as pd

from experiments.p4.wanted import ALL_M, CAP, GOAL
from report import line_ends, palette, show
from report.answers import Answer, Missing
from report.comparisons import pooled
from report.estimates import ENOUGH, verdict
from report.figures.augmentation_runs import (
    SCRIPT,
    SETTING,
    baseline,
    by_m,
    difference,
    finished,
    gpu,
    load,
    main,
    numbers,
    place_text,
    points,
    pooled_text,
    same_length,
    series,
    trainings,
)

__all__ = ["load"]
LEGEND = alt.Legend(columns=6, symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=3)
Y_TITLE = "validation error (%)"
BASELINE_BY = f"{SCRIPT} --augment basic --M 1"
SERIES_BY = f"{SCRIPT} --M 8"


# ---- what was run --------------------------------------------------------------------------------------------------


def tbl_p4_runs(epochs: pd.DataFrame) -> str | Missing:
    """The stored runs by setting."""
    runs = finished(epochs)
    lines = []
    described = ["augment", "M", "schedule", "precision", "epochs_planned"]
    for _, group in runs.groupby([*described, "device", "code"]):
        first = group.iloc[0]
        lines.append((*first[described], place_text(first), show.listing(sorted(group.seed.astype(int)))))
    heads = ["Augmentation", "M", "Schedule", "Precision", "Epochs", "GPU", "Seeds"]
    return show.table_text(lines, heads, "lrllrll") if lines else Missing("ResNet-44 on CIFAR-10", SCRIPT)


def text_p4_runs(epochs: pd.DataFrame) -> str:
    """On which devices and in how many allocations the runs were made, and which of them the figures compare."""
    runs = finished(epochs)
    shown = main(runs)
    if shown.empty:
        return ""
    own = shown[~shown.elsewhere]
    places = own.allocation.nunique()
    first = own.iloc[0]
    devices = [f"{gpu(str(device))} ({len(group)} runs)" for device, group in runs.groupby("device")]
    said = [
        f"Devices: {show.listing(devices)}. The figures compare the {len(own)} runs with the authors' schedule in "
        f"{first.precision} on one {gpu(first.device)}, for each M its longest ones, made in "
        f"{places} allocation{'s' * (places > 1)}."
    ]
    short = shown[shown.epochs_planned < CAP].drop_duplicates("M")
    if len(short):
        listed = show.listing(f"M = {run.M} ({run.epochs_planned} epochs)" for run in short.itertuples())
        said.append(
            f"**Shortened runs** are among them: {listed}. They say how training starts, not where it would end."
        )
    return " ".join(said)


def text_p4_wanting(epochs: pd.DataFrame) -> str | Missing:
    """The runs that the homework asks for and that aren't stored; nothing where all are."""
    runs = finished(epochs)
    absent = [m for m in ALL_M if m not in set(series(runs).M)]
    what = ["the baseline"] if baseline(runs).empty else []
    commands = [BASELINE_BY] if what else []
    what += [f"cutout with M = {show.listing(absent)}"] if absent else []
    commands += [f"{SCRIPT} --M {m}" for m in absent]
    asked = f"Of the runs that the homework asks for, {show.listing(what)}"
    return Missing(asked, "\n".join(commands)) if commands else ""


# ---- curves --------------------------------------------------------------------------------------------------------


def curves(epochs: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The validation error (%) of the chosen runs: median and range over seeds, a row for each M and epoch."""
    for _, group in chosen.groupby("M"):
        pooled(group, "last", SETTING)
    picked = epochs[epochs.run_id.isin(chosen.run_id)]
    picked = picked.assign(error=100 * picked.val_error, evaluations=picked.M * picked.epoch)
    found = picked.groupby(["M", "epoch"], as_index=False).agg(
        error=("error", "median"),
        low=("error", "min"),
        high=("error", "max"),
        seeds=("seed", "nunique"),
        minutes=("wall_seconds", "median"),
        evaluations=("evaluations", "first"),
    )
    return found.assign(minutes=found.minutes / 60)


def goal_rule() -> alt.Chart:
    """A dotted line at 94 % accuracy."""
    return alt.Chart(pd.DataFrame({"error": [GOAL]})).mark_rule(**palette.IDEAL_LINE).encode(y="error:Q")


def coloured(numbers: Iterable[int], legend: alt.Legend | None = LEGEND) -> alt.Color:
    """Each M in its colour, whatever other M a chart shows."""
    shown = sorted({int(m) for m in numbers})
    return alt.Color("M:O", title="M", scale=alt.Scale(domain=shown, range=palette.instances(shown)), legend=legend)


def _error(column: str = "error") -> alt.Y:
    return alt.Y(f"{column}:Q", title=Y_TITLE, scale=alt.Scale(zero=False))


def _epoch() -> alt.X:
    scale = alt.Scale(zero=False, nice=False)
    return alt.X("epoch:Q", title="epoch", scale=scale, axis=alt.Axis(tickMinStep=1))


# ---- 4.2 -----------------------------------------------------------------------------------------------------------


def answer_p4_baseline(epochs: pd.DataFrame) -> Answer | Missing:
    """4.2: the baseline's error at the end, and what its curve does."""
    runs = baseline(finished(epochs))
    if runs.empty:
        return Missing("The baseline", BASELINE_BY)
    curve = curves(epochs, runs).set_index("epoch").error
    drop, last = runs.first_drop.min(), int(runs.epochs.max())
    reached = int(runs.goal_epoch.notna().sum())
    found, best = pooled(runs, "last", SETTING), pooled(runs, "best", SETTING)
    seeds = f"median of {len(runs)} seeds, {found.low:.2f}–{found.high:.2f}" if len(runs) > 1 else "one run"
    step = (
        ""
        if pd.isna(drop)
        else f" It falls from {curve[drop - 1]:.2f} to {curve[drop]:.2f} % at epoch {drop:.0f}, the "
    )
    step += "first with a lower learning rate." if step else ""
    return Answer(
        "4.2",
        f"With pad, crop and flip alone, ResNet-44's validation error is **{found.value:.2f} %** after {last} epochs "
        f"({seeds}) and {best.value:.2f} % at its best epoch.{step} {reached or 'None'} of the {len(runs)} runs "
        f"{'reach' if reached > 1 else 'reaches'} 94 % accuracy.",
        f"one {gpu(runs.device.iloc[0])}",
        len(runs),
        "measured",
        "fig-p4-baseline",
    )


def fig_p4_baseline(epochs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The baseline's error against the epoch: the median over seeds and their range."""
    runs = baseline(finished(epochs))
    if runs.empty:
        return Missing("The baseline", BASELINE_BY)
    base = alt.Chart(curves(epochs, runs)).encode(x=_epoch())
    tips = ["epoch", alt.Tooltip("error", format=".2f", title=Y_TITLE), alt.Tooltip("seeds")]
    return alt.layer(
        base.mark_area(opacity=0.2, color=palette.MODEL).encode(y=_error("low"), y2="high:Q"),
        base.mark_line(color=palette.MODEL).encode(y=_error()),
        base.mark_point(opacity=0, size=80).encode(y=_error(), tooltip=tips),
        goal_rule(),
    )


# ---- 4.3: error against epoch --------------------------------------------------------------------------------------


def fig_p4_m(epochs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The error with cutout for each M, over all epochs and over the last 15 % of them."""
    chosen = series(finished(epochs))
    if chosen.empty:
        return Missing("Cutout with batch augmentation", SERIES_BY)
    frame = curves(epochs, chosen)
    pick = alt.selection_point(fields=["M"], bind="legend", name="pick")
    late = frame[frame.epoch > 0.85 * frame.epoch.max()]
    panels = [_panel(frame, pick, 240, first=True)]
    panels += [_panel(late, pick, 200)] if late.epoch.nunique() > 1 else []
    return alt.vconcat(*panels).resolve_scale(color="independent")


def _panel(data: pd.DataFrame, pick: alt.Parameter, height: int, first: bool = False) -> Any:
    """Lines with bands; the first panel holds the one selection, which all obey."""
    base = alt.Chart(data).encode(x=_epoch(), color=coloured(data["M"], LEGEND if first else None))
    tips = ["M", "epoch", alt.Tooltip("error", format=".2f", title=Y_TITLE), alt.Tooltip("seeds")]
    band_opacity = alt.condition(pick, alt.value(0.2), alt.value(0.02))
    band = base.mark_area().encode(y=_error("low"), y2="high:Q", opacity=band_opacity)
    line = base.mark_line().encode(y=_error(), opacity=alt.condition(pick, alt.value(1), alt.value(0.1)))
    line = line.add_params(pick) if first else line
    points = base.mark_point(size=60).encode(y=_error(), opacity=alt.value(0), tooltip=tips)
    shown = [] if first else sorted({int(m) for m in data["M"]})
    colours = dict(zip(shown, palette.instances(shown), strict=True))
    told = {m: f"M = {m}" for m in shown}
    names = line_ends.labels(base, data, colours, told, ["M"], _error(), height, along="epoch") if shown else []
    return alt.layer(band, line, points, goal_rule(), *names).properties(width=560, height=height)


def tbl_p4_errors(epochs: pd.DataFrame) -> str | Missing:
    """Each training's error after its last epoch and at its best one."""
    lines = [
        (name, len(own), int(own.epochs.iloc[0]), pooled_text(own), pooled_text(own, "best"), numbers(own.best_epoch))
        for name, own in trainings(finished(epochs))
    ]
    heads = ["Training", "Runs", "Epochs", "Last", "Best", "Best epoch"]
    return show.table_text(lines, heads, "lrrrrr") if lines else Missing("Last and best errors", SERIES_BY)


def text_p4_errors(epochs: pd.DataFrame) -> str | Missing:
    """From one M to the next, what the last error does; a verdict only where three seeds ran of both."""
    runs = same_length(finished(epochs))
    own = by_m(runs)
    several = [m for m, group in own.items() if len(group) >= ENOUGH]
    if len(several) < 2:
        return Missing("A comparison of errors, three seeds for each of two M,", SERIES_BY)
    said = []
    for few, many in pairwise(several):
        gap = difference(own[few], own[many], ["M"])
        word = {"above": "falls", "below": "rises"}.get(verdict(gap, 0) or "", "differs within noise,")
        said.append(f"from M = {few} to {many} it {word} by {points(gap)}")
    single = [f"{group['last'].iloc[0]:.2f} % for M = {m}" for m, group in own.items() if len(group) == 1]
    few_runs = f" Single runs, which allow no verdict, ended at {show.listing(single)}." if single else ""
    return f"The error after the last epoch: {'; '.join(said)}.{few_runs}"
