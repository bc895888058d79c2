"""The homework's K80: time and cost of Problem 2, on hand-made rows and prices."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments.scaling import prices
from report.answers import Answer, Missing
from report.figures import scaling_k80
from tests.scaling_rows import cells, drawn, fitted

ROWS = fitted()
PRICES = """device,region,price_usd_per_hour,date,source
K80,us,0.90,2017,Amazon's page
K80,eu,0.45,2018,Google's page
T4,us,1.80,2020,another page
"""


@pytest.fixture(autouse=True)
def hand_made_prices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(PRICES.replace("Amazon's", "Amazon").replace("Google's", "Google"))
    table = prices.load(path)
    monkeypatch.setattr(prices, "load", lambda: table)


def test_ten_epochs_by_hand() -> None:
    """Weak: 937 steps of 64 images an epoch, 58 of 1,024. Strong: 234 of 256. One K80 does 50, sixteen 640 images/s."""
    jobs = scaling_k80.jobs(ROWS).set_index(["scaling", "learners"])
    assert jobs.ten_seconds["weak", 1] == pytest.approx(10 * 937 * 64 / 50)
    assert jobs.ten_seconds["weak", 16] == pytest.approx(10 * 58 * 1024 / 640)
    assert jobs.ten_seconds["strong", 16] == pytest.approx(10 * 234 * 256 / 640)
    assert jobs.efficiency["weak", 16] == pytest.approx(640 / 16 / 50)


def test_the_answer_has_time_and_cost_at_both_providers() -> None:
    answer = scaling_k80.answer_scaling_k80(ROWS)
    assert isinstance(answer, Answer) and (answer.part, answer.basis) == ("5.3", "projected")
    # 11,993.6 s at 0.90 USD/h are 3.00 USD; sixteen for 928 s cost 16 · 928/3600 · 0.90 = 3.71.
    weak = "3.33 h on one K80 and 15.5 min on 16 with weak scaling (3.00 and 3.71 USD at Amazon's price"
    assert weak in answer.sentence and "1.50 and 1.86 USD at Google's price)" in answer.sentence
    assert "with strong scaling" in answer.sentence and "Projected for K80" in answer.markdown()


def test_the_answer_does_without_google(monkeypatch: pytest.MonkeyPatch) -> None:
    table = prices.load()
    monkeypatch.setattr(prices, "load", lambda: table[table.source != "Google page"])
    answer = scaling_k80.answer_scaling_k80(ROWS)
    assert isinstance(answer, Answer) and "Google" not in answer.sentence
    assert cells(scaling_k80.tbl_scaling_k80(ROWS))[0][-1] == "Amazon (USD)"


def test_the_table_has_seven_columns() -> None:
    assert cells(scaling_k80.tbl_scaling_k80(ROWS)) == [
        ["Scaling", "N", "Images/s (interval)", "Efficiency", "Ten epochs", "Amazon (USD)", "Google (USD)"],
        ["weak", "1", "50.0 (40.0–60.0)", "100 %", "3.33 h", "3.00", "1.50"],
        ["", "16", "640 (630–650)", "80 %", "15.5 min", "3.71", "1.86"],
        ["strong", "1", "50.0 (40.0–60.0)", "100 %", "3.33 h", "3.00", "1.50"],
        ["", "16", "640 (630–650)", "80 %", "15.6 min", "3.74", "1.87"],
    ]


def test_the_text_holds_it_against_the_published_cluster() -> None:
    text = scaling_k80.text_scaling_k80(ROWS)
    assert "off by −1.0 % with 64 images each" in text  # 380.16 of 384
    assert "publishes 751 images/s" in text and "the projection is 640 (−14.8 %)" in text
    # 50, 98 and 192: two doublings keep 96 %, and two more give 16 · 50 · 0.96².
    assert "a constant loss per doubling from 1, 2 and 4 GPUs gives 737 (−1.8 %)" in text


def test_the_figure_has_projected_and_published_images_of_each_learner() -> None:
    marks = drawn(scaling_k80.fig_scaling_k80(ROWS))
    found = {(mark["kind"], mark["learners"]): mark["rate"] for mark in marks}
    assert found["weak, projected", 16] == pytest.approx(40)
    assert found["published, 64 images each", 8] == pytest.approx(48)  # 384 on one node
    assert found["published, 64 images each", 16] == pytest.approx(751 / 16)
    assert sum("published" in kind for kind, _ in found) == 5


def test_a_dearer_device_must_do_more() -> None:
    assert cells(scaling_k80.tbl_scaling_prices(ROWS))[1:] == [
        ["1", "K80", "0.9", "2017", "us", "50.0"],
        ["2", "K80", "0.45", "2018", "eu", "25.0"],
        ["3", "T4", "1.8", "2020", "us", "100"],
    ]
    assert scaling_k80.text_scaling_prices() == "1. Amazon page.\n2. Google page.\n3. another page."


def test_the_basis_comes_from_the_rows() -> None:
    text = scaling_k80.text_scaling_k80_basis(ROWS)
    assert "published runs on 1, 2 and 4 GPUs" in text and "with 64 images each" in text
    assert "one network card of 10 Gbit/s" in text and "Ten epochs are 10 × 60,000 images" in text
    assert scaling_k80.text_scaling_k80_basis(ROWS.iloc[:0]) == "There is no projection to describe."


def test_without_rows_the_command_is_named() -> None:
    nothing: pd.DataFrame = ROWS.iloc[:0]
    for function in (scaling_k80.answer_scaling_k80, scaling_k80.tbl_scaling_k80, scaling_k80.fig_scaling_k80):
        found = function(nothing)
        assert isinstance(found, Missing) and found.command == "python experiments/scaling_fit.py"
    assert scaling_k80.text_scaling_k80(nothing) == "There is no projection to judge."
    assert cells(scaling_k80.tbl_scaling_prices(nothing))[1][-1] == "–"
