"""What goes beyond Problem 2's questions: one learner's iteration against its batch and setting, the input pipeline,
accuracy against the effective batch, and CPU learners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from experiments.machine.device_names import short_name
from experiments.store.files import RESULTS
from report import comparisons, palette, show
from report.answers import Missing
from report.comparisons import ratio, relative, select, series, spread
from report.estimates import estimate
from report.figures.strategy_charts import WIDTH
from report.figures.strategy_runs import (
    BASES,
    EPOCHS,
    IMAGES,
    LEARNERS,
    SCRIPT,
    each_row,
    first,
    median_range,
    milliseconds,
    over,
    rate_text,
    setting,
    sized,
    table,
    within,
)
from report.known_runs import stale
from report.used import runs_in, selects

ONE = f"{SCRIPT} --strategy mirrored --device gpu --base 16 --steps-per-epoch 50 --epochs 5 --no-evaluate"
WHOLE = f"{SCRIPT} --strategy mirrored --device gpu --scaling strong"
INPUT = "python experiments/p2_input.py --device gpu --per-learner-batch 256 --write"
BATCH = ["scaling", "base"]
WAYS = ["strategy", "workers", "all_reduce", "communication"]
HOSTS = ["hosts", "gbit"]
SETTING = ["precision", "jit_compile", "steps_per_execution"]
PLAIN: dict[str, Any] = {"precision": "float32", "jit_compile": False, "steps_per_execution": 1}


# ---- one learner ---------------------------------------------------------------------------------------------------


def _alone(runs: pd.DataFrame) -> pd.DataFrame:
    """The jobs of one learner. With the same batch, weak and strong scaling's are the same job."""
    one = runs[runs.learners == 1]
    return one.assign(scaling="weak", base=one.per_learner_batch)


@selects
def _several_batches(runs: pd.DataFrame) -> pd.DataFrame:
    """The jobs of one learner that form series of several batches."""
    found = comparisons.main(_alone(runs), BATCH)
    several = found.groupby(["series", "allocation", "environment"]).base.transform("nunique") > 1
    return found[several] if len(found) else found


def _batches(runs: pd.DataFrame) -> pd.DataFrame:
    """Iteration time of one learner for each batch, of series with several; `per_learner_batch` is the axis."""
    points = spread(_several_batches(runs), BATCH, "step_seconds")
    order = points.assign(gpu=points.device_kind == "gpu")
    return order.sort_values(["gpu", "image_size", "series", "base"], ascending=[False, False, True, True])


def tbl_p2_compute(runs: pd.DataFrame) -> str | Missing:
    """One learner's iteration by batch, and the most that strong scaling could gain if summing took no time."""
    points, one = _batches(runs), _alone(runs)
    lines = []
    for point in each_row(points):
        own = one[(one.series == point.series) & (one.allocation == point.allocation)]
        own = own[own.environment == point.environment]
        steps = own[own.base == point.base].step_seconds
        n = BASES["strong"] // int(point.base)
        bound = None
        if n in LEARNERS and n * point.base == BASES["strong"] and (own.base == BASES["strong"]).any():
            gain = ratio(own, of={"base": BASES["strong"]}, to={"base": int(point.base)}, value="step_seconds")
            bound = f"{gain.value:.2f}"
        rate = rate_text(point.base / point.value)
        lines.append(
            (point.series, int(point.base), median_range(steps, milliseconds), rate, n if bound else None, bound,
             len(steps))
        )  # fmt: skip
    headers = ["Run on", "Batch", "Iteration (ms)", "Images/s", "N", "Speed-up ≤", "Runs"]
    return table(lines, headers, "lrrrrrr", Missing("One learner with several batches", ONE))


def text_p2_compute(runs: pd.DataFrame) -> str:
    """How an iteration grows with its batch, and which part of the smallest doesn't grow with it, for each series."""
    points = _batches(runs)
    said = []
    for name in dict.fromkeys(points.series):
        own = points[points.series == name].sort_values("base")
        small, large = first(own), first(own.tail(1))
        # A straight line through both ends: what it has at a batch of nothing.
        fixed = (small.value * large.base - large.value * small.base) / (large.base - small.base)
        said.append(
            f"- {name}: {large.base / small.base:g} times as many images take {large.value / small.value:.2f} times as "
            f"long; {show.percent(max(fixed, 0) / small.value, 0)} of the smallest iteration is fixed."
        )
    told = "Fixed is what a straight line through the smallest and the largest batch has without any images."
    return "\n".join([*said, "", told]) if said else ""


@selects
def _several_settings(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The series of one learner's settings, plain float32 among them."""
    found = series(comparisons.main(_alone(runs), SETTING), SETTING)
    return [one for one in found if len(one[SETTING].drop_duplicates()) > 1 and len(select(one, **PLAIN))]


def tbl_p2_settings(runs: pd.DataFrame) -> str | Missing:
    """Compiled, in mixed precision, several steps a call: one learner's throughput relative to plain float32."""
    lines = []
    for one in _several_settings(runs):
        for key, own in one.groupby(SETTING):
            other = dict(zip(SETTING, key, strict=True))
            job, part, interval = first(own), "1", None
            if other != PLAIN:
                gain = ratio(one, of=other, to=PLAIN)
                part, interval = f"{gain.value:.2f}", within(gain.low, gain.high)
            how, where = setting(job.to_dict()), f"{job.unit}, {job.image_size:g} px"
            lines.append((where, int(job.base), how, median_range(own.rate), part, interval, len(own)))
    headers = ["Run on", "Batch", "Setting", "Images/s", "Of float32's", "Interval", "Runs"]
    return table(lines, headers, "lrlrrrr", Missing("One learner's settings", ONE))


def text_p2_stale(runs: pd.DataFrame) -> str:
    """How many of the runs with one learner, and of those tested after each epoch, earlier code has made."""
    used = runs_in([_several_batches(runs), _several_settings(runs), _tested(runs)])
    if not (earlier := used & stale()):
        return ""
    return (
        f"{len(earlier)} of this section's {len(used)} runs were made by earlier versions of the script. Its code has "
        "changed since in ways that could change numbers, and no later runs replace them."
    )


# ---- the input pipeline --------------------------------------------------------------------------------------------


def load_input(results: Path = RESULTS) -> pd.DataFrame:
    """The windows of one learner's training step, fed by the pipeline and on a batch that stays on the device."""
    rows = comparisons.trusted("p2_input", results)
    return rows[(rows.network == "resnet50") & (rows.dataset == "fashion") & (rows.kind == "measured")]


def tbl_p2_input(windows: pd.DataFrame) -> str | Missing:
    """The rate with the input pipeline as a part of the rate without; windows of one process that took turns."""
    lines = []
    for _, own in windows.groupby(["device", "per_learner_batch", "jit_compile", "run_id"], sort=True):
        fed, resident = (own[own.contender == name].images_per_second for name in ("fed", "resident"))
        part = estimate(lambda a, b: a / b, fed, resident)
        window = first(own)
        where = short_name(window.device).removeprefix("NVIDIA ") + ", XLA" * bool(window.jit_compile)
        extent = f"{len(fed)} × {window.steps} steps"
        shares = f"{100 * part.low:.0f}–{100 * part.high:.0f} %"
        lines.append(
            (where, int(window.per_learner_batch), extent, median_range(fed), median_range(resident),
             show.percent(part.value, 0), shares)
        )  # fmt: skip
    headers = ["Run on", "Batch", "Windows", "Fed", "Resident", "Share", "Interval"]
    return table(lines, headers, "lrrrrrr", Missing("The input pipeline", INPUT))


# ---- accuracy ------------------------------------------------------------------------------------------------------


@selects
def _tested(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of whole epochs that were tested after each, by image size and effective batch."""
    found = runs[runs.whole_epochs.astype(bool) & (runs.accuracies.map(len) > 1)]
    return found.sort_values(
        ["image_size", "effective_batch", "scaling", "learners"], ascending=[False, True, True, True]
    )


def fig_p2_accuracy(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Test accuracy after each epoch, coloured by the effective batch; a panel an image size, a line a run."""
    found = _tested(runs)
    if found.empty:
        return Missing("Whole epochs with tests", WHOLE)
    points = pd.DataFrame(
        {"run": job.run_id, "epoch": epoch, "percent": 100 * accuracy, "batch": int(job.effective_batch),
         "job": sized(job), "pixels": job.image_size}
        for job in each_row(found)
        for epoch, accuracy in enumerate(job.accuracies, 1)
    )  # fmt: skip
    batches = sorted(points.batch.unique())
    scale = alt.Scale(domain=batches, scheme=alt.SchemeParams(name=palette.BATCHES, extent=[0, 0.8]))
    colour = alt.Color("batch:O", title="effective batch (images)", scale=scale)
    views = []
    for pixels in dict.fromkeys(points.pixels):
        own = points.loc[points.pixels == pixels].drop(columns="pixels")
        y = alt.Y("percent:Q", title="test accuracy (%)", scale=alt.Scale(domain=[0, 100]))
        x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1))
        base = alt.Chart(own).encode(x=x, y=y, color=colour, detail="run:N")
        tips = ["job", "epoch", alt.Tooltip("percent", format=".2f", title="accuracy (%)"), "batch"]
        marks = alt.layer(base.mark_line(), base.mark_point(**palette.MEASURED_POINT).encode(tooltip=tips))
        views.append(marks.properties(width=WIDTH, height=105, title=f"{pixels:g} px"))
    return alt.vconcat(*views)


def text_p2_accuracy(runs: pd.DataFrame) -> str:
    """Updates and last accuracy with the smallest and the largest effective batch, for each image size."""
    found = _tested(runs)
    said = []
    for pixels in dict.fromkeys(found.image_size):
        own = found[(found.image_size == pixels) & (found.accuracies.map(len) == EPOCHS)]
        batches = sorted(int(batch) for batch in own.effective_batch.unique())
        if len(batches) < 2:
            continue
        ends = []
        for batch in (batches[0], batches[-1]):
            alike = own[own.effective_batch == batch]
            last = [100 * values[-1] for values in alike.accuracies]
            learners = show.listing(sorted(alike.learners.unique()))
            on = f"{learners} learner{'s' * (learners != '1')}"
            several = f", {len(alike)} runs with {on}" if len(alike) > 1 else ""
            ends.append(
                f"an effective batch of {batch:,} makes {show.count(EPOCHS * (IMAGES // batch))} updates in {EPOCHS} "
                f"epochs and ends at {show.mean_range(last, '{:.1f}')} %{several}"
            )
        said.append(f"At {pixels:g} px {'; '.join(ends)}.")
    return " ".join(said) or "Only one effective batch was trained for whole epochs."


# ---- CPU learners --------------------------------------------------------------------------------------------------


@selects
def _both_strategies(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The CPU learners' jobs of one host that ran under both strategies in one allocation."""
    plain = runs.all_reduce.eq("default") | runs.communication.eq("auto")
    jobs = runs[(runs.device_kind == "cpu") & (runs.hosts == 1) & (runs.learners > 1) & plain]
    return [one for one in series(comparisons.main(jobs, WAYS), WAYS) if one.strategy.nunique() > 1]


def tbl_p2_strategies(runs: pd.DataFrame) -> str | Missing:
    """The same CPU learners under both strategies, where both ran in one allocation."""
    lines = []
    for one in _both_strategies(runs):
        of, to = (one[one.strategy == name] for name in ("mirrored", "multiworker"))
        keys = [{name: None if pd.isna(first(side)[name]) else first(side)[name] for name in WAYS} for side in (of, to)]
        gain = ratio(one, of=keys[0], to=keys[1])
        rates, interval = (median_range(of.rate), median_range(to.rate)), within(gain.low, gain.high)
        lines.append((sized(first(one)), *rates, f"{gain.value:.2f}", interval, min(len(of), len(to))))
    headers = ["Job", "Mirrored (images/s)", "MultiWorker (images/s)", "Ratio", "Interval", "Runs"]
    command = f"{SCRIPT} --learners 2,4,8 --strategy mirrored,multiworker --repeats 3 --steps-per-epoch 2 --no-evaluate"
    return table(lines, headers, "lrrrrr", Missing("Both strategies on the cores of one allocation", command))


@selects
def _one_host_and_two(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The CPU workers' jobs that ran on one host and on two in one allocation."""
    jobs = runs[(runs.device_kind == "cpu") & (runs.communication == "auto")]
    found = series(comparisons.main(jobs, HOSTS), HOSTS)
    return [one for one in found if one.hosts.nunique() > 1 and (one.hosts == 1).any()]


def tbl_p2_hosts(runs: pd.DataFrame) -> str | Missing:
    """As many CPU learners on two emulated hosts as on one, by the speed of the link between them."""
    lines = []
    for one in _one_host_and_two(runs):
        for point in each_row(relative(one, HOSTS).sort_values(HOSTS)):
            # Hosts are no learners: the ratio to one host is what `relative` calls the speed-up.
            interval = within(point.speedup_low, point.speedup_high)
            part = f"{point.speedup:.2f}"
            lines.append((sized(point), over(point), rate_text(point.value), part, interval, point.repetitions))
    headers = ["Job", "On", "Images/s", "Of one host's", "Interval", "Runs"]
    made = f"{SCRIPT} --learners 16 --repeats 3 --steps-per-epoch 2 --no-evaluate"
    command = f"export DLPERF_ALLOCATION=hosts\n{made}\n{made} --hosts 2 --gbit 10"
    return table(lines, headers, "llrrrr", Missing("As many learners on one host and two, in one allocation", command))
