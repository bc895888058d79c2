"""Problem 2's comparisons of all-reduces: MirroredStrategy's three (2.5) and MultiWorkerMirroredStrategy's AUTO, NCCL
and RING (2.6). A contest is a frame of jobs that differ in nothing but the implementation, all from one allocation."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from report import comparisons, show
from report.answers import Answer, Missing
from report.comparisons import ratio
from report.estimates import Estimate, verdict
from report.figures import strategy_charts
from report.figures.horovod_runs import devices
from report.figures.strategy_runs import (
    SCRIPT,
    conditions,
    first,
    median_range,
    note,
    over,
    place,
    rate_text,
    sized,
    within,
)
from report.used import selects

REDUCTIONS = {
    "nccl": "NcclAllReduce",
    "hierarchical": "HierarchicalCopyAllReduce",
    "one-device": "ReductionToOneDevice",
    "default": "TensorFlow's default",
}
SHORT = {"nccl": "NCCL", "auto": "AUTO", "default": "the default"}
COMMUNICATIONS = {"auto": "AUTO", "nccl": "NCCL", "ring": "RING"}
_ON = "--device gpu --image-size 224 --jit-compile --repeats 3"
REDUCED_BY = f"{SCRIPT} {_ON} --strategy mirrored --learners 2,4,8 --all-reduce nccl,hierarchical,one-device"
COMMUNICATED_BY = f"{SCRIPT} {_ON} --learners 2 --communication auto,nccl,ring"


@selects
def contests(runs: pd.DataFrame, column: str, names: dict[str, str], kind: str) -> list[pd.DataFrame]:
    """The contests in `all_reduce` or `communication` on learners of a kind, with the implementation's `name`.

    Each setting has one, of the allocation that `comparisons.main` takes. Most telling first: larger images, more
    implementations, more repetitions of the one that has fewest, more learners.
    """
    jobs = runs[(runs.device_kind == kind) & (runs.learners > 1) & runs[column].isin(list(names))]
    found = []
    for one in comparisons.series(comparisons.main(jobs, column), column):
        if one[column].nunique() > 1 and (one[column] == next(iter(names))).any():
            found.append(one.assign(name=one[column].map(names)))
    return sorted(found, key=_weight, reverse=True)


def _weight(contest: pd.DataFrame) -> tuple[float, ...]:
    job, repetitions = first(contest), contest.groupby("name").size()
    weak = job.scaling == "weak"
    return job.image_size, len(repetitions), repetitions.min(), job.learners, weak, job.started.timestamp()


def title(job: Any) -> str:
    """What a contest is about: H200, weak, 4 × 64, 32 px, float32; two workers."""
    workers = f"; {job.workers} workers" if job.workers > 1 else ""
    hosts = f", {over(job).replace('emulated ', '')}" if job.hosts > 1 else ""
    return f"{job.unit}, {sized(job)}, {job.image_size:g} px{', XLA' * bool(job.jit_compile)}{workers}{hosts}"


def named(job: Any) -> str:
    """The same in a table, whose caption names the workers: H200, 2 × 64, 224 px, XLA.

    Where room is short it breaks between its parts alone. Weak or strong, the images of each learner tell.
    """
    parts = [
        f"{job.unit}, {job.learners} × {job.per_learner_batch}",
        f"{job.image_size:g} px{', XLA' * bool(job.jit_compile)}",
    ]
    parts += [over(job).replace("emulated ", "")] if job.hosts > 1 else []
    return ", ".join(part.replace(" ", "\u00a0") for part in parts)


def _ratios(contest: pd.DataFrame, column: str, base: str) -> dict[str, Estimate]:
    """Each other implementation's throughput over that of `base`, in the order of their throughput."""
    medians = contest[contest[column] != base].groupby(column).rate.median().sort_values(ascending=False)
    return {other: ratio(contest, of={column: other}, to={column: base}) for other in medians.index}


def _chart(found: list[pd.DataFrame], names: dict[str, str]) -> alt.TopLevelMixin:
    points = pd.concat(one.assign(title=title(first(one))) for one in found)
    return strategy_charts.contests(points, list(names.values()))


def _table(found: list[pd.DataFrame], column: str, names: dict[str, str]) -> str:
    """A line an implementation: throughput, and its ratio to that of the first name with its interval or range."""
    base, lines = next(iter(names)), []
    for contest in found:
        relative = _ratios(contest, column, base)
        for how in [base, *relative]:
            own = contest[contest[column] == how]
            estimate = relative.get(how)
            value = "1" if estimate is None else f"{estimate.value:.2f}"
            interval = None if estimate is None else within(estimate.low, estimate.high)
            name = names[how].removesuffix("AllReduce")  # as in the chart
            lines.append((named(first(own)), name, median_range(own.rate), value, interval, len(own)))
    headers = ["Job", "All-reduce", "Images/s", f"Of {SHORT.get(base, base)}'s", "Interval", "Runs"]
    return show.table_text(show.once(lines), headers, "llrrrr")


# ---- 2.5 within a process ------------------------------------------------------------------------------------------


def _reductions(runs: pd.DataFrame, kind: str = "gpu") -> list[pd.DataFrame]:
    return contests(runs[runs.strategy == "mirrored"], "all_reduce", REDUCTIONS, kind)


def _alike(found: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """The contests that differ from the first one in the number of learners alone, few learners first."""
    job = first(found[0])
    same = [one for one in found if all(first(one)[name] == job[name] for name in ("series", "scaling"))]
    return sorted(same, key=lambda contest: contest.learners.iloc[0])


def answer_p2_allreduce(runs: pd.DataFrame) -> Answer | Missing:
    """2.5: the throughput of the others relative to NcclAllReduce's, for each size of the first contest's kind.

    Each ratio is formed within its contest, so that the sizes may come from an allocation each.
    """
    found = _reductions(runs)
    if not found:
        return Missing("MirroredStrategy's all-reduces on GPUs", REDUCED_BY)
    alike = _alike(found)
    texts: list[str] = []
    ratios: list[Estimate] = []
    for one in alike:
        job = first(one)
        relative = _ratios(one, "all_reduce", "nccl")
        ratios += relative.values()
        parts = [f"{REDUCTIONS[how]} {estimate.brief('')} times as many" for how, estimate in relative.items()]
        nccl = rate_text(one[one.all_reduce == "nccl"].rate.median())
        texts.append(
            f"On {job.learners} {place(job)} with {job.per_learner_batch} images each, "
            f"{show.listing([f'NcclAllReduce trains {nccl} images/s', *parts])}.{_verdicts(relative)}"
        )
    sentence = " ".join([*texts, note(ratios)])
    return Answer("2.5", sentence, devices(alike), sum(map(len, alike)), "measured", "fig-p2-allreduce")


def _verdicts(relative: dict[str, Estimate]) -> str:
    """How the others stand to NcclAllReduce; nothing where too few repetitions ran."""
    words = {"above": "faster than", "below": "slower than", "within the noise of": "within the noise of"}
    said = []
    for word, shown in words.items():
        own = [REDUCTIONS[how] for how, estimate in relative.items() if verdict(estimate, 1) == word]
        if own:
            said.append(f"{show.listing(own)} {'is' if len(own) == 1 else 'are'} {shown} NcclAllReduce")
    return f" {'; '.join(said)}." if said else ""


def fig_p2_allreduce(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Throughput of MirroredStrategy on GPUs by all-reduce."""
    found = _reductions(runs)
    return _chart(found, REDUCTIONS) if found else Missing("MirroredStrategy's all-reduces on GPUs", REDUCED_BY)


def tbl_p2_allreduce(runs: pd.DataFrame) -> str | Missing:
    """MirroredStrategy's all-reduces on GPUs, relative to NcclAllReduce."""
    found = _reductions(runs)
    if not found:
        return Missing("MirroredStrategy's all-reduces on GPUs", REDUCED_BY)
    return _table(found, "all_reduce", REDUCTIONS)


def text_p2_allreduce_growth(runs: pd.DataFrame) -> str:
    """Each implementation's share of NcclAllReduce's throughput by size, each share formed in its own allocation."""
    found = _reductions(runs)
    sizes = _alike(found) if found else []
    if len(sizes) < 2:
        return ""
    shares: dict[str, list[str]] = {}
    for one in sizes:
        for how, estimate in _ratios(one, "all_reduce", "nccl").items():
            shares.setdefault(how, []).append(f"{100 * estimate.value:.0f} % on {one.learners.iloc[0]} GPUs")
    parts = [f"{REDUCTIONS[how]} reaches {show.listing(each)}" for how, each in shares.items()]
    return f"Of NcclAllReduce's throughput in the same allocation {'; '.join(parts)}."


def text_p2_allreduce_sizes(runs: pd.DataFrame) -> str:
    """On how many GPUs the homework's comparison was not made."""
    tried = {int(one.learners.iloc[0]) for one in _reductions(runs)}
    wanting = [n for n in (2, 4, 8) if n not in tried]
    if not wanting:
        return "The comparison was made on 2, 4 and 8 GPUs, as asked."
    return f"The comparison on {show.listing(wanting)} GPUs is missing: no machine with that many was available."


# ---- 2.6 between processes -----------------------------------------------------------------------------------------


def _exchanges(runs: pd.DataFrame, kind: str = "gpu") -> list[pd.DataFrame]:
    two = runs[(runs.strategy == "multiworker") & (runs.workers == 2)]
    return contests(two, "communication", COMMUNICATIONS, kind)


def answer_p2_communication(runs: pd.DataFrame) -> Answer | Missing:
    """2.6: NCCL's and RING's throughput relative to AUTO's with two workers on GPUs, and whether AUTO's is the best."""
    found = _exchanges(runs)
    if not found:
        return Missing("AUTO, NCCL and RING on GPUs", COMMUNICATED_BY)
    one = found[0]
    job = first(one)
    relative = _ratios(one, "communication", "auto")
    own = job.learners // job.workers
    each = f"one {job.unit} GPU" if own == 1 else f"{own} {job.unit} GPUs"
    auto = rate_text(one[one.communication == "auto"].rate.median())
    parts = [f"{COMMUNICATIONS[how]} {estimate.brief('')} times as many" for how, estimate in relative.items()]
    sentence = (
        f"{_best(relative)}With two workers of {each} each on {over(job)} ({conditions(job)}), "
        f"{show.listing([f'AUTO trains {auto} images/s', *parts])}. {note(list(relative.values()))}"
    )
    return Answer("2.6", sentence, devices([one]), len(one), "measured", "fig-p2-communication")


def _best(relative: dict[str, Estimate]) -> str:
    """Does AUTO give the best throughput? In a word, where the repetitions allow one."""
    words = {verdict(estimate, 1) for estimate in relative.values()}
    if "above" in words:
        faster = show.listing(COMMUNICATIONS[how] for how, one in relative.items() if verdict(one, 1) == "above")
        return f"AUTO does not give the best throughput: {faster} does better. "
    if words == {"below"}:
        return "AUTO gives the best throughput. "
    return "" if None in words else "AUTO's throughput is within the noise of the best. "


def fig_p2_communication(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Throughput of MultiWorkerMirroredStrategy with two workers on GPUs by implementation."""
    found = _exchanges(runs)
    return _chart(found, COMMUNICATIONS) if found else Missing("AUTO, NCCL and RING on GPUs", COMMUNICATED_BY)


def tbl_p2_communication(runs: pd.DataFrame) -> str | Missing:
    """MultiWorkerMirroredStrategy's implementations on GPUs, relative to AUTO."""
    found = _exchanges(runs)
    if not found:
        return Missing("AUTO, NCCL and RING on GPUs", COMMUNICATED_BY)
    return _table(found, "communication", COMMUNICATIONS)


# ---- the same on CPUs ----------------------------------------------------------------------------------------------


ON_CPU = {how: REDUCTIONS[how] for how in ("default", "hierarchical", "one-device")}


def tbl_p2_cpu_allreduce(runs: pd.DataFrame) -> str | Missing:
    """MirroredStrategy's all-reduces among the cores of one process, relative to its default, TensorFlow's ring."""
    found = contests(runs[runs.strategy == "mirrored"], "all_reduce", ON_CPU, "cpu")
    if not found:
        command = (
            f"{SCRIPT} --repeats 3 --strategy mirrored --learners 2,4,8 --all-reduce default,hierarchical,one-device"
        )
        return Missing("MirroredStrategy's all-reduces on CPU cores", command)
    return _table(found, "all_reduce", ON_CPU)


def tbl_p2_cpu_communication(runs: pd.DataFrame) -> str | Missing:
    """AUTO, NCCL and RING between two workers of a core each: on CPUs, one ring under three names."""
    found = _exchanges(runs, "cpu")
    if not found:
        command = f"{SCRIPT} --repeats 3 --learners 2 --communication auto,nccl,ring"
        return Missing("AUTO, NCCL and RING on CPU cores", command)
    return _table(found, "communication", COMMUNICATIONS)
