"""The front page: every part's answer in one table, and the three charts that carry most of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from derivations.repetitions import range_holds_median, wholly_apart
from report import show
from report.answers import Answer, Missing
from report.estimates import ENOUGH, word
from report.figures import (
    architectures,
    architectures_checks,
    architectures_field,
    architectures_inception,
    architectures_vgg,
    augmentation,
    augmentation_cutout,
    augmentation_runs,
    augmentation_time,
    horovod,
    horovod_hosts,
    horovod_runs,
    strategy,
    strategy_costs,
    strategy_efficiency,
    strategy_reductions,
    strategy_runs,
)

PARTS = {
    "p1": ["1.1", "1.2", "1.3", "1.4"],
    "p2": ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6"],
    "p3": ["3.1", "3.2", "3.3", "3.4a", "3.4b", "3.4c", "3.4d"],
    "p4": ["4.1", "4.2", "4.3"],
}


@dataclass(frozen=True)
class Results:
    """What the answers are made from, read once."""

    horovod: pd.DataFrame
    strategy: pd.DataFrame
    checks: pd.DataFrame
    epochs: pd.DataFrame
    images: tuple[pd.DataFrame, pd.DataFrame]


def load() -> Results:
    """All problems' results. Raises SchemaError on a bad file."""
    return Results(
        horovod_runs.load(),
        strategy_runs.load(),
        architectures_checks.load(),
        augmentation_runs.load(),
        augmentation_cutout.load_images(),
    )


def answers(r: Results) -> dict[str, Answer | Missing]:
    """The homework's parts and their answers, in its order."""
    found: list[Answer | Missing] = [
        horovod.answer_p1_throughput(r.horovod),
        horovod.answer_p1_scaling(r.horovod),
        horovod.answer_p1_batch(r.horovod),
        horovod_hosts.answer_p1_hosts(r.horovod),
        strategy.answer_p2_throughput(r.strategy),
        strategy.answer_p2_time(r.strategy),
        strategy_costs.answer_p2_cost(r.strategy),
        strategy_efficiency.answer_p2_efficiency(r.strategy),
        strategy_reductions.answer_p2_allreduce(r.strategy),
        strategy_reductions.answer_p2_communication(r.strategy),
        architectures.answer_p3_alexnet(r.checks),
        architectures_vgg.answer_p3_vgg(r.checks),
        architectures_field.answer_p3_field(r.checks),
        architectures_inception.answer_p3_inception_idea(r.checks),
        architectures_inception.answer_p3_inception_size(r.checks),
        architectures_inception.answer_p3_inception_operations(r.checks),
        architectures_inception.answer_p3_inception_saving(r.checks),
        augmentation_cutout.answer_p4_cutout(*r.images),
        augmentation.answer_p4_baseline(r.epochs),
        augmentation_time.answer_p4_augmentation(r.epochs),
    ]
    parts = [part for problem in PARTS.values() for part in problem]
    return dict(zip(parts, found, strict=True))


def text_ran(r: Results) -> str:
    """On how many GPUs Problems 1 and 2 ran, the latter with images of 224 pixels."""
    of_gpus = [jobs[jobs.device_kind == "gpu"] for jobs in (r.horovod, r.strategy)]
    sizes = [sorted({int(n) for n in jobs.learners}) for jobs in (of_gpus[0], of_gpus[1][of_gpus[1].image_size == 224])]
    first, second = (show.listing(n) for n in sizes)
    return f"Problem 1 ran on {first} GPUs, Problem 2 at 224 pixels on {second}."


def text_intervals() -> str:
    """What an interval of three repetitions is worth, and a verdict of three against three."""
    n = word(ENOUGH)
    held, apart = (show.percent(float(p), 0) for p in (range_holds_median(ENOUGH), wholly_apart(ENOUGH, ENOUGH)))
    return (
        f"Intervals are 95 % bootstrap intervals of medians. Of {n} repetitions such an interval is their range, which "
        f"holds the true median in only {held} of cases; and {n} against {n} equal ones lie wholly apart by chance in "
        f"{apart}."
    )


def tbl_answers(found: dict[str, Answer | Missing], problem: str) -> str:
    """The answers to a problem's parts (p1 to p4), on what they rest, and where to look."""
    rows: list[tuple[str, str, str, str]] = []
    for part in PARTS[problem]:
        answer = found[part]
        if isinstance(answer, Missing):
            rows.append((part, f"*Not answered yet: {answer.what[0].lower()}{answer.what[1:]} is missing.*", "–", "–"))
        else:
            on = answer.basis if answer.basis == "derived" else f"{answer.basis}, {answer.device}"
            rows.append((part, answer.sentence, on, f"@{answer.figure}"))
    return show.table_text(rows, ["Part", "Answer", "Basis", "See"], "llll")


def fig_front_scaling(r: Results) -> alt.TopLevelMixin | Missing:
    """Problem 1's speed-up against the number of learners."""
    return horovod.fig_p1_scaling(r.horovod)


def fig_front_cost(r: Results) -> alt.TopLevelMixin | Missing:
    """Problem 2's time and cost of ten epochs against the number of learners, on its first GPUs and on the K80."""
    gpus = strategy_runs.on_gpus(r.strategy)
    if not gpus:
        return strategy_costs.fig_p2_cost(r.strategy)  # names the runs that are missing
    both: list[Any] = [strategy.fig_p2_time(gpus[0]), strategy_costs.fig_p2_cost(gpus[0])]
    return alt.vconcat(*both).resolve_scale(color="independent", shape="independent")


def fig_front_error(r: Results) -> alt.TopLevelMixin | Missing:
    """Problem 4's error against the epoch, for every M."""
    return augmentation.fig_p4_m(r.epochs)
