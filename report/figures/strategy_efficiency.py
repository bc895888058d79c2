"""Problem 2's efficiency of weak scaling (2.4): the time of an iteration against the number of learners."""

from __future__ import annotations

import altair as alt
import pandas as pd

from report import show
from report.answers import Answer, Missing
from report.comparisons import length, ratio, relative, series
from report.estimates import ENOUGH, word
from report.figures.horovod_runs import devices
from report.figures.strategy_charts import COLUMNS, curves, of_k80
from report.figures.strategy_runs import (
    AXIS,
    MADE_BY,
    ON_GPUS,
    at,
    each_row,
    elsewhere,
    ends,
    headlines,
    homework,
    like,
    median_range,
    milliseconds,
    note,
    over,
    place,
    shown,
    table,
    within,
)
from report.used import selects

INCREASE, EFFICIENCY = "t(N) / t(1)", "t(1) / t(N)"


def answer_p2_efficiency(runs: pd.DataFrame) -> Answer | Missing:
    """2.4: by how much an iteration takes longer on the most learners than on one, and the efficiency."""
    series = headlines(_from_one(runs))
    if not series:
        return Missing("Weak scaling from one learner", MADE_BY)
    texts, increases = [], []
    for one in series:
        few, many = ends(one)
        increases.append(ratio(one, of=at(many), to=at(few), value="step_seconds"))
        part = ratio(one, of=at(many), to=at(few), ideal=many.learners)
        times = [milliseconds(like(one, job).step_seconds.median()) for job in (few, many)]
        far = f" ({over(many)})" if many.hosts > 1 else ""
        texts.append(
            f"On {place(few)}, an iteration takes {times[0]} ms on one learner and {times[1]} ms on "
            f"{many.learners}{far}: t({many.learners})/t(1) = {increases[-1].brief('')}, an efficiency of "
            f"{part.brief()}."
        )
        other = elsewhere(runs, one)
        if len(other):
            few, many = ends(other)
            increases.append(ratio(other, of=at(many), to=at(few), value="step_seconds"))
            texts.append(
                f"In another allocation, with at least {word(ENOUGH)} repetitions: "
                f"t({many.learners})/t({few.learners}) = {increases[-1].brief('')}."
            )
    others = [other for one in series if len(other := elsewhere(runs, one))]
    used = sum(int(one.learners.isin([1, one.learners.max()]).sum()) for one in [*series, *others])
    sentence = " ".join([*texts, note(increases)])
    return Answer("2.4", sentence, devices(series), used, "measured", "fig-p2-efficiency")


@selects
def _from_one(runs: pd.DataFrame) -> pd.DataFrame:
    """The shown jobs of weak scaling, of series that go from one learner to more."""
    found = shown(runs)
    weak = found[found.scaling == "weak"]
    sizes = weak.groupby("series").learners
    return weak[(sizes.transform("min") == 1) & (sizes.transform("max") > 1)] if len(weak) else weak


def _increases(runs: pd.DataFrame) -> pd.DataFrame:
    """`relative` of weak scaling, where the efficiency is t(1)/t(N), with the homework's increase t(N)/t(1)."""
    weak = _from_one(runs)
    if weak.empty:
        return weak
    found = relative(weak, AXIS)
    found = found.assign(increase=1 / found.efficiency, most=1 / found.efficiency_low, least=1 / found.efficiency_high)
    return found.assign(panel=found.series, basis="measured").sort_values(
        ["device_kind", "series", "learners"], ascending=[False, True, True]
    )


def fig_p2_efficiency(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The increase of an iteration's time as the homework defines it, and its inverse, against the learners."""
    found = _increases(runs)
    if found.empty:
        return Missing("Weak scaling from one learner", MADE_BY)
    projected = of_k80("rate", "low", "high")
    projected = projected[projected.scaling == "weak"]
    one = projected.value[projected.learners == 1].sum()
    parts = projected.assign(**{name: projected[name] / projected.learners / one for name in ("value", "low", "high")})
    longer = parts.assign(value=1 / parts.value, low=1 / parts.high, high=1 / parts.low)
    own = {"value": found.efficiency, "low": found.efficiency_low, "high": found.efficiency_high}
    increase = {"value": found.increase, "low": found.least, "high": found.most}
    points = [
        found.assign(measure=INCREASE, **increase)[COLUMNS],
        longer.assign(measure=INCREASE),
        found.assign(measure=EFFICIENCY, **own)[COLUMNS],
        parts.assign(measure=EFFICIENCY),
    ]
    return curves(pd.concat(points), (INCREASE, EFFICIENCY))


def tbl_p2_efficiency(runs: pd.DataFrame) -> str | Missing:
    """Time of an iteration, its increase and the efficiency of weak scaling."""
    weak, found = _from_one(runs), _increases(runs)
    lines = []
    for job in each_row(found):
        steps = like(weak[weak.series == job.series], job).step_seconds
        interval = within(100 * job.estimate.low, 100 * job.estimate.high, "{:.0f}–{:.0f} %")
        lines.append(
            (job.series, job.learners, median_range(steps, milliseconds), f"{job.increase:.2f}",
             show.percent(job.efficiency, 1) + "*" * bool(job.above_ideal), interval, job.repetitions)
        )  # fmt: skip
    headers = ["Run on", "N", "t(N) (ms)", INCREASE, EFFICIENCY, "Interval", "Runs"]
    return table(lines, headers, "lrrrrrr", Missing("Weak scaling from one learner", MADE_BY))


def tbl_p2_goes(runs: pd.DataFrame) -> str | Missing:
    """The increase of an iteration's time on GPUs at 224 px in every go that has it, not only in the one shown."""
    jobs = homework(runs)
    jobs = jobs[(jobs.device_kind == "gpu") & (jobs.scaling == "weak") & (jobs.image_size == 224)]
    lines = []
    for one in sorted(series(jobs, AXIS), key=lambda one: one.started.min()):
        few, _ = ends(one)
        if few.learners > 1:
            continue
        for _, many in one[one.learners > few.learners].drop_duplicates(AXIS).iterrows():
            estimate = ratio(one, of=at(many), to=at(few), value="step_seconds")
            lines.append(
                (f"{few.allocation}, {pd.Timestamp(few.started).date()}", length(few.to_dict()), many.learners,
                 f"{estimate.value:.2f}", within(estimate.low, estimate.high), estimate.repetitions)
            )  # fmt: skip
    headers = ["Allocation", "Job", "N", INCREASE, "Interval", "Runs"]
    return table(lines, headers, "llrrrr", Missing("Weak scaling on GPUs at 224 px", ON_GPUS))


def text_p2_unpaired(runs: pd.DataFrame) -> str:
    """Which series have no job of one learner in their allocation, so that no efficiency is formed."""
    found = shown(runs)
    least = found.groupby("series").learners.min()
    without = sorted(least.index[least > 1])
    if not without:
        return "Every series that is shown has a job of one learner in its own allocation."
    return f"{show.listing(without)}: no job of one learner ran in the same allocation, so no efficiency is given."
