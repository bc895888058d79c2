"""Problem 4's figures, tables and answers on hand-made runs, against numbers worked out here by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from report import show
from report.answers import Answer, Missing
from report.comparisons import Incomparable
from report.figures import (
    augmentation,
    augmentation_cutout,
    augmentation_more,
    augmentation_runs,
    augmentation_speed,
    augmentation_time,
)
from report.figures.augmentation_runs import finished
from tests.frames import H100, H200
from tests.p1_runs import data, lines
from tests.report.test_chapters import write

NO_EPOCHS = augmentation.load(Path("without results"))


def run(errors: list[float], m: int = 1, **other: Any) -> pd.DataFrame:
    """A run of Problem 4, a row an epoch: its validation errors in %. `drop` is the first epoch with a lower rate,
    `step` a training step's ms; an epoch has 100 steps of 64·M images and half a second of validation."""
    constant: dict[str, Any] = {
        "M": m,
        "augment": "cutout",
        "schedule": "authors",
        "precision": "bf16",
        "engine": "fused",
        "device": H100,
        "code": "today's",
        "allocation": "one",
        "seed": 0,
        "train_error": 0.1,
        "setup_seconds": 30.0,
        "epochs_planned": len(errors),
    }
    drop, step = other.pop("drop", 3), other.pop("step", 10.0)
    constant |= other
    name = "-".join(str(constant[key]) for key in ("augment", "M", "schedule", "precision", "epochs_planned", "seed"))
    rows = [
        {"epoch": e, "val_error": error / 100, "learning_rate": 0.1 if e < drop else 0.01, "steps": 100}
        | {"images": 6400 * m, "train_seconds": step / 10, "wall_seconds": e * (step / 10 + 0.5)}
        for e, error in enumerate(errors, 1)
    ]
    return pd.DataFrame(
        [constant | {"run_id": f"{name}-{constant['allocation']}-{constant['code']}"} | r for r in rows]
    )


def runs(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def seeds(errors: list[list[float]], m: int = 1, **other: Any) -> pd.DataFrame:
    """A run for each seed."""
    return runs(*(run(own, m, seed=seed, **other) for seed, own in enumerate(errors)))


def plain(found: Any) -> str:
    text = found.sentence if isinstance(found, Answer) else found
    assert isinstance(text, str)
    return text.replace("\u00a0", " ").replace("\u2060", "")


# Four epochs, the rate falls before the third. M = 2 is there at the drop, M = 1 never.
ONE = seeds([[9, 8, 7, 6.9], [9, 8, 7.1, 7.0], [9, 8, 7.2, 7.1]])
TWO = seeds([[9, 8, 6, 5.9], [9, 8, 5.5, 5.8], [9, 8, 5, 5.7]], 2, step=15.0)
FOUR = seeds([[9, 8, 6, 5.8], [9, 8, 5.5, 5.9], [9, 8, 5, 5.7]], 4, step=25.0)
BASIC = seeds([[12, 10, 8, 7.5], [12, 10, 8, 7.7], [12, 10, 7, 7.9]], augment="basic")


# ---- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_is_summed_up() -> None:
    (row,) = finished(run([9, 6, 7, 6], m=2, step=20.0, seed=5)).to_dict("records")
    assert (row["last"], row["best"], row["best_epoch"]) == (pytest.approx(6), pytest.approx(6), 2)
    assert (row["goal_epoch"], row["goal_seconds"]) == (
        2,
        2 * 2.5,
    )  # 6.00 % is 94 % accuracy; 100 steps of 20 ms, tests
    assert row["seconds"] == 10.0 and row["epochs"] == 4 and row["first_drop"] == 3 and row["seed"] == 5
    assert row["images_per_second"] == 12_800 / 2 and row["step_ms"] == 20.0 and row["train_error"] == 10.0
    (row,) = finished(run([9, 6.01], drop=9)).to_dict("records")
    assert pd.isna(row["goal_epoch"]) and pd.isna(row["goal_seconds"]) and pd.isna(row["first_drop"])


def test_the_figures_show_one_device_precision_and_code_and_the_longest_runs() -> None:
    kept = runs(ONE, run([9, 8, 7, 6], 8), BASIC)
    others = runs(
        run([1] * 4, 16, precision="fp32"),
        run([1] * 4, 16, device=H200),
        run([1] * 4, 16, code="older"),
        run([1] * 4, 16, schedule="scaled"),
        run([1] * 4, 16, augment="basic"),
        run([1] * 3, 8),
    )
    shown = augmentation_runs.main(finished(runs(others, kept)))
    assert set(shown.run_id) == set(kept.run_id)


def test_errors_of_other_devices_codes_or_settings_are_never_pooled() -> None:
    others: list[dict[str, Any]] = [{"device": H200}, {"code": "older"}, {"precision": "fp32"}]
    for other in others:
        mixed = finished(runs(run([9, 8]), run([9, 7], seed=1, **other)))
        with pytest.raises(Incomparable, match=next(iter(other))):
            augmentation_runs.pooled_text(mixed)
        first, second = (mixed[mixed.seed == seed] for seed in (0, 1))
        with pytest.raises(Incomparable, match=next(iter(other))):
            augmentation_runs.difference(first, second, ["M"])
    elsewhere = finished(runs(run([9, 8]), run([9, 7], seed=1, allocation="two")))
    assert augmentation_runs.pooled_text(elsewhere) == "7.50 (7.00–8.00)"


def test_other_data_and_networks_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch, dataset="synthetic")
    write(tmp_path, monkeypatch, depth=14)
    write(tmp_path, monkeypatch, batch_size=32, seed=1)
    assert augmentation.load(tmp_path).empty
    origin = write(tmp_path, monkeypatch)
    found = augmentation.load(tmp_path)
    assert set(found.run_id) == {origin.run_id} and set(found.code) == {"today's"}


def test_stale_sources_make_another_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = write(tmp_path, monkeypatch)
    old = origin.model_copy(update={"sources": origin.sources | {"experiments/augment.py": "ab" * 32}})
    assert augmentation_runs.code(origin) == "today's"
    assert augmentation_runs.code(old) == "experiments/augment.py:abababababab"


def test_the_stored_seeds_of_an_m_are_of_one_code() -> None:
    shown = augmentation_runs.main(finished(augmentation.load()))
    assert set(augmentation_runs.ALL_M) <= set(shown.M)
    assert (shown[shown.M <= 8].groupby(["augment", "M"]).seed.nunique() >= 3).all()


def test_what_was_run_and_what_is_missing() -> None:
    short = runs(run([9, 8]), run([9] * 3, 4, allocation="two"), run([9, 8], schedule="scaled"))
    table = lines(augmentation.tbl_p4_runs(short))  # type: ignore[arg-type]
    assert table[1] == ["cutout", "1", "authors", "bf16", "2", "0", "shortened, single run"]
    text = plain(augmentation.text_p4_runs(short))
    assert "show the 2 runs with the authors' schedule in bf16 on one H100" in text and "in 2 allocations" in text
    assert "**Shortened runs** are among them: M = 1 (2 epochs) and M = 4 (3 epochs)" in text
    wanting = augmentation.text_p4_wanting(runs(ONE, TWO))
    assert isinstance(wanting, Missing)
    assert wanting.what.endswith("asks for, the baseline and cutout with M = 4, 8, 16 and 32")
    assert wanting.command.splitlines()[-1].endswith("p4_cutout.py --M 32")
    assert augmentation.text_p4_wanting(runs(BASIC, *(run([9], m) for m in augmentation_runs.ALL_M))) == ""


# ---- 4.1 -----------------------------------------------------------------------------------------------------------


def images() -> pd.DataFrame:
    """Two images: a white one with a black cutout, and a grey one."""
    rows = []
    for index, colours in ((3, ("white", "black")), (7, ("grey", "grey"))):
        for draw, colour in enumerate(colours):
            buffer = io.BytesIO()
            Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
            share = 0.25 if draw else 0.0
            rows.append({"index": index, "label": f"class {index}", "draw": draw, "masked_share": share})
            rows[-1] |= {"png": buffer.getvalue(), "run_id": "pictures", "device": "AMD EPYC"}
    return pd.DataFrame(rows)


def area(mean: float) -> pd.DataFrame:
    row = {"length": 16, "side": 32, "draws": 1000, "mean_share": mean, "standard_error": 0.001}
    return pd.DataFrame([row | {"run_id": "area", "device": "AMD EPYC"}])


def test_cutouts_answer_and_area() -> None:
    # an axis keeps 16 − 64/32 = 14 of its 32 pixels masked on average: (14/32)² = 19.14 %
    found = augmentation_cutout.answer_p4_cutout(images(), area(0.2))
    assert isinstance(found, Answer) and found.runs == 2 and found.device == "one AMD EPYC"
    assert "masks 19.14 % of an image on average, as derived; 1,000 draws" in plain(found)
    assert "code masked 20.00 %" in plain(found)
    text = plain(augmentation_cutout.text_p4_area(area(0.2)))
    distance = (0.2 - 0.19140625) / 0.001
    assert (
        r"\frac{49}{256}" in text and "not the 25.00 %" in text and f"0.100 %: {distance:.1f} standard errors" in text
    )
    assert plain(augmentation_cutout.answer_p4_cutout(images(), area(0.2).iloc[:0])).endswith("as derived.")


def test_two_images_and_their_cutouts() -> None:
    png = augmentation_cutout.fig_p4_cutout(images())
    assert isinstance(png, bytes)
    sheet = Image.open(io.BytesIO(png))
    assert sheet.size == (2 * 128 + 8, 2 * 128 + 8)  # 32 pixels four times as large, 8 between
    assert sheet.getpixel((5, 5)) == (255, 255, 255) and sheet.getpixel((140, 5)) == (0, 0, 0)
    assert sheet.getpixel((5, 140)) == (128, 128, 128)
    text = augmentation_cutout.text_p4_shares(images())
    assert text == "Masked, from left to right: class 3, 25.0 %; class 7, 25.0 %."


# ---- 4.2 -----------------------------------------------------------------------------------------------------------


def test_the_baselines_answer() -> None:
    found = augmentation.answer_p4_baseline(runs(BASIC, ONE))
    assert isinstance(found, Answer) and (found.runs, found.device) == (3, "one H100")
    text = plain(found)
    assert "**7.70 %** after 4 epochs (median of 3 seeds, 7.50–7.90) and 7.50 % at its best epoch" in text
    assert "from 10.00 to 8.00 % at epoch 3, the first with a lower learning rate" in text
    assert "None of the 3 runs reaches 94 % accuracy." in text
    better = runs(BASIC, run([5] * 4, augment="basic", seed=3, drop=9))
    assert "1 of the 4 runs reaches 94 % accuracy" in plain(augmentation.answer_p4_baseline(better))
    assert "at epoch" not in plain(augmentation.answer_p4_baseline(run([9, 8], augment="basic", drop=9)))


def test_curves_are_medians_with_ranges() -> None:
    (third,) = [row for row in data(augmentation.fig_p4_baseline(BASIC)) if row.get("epoch") == 3]
    assert (third["error"], third["low"], third["high"]) == tuple(pytest.approx(v) for v in (8, 7, 8))
    assert third["seeds"] == 3
    frame = augmentation.curves(runs(ONE, TWO), augmentation_runs.series(finished(runs(ONE, TWO))))
    (row,) = frame[(frame["M"] == 2) & (frame.epoch == 3)].to_dict("records")
    assert row["evaluations"] == 6 and row["minutes"] == pytest.approx(3 * (1.5 + 0.5) / 60)
    mixed = runs(run([9, 8]), run([9, 7], seed=1, code="older"))
    with pytest.raises(Incomparable, match="code"):
        augmentation.curves(mixed, finished(mixed))


# ---- 4.3 -----------------------------------------------------------------------------------------------------------


def test_the_chart_of_all_m_has_a_second_panel_for_the_end() -> None:
    many = runs(run([9.0] * 20, 1), run([8.0] * 20, 2))
    chart: Any = augmentation.fig_p4_m(many)
    assert len(chart.vconcat) == 2
    _goal, late, whole = sorted(chart.to_dict()["datasets"].values(), key=len)
    assert {row["M"] for row in whole} == {1, 2}
    assert {row["epoch"] for row in late} == {18, 19, 20} and len(whole) == 2 * 20  # the last 15 % of 20


def test_the_table_of_errors() -> None:
    table = lines(augmentation.tbl_p4_errors(runs(BASIC, ONE, run([9, 8, 7, 6], 8))))  # type: ignore[arg-type]
    assert table[1:] == [
        ["basic, M = 1", "3", "4", "7.70 (7.50–7.90)", "7.50 (7.00–7.70)", "3 and 4"],
        ["cutout, M = 1", "3", "4", "7.00 (6.90–7.10)", "7.00 (6.90–7.10)", "4"],
        ["cutout, M = 8", "1", "4", "6.00", "6.00", "4"],
    ]


def test_errors_are_judged_only_with_three_seeds_of_both() -> None:
    text = plain(augmentation.text_p4_errors(runs(ONE, TWO, FOUR, run([9, 8, 5, 4], 8))))
    # medians 7.0, 5.8 and 5.8; the intervals of three seeds are their ranges
    assert "from M = 1 to 2 it falls by 1.20 points (1.00 to 1.40)" in text
    assert "from M = 2 to 4 it differs within noise, by 0.00 points (−0.20 to 0.20)" in text
    assert text.endswith("Single runs, which allow no verdict, ended at 4.00 % for M = 8.")
    assert isinstance(augmentation.text_p4_errors(runs(ONE, run([9, 8, 5, 4], 8))), Missing)


def test_the_answer_says_that_the_schedule_sets_the_epoch() -> None:
    late = run([9, 8, 7, 6], 8)
    text = plain(augmentation_time.answer_p4_augmentation(runs(ONE, TWO, FOUR, late)))
    assert text.startswith(
        "With cutout, M = 2 and 4 reach 94 % accuracy at epoch 3, the first after the learning rate falls: "
        "the schedule sets that epoch, not M. M = 8 reaches it at epoch 4. M = 1 does not reach it "
        "within 4 epochs (93.00 % in bf16)."
    )
    sooner = runs(ONE, TWO, seeds([[9, 6, 5, 5], [9, 8, 5, 5]], 4))
    text = plain(augmentation_time.answer_p4_augmentation(sooner))
    assert "M = 2 reaches 94 % accuracy at epoch 3" in text and "M = 4 reaches it at epochs 2 and 3" in text
    some = plain(augmentation_time.answer_p4_augmentation(runs(TWO, seeds([[9, 8, 7, 7], [9, 8, 7, 6]], 4))))
    assert "M = 4 reaches it at epoch 4 (1 of 2)" in some


def test_a_run_of_another_precision_that_does_reach_it_is_named() -> None:
    full = seeds([[9, 8, 7, 6.9], [9, 8, 7, 5.9]], precision="fp32", engine="plain")
    found = augmentation_time.answer_p4_augmentation(runs(ONE, TWO, full))
    assert "(93.00 % in bf16; in fp32, 1 of 2 runs reaches it, at epoch 4)" in plain(found)
    assert isinstance(found, Answer) and found.runs == 3 + 3 + 2


def test_the_clock_is_read_within_an_allocation() -> None:
    there = runs(run([9, 8, 5], 2, allocation="two", step=20.0), run([9, 8, 5], 8, allocation="two", step=60.0))
    here = runs(run([9, 8, 5], 2), run([9, 8, 5], 4, step=25.0), run([9, 8, 7], 1))
    subset = run([9, 8, 5], 4, allocation="three", step=1.0)
    moved = run([9, 8, 5], 16, allocation="", step=1.0)
    text = augmentation_time.clock_text(runs(there, here, subset, moved))
    # three epochs of 1 s, of 2.5 s, of 2 s and of 6 s, each with half a second of validation
    assert text == (
        f"The wall clock to 94 % is {4.5 / 60:.2f} and {9 / 60:.2f} min for M = 2 and 4 in one allocation and "
        f"{7.5 / 60:.2f} and {19.5 / 60:.2f} min for M = 2 and 8 in another."
    )


def test_the_table_of_times_has_a_row_for_each_allocation_and_none_for_a_moved_run() -> None:
    frame = runs(
        run([9, 8, 5], 2, step=595.0, setup_seconds=60.0),
        run([9, 8, 5], 2, seed=1, step=1195.0, setup_seconds=60.0),
        run([9, 8, 7], 1, step=595.0),
        run([9, 8, 5], 2, seed=2, allocation="two", step=595.0),
        run([9, 8, 5], 2, seed=3, allocation=""),
    )
    table = lines(augmentation_time.tbl_p4_time(frame))  # type: ignore[arg-type]
    assert table[1:] == [
        ["several", "cutout, M = 2", "1", "3", "–", "–"],
        ["one", "cutout, M = 1", "1", "no: 93.00 %", "3.00", "3.50"],  # 3 × 60 s, half a minute of set-up
        ["", "cutout, M = 2", "2", "3", "4.50 (3.00–6.00)", "5.50"],
        ["two", "cutout, M = 2", "1", "3", "3.00", "3.50"],
    ]


def test_the_scaled_schedules_clock_stands_beside_the_same_allocations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation_time, "FULL", 3)
    authors = runs(run([9, 8, 5], 8, step=595.0), run([9, 8, 5], 8, seed=1, allocation="two", step=1.0))
    scaled = run([9, 5, 5], 8, schedule="scaled", drop=2, step=595.0)
    moved = run([9, 5, 5], 4, schedule="scaled", drop=2, allocation="")
    assert augmentation_time.scaled_text(runs(authors, scaled, moved)) == (
        "With the schedule scaled to 3 epochs, M = 4 and 8 reach 94 % at epoch 2, again the first after a drop; "
        "M = 8 after 2.00 min instead of 3.00."
    )
    elsewhere = runs(authors, run([9, 8, 5], 8, schedule="scaled", drop=2, step=595.0, allocation="three"))
    assert augmentation_time.scaled_text(elsewhere).endswith("M = 8 reaches 94 % at epoch 3; M = 8 after 3.00 min.")
    assert augmentation_time.scaled_text(authors) == ""


def test_what_the_drop_does() -> None:
    text = augmentation_time.text_p4_drop(runs(ONE, TWO))
    # medians of the third epoch: 7.1 and 5.5
    assert text == (
        "In epoch 3, when the learning rate falls, the error falls by 0.90 to 2.50 points, whatever M is: "
        "from 8.00 to 7.10 % with M = 1 and from 8.00 to 5.50 % with M = 2."
    )
    assert augmentation_time.text_p4_drop(run([9, 8], drop=9)) == ""


def test_which_m_to_take() -> None:
    text = plain(augmentation_time.text_p4_choice(runs(ONE, TWO, FOUR, run([9, 8, 5, 4], 8, step=40.0))))
    assert text.startswith(
        "**Which M to take with one GPU:** M = 2, whose error is 1.20 points (1.00 to 1.40) below that of M = 1, "
        "for 1.50 times the time of an epoch; no gain beyond noise from M = 4; M = 8 ran too "
        "few times for a verdict."
    )
    assert text.endswith("It also reaches 94 % accuracy soonest.")
    better = seeds([[9, 8, 5, 4], [9, 8, 5, 4.1], [9, 8, 5, 4.2]], 4, step=25.0)
    text = plain(augmentation_time.text_p4_choice(runs(ONE, TWO, better)))
    assert "M = 4, whose error is 2.90 points" in text
    # three epochs of 1.5 s or of 2.5 s, and half a second each
    assert text.endswith(f"M = 2 is quicker: {6 / 60:.2f} min against {9 / 60:.2f} in the same allocation.")
    assert isinstance(augmentation_time.text_p4_choice(runs(ONE, run([9, 8, 5, 4], 8))), Missing)


def test_the_clocks_chart_has_a_panel_for_each_allocation_with_several_m() -> None:
    frame = runs(run([9, 8], 1), run([9, 7], 2), run([9, 6], 4, allocation="two"))
    chart: Any = augmentation_time.fig_p4_clock(frame)
    assert len(chart.vconcat) == 1
    assert {row["M"] for row in data(chart) if "M" in row} == {1, 2}
    assert isinstance(augmentation_time.fig_p4_clock(run([9, 8], 1)), Missing)


# ---- beyond --------------------------------------------------------------------------------------------------------


def test_a_further_instances_price_is_taken_within_an_allocation() -> None:
    frame = runs(
        run([9], 1, step=10.0), run([9], 2, step=15.0), run([9], 8, step=33.0), run([9], 4, allocation="two", step=90.0)
    )
    table = lines(augmentation_speed.tbl_p4_cost(frame))  # type: ignore[arg-type]
    assert table[1:] == [
        ["one", "1", "1", "6,400", "10.00", "–", "1.00"],  # 64 images in 10 ms
        ["", "2", "1", "8,533", "15.00", "5.00", "0.75"],  # 15 / (2 · 10)
        ["", "8", "1", "15,515", "33.00", "3.00", "0.41"],  # (33 − 15) / 6; 33 / 80
        ["two", "4", "1", "2,844", "90.00", "–", "–"],
    ]
    text = plain(augmentation_speed.text_p4_marginal(frame))
    assert text.startswith("From M = 2 on a further instance adds 3.00 ms to a step, 30 % of the 10.00 ms")
    assert isinstance(augmentation_speed.text_p4_marginal(runs(run([9], 1), run([9], 2, step=15.0))), Missing)
    assert {row["allocation"] for row in data(augmentation_speed.fig_p4_speed(frame))} == {"one", "two"}


def peer(rates: dict[str, list[float]], **other: Any) -> pd.DataFrame:
    constant = {"run_id": "a", "device": H100, "M": 4, "workers": 8, "allocation": "one"}
    constant |= {"bytes_per_image": 1000, "copy_bandwidth": 1e6} | other
    rows = [{"contender": name, "images_per_second": rate} for name, own in rates.items() for rate in own]
    return pd.DataFrame([constant | row for row in rows])


def test_peers_are_compared_within_their_run() -> None:
    whole = peer({"ours": [90.0, 100.0, 120.0], "eager": [50.0], "conventional": [10.0, 12.5, 15.0]})
    more = peer({"ours": [600.0], "eager": [50.0], "conventional": [50.0]}, M=8, run_id="b")
    half = peer({"ours": [1.0], "eager": [1.0]}, run_id="c")
    table = lines(augmentation_speed.tbl_p4_peers(runs(whole, more, half)))  # type: ignore[arg-type]
    # 100/50 from 90/50 to 120/50; 100/12.5 from 90/15 to 120/10; 100 images of 1,000 bytes against 1,000,000
    assert table[1] == ["H100, 8", "4", "100", "–", "2.0 (1.8–2.4)", "8.0 (6.0–12.0)", "10 %"]
    assert len(table) == 3
    text = augmentation_speed.text_p4_peers(runs(whole, more, half))
    assert "trains 8.0 (M = 4) to 12.0 (M = 8) times as many images per second" in text
    assert isinstance(augmentation_speed.tbl_p4_peers(half), Missing)


def test_the_compiled_peer_stands_where_runs_have_it() -> None:
    earlier = {"ours": [90.0, 100.0, 120.0], "eager": [50.0], "conventional": [10.0]}
    old, cpu = peer(earlier), peer(earlier | {"compiled": [200.0]}, run_id="d", device="EPYC")
    missing = augmentation_speed.text_p4_compiled(runs(old, cpu))
    assert isinstance(missing, Missing) and missing.command.startswith("python experiments/p4_throughput.py --M 1")
    few = peer(earlier | {"compiled": [40.0, 50.0, 60.0]}, run_id="b")
    many = peer(earlier | {"compiled": [25.0]}, M=8, run_id="c")
    table = lines(augmentation_speed.tbl_p4_peers(runs(old, few, many)))  # type: ignore[arg-type]
    assert [row[3] for row in table[1:]] == ["–", "2.0 (1.5–3.0)", "4.0 (3.6–4.8)"]  # 90/60, 120/40; 90/25, 120/25
    text = augmentation_speed.text_p4_compiled(runs(old, few, many))
    assert "trains 2.0 (M = 4) to 4.0 (M = 8) times as many images per second as the compiled peer" in str(text)


def test_kernels_beside_the_time_of_their_bytes() -> None:
    def kernel(name: str, launches: int, seconds: float, moved: int, m: int) -> dict[str, Any]:
        shared = {"M": m, "copy_bandwidth": 1e12, "step_seconds": 5e-3 if m == 32 else 1e-3}
        return shared | {"kernel": name, "launches": launches, "seconds": seconds, "bytes": moved}

    rows = pd.DataFrame(
        [
            kernel("join", 21, 1e-3, 500_000_000, 32),
            kernel("head", 1, 3e-3, 1_500_000_000, 32),
            kernel("join", 21, 1e-4, 50_000_000, 1),
        ]
    )
    table = lines(augmentation_speed.tbl_p4_kernels(rows))  # type: ignore[arg-type]
    assert table[1:] == [
        ["head", "1", "3.000", "75 %", "1,500", "50 %"],  # 1.5 GB in 3 ms, of 1,000 GB/s
        ["join", "21", "1.000", "25 %", "500", "50 %"],
    ]
    text = plain(augmentation_speed.text_p4_kernels(rows))
    assert "M = 1: 1.00 ms, 20.0 times the 0.05 ms of a copy of as many bytes, in 21 launches." in text
    assert "M = 32: 5.00 ms, 2.5 times the 2.00 ms of a copy of as many bytes, in 22 launches." in text
    assert isinstance(augmentation_speed.tbl_p4_kernels(rows[:0]), Missing)
    assert augmentation_speed.text_p4_kernels(rows[:0]) == ""


def split(rates: list[float], learners: int, norm: str = "local", **other: Any) -> pd.DataFrame:
    constant = {"allocation": "one", "device": H100, "M": 32, "precision": "bf16", "learners": learners}
    constant |= {"batch_norm": norm} | other
    constant["run_id"] = f"{constant['allocation']}-{learners}-{norm}"
    return pd.DataFrame([constant | {"images_per_second": rate} for rate in rates])


def test_two_gpus_are_compared_with_one_of_the_same_allocation() -> None:
    frame = runs(
        split([90.0, 100.0, 101.0], 1),
        split([180.0], 2),
        split([150.0], 2, "synchronised"),
        split([200.0], 2, allocation="two"),
        split([140.0], 2, "synchronised", allocation="two"),
        split([1.0], 1, allocation=""),
    )
    table = lines(augmentation_speed.tbl_p4_split(frame))  # type: ignore[arg-type]
    assert table[1:] == [
        ["one", "1 × H100", "batch", "1", "100", "–", "–"],
        ["", "2 × H100", "halves", "1", "180", "1.80", "1.00"],
        ["", "2 × H100", "batch", "1", "150", "1.50", "0.83"],
        ["two", "2 × H100", "halves", "1", "200", "–", "1.00"],
        ["", "2 × H100", "batch", "1", "140", "–", "0.70"],
    ]
    text = augmentation_speed.text_p4_split(frame)
    assert "reach 1.80 with BatchNorm over each half and 1.50 over the whole batch" in text
    assert "costs 17–30 % of the throughput, in 2 allocations that ran both" in text  # 1 − 150/180, 1 − 140/200
    assert augmentation_speed.text_p4_split(frame[frame.allocation == "two"]) == ""


def test_equal_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation_more, "FULL", 4)
    frame = runs(run([9, 8, 7, 6], 1), run([9, 9], 2), run([9, 8, 7, 6], 2), run([9], 4, schedule="scaled"))
    table = lines(augmentation_more.tbl_p4_budget(frame))  # type: ignore[arg-type]
    assert table[1:] == [
        ["4", "authors", "bf16", "1", "4", "1", "6.00"],
        ["4", "authors", "bf16", "2", "2", "1", "9.00"],
    ]
    assert augmentation_more.text_p4_budget(frame) == (
        "With a budget of 4, M = 2 ended 3.00 points (one run each, too few runs for a verdict) above M = 1."
    )
    first = next(
        row for row in data(augmentation_more.fig_p4_evaluations(frame)) if row["M"] == 2 and row["epoch"] == 3
    )
    assert first["evaluations"] == 6


def test_schedules_are_compared_in_errors_and_within_an_allocation_in_time() -> None:
    scaled = run([9, 5, 5, 5], 2, schedule="scaled", drop=2, step=595.0)
    other = run([9, 8, 5, 5.8], 2, seed=4, allocation="two", step=1.0)
    table = lines(augmentation_more.tbl_p4_schedule(runs(TWO.assign(wall_seconds=120.0), other, scaled, ONE)))  # type: ignore[arg-type]
    assert table[1:] == [
        ["2", "authors", "3", "4", "5.80 (5.70–5.90)", "3", "2.00"],
        ["2", "scaled", "2", "1", "5.00", "2", "2.00"],
    ]
    text = augmentation_more.text_p4_schedule(runs(TWO, scaled))
    assert text == (
        "The scaled schedule changes the error after the last epoch by −0.80 points for M = 2. Too few runs for a "
        "verdict."
    )


def test_precisions_are_compared_in_errors_and_within_an_allocation_in_speed() -> None:
    full = seeds([[9, 8, 7, 7.0], [9, 8, 7, 7.1], [9, 8, 7, 5.9]], precision="fp32", allocation="two", step=40.0)
    here = run([9, 8, 7, 7.05], precision="fp32", seed=9, step=20.0)
    table = lines(augmentation_more.tbl_p4_precision(runs(ONE, full, here)))  # type: ignore[arg-type]
    assert table[1][:2] + table[1][4:] == ["cutout, M = 1", "bf16", "no: 93.00 %", "6,400"]
    assert table[2][:3] + table[2][4:] == ["cutout, M = 1", "fp32", "4", "4 (1 of 4)", "3,200"]
    text = augmentation_more.text_p4_precision(runs(ONE, full))
    # medians of 7.0; of three draws with replacement the median may be any: 6.9 − 7.1 to 7.1 − 5.9
    assert text == "bf16's error is 0.00 points (−0.20 to 1.20) below fp32's with M = 1, which is within noise."
    worse = seeds([[9] * 4, [9] * 4, [9.1] * 4], precision="fp32")
    assert "below fp32's with M = 1, beyond noise" in augmentation_more.text_p4_precision(runs(ONE, worse))
    assert "no verdict" in augmentation_more.text_p4_precision(runs(ONE, here))


def test_published_errors_stand_first() -> None:
    table = lines(augmentation_more.tbl_p4_published(runs(BASIC, run([9, 8, 7, 6], 8))))
    assert [row[1] for row in table[1:4]] == ["7.17", "4.72", "3.99"]
    assert table[4:] == [
        ["ResNet-44, basic, M = 1 (here)", "7.70 (7.50–7.90)", "4 epochs, 3 seeds"],
        ["ResNet-44, cutout, M = 8 (here)", "6.00", "4 epochs, single run"],
    ]
    assert "the homework's 94 % asks for 1.17 points less" in augmentation_more.text_p4_published()
    network = augmentation_more.text_p4_network()
    assert "661,338 parameters" in network and "781 updates of 64" in network  # 50,000 // 64


def test_training_and_test_errors() -> None:
    fitting = TWO.assign(train_error=0.05)
    text = plain(augmentation_more.text_p4_generalisation(runs(ONE, fitting)))
    assert "is 10.00 % for M = 1 and 5.00 % for M = 2; on the original test images it is 7.00 % and 5.80 %" in text
    assert "fits the augmented training images better, and the test images too" in text
    worse = TWO.assign(train_error=0.2)
    assert "it regularises" in plain(augmentation_more.text_p4_generalisation(runs(ONE, worse)))
    assert "within noise" in plain(augmentation_more.text_p4_generalisation(runs(ONE, TWO)))
    assert isinstance(augmentation_more.text_p4_generalisation(runs(ONE, run([9, 8, 7, 6], 8))), Missing)


def test_without_runs_commands_are_named() -> None:
    for function in (
        augmentation.tbl_p4_runs,
        augmentation.answer_p4_baseline,
        augmentation.fig_p4_baseline,
        augmentation.fig_p4_m,
        augmentation.tbl_p4_errors,
        augmentation.text_p4_errors,
        augmentation_time.answer_p4_augmentation,
        augmentation_time.tbl_p4_time,
        augmentation_time.fig_p4_clock,
        augmentation_time.text_p4_choice,
        augmentation_speed.tbl_p4_cost,
        augmentation_speed.text_p4_marginal,
        augmentation_speed.fig_p4_speed,
        augmentation_more.fig_p4_evaluations,
        augmentation_more.tbl_p4_budget,
        augmentation_more.tbl_p4_schedule,
        augmentation_more.tbl_p4_precision,
        augmentation_more.text_p4_generalisation,
    ):
        found: Any = function(NO_EPOCHS)
        assert isinstance(found, Missing) and "p4_cutout.py" in found.command, function
    for cut in (augmentation_cutout.answer_p4_cutout, augmentation_cutout.fig_p4_cutout):
        found = cut(images().iloc[:0], *([area(0.2)] if cut is augmentation_cutout.answer_p4_cutout else []))
        assert isinstance(found, Missing) and "p4_images.py" in found.command
    assert show.count(1000) in plain(augmentation_cutout.text_p4_area(area(0.2)))
