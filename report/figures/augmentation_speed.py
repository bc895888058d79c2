"""Problem 4, beyond the homework: what M costs, the training step against its peers, and one batch over two GPUs.

Everything here is a time or a rate, so it is compared within one allocation only.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.p4.wanted import ALL_M, BATCH
from experiments.store.files import RESULTS
from report import comparisons, show
from report.answers import Missing
from report.figures.augmentation import SERIES_BY
from report.figures.augmentation_runs import by_allocation, by_m, comparable, finished, gpu, median_range, span

PEERS_BY = "python experiments/p4_throughput.py --M 1 2 4 8 16 32 --seconds 4 --write"
SPLIT_BY = "\n".join(
    f"python experiments/p4_split.py {how}"
    for how in ("--learners 1", "--learners 2", "--learners 2 --batch-norm synchronised")
)
PEERS = ["compiled", "eager", "conventional"]
SINCE = {"compiled"}  # a peer that earlier runs don't have


def load_peers(results: Path = RESULTS) -> pd.DataFrame:
    """The training step's throughput and its peers', measured in turns; `workers` of a run in all its rows."""
    rows = comparisons.trusted("p4_throughput", results)
    rows = rows[(rows.dataset == "cifar10") & (rows.batch_size == BATCH) & (rows.kind == "measured")]
    return rows.assign(workers=rows.groupby("run_id").workers.transform("max"))


def load_splits(results: Path = RESULTS) -> pd.DataFrame:
    """The epochs of training whose instances were split over GPUs."""
    rows = comparisons.trusted("p4_split", results)
    kept = (rows.dataset == "cifar10") & (rows.batch_size == BATCH) & (rows.device_kind == "gpu")
    return rows[kept & (rows.kind == "measured")]


# ---- what M costs --------------------------------------------------------------------------------------------------


def further(runs: pd.DataFrame) -> pd.DataFrame:
    """What one further instance adds to a step (ms), from each M to the next of the same allocation: columns
    allocation, few, many and added."""
    rows = []
    for allocation, own in by_allocation(runs):
        steps = {m: group.step_ms.median() for m, group in by_m(own).items()}
        for few, many in pairwise(steps):
            rows.append((allocation, few, many, (steps[many] - steps[few]) / (many - few)))
    return pd.DataFrame(rows, columns=["allocation", "few", "many", "added"])


def tbl_p4_cost(epochs: pd.DataFrame) -> str | Missing:
    """Speed of each M by allocation, what a further instance adds, and the cost beside M times that of M = 1."""
    runs = comparable(finished(epochs))
    added = {(row.allocation, row.many): f"{row.added:.2f}" for row in further(runs).itertuples()}
    lines = []
    for allocation, own in by_allocation(runs):
        groups = by_m(own)
        for m, group in groups.items():
            step = group.step_ms.median()
            relative = f"{step / (m * groups[1].step_ms.median()):.2f}" if 1 in groups else "–"
            speed = f"{group.images_per_second.median():,.0f}"
            lines.append(
                (
                    allocation,
                    m,
                    len(group),
                    speed,
                    median_range(group.step_ms),
                    added.get((allocation, m), "–"),
                    relative,
                )
            )
    heads = ["Allocation", "M", "Runs", "Images/s", "Step (ms)", "One more", "Relative"]
    return show.table_text(show.once(lines), heads, "lrrrrrr") if lines else Missing("The cost for each M", SERIES_BY)


def text_p4_marginal(epochs: pd.DataFrame) -> str | Missing:
    """What one further instance costs from the second M on that ran, beside the first one."""
    runs = comparable(finished(epochs))
    added = further(runs)
    later = added[added.few >= 2]
    alone = {name: own.step_ms[own["M"] == 1].median() for name, own in by_allocation(runs) if (own["M"] == 1).any()}
    later = later[later.allocation.isin(alone)]
    if later.empty:
        return Missing("What a further instance costs: M = 1 and two larger M in one allocation", SERIES_BY)
    parts = 100 * later.added / later.allocation.map(alone)
    return (
        f"From M = {later.few.min()} on a further instance adds {span(later.added)} ms to a step, "
        f"{span(parts, '{:.0f}')} % of the {span(alone.values())} ms that the step of M = 1 takes "
        "(@tbl-p4-cost): the first instance leaves most of the GPU idle, and further ones fill it."
    )


# ---- peers ---------------------------------------------------------------------------------------------------------


def peers(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each run that has all contenders: device, M, workers, rate of this step, its bandwidth's share, and the
    ratio to each peer with its least and most (NaN for a peer that earlier runs don't have)."""
    found = []
    for _, group in rows.groupby("run_id"):
        rates = {name: own.images_per_second for name, own in group.groupby("contender")}
        if set(rates) | SINCE != {"ours", *PEERS}:
            continue
        own = group[group.contender == "ours"].iloc[0]
        row: dict[str, Any] = {"device": own.device, "M": int(own["M"]), "workers": int(own.workers)}
        row |= {"rate": rates["ours"].median()}
        row["share"] = row["rate"] * own.bytes_per_image / own.copy_bandwidth
        for name in set(PEERS) & set(rates):
            row[name] = row["rate"] / rates[name].median()
            row[f"{name}_low"] = rates["ours"].min() / rates[name].max()
            row[f"{name}_high"] = rates["ours"].max() / rates[name].min()
        found.append(row | {"loop": rates["conventional"].median(), "allocation": own.allocation})
    ratios = [f"{name}{end}" for name in PEERS for end in ("", "_low", "_high")]
    names = ["device", "M", "workers", "rate", "share", *ratios, "loop", "allocation"]
    return pd.DataFrame(found, columns=names).sort_values(["device", "M", "workers"], ascending=[False, True, True])


def tbl_p4_peers(rows: pd.DataFrame) -> str | Missing:
    """The step's throughput and its ratio to each peer."""
    lines = []
    for row in peers(rows).to_dict("records"):
        ratios = [
            "–" if pd.isna(row[n]) else f"{row[n]:.1f} ({row[f'{n}_low']:.1f}–{row[f'{n}_high']:.1f})" for n in PEERS
        ]
        share = show.percent(row["share"], 0)
        name = f"{gpu(row['device'])}, {row['workers']}"
        lines.append((name, row["M"], show.count(row["rate"]), *ratios, share))
    heads = ["Device, workers", "M", "Images/s", "To compiled", "To eager", "To loop", "Bandwidth"]
    return show.table_text(lines, heads, "lrrrrrr") if lines else Missing("The step against its peers", PEERS_BY)


def text_p4_peers(rows: pd.DataFrame) -> str:
    """On each GPU, by how much the step beats the compiled peer and the conventional loop: least and most; and with
    which M nobody has timed them there."""
    found = peers(rows)
    said = []
    for (device, _), own in found[found.device.str.contains("NVIDIA")].groupby(["device", "allocation"]):
        parts = []
        for name, peer in (("compiled", "the compiled peer's"), ("conventional", "the conventional loop's")):
            timed = own[own[name].notna()].sort_values(name)
            if len(timed):
                ends = [f"{one[name]:.1f} (M = {one['M']})" for _, one in timed.iloc[[0, -1]].iterrows()]
                parts.append(f"{' to '.join(dict.fromkeys(ends))} times {peer}")
        said.append(f"On an {gpu(str(device))} the step's images per second are {show.listing(parts)}.")
        if absent := [m for m in ALL_M if m not in set(own.M)]:
            said.append(f"The peers were not timed there with M = {show.listing(absent)}.")
    return " ".join(said)


# ---- one batch over two GPUs ---------------------------------------------------------------------------------------


def splits(rows: pd.DataFrame) -> pd.DataFrame:
    """For each allocation and way to split: the rate, the median over runs of each run's median epoch, over one GPU's
    and over two GPUs' with statistics of their own (NaN where the allocation ran none)."""
    keys = ["allocation", "device", "M", "precision", "learners", "batch_norm"]
    of_runs = rows.groupby([*keys, "run_id"], as_index=False).images_per_second.median()
    found = (
        of_runs[of_runs.allocation != ""]
        .groupby(keys, as_index=False)
        .agg(rate=("images_per_second", "median"), runs=("run_id", "nunique"))
    )
    for name, base in (
        ("over_one", found.learners == 1),
        ("over_local", (found.learners == 2) & (found.batch_norm == "local")),
    ):
        rates = found[base].set_index(keys[:4]).rate
        found[name] = found.rate / found.set_index(keys[:4]).index.map(rates.to_dict()).to_numpy(dtype=float)
    return found


def tbl_p4_split(rows: pd.DataFrame) -> str | Missing:
    """Rates with the instances split over GPUs, beside those of one GPU, by allocation."""
    lines = []
    for row in splits(rows).to_dict("records"):
        alone = row["learners"] == 1
        over = "halves" if not alone and row["batch_norm"] == "local" else "batch"
        ratios = ["–" if alone or pd.isna(row[v]) else f"{row[v]:.2f}" for v in ("over_one", "over_local")]
        name = f"{row['learners']} × {gpu(row['device'])}"
        lines.append((row["allocation"], name, over, row["runs"], show.count(row["rate"]), *ratios))
    heads = ["Allocation", "GPUs", "Statistics", "Runs", "Images/s", "Over one", "Over halves"]
    return show.table_text(show.once(lines), heads, "lllrrrr") if lines else Missing("M = 32 over two GPUs", SPLIT_BY)


def text_p4_split(rows: pd.DataFrame) -> str:
    """What two GPUs reach of twice one GPU's rate, with statistics over halves and over the batch."""
    found = splits(rows)
    two = found[(found.learners == 2) & found.over_one.notna()]
    halves, whole = (two.over_one[two.batch_norm == norm] for norm in ("local", "synchronised"))
    if halves.empty or whole.empty:
        return ""
    lost = found.over_local[found.batch_norm == "synchronised"].dropna()
    runs = int(two.runs.sum())
    return (
        f"Of an ideal 2, two GPUs reach {span(halves)} with BatchNorm over each half and {span(whole)} over the "
        f"whole batch, which is the network that one GPU trains ({runs} runs, too few for a verdict). Waiting for "
        f"BatchNorm's all-reduces costs {span(100 * (1 - lost), '{:.0f}')} % of the throughput, in {len(lost)} "
        f"allocation{'s' * (len(lost) > 1)} that ran both."
    )
