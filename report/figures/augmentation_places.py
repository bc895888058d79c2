"""Problem 4: what was trained on another GPU model or by earlier kernels, and how far the errors there differ."""

from __future__ import annotations

import pandas as pd

from derivations.repetitions import wholly_apart
from report import show
from report.comparisons import pooled
from report.estimates import ENOUGH, estimate, verdict
from report.figures.augmentation_runs import SETTING, TODAYS, comparable, finished, gpu, main, points
from report.used import selects


def text_p4_elsewhere(epochs: pd.DataFrame) -> str:
    """Which of the shown trainings ran elsewhere, and by which kernels; nothing where none did."""
    shown = main(finished(epochs))
    others, own = shown[shown.elsewhere], shown[~shown.elsewhere]
    if others.empty:
        return ""
    said = []
    for (device, precision, code), group in others.groupby(["device", "precision", "code"]):
        trainings = group[["augment", "M"]].drop_duplicates().itertuples(index=False)
        names = show.listing("the baseline" if one.augment == "basic" else f"M = {one.M}" for one in trainings)
        how = "" if precision == own.precision.iloc[0] else f" in {precision}"
        how += "" if code == TODAYS else " by earlier kernels"
        said.append(f"{names} ran on an {gpu(str(device))}{how}")
    kernels = " by today's" if own.code.iloc[0] == TODAYS else ""
    here = f"all other M on an {gpu(own.device.iloc[0])}{kernels}"
    return (
        f"**Two places:** {'; '.join(said)}; {here}. What ran elsewhere is shown beside the others and compared with "
        "none of them."
    )


@selects
def _twice(runs: pd.DataFrame) -> list[tuple[int, pd.DataFrame, pd.DataFrame]]:
    """Each M with three seeds both in the place that the figures compare and in another: M, own and the others."""
    own = comparable(runs)
    found = []
    for m, here in own.groupby("M"):
        alike = runs[(runs[SETTING] == here[SETTING].iloc[0]).all(axis=1) & ~runs.run_id.isin(here.run_id)]
        for _, there in alike.groupby(["device", "code"]):
            if len(here) >= ENOUGH <= len(there):
                found.append((int(str(m)), here, there))
    return found


def text_p4_shift(epochs: pd.DataFrame) -> str:
    """By how much the last errors of two places differ, where both ran three seeds of an M; nothing where none has."""
    said: dict[str, list[str]] = {}
    for m, here, there in _twice(finished(epochs)):
        for side in (here, there):
            pooled(side, "last", SETTING)
        gap = estimate(lambda a, b: a - b, here["last"], there["last"])
        noise = ", which is within noise" if verdict(gap, 0) == "within the noise of" else _beyond(here, there)
        first = there.iloc[0]
        place = f"the {gpu(first.device)}'s{'' if first.code == TODAYS else ' by earlier kernels'}"
        said.setdefault(place, []).append(f"{points(gap)} {'higher' if gap.value > 0 else 'lower'} with M = {m}{noise}")
    own = comparable(finished(epochs))
    return " ".join(
        f"Three seeds or more ran in both places: beside {place}, the {gpu(own.device.iloc[0])}'s last error is "
        f"{'; '.join(differences)}."
        for place, differences in said.items()
    )


def _beyond(here: pd.DataFrame, there: pd.DataFrame) -> str:
    """What else tells of a difference beyond noise: the training errors, and how often chance alone parts runs so."""
    trained = " against ".join(f"{side.train_error.median():.2f}" for side in (here, there))
    said = f", where the training error is {trained} %"
    if here["last"].max() < there["last"].min() or here["last"].min() > there["last"].max():
        chance = show.percent(float(wholly_apart(len(here), len(there))), 1)
        said += (
            f" and the {len(here)} runs lie wholly apart from the {len(there)}, as equal ones do in {chance} of cases"
        )
    return said
