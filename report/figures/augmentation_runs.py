"""Problem 4's runs as its figures take them: an epoch frame, a row for each run, and which runs the figures show.

Errors and epoch counts are pooled over allocations of one device model, code and setting. Times are compared within
one allocation only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from experiments.machine.device_names import short_name
from experiments.p4.wanted import BATCH, DEPTH, GOAL
from experiments.store import ledger, parquet
from experiments.store.files import RESULTS, ROOT
from experiments.store.provenance import Provenance
from report import comparisons, show
from report.comparisons import pooled
from report.estimates import Estimate, estimate
from report.used import remembered, selects

EXPERIMENT = "p4_cutout"
SCRIPT = f"python experiments/{EXPERIMENT}.py"
TODAYS = "today's"  # the code of runs that today's sources would make again
PLACE = ["device", "precision", "engine", "code"]
SAME = ["device", "code", "engine"]  # where precisions or schedules are compared
SETTING = ["augment", "M", "schedule", "precision", "engine", "epochs_planned"]


def load(results: Path = RESULTS) -> pd.DataFrame:
    """The epochs of ResNet-44 on CIFAR-10 with B = 64: no synthetic data, no other depth. `code` tells codes apart."""
    origins = {run.run_id: run for run in parquet.origins(EXPERIMENT, results)}
    rows = comparisons.trusted(EXPERIMENT, results)
    deep = {name for name, origin in origins.items() if origin.config["depth"] == DEPTH}
    kept = (rows.dataset == "cifar10") & (rows.batch_size == BATCH) & (rows.kind == "measured")
    rows = rows[kept & rows.run_id.isin(deep)]
    return rows.assign(code=rows.run_id.map({name: code(origin) for name, origin in origins.items()}))


def code(origin: Provenance) -> str:
    """The same for runs whose numbers the same code would make.

    Sources that the ledger leads to what they are today count as today's, others by the last that it leads them to.
    """
    ends = {end for path in origin.stale() for end in ledger.latest(path, origin.sources[path], ROOT)}
    return " ".join(f"{path}:{digest[:12]}" for path, digest in sorted(ends)) or TODAYS


COLUMNS = [
    *("run_id", *SETTING, "device", "code", "allocation", "seed", "epochs", "last", "best", "best_epoch"),
    *("train_error", "goal_epoch", "goal_seconds", "seconds", "setup_seconds", "images_per_second"),
    *("epoch_seconds", "step_ms", "first_drop"),
]


@remembered
def finished(epochs: pd.DataFrame) -> pd.DataFrame:
    """A row for each run: its setting, and

    epochs, last, best, best_epoch, train_error: how many it has; errors in %, train_error and last after the last one.
    goal_epoch, goal_seconds: the first epoch with 94 % accuracy and the wall clock until then; NaN where it has none.
    seconds, setup_seconds: wall clock of all epochs, validations included, and what came before them.
    images_per_second, epoch_seconds, step_ms: of training in the median epoch.
    first_drop: the first epoch with a lower learning rate than the first; NaN where it has none.
    """
    rows = []
    for _, run in epochs.groupby("run_id"):
        run = run.sort_values("epoch")
        last, best = run.iloc[-1], run.nsmallest(1, "val_error").iloc[0]
        reached = run[100 * run.val_error <= GOAL + 1e-9]
        lower = run[run.learning_rate < run.learning_rate.iloc[0]]
        described = ("run_id", *SETTING, "device", "code", "allocation", "seed")
        rows.append(
            {name: last[name] for name in described}
            | {"epochs": last.epoch, "last": 100 * last.val_error, "train_error": 100 * last.train_error}
            | {"best": 100 * best.val_error, "best_epoch": best.epoch}
            | {"goal_epoch": reached.epoch.min(), "goal_seconds": reached.wall_seconds.min()}
            | {"seconds": last.wall_seconds, "setup_seconds": last.setup_seconds}
            | {"images_per_second": (run.images / run.train_seconds).median()}
            | {"epoch_seconds": run.train_seconds.median(), "first_drop": lower.epoch.min()}
            | {"step_ms": 1000 * (run.train_seconds / run.steps).median()}
        )
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(["augment", "M", "seed"], ignore_index=True)


@selects
def main(runs: pd.DataFrame) -> pd.DataFrame:
    """What the figures show: of each training with the authors' schedule the longest runs, from the place (device,
    precision, code) in which most M ran with cutout, today's code first; or else from that with most of its runs, which
    `elsewhere` marks. These stand beside the others and are compared with none."""
    asked = runs[
        (runs.schedule == "authors") & ((runs.augment == "cutout") | (runs.augment == "basic") & (runs.M == 1))
    ]
    places = [place for _, place in asked.groupby(PLACE)]
    if not places:
        return asked.assign(elsewhere=False)
    here = max(places, key=_worth)
    shown = []
    for training, group in asked.groupby(["augment", "M"]):
        own = here[(here.augment == training[0]) & (training[1] == here.M)]
        elsewhere = own.empty
        if elsewhere:
            own = max((place for _, place in group.groupby(PLACE)), key=len)
        shown.append(own[own.epochs_planned == own.epochs_planned.max()].assign(elsewhere=elsewhere))
    return pd.concat(shown)


def _worth(place: pd.DataFrame) -> tuple[int, bool, int]:
    """By what the place to show is chosen."""
    return place[place.augment == "cutout"].M.nunique(), place.code.iloc[0] == TODAYS, len(place)


def placed_as(runs: pd.DataFrame, others: pd.DataFrame, names: list[str] = PLACE) -> pd.DataFrame:
    """Those of the runs that agree in these columns with others, of which there is one or more."""
    return runs[(runs[names] == others[names].iloc[0]).all(axis=1)]


@selects
def baseline(runs: pd.DataFrame) -> pd.DataFrame:
    """Of the shown runs, those with basic augmentation."""
    found = main(runs)
    return found[found.augment == "basic"]


@selects
def series(runs: pd.DataFrame) -> pd.DataFrame:
    """Of the shown runs, those with cutout, by M."""
    found = main(runs)
    return found[found.augment == "cutout"].sort_values(["M", "seed"])


@selects
def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Of the shown runs, those with cutout in one place."""
    found = series(runs)
    return found[~found.elsewhere]


@selects
def same_length(runs: pd.DataFrame) -> pd.DataFrame:
    """Of the runs with cutout in one place, the longest: those that have seen equally many updates."""
    found = comparable(runs)
    return found[found.epochs == found.epochs.max()]


def trainings(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each shown training's name and runs, the baseline first; the name has the GPU where it isn't the others'."""
    for augment in ("basic", "cutout"):
        found = main(runs)
        for m, group in by_m(found[found.augment == augment]).items():
            first = group.iloc[0]
            yield f"{augment}, M = {m}" + f", on an {gpu(first.device)}" * bool(first.elsewhere), group


@selects
def by_allocation(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs whose times may be compared with each other, in the order in which allocations are named.

    A run that was continued in another allocation belongs to none, and its times are compared with nothing.
    """
    return [(str(name), group) for name, group in runs[runs.allocation != ""].groupby("allocation", sort=True)]


def by_m(runs: pd.DataFrame, least: int = 1) -> dict[int, pd.DataFrame]:
    """The runs of each M that has at least so many, from the smallest M on."""
    groups = {m: runs[runs["M"] == m] for m in sorted({int(m) for m in runs.M})}
    return {m: group for m, group in groups.items() if len(group) >= least}


# ---- numbers -------------------------------------------------------------------------------------------------------


def pooled_text(runs: pd.DataFrame, value: str = "last") -> str:
    """The median of an error (%) over seeds, with its interval, or the range where fewer than three ran."""
    found = pooled(runs, value, SETTING)
    return f"{found.value:.2f}" + (f" ({found.low:.2f}–{found.high:.2f})" if len(runs) > 1 else "")


def difference(of: pd.DataFrame, to: pd.DataFrame, varied: Iterable[str], value: str = "last") -> Estimate:
    """The median error of some runs less that of others, in points. They may differ in what is `varied` alone."""
    varied = list(varied)
    pooled(pd.concat([of, to]), value, [name for name in SETTING if name not in varied])
    for side in (of, to):
        pooled(side, value, varied)
    return estimate(lambda a, b: a - b, of[value], to[value])


def points(found: Estimate) -> str:
    """A difference of errors without its sign: 0.78 points (0.68 to 0.89)."""
    low, high = sorted((found.low, found.high)) if found.value >= 0 else sorted((-found.low, -found.high))
    within = "one run each" if low == high else f"{low:.2f} to {high:.2f}".replace("-", "−")
    few = "" if found.kind == "interval" else ", too few runs for a verdict"
    return f"{abs(found.value):.2f} points ({within}{few})"


def median_range(values: pd.Series, form: str = "{:.2f}") -> str:
    """The median of times or rates of one allocation and, where they differ in what is shown, the range."""
    within = span(values, form)
    return form.format(values.median()) + (f" ({within})" if "–" in within else "")


def span(values: Iterable[float], form: str = "{:.2f}") -> str:
    """From the least to the most, or the one number that both are."""
    kept = [form.format(value) for value in sorted(values)]
    return kept[0] if kept[0] == kept[-1] else f"{kept[0]}–{kept[-1]}"


def numbers(values: Iterable[float]) -> str:
    """Whole numbers as a sentence lists them, each once."""
    return show.listing(sorted({int(value) for value in values}))


def gpu(device: str) -> str:
    """A device without its maker: H100."""
    return short_name(device).split()[-1]


def place_text(run: pd.Series) -> str:
    """Where a run was made: H200, or H100, earlier kernels."""
    return gpu(run.device) + ("" if run.code == TODAYS else ", earlier kernels")


def goal_text(runs: pd.DataFrame) -> str:
    """When these runs reach 94 %: epochs, and how many of them do; or their accuracy after the last epoch."""
    reached = runs[runs.goal_epoch.notna()]
    if reached.empty:
        return f"no: {100 - runs['last'].median():.2f} %"
    few = "" if len(reached) == len(runs) else f" ({len(reached)} of {len(runs)})"
    return numbers(reached.goal_epoch) + few
