"""Problem 2's throughput and training time (2.1, 2.2), and what was run. Each function takes the runs of
`strategy_runs.load`."""

from __future__ import annotations

import altair as alt
import pandas as pd

from report import show
from report.answers import Answer, Missing
from report.comparisons import ratio
from report.estimates import ENOUGH, Estimate, word
from report.figures.horovod_runs import devices
from report.figures.strategy_charts import COLUMNS, of_k80, panels, points_of, sorted_like
from report.figures.strategy_runs import (
    AXIS,
    BASES,
    LEARNERS,
    MADE_BY,
    ON_GPUS,
    at,
    drawn,
    each,
    each_row,
    elsewhere,
    ends,
    first,
    headlines,
    homework,
    like,
    median_range,
    milliseconds,
    note,
    over,
    place,
    rate_text,
    repeated,
    sized,
    table,
    ten_epochs,
    ten_projected,
    timed,
)
from report.used import selects

# ---- what was run --------------------------------------------------------------------------------------------------


def tbl_p2_ten(runs: pd.DataFrame) -> str | Missing:
    """The homework's ten jobs, and on what each was run, whole or in part."""
    jobs = homework(runs)
    lines = []
    for scaling, base in BASES.items():
        for n in LEARNERS:
            own = jobs[(jobs.scaling == scaling) & (jobs.learners == n)]
            whole = ten_epochs(own)
            part = own[~own.series.isin(whole.series)]
            each = base if scaling == "weak" else base // n
            lines.append((scaling, n, each, each * n, _places(whole), _places(part)))
    headers = ["Scaling", "N", "Batch", "Effective", "Ten whole epochs", "Fewer steps"]
    return table(lines if len(jobs) else [], headers, "lrrrll", Missing("The homework's jobs", MADE_BY))


def _places(jobs: pd.DataFrame) -> str | None:
    """What these jobs ran on, and how often."""
    names = [f"{job.unit}, {job.image_size:g} px" + ", XLA" * bool(job.jit_compile) for job in each_row(jobs)]
    counted = pd.Series(names, dtype=object).value_counts(sort=False)
    return "; ".join(f"{name} ({n}×)" for name, n in counted.items()) or None


def text_p2_missing(runs: pd.DataFrame) -> Missing | str:
    """Which of the homework's sizes no GPUs ran at 224 px; an empty text if all were run."""
    jobs = homework(runs)
    tried = set(jobs.learners[(jobs.device_kind == "gpu") & (jobs.image_size == 224)])
    wanting = [n for n in LEARNERS if n not in tried]
    if not wanting:
        return ""
    return Missing(f"The jobs on {show.listing(wanting)} GPUs with images of 224 × 224 pixels", ON_GPUS)


# ---- 2.1 throughput ------------------------------------------------------------------------------------------------


def answer_p2_throughput(runs: pd.DataFrame) -> Answer | Missing:
    """2.1: by what the most learners multiply the fewest's throughput, with weak and with strong scaling."""
    series = headlines(runs)
    if not series:
        return Missing("Throughput", MADE_BY)
    texts, growths = [], []
    for frame in series:
        parts = []
        for scaling, one in each(frame):
            few, many = ends(one)
            growths.append(ratio(one, of=at(many), to=at(few)))
            rates = f"{rate_text(like(one, few).rate.median())} to {rate_text(like(one, many).rate.median())} images/s"
            far = f" on {over(many)}" if many.hosts > 1 else ""
            parts.append(f"by {growths[-1].brief('')} with {scaling} scaling{far} ({rates})")
        few, many = ends(frame)
        texts.append(
            f"On {place(few)}, going from {few.learners} to {many.learners} learners multiplies throughput "
            f"{' and '.join(parts)}; the ideal is {many.learners / few.learners:g}."
        )
        for span, again in _again(runs, frame).items():
            growths += again.values()
            parts = [f"by {growth.brief('')} with {scaling}" for scaling, growth in again.items()]
            told = f"In another allocation, with at least {word(ENOUGH)} repetitions, {span}"
            texts.append(f"{told}: {' and '.join(parts)} scaling.")
    sentence = " ".join([*texts, note(growths)])
    count = sum(len(one) + len(elsewhere(runs, one)) for frame in series for _, one in each(frame))
    return Answer("2.1", sentence, devices(series), count, "measured", "fig-p2-throughput")


def _again(runs: pd.DataFrame, frame: pd.DataFrame) -> dict[str, dict[str, Estimate]]:
    """The growth of throughput where another allocation repeated a series, by its sizes and by scaling."""
    found: dict[str, dict[str, Estimate]] = {}
    for scaling, one in each(frame):
        other = elsewhere(runs, one)
        if len(other):
            few, many = ends(other)
            span = f"from {few.learners} to {many.learners} learners"
            found.setdefault(span, {})[scaling] = ratio(other, of=at(many), to=at(few))
    return found


def fig_p2_throughput(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Images per second of all learners against their number."""
    found = drawn(runs)
    if found.empty:
        return Missing("Throughput", MADE_BY)
    return panels(pd.concat([points_of(found, "rate")[COLUMNS], of_k80("rate", "low", "high")]), "images/s")


# ---- 2.2 training time ---------------------------------------------------------------------------------------------

TRAINING, WHOLE = "training alone", "whole job, with set-up"


def answer_p2_time(runs: pd.DataFrame) -> Answer | Missing:
    """2.2: time of the ten epochs on the fewest learners and on the most, alone and with set-up and tests."""
    series = headlines(timed(runs))
    if not series:
        return Missing("Training time", MADE_BY)
    measured = [whole for frame in series if (whole := ten_epochs(frame)).learners.nunique() > 1]
    texts, changes = [], []
    for frame in measured or series:
        few, many = ends(frame)
        start = f"On {few.learners} and {many.learners} {place(few)}, ten"
        for scaling, one in each(frame):
            few, many = ends(one)
            least, most = like(one, few), like(one, many)
            times = f"{show.seconds(least.ten_seconds.median())} and {show.seconds(most.ten_seconds.median())}"
            if measured:
                changes.append(ratio(one, of=at(many), to=at(few), value="train_seconds"))
                clock = f"{show.seconds(least.job_seconds.median())} and {show.seconds(most.job_seconds.median())}"
                times += f", {changes[-1].change.brief(signed=True)}; with set-up and tests the jobs take {clock}"
            verb = "take" if measured else "would take"
            texts.append(f"{start} epochs of training with {scaling} scaling {verb} {times}.")
            start = "Ten"
    sentence = " ".join([*texts, note(changes)] if changes else texts)
    used = measured or series
    count = sum(map(len, used))
    return Answer("2.2", sentence, devices(used), count, "measured" if measured else "projected", "fig-p2-time")


@selects
def preferred(jobs: pd.DataFrame) -> pd.DataFrame:
    """Of each job the runs of ten whole epochs, or where there are none those that it is projected from; `basis`."""
    measured = jobs.ten_basis == "measured"
    keys = [jobs[name] for name in ("series", "scaling", *AXIS)]
    kept = jobs[measured | ~measured.groupby(keys, dropna=False).transform("any")]
    return kept.assign(basis=kept.ten_basis)


def fig_p2_time(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Minutes for ten epochs against the number of learners, with and without set-up and tests."""
    found = drawn(timed(runs))
    if found.empty:
        return Missing("Training time", MADE_BY)
    found = preferred(found).assign(
        minutes=lambda jobs: jobs.ten_seconds / 60, whole=lambda jobs: jobs.job_seconds / 60
    )
    points = [points_of(found, "minutes", TRAINING)]
    if len(whole := ten_epochs(found)):
        points.append(points_of(whole, "whole", WHOLE))
    projected = of_k80("ten_seconds", "ten_low", "ten_high", TRAINING)
    projected[["value", "low", "high"]] /= 60
    drawn_points = sorted_like(found, pd.concat(points))[COLUMNS]
    return panels(pd.concat([drawn_points, projected]), "minutes (log)", log=True, measures=(TRAINING, WHOLE))


@selects
def _whole(runs: pd.DataFrame) -> pd.DataFrame:
    """The drawn jobs of ten whole epochs."""
    return ten_epochs(drawn(timed(runs)))


def tbl_p2_time(runs: pd.DataFrame) -> str | Missing:
    """What the wall clock of each job of ten whole epochs was spent on."""
    fields = ("setup_seconds", "train_seconds", "evaluation_seconds", "job_seconds")
    lines = [
        (first(own).series, sized(first(own)), *(show.seconds(own[field].median()) for field in fields), len(own))
        for own in repeated(_whole(runs))
    ]
    headers = ["Run on", "Job", "Set-up", "Training", "Tests", "Whole job", "Runs"]
    return table(lines, headers, "llrrrrr", Missing("Jobs of ten whole epochs", ON_GPUS))


def text_p2_projection(runs: pd.DataFrame) -> str:
    """How far the projection from a job's own rate is off where ten epochs were measured."""
    whole = ten_epochs(runs)
    if whole.empty:
        return "No job of ten whole epochs checks this projection."
    off = ten_projected(whole) / whole.train_seconds - 1
    low, high = (f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "−") for value in (off.min(), off.max()))
    return (
        f"Checked on the {len(whole)} jobs of ten whole epochs, the same projection from a job's own median rate is "
        f"off by {low} to {high} %."
    )


# ---- all jobs ------------------------------------------------------------------------------------------------------


def tbl_p2_runs(runs: pd.DataFrame) -> str | Missing:
    """All jobs, by allocation: what no figure shows is here."""
    lines = []
    by = ["device_kind", "series", "scaling", "learners", "started"]
    order = runs.sort_values(by, ascending=[False, True, False, True, True])
    keys = ["allocation", "environment", "whole_epochs", "series", "scaling", *AXIS]
    keys += ["base", "all_reduce", "communication"]
    for _, own in order.groupby(keys, dropna=False, sort=False):
        job = first(own)
        how = (
            job.all_reduce
            if job.strategy == "mirrored"
            else f"{job.communication}, {over(job).replace('emulated ', '')}"
        )
        rates, steps = median_range(own.rate), milliseconds(own.step_seconds.median())
        lines.append((job.series, sized(job), how, show.count(own.steps.max()), rates, steps, len(own)))
    headers = ["Run on", "Job", "All-reduce", "Steps", "Images/s", "Iteration (ms)", "Runs"]
    return table(lines, headers, "lllrrrr", Missing("Problem 2's jobs", MADE_BY))
