"""Prices of accelerators: a dated table with a source for each price, and cost as a function of it.

Where sources conflict, the table and everything made from it have a row for each.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from experiments.cli import UsageError

SOURCE = Path(__file__).with_name("prices.csv")
COLUMNS = ["device", "region", "price_usd_per_hour", "date", "source"]
UNKNOWN = "not stated"


def load(path: Path = SOURCE) -> pd.DataFrame:
    """The table with COLUMNS; a price is in US dollars for an hour of one device, a date YYYY[-MM[-DD]] or UNKNOWN.

    Raises UsageError, naming file and line, for what can't be used.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if list(frame.columns) != COLUMNS:
        raise UsageError(f"{path}: the columns must be {', '.join(COLUMNS)}")
    for line, (_, row) in enumerate(frame.iterrows(), start=2):
        price, date = str(row.price_usd_per_hour), str(row.date)
        if not all(str(value).strip() for value in row):
            raise UsageError(
                f"{path}, line {line}: a cell is empty; write '{UNKNOWN}' for what the source does not say"
            )
        if not re.fullmatch(r"\d+(\.\d+)?", price) or not float(price):
            raise UsageError(f"{path}, line {line}: the price must be a positive number, not {price!r}")
        if date != UNKNOWN and not re.fullmatch(r"\d{4}(-\d\d){0,2}", date):
            raise UsageError(f"{path}, line {line}: the date must be YYYY, YYYY-MM or YYYY-MM-DD, not {date!r}")
    if frame.duplicated(["device", "region", "date", "source"]).any():
        raise UsageError(f"{path}: a source has two prices for the same device, region and date")
    return frame.astype({"price_usd_per_hour": float})


def of(device: str, prices: pd.DataFrame | None = None) -> pd.DataFrame:
    """The rows of one device, dearest first. Raises UsageError where the table has none."""
    table = load() if prices is None else prices
    rows = table[table.device == device].sort_values("price_usd_per_hour", ascending=False)
    if rows.empty:
        raise UsageError(f"no price for {device}; there are prices for {', '.join(sorted(set(table.device)))}")
    return rows.reset_index(drop=True)


def cost(price_usd_per_hour: float, learners: int, seconds: float) -> float:
    """US dollars for ``learners`` devices, each rented for as long as the job takes."""
    return price_usd_per_hour * learners * seconds / 3600
