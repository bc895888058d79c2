"""Problem 4: what was trained on another GPU model or by earlier kernels, and how far the errors there differ."""

from __future__ import annotations

import pandas as pd

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
        f"none of them.{_shift(epochs)}"
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


def _shift(epochs: pd.DataFrame) -> str:
    """By how much the errors of the two places differ, where both ran three seeds of an M; nothing where none has."""
    said = []
    for m, here, there in _twice(finished(epochs)):
        for side in (here, there):
            pooled(side, "last", SETTING)
        gap = estimate(lambda a, b: a - b, here["last"], there["last"])
        noise = "" if verdict(gap, 0) in ("above", "below") else ", which is within noise"
        said.append(f"{points(gap)} {'higher' if gap.value > 0 else 'lower'} with M = {m}{noise}")
    if not said:
        return ""
    return f" Where both ran three seeds, the {gpu(here.device.iloc[0])}'s last error is {'; '.join(said)}."
