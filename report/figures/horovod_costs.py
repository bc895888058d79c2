"""Beyond Problem 1's questions: where CPU learners lose time. Each function takes the runs of `horovod_runs.load`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd

from experiments.store.files import RESULTS
from report import comparisons, palette, show
from report.answers import Missing
from report.comparisons import Incomparable, series
from report.estimates import Estimate, estimate
from report.figures.horovod_runs import ON_CORES, SIZE, word
from report.used import selects

PARTS = {"hardware": "shared hardware", "waiting": "waiting for the slowest", "allreduce": "all-reduce"}
ONE = "one learner's step"
GLOO = "python experiments/allreduce.py --backend gloo --learners 16 --repeats 3"


@dataclass(frozen=True)
class Lost:
    """What a step of N learners that average takes longer than one of a learner alone, in three parts (s).

    All steps are means over a job's learners and steps, then medians over the jobs' repetitions, of one allocation. The
    single learner is the one that the efficiency is formed with: it runs under Horovod, but has nobody to send to.

    hardware: independent learners' step less the single learner's. They exchange nothing, so what is longer comes from
        what they share: memory bandwidth, caches, the clock, power.
    waiting: the slowest of N independent learners in each step less their mean: what they would lose if they waited
        for each other at the end of every step and sent nothing. It counts steps by number, not by clock.
    allreduce: the step of N learners that average less the slowest independent learner's: the rest, which holds
        sending, adding up, and the cores' work for both.

    The parts of a step add up to the whole by construction, up to rounding.
    """

    learners: int
    allocation: str
    one: Estimate  # the single learner's step
    step: Estimate  # that of N learners that average
    hardware: Estimate
    waiting: Estimate
    allreduce: Estimate

    @property
    def whole(self) -> float:
        """What is lost of the ideal: both steps' difference."""
        return self.step.value - self.one.value

    def share(self, part: str) -> float:
        """Of the whole loss."""
        return getattr(self, part).value / self.whole

    def check(self) -> str:
        """The sum of the parts beside the whole. Raises ArithmeticError where they differ."""
        parts = [getattr(self, part).value for part in PARTS]
        if not np.isclose(sum(parts), self.whole, rtol=1e-9, atol=1e-12):
            raise ArithmeticError(f"{parts} don't add up to {self.whole}")
        summed = " + ".join(f"{part:.3f}" for part in parts).replace("+ -", "− ")
        return f"{summed} = {self.whole:.3f} s, the step of {self.step.value:.3f} s less {self.one.value:.3f} s"


def lost(runs: pd.DataFrame) -> list[Lost]:
    """The lost time by number of learners, in the allocation that has it for most sizes. Raises Incomparable."""
    found = _lost_here(_most_sizes(runs))
    if not found:
        what = "with and without all-reduce in one allocation, beside those of one learner, stored step by step"
        raise Incomparable(f"there are no runs {what}", ON_CORES)
    return found


@selects
def _most_sizes(runs: pd.DataFrame) -> pd.DataFrame:
    """The jobs of the allocation that splits the lost time for most numbers of learners."""
    on_cores = runs[(runs.device_kind == "cpu") & (runs.hosts == 1) & runs.mean_step.notna()]
    found = series(on_cores, ["learners", "allreduce"])
    return max(found, key=lambda one: len(_sizes(one)), default=on_cores.iloc[:0])


def _sizes(runs: pd.DataFrame) -> list[int]:
    """The numbers of learners that ran both with and without all-reduce, where one learner ran, too."""
    averaging = runs.allreduce.astype(bool)
    together = {*runs.learners[averaging]}
    return sorted(together & {*runs.learners[~averaging]} - {1}) if 1 in together else []


def _lost_here(runs: pd.DataFrame) -> list[Lost]:
    """Of runs that may be compared."""
    averaging = runs[runs.allreduce.astype(bool)]
    free = runs[~runs.allreduce.astype(bool)]
    single = averaging[averaging.learners == 1].mean_step.to_numpy()
    found = []
    for n in _sizes(runs):
        side_by_side = free[free.learners == n][["mean_step", "slowest_step"]].to_numpy()
        together = averaging[averaging.learners == n].mean_step.to_numpy()
        found.append(
            Lost(
                int(n),
                str(runs.allocation.iloc[0]),
                estimate(lambda one: one, single),
                estimate(lambda step: step, together),
                estimate(lambda free, one: free[..., 0] - one, side_by_side, single),
                estimate(lambda free: free[..., 1] - free[..., 0], side_by_side),
                estimate(lambda step, free: step - free[..., 1], together, side_by_side),
            )
        )
    return found


def load_sums(results: Path = RESULTS) -> pd.DataFrame:
    """The all-reduces that were measured by themselves: a row a window."""
    return comparisons.trusted("allreduce", results)


def alone(sums: pd.DataFrame, backend: str, learners: int, size: int, allocation: str) -> Estimate | None:
    """Seconds of an all-reduce of so many bytes by itself, in that allocation, on one host; None where none ran.

    Between two measured sizes it is interpolated along a straight line through their logarithms; outside of them there
    is no answer.
    """
    own = sums[(sums.backend == backend) & (sums.learners == learners) & (sums.hosts == 1)]
    own = own[(own.allocation == allocation) & (allocation != "")]
    values = []
    for _, run in own.groupby("run_id"):
        times = run.groupby("bytes").seconds.median()
        if times.index.min() <= size <= times.index.max():
            values.append(float(np.exp(np.interp(np.log(size), np.log(times.index), np.log(times)))))
    return estimate(lambda seconds: seconds, values) if values else None


def fig_p1_lost(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """A step of N learners that average, as one learner's step and the three parts that come on top."""
    try:
        found = lost(runs)
    except Incomparable as error:
        return Missing("Lost time", error.command or ON_CORES)
    rows = [{"learners": each.learners, "part": ONE, "seconds": each.one.value, "order": 0} for each in found]
    for order, (part, name) in enumerate(PARTS.items(), 1):
        rows += [
            {"learners": each.learners, "part": name, "seconds": getattr(each, part).value, "order": order}
            for each in found
        ]
    names = [ONE, *PARTS.values()]
    color = alt.Color(
        "part:N",
        title=None,
        scale=alt.Scale(domain=names, range=[palette.ONE_LEARNER, *palette.shades(palette.DEVICES["CPU"], 3)]),
        legend=alt.Legend(columns=2, labelLimit=200),
    )
    return (
        alt.Chart(pd.DataFrame(rows))
        .mark_bar(size=40)
        .encode(
            x=alt.X("learners:O", title="learners that average", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("seconds:Q", title="seconds of a step"),
            color=color,
            order=alt.Order("order:Q"),
            tooltip=["learners", "part", alt.Tooltip("seconds", format=".3f")],
        )
        .properties(**SIZE)
    )


def tbl_p1_lost(runs: pd.DataFrame, sums: pd.DataFrame) -> str | Missing:
    """The three parts for each number of learners, and beside them Gloo's all-reduce by itself, a stand-in."""
    try:
        found = lost(runs)
    except Incomparable as error:
        return Missing("Lost time", error.command or ON_CORES)
    size = int(runs[runs.allocation == found[0].allocation].gradient_bytes.iloc[0])
    lines: list[tuple[object, ...]] = []
    for each in found:
        n = each.learners
        lines += [(n, name, *_seconds(getattr(each, p)), _percent(each.share(p))) for p, name in PARTS.items()]
        lines.append((n, "together", f"{each.whole:.3f}", "–", _percent(1.0)))
        gloo = alone(sums, "gloo", n, size, each.allocation)
        lines.append((n, "stand-in: Gloo alone", *(_seconds(gloo) if gloo else ("–", "not run")), "–"))
    return show.table_text(
        show.once(lines), ["N", "Lost to", "Seconds a step", "95 % interval", "Of the loss"], "rlrrr"
    )


def _seconds(number: Estimate) -> tuple[str, str]:
    """A number and what it lies in."""
    if number.kind == "range":
        runs = "one run" if number.repetitions == 1 else f"{word(number.repetitions)} runs"
        return f"{number.value:.3f}", runs
    return f"{number.value:.3f}", f"{number.low:.3f} to {number.high:.3f}".replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %".replace("-", "−")


def text_p1_lost(runs: pd.DataFrame, sums: pd.DataFrame) -> str:
    """What the largest job loses most to, the check that its parts add up, and how the stand-in compares."""
    try:
        each = lost(runs)[-1]
    except Incomparable as error:
        return f"The split can't be given: {str(error).partition(';')[0]}."
    n = each.learners
    text = f"{_largest(each)} The parts add up: {each.check()}."
    size = int(runs[runs.allocation == each.allocation].gradient_bytes.iloc[0])
    gloo = alone(sums, "gloo", n, size, each.allocation)
    if gloo:
        text += (
            f" As a stand-in for what Horovod sends, Gloo alone sums {show.si(size)}B between idle learners of the "
            f"same allocation in {gloo.text('s')}, {gloo.value / each.allreduce.value:.2f} times the all-reduce's part."
        )
    return text


def _largest(each: Lost) -> str:
    """Which part is the largest, where the intervals tell."""
    first, *others = sorted(PARTS, key=each.share, reverse=True)
    largest, rest = getattr(each, first), [getattr(each, part) for part in others]
    if any(one.kind == "range" for one in (largest, *rest)):
        return f"Too few runs were made to say what {word(each.learners)} learners lose most to."
    if largest.low > max(one.high for one in rest):
        return f"Of {word(each.learners)} learners' loss the largest part goes to {_name(first)}."
    return f"What {word(each.learners)} learners lose most to is open: the intervals of the parts overlap."


def _name(part: str) -> str:
    return f"the {PARTS[part]}" if part == "allreduce" else PARTS[part]
