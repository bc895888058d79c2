"""experiments.scaling.prices: what the table must hold, and cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import UsageError
from experiments.scaling import prices

HEAD = "device,region,price_usd_per_hour,date,source\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "prices.csv"
    path.write_text(text)
    return path


def test_the_projects_table() -> None:
    table = prices.load()
    assert list(table.columns) == prices.COLUMNS and (table.price_usd_per_hour > 0).all()
    assert list(prices.of("K80").price_usd_per_hour) == [0.90, 0.45]
    assert list(prices.of("K80").source.str.split().str[0]) == ["Amazon", "Google"]
    assert list(prices.of("H200").price_usd_per_hour) == [63.296 / 8, pytest.approx(41.61 / 8, abs=0.0005)]
    assert list(prices.of("H100").price_usd_per_hour) == [12.29, 6.76, 4.916]  # sources conflict: all are given
    list_price = 98.32  # of eight
    assert prices.of("H100").price_usd_per_hour[0] == pytest.approx(list_price / 8, abs=0.005)
    assert prices.of("H100").price_usd_per_hour[1] == pytest.approx(0.55 * list_price / 8, abs=0.005)


def test_other_tables_can_be_read(tmp_path: Path) -> None:
    table = prices.load(written(tmp_path, HEAD + "T4,eu,0.5,2026-11-02,a page\nT4,us,0.25,not stated,a page\n"))
    assert list(prices.of("T4", table).price_usd_per_hour) == [0.5, 0.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("device,price\nK80,1\n", "columns must be device, region"),
        (HEAD + "K80,us,,2017,a page\n", "line 2: a cell is empty"),
        (HEAD + "K80,us,1,2017, \n", "line 2: a cell is empty"),
        (HEAD + "K80,us,1,2017,a page\nK80,us,free,2018,a page\n", "line 3: the price must be a positive number"),
        (HEAD + "K80,us,0,2017,a page\n", "positive number"),
        (HEAD + "K80,us,-1,2017,a page\n", "positive number"),
        (HEAD + "K80,us,nan,2017,a page\n", "positive number"),
        (HEAD + "K80,us,1,May 2017,a page\n", "the date must be YYYY"),
        (HEAD + "K80,us,1,2017,a page\nK80,us,2,2017,a page\n", "two prices for the same"),
        ("", "cannot be read"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        prices.load(written(tmp_path, text))
    assert str(tmp_path / "prices.csv") in str(caught.value)


def test_missing_file_and_device(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        prices.load(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="no price for TPU; there are prices for H100, H200, K80"):
        prices.of("TPU")


def test_cost() -> None:
    assert prices.cost(0.9, 16, 1800) == pytest.approx(7.2)
    assert prices.cost(0.9, 1, 8 * 3600) == prices.cost(0.9, 8, 3600)  # perfect scaling costs the same
