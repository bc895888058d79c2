"""Problem 4: the kernels of a training step, the bytes that each moves, and the least time that these take.

The bytes are counted by derivations/roofline.py, the bandwidth is that of a large copy on the same device, timed in the
same run. Least time: bytes over bandwidth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from derivations import roofline
from experiments.p4.wanted import BATCH, DEPTH
from experiments.scaling.series import records
from experiments.store.files import RESULTS
from report import comparisons, show
from report.answers import Missing
from report.figures.augmentation_runs import by_m, gpu
from report.figures.augmentation_speed import PEERS_BY
from report.used import selects

KERNELS_BY = "python experiments/p4_kernels.py --M 1 2 4 8 16 32 --write"
ELEMENT_BYTES = 2  # bf16
SMALL = 0.005  # of all bytes: the share below which a kernel has no row of its own


def load_kernels(results: Path = RESULTS) -> pd.DataFrame:
    """The times of the step's kernels, of the allocation that measured them last."""
    rows = comparisons.trusted("p4_kernels", results)
    rows = rows[(rows.dataset == "cifar10") & (rows.batch_size == BATCH) & (rows.kind == "measured")]
    return rows[rows.allocation.isin(rows.sort_values("started").allocation.tail(1))]


@selects
def timed(peers: pd.DataFrame) -> pd.DataFrame:
    """The windows of this chapter's bf16 step on GPUs, of the allocation that timed most M."""
    own = peers[(peers.contender == "ours") & (peers.engine == "fused") & (peers.precision == "bf16")]
    counts = own.groupby("allocation")["M"].nunique()
    return own[own.allocation == counts.idxmax()] if len(counts) else own


class Floor(NamedTuple):
    """The step of one M: its kernels, the bandwidth of a copy (byte/s), and the seconds that it takes."""

    m: int
    device: str
    kernels: list[roofline.Kernel]
    copy_bandwidth: float
    seconds: float

    @property
    def launches(self) -> int:
        return sum(kernel.launches for kernel in self.kernels)

    @property
    def bytes(self) -> int:
        return sum(int(kernel.bytes) for kernel in self.kernels)

    @property
    def least(self) -> float:
        """The seconds in which the device copies as many bytes."""
        return self.bytes / self.copy_bandwidth

    @property
    def beyond(self) -> float:
        """Microseconds beyond the least time, for each launch."""
        return 1e6 * (self.seconds - self.least) / self.launches


def floors(peers: pd.DataFrame) -> list[Floor]:
    """The step of each M of one allocation, few instances first."""
    found = []
    for m, own in by_m(timed(peers)).items():
        kernels, seconds = roofline.kernels(BATCH * m, ELEMENT_BYTES, DEPTH), BATCH * m / own.images_per_second.median()
        found.append(Floor(m, own.device.iloc[0], kernels, own.copy_bandwidth.iloc[0], seconds))
    return found


def tbl_p4_floor(peers: pd.DataFrame) -> str | Missing:
    """For each M: launches, bytes, the least time that the bytes take, the step's, and what it takes beyond that."""
    rows = [
        (
            *(f.m, f.launches, f"{f.bytes / 1e6:,.0f}", f"{1e3 * f.least:.2f}", f"{1e3 * f.seconds:.2f}"),
            *(f"{f.seconds / f.least:.1f}", f"{f.beyond:.0f}"),
        )
        for f in floors(peers)
    ]
    heads = ["M", "Launches", "MB", "Least (ms)", "Step (ms)", "Times", "Beyond, µs a launch"]
    return show.table_text(rows, heads, "rrrrrrr") if rows else Missing("The step beside its least time", PEERS_BY)


def text_p4_floor(peers: pd.DataFrame) -> str:
    """How far the bytes explain the time of a step, with the fewest and with the most instances."""
    found = floors(peers)
    if not found:
        return ""
    few, many = found[0], found[-1]
    shares = [show.percent(f.least / f.seconds, 0) for f in (few, many)]
    return (
        f"On an {gpu(few.device)}, moving the bytes would take {shares[0]} of the step's time with M = {few.m} and "
        f"{shares[1]} with M = {many.m}. What M = {few.m} takes beyond that is {few.beyond:.0f} µs for each launch."
    )


def tbl_p4_kernels(rows: pd.DataFrame, peers: pd.DataFrame) -> str | Missing:
    """The kernels of the step of the largest M: launches, bytes and least time; where they were timed, the slowest
    first, the time of each and how many times the least it is. The smallest are one row."""
    lines: list[tuple[Any, ...]]
    if len(rows):
        own = rows[rows["M"] == rows["M"].max()].sort_values("seconds", ascending=False)
        lines = [(k.kernel, k.launches, k.bytes, k.bytes / k.copy_bandwidth, k.seconds) for k in records(own)]
    elif found := floors(peers):
        most = found[-1]
        counted = sorted(most.kernels, key=lambda kernel: -int(kernel.bytes))
        lines = [(k.name, k.launches, int(k.bytes), int(k.bytes) / most.copy_bandwidth, None) for k in counted]
    else:
        return Missing("The time of each kernel", KERNELS_BY)
    whole = sum(least for *_, least, _ in lines)
    small = [line for line in lines if line[3] < SMALL * whole]
    if len(small) > 1:
        names, *columns = zip(*small, strict=True)
        sums = [None if None in column else sum(column) for column in columns]
        lines = [line for line in lines if line not in small] + [(show.listing(names), *sums)]
    shown = []
    for kernel, launches, moved, least, seconds in lines:
        taken = (None, None) if seconds is None else (f"{1e3 * seconds:.3f}", f"{seconds / least:.1f}")
        counts = launches, f"{moved / 1e6:,.0f}", f"{1e3 * least:.3f}", show.percent(least / whole, 1)
        shown.append((kernel, *counts, *taken))
    return show.table_text(shown, ["Kernel", "Launches", "MB", "Least (ms)", "Share", "ms", "Times"], "lrrrrrr")


def text_p4_kernels(rows: pd.DataFrame) -> str | Missing:
    """For each M, the sum of the kernels' times beside the whole step's."""
    if rows.empty:
        return Missing("The time of each kernel", KERNELS_BY)
    said = []
    for m, own in by_m(rows).items():
        kernels, step = 1e3 * own.seconds.sum(), 1e3 * own.step_seconds.iloc[0]
        said.append(f"- M = {m}: the kernels take {kernels:.2f} ms together, the step {step:.2f} ms.")
    return "\n".join(said)
