"""Answers 2.3 and 2.5 for a reader without a GPU: what stands in on cores, named as that."""

from __future__ import annotations

import pandas as pd

from report import show
from report.answers import Answer, Missing
from report.comparisons import ratio
from report.estimates import word
from report.figures.horovod_runs import devices
from report.figures.strategy_reductions import REDUCTIONS, contests
from report.figures.strategy_runs import at, each, ends, first, headlines, like, note, rate_text, timed
from report.yours import MEASURE

MADE_BY = f"{MEASURE} --problems 2"
ON_CORES = ["default", "hierarchical", "one-device"]  # NCCL's needs GPUs


def answer_p2_cost(runs: pd.DataFrame) -> Answer | Missing:
    """2.3 on cores: the core-hours of ten epochs, projected from the time of a step, on the fewest and on the most."""
    own = [frame for frame in headlines(timed(runs)) if frame.device_kind.iloc[0] == "cpu"]
    if not own:
        return Missing("The cost of ten epochs on cores", MADE_BY)
    (frame,) = own
    parts, ratios = [], []
    for scaling, one in each(frame):
        few, many = ends(one)
        hours = [job.learners * like(one, job).ten_seconds.median() / 3600 for job in (few, many)]
        ratios.append(ratio(one, of=at(few), to=at(many), ideal=few.learners / many.learners))
        parts.append(
            f"{hours[0]:.2g} core-hours on {word(few.learners)} and {hours[1]:.2g} on {word(many.learners)} with "
            f"{scaling} scaling, {ratios[-1].brief('')} times as much"
        )
    sentence = f"Without a GPU, core-hours stand in for the cost. Ten epochs would take {'; and '.join(parts)}."
    return Answer("2.3", f"{sentence} {note(ratios)}", devices([frame]), len(frame), "projected", "fig-p2-cost")


def answer_p2_allreduce(runs: pd.DataFrame) -> Answer | Missing:
    """2.5 on cores: the other all-reduces' throughput relative to TensorFlow's default."""
    names = {name: REDUCTIONS[name] for name in ON_CORES}
    found = contests(runs[runs.strategy == "mirrored"], "all_reduce", names, "cpu")
    if not found:
        return Missing("MirroredStrategy's all-reduces on cores", MADE_BY)
    contest = found[0]
    job, base = first(contest), contest[contest.all_reduce == "default"]
    ratios = {
        name: ratio(contest, of={"all_reduce": how}, to={"all_reduce": "default"})
        for how, name in names.items()
        if how != "default" and how in set(contest.all_reduce)
    }
    others = [f"{name} {estimate.brief('')} times as many" for name, estimate in ratios.items()]
    sentence = (
        "Without a GPU, cores stand in, and TensorFlow's default for NcclAllReduce, which needs GPUs. On "
        f"{word(job.learners)} CPU cores with {job.per_learner_batch} images each, the default trains "
        f"{show.listing([f'{rate_text(base.rate.median())} images/s', *others])}. {note(list(ratios.values()))}"
    )
    return Answer("2.5", sentence, devices([contest]), len(contest), "measured", "fig-p2-allreduce")


STAND_INS = {"2.3": answer_p2_cost, "2.5": answer_p2_allreduce}


def stand_in(part: str, found: Answer | Missing, runs: pd.DataFrame) -> Answer | Missing:
    """The part's answer, or where there is none and Problem 2 ran on cores alone, what stands in for it there."""
    on_cores_alone = len(runs) > 0 and set(runs.device_kind) == {"cpu"}
    return STAND_INS[part](runs) if isinstance(found, Missing) and on_cores_alone and part in STAND_INS else found
