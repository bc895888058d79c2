"""Problem 4: the kernels of a training step, the bytes that each moves, and the least time that these take.

derivations/roofline.py counted the bytes when the kernels were timed; the bandwidth is that of a large copy on the same
device, timed in the same run. Least time: bytes over bandwidth. Ratios to it are of one allocation each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from experiments.p4.wanted import BATCH
from experiments.store.files import RESULTS
from report import comparisons, show
from report.answers import Missing
from report.figures.augmentation_runs import by_m, gpu, span

KERNELS_BY = "python experiments/p4_kernels.py --M 1 2 4 8 16 32 --write"
BUSY = 0.98  # of a step's time: from there on its kernels explain it
SMALL = 0.005  # of all bytes: the share below which a kernel has no row of its own


def load_kernels(results: Path = RESULTS) -> pd.DataFrame:
    """The times of the step's kernels, for each device model of the allocation that measured them last."""
    rows = comparisons.trusted("p4_kernels", results)
    rows = rows[(rows.dataset == "cifar10") & (rows.batch_size == BATCH) & (rows.kind == "measured")]
    last = rows.sort_values("started").groupby("device").allocation.last()
    return rows[rows.allocation == rows.device.map(last)]


class Step(NamedTuple):
    """The step of one M on one device model: launches, bytes, and seconds of a copy of them, of all kernels, of it."""

    m: int
    launches: int
    bytes: int
    least: float
    kernels: float
    seconds: float

    @property
    def times(self) -> float:
        """How many times the least."""
        return self.seconds / self.least

    @property
    def beyond(self) -> float:
        """Microseconds beyond the least time, for each launch."""
        return 1e6 * (self.seconds - self.least) / self.launches


def steps(rows: pd.DataFrame) -> dict[str, list[Step]]:
    """For each device model its steps, few instances first."""
    found: dict[str, list[Step]] = {}
    for device, timed in rows.groupby("device"):
        for m, own in by_m(timed).items():
            sums, one = own[["launches", "bytes", "seconds"]].sum(), own.iloc[0]
            least = sums.bytes / one.copy_bandwidth
            step = Step(m, int(sums.launches), int(sums.bytes), least, sums.seconds, one.step_seconds)
            found.setdefault(gpu(str(device)), []).append(step)
    return found


def tbl_p4_floor(rows: pd.DataFrame) -> str | Missing:
    """For each device and M: the least time that the bytes take, the step's, what it takes beyond that, the bytes."""
    lines = [
        (
            *(name, own.m, f"{1e3 * own.least:.2f}", f"{1e3 * own.seconds:.2f}", f"{own.times:.2f}"),
            *(f"{own.beyond:.0f}", f"{own.bytes / 1e6:,.0f}"),
        )
        for name, found in steps(rows).items()
        for own in found
    ]
    heads = ["GPU", "M", "Least (ms)", "Step (ms)", "Times", "Beyond, µs a launch", "MB"]
    missing = Missing("The step beside its least time", KERNELS_BY)
    return show.table_text(show.once(lines), heads, "lrrrrrr") if lines else missing


def text_p4_floor(rows: pd.DataFrame) -> str:
    """How far the bytes explain the time of a step, with the fewest and with the most instances."""
    said = []
    for name, found in steps(rows).items():
        few, many = found[0], found[-1]
        least, most = (show.percent(own.least / own.seconds, 0) for own in (few, many))
        other = (
            f", but {least} with M = {few.m}, whose {few.launches} launches take {few.beyond:.0f} µs each beyond that"
        )
        said.append(
            f"On an {name}, moving the bytes would take {most} of the step's time with M = {many.m}"
            f"{other if few != many else ''}."
        )
    return " ".join(said)


def tbl_p4_kernels(rows: pd.DataFrame) -> str | Missing:
    """The kernels of the step of the largest M, the slowest first: for each device the time, and how many times the
    least it is, then bytes and launches. The smallest kernels are one row."""
    if rows.empty:
        return Missing("The time of each kernel", KERNELS_BY)
    own = rows[rows["M"] == rows["M"].max()].assign(least=lambda k: k.bytes / k.copy_bandwidth)
    share = own.bytes / own.groupby("device").bytes.transform("sum")
    if len(small := own.kernel[share < SMALL].unique()) > 1:
        own = own.assign(kernel=own.kernel.where(~own.kernel.isin(small), show.listing(small)))
    sums = own.groupby(["device", "kernel"])[["launches", "bytes", "seconds", "least"]].sum()
    places = {str(device): sums.loc[device] for device in sorted(own.device.unique())}
    lines: list[tuple[Any, ...]] = []
    for name, one in next(iter(places.values())).sort_values("seconds", ascending=False).iterrows():
        there = [place.loc[name] if name in place.index else None for place in places.values()]
        times = ["–" if own is None else f"{1e3 * own.seconds:.3f} ({own.seconds / own.least:.1f})" for own in there]
        lines.append((name, *times, f"{one.bytes / 1e6:,.0f}", int(one.launches)))
    heads = ["Kernel", *(f"{gpu(device)}: ms (times)" for device in places), "MB", "Launches"]
    return show.table_text(lines, heads, "l" + "r" * (len(heads) - 1))


def text_p4_kernels(rows: pd.DataFrame) -> str | Missing:
    """The sum of the kernels' times beside the whole step's, over all M."""
    if rows.empty:
        return Missing("The time of each kernel", KERNELS_BY)
    parts = {name: [own.kernels / own.seconds for own in measured] for name, measured in steps(rows).items()}
    found = show.listing(f"{span(own)} times the step on an {name}" for name, own in parts.items())
    idle = min(min(own) for own in parts.values()) < BUSY
    return f"Whatever M is, the kernels together take {found}{'' if idle else ': hardly any time passes between them'}."
