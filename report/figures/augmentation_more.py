"""Problem 4, beyond the homework: the network, precision, published errors, training errors.

Errors and epoch counts are pooled over allocations; rates stand beside each other only where one allocation made them.
"""

from __future__ import annotations

import pandas as pd

from derivations import cifar_resnet
from experiments.p4.wanted import BATCH, GOAL
from report import show
from report.answers import Missing
from report.estimates import ENOUGH, verdict
from report.figures.augmentation import SERIES_BY
from report.figures.augmentation_runs import (
    SAME,
    SCRIPT,
    by_allocation,
    by_m,
    difference,
    finished,
    goal_text,
    median_range,
    points,
    pooled_text,
    same_length,
    trainings,
)
from report.used import selects

PUBLISHED = [  # test errors in %, as the papers print them
    ("ResNet-44, basic [@he2015, Table 6]", 7.17, "B = 128, 64,000 updates"),
    ("ResNet-18, basic [@devries2017, Table 1]", 4.72, "larger network, mean of 5"),
    ("ResNet-18, cutout [@devries2017, Table 1]", 3.99, "larger network, mean of 5"),
]
PRECISIONS_BY = "\n".join(f"{SCRIPT} --precision {p} --M 1 --seed {s}" for p in ("bf16", "fp32") for s in range(3))


def text_p4_network() -> str:
    """The network, and how many updates an epoch has."""
    b, a = (show.count(cifar_resnet.counts(44, option).parameters) for option in ("B", "A"))
    return (
        "ResNet-44 [@he2015, §4.2] with BatchNorm [@ioffe2015], as in the code of Hoffer et al.: 1×1 convolutions in "
        f"the two shortcuts that change shape, {b} parameters. He et al. use parameter-free shortcuts there, {a} "
        f"parameters. An epoch has {show.count(50_000 // BATCH)} updates of {BATCH} distinct samples, whatever M is; "
        "the incomplete last batch is dropped."
    )


# ---- precision -----------------------------------------------------------------------------------------------------


@selects
def _precisions(epochs: pd.DataFrame) -> list[pd.DataFrame]:
    """Runs of one training, schedule, device and code that have several precisions."""
    groups = finished(epochs).groupby(["augment", "M", "epochs_planned", "schedule", *SAME])
    return [group for _, group in groups if group.precision.nunique() > 1]


def tbl_p4_precision(epochs: pd.DataFrame) -> str | Missing:
    """Errors and rates in each precision. Rates are of the allocations that ran both."""
    lines = []
    for group in _precisions(epochs):
        both = {name for name, own in by_allocation(group) if own.precision.nunique() > 1}
        for precision, own in group.groupby("precision"):
            rates = own.images_per_second[own.allocation.isin(both)]
            rate = median_range(rates, "{:,.0f}") if len(both) == 1 else "–"
            name = f"{own.augment.iloc[0]}, M = {own.M.iloc[0]}"
            reached = goal_text(own)
            lines.append((name, precision, len(own), pooled_text(own), reached, rate))
    heads = ["Training", "Precision", "Runs", "Error", "94 % at epoch", "Images/s"]
    missing = Missing("Both precisions with the same M, length, schedule and device", PRECISIONS_BY)
    return show.table_text(lines, heads, "llrrrr") if lines else missing


def text_p4_precision(epochs: pd.DataFrame) -> str:
    """The difference between bf16's and fp32's errors."""
    said = []
    for group in _precisions(epochs):
        own = dict(list(group.groupby("precision")))
        if {"bf16", "fp32"} <= set(own):
            gap = difference(own["bf16"], own["fp32"], ["precision"])
            word = verdict(gap, 0)
            within = (
                "which is within noise" if word == "within the noise of" else "beyond noise" if word else "no verdict"
            )
            said.append(
                f"bf16's error is {points(gap)} {'above' if gap.value > 0 else 'below'} fp32's with M = "
                f"{group.M.iloc[0]}, {within}."
            )
    return " ".join(said)


# ---- published figures ---------------------------------------------------------------------------------------------


def tbl_p4_published(epochs: pd.DataFrame) -> str:
    """Published test errors, and those after the last epoch here."""
    lines = [(name, f"{error:.2f}", note) for name, error, note in PUBLISHED]
    for name, own in trainings(finished(epochs)):
        seeds = "single run" if len(own) == 1 else f"{len(own)} seeds"
        lines.append((f"ResNet-44, {name} (here)", pooled_text(own), f"{int(own.epochs.iloc[0])} epochs, {seeds}"))
    return show.table_text(lines, ["Network and augmentation", "Error", "Training"], "lrl")


def text_p4_published() -> str:
    """How far the homework's accuracy is from the published network's."""
    error = PUBLISHED[0][1]
    return (
        f"He et al.'s ResNet-44 has an error of {error:.2f} %, so the homework's 94 % asks for {error - GOAL:.2f} "
        "points less than the published network reaches. A run here also differs from theirs in batch size, length and "
        "shortcuts. Hoffer et al. draw their curves in Fig. 3(a), of which @fig-p4-m is the counterpart; their exact "
        "numbers are not quoted, because we found no source to check them against."
    )


# ---- training errors -----------------------------------------------------------------------------------------------


def text_p4_generalisation(epochs: pd.DataFrame) -> str | Missing:
    """Training and test error of the smallest and the largest M with three seeds, and what that says."""
    runs = same_length(finished(epochs))
    own = by_m(runs, ENOUGH)
    if len(own) < 2:
        return Missing("Training and test error, three seeds for each of two M,", SERIES_BY)
    low, high = own[min(own)], own[max(own)]
    fits, tests = (verdict(difference(low, high, ["M"], value), 0) for value in ("train_error", "last"))
    said = {
        ("above", "above"): "Larger M fits the augmented training images better, and the test images too",
        ("above", "below"): "Larger M fits the augmented training images better, but not the test images",
        (
            "below",
            "above",
        ): "Larger M fits the augmented training images worse, yet the test images better: it regularises",
        ("below", "below"): "Larger M helps neither on the training images nor on the test images",
    }.get((fits or "", tests or ""), "One of the two differences is within noise")
    return (
        f"After epoch {int(low.epochs.iloc[0])} the error on the augmented training images, as met during that "
        f"epoch, is {low.train_error.median():.2f} % for M = {min(own)} and {high.train_error.median():.2f} % for M "
        f"= {max(own)}; on the original test images it is {low['last'].median():.2f} % and "
        f"{high['last'].median():.2f} %. {said}. Masked and shifted training images are harder than whole test "
        "images, so a training error above the test error is no contradiction."
    )
