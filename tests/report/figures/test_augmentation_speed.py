"""Problem 4: what M costs, peers and two GPUs, on hand-made rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from report.answers import Missing
from report.figures import augmentation_speed
from tests.frames import H100
from tests.p1_runs import lines
from tests.p4_epochs import plain, run, runs


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
    assert "are 8.0 (M = 4) to 12.0 (M = 8) times the conventional loop's" in text
    assert isinstance(augmentation_speed.tbl_p4_peers(half), Missing)


def test_the_compiled_peer_stands_where_runs_have_it() -> None:
    earlier = {"ours": [90.0, 100.0, 120.0], "eager": [50.0], "conventional": [10.0]}
    old, cpu = peer(earlier), peer(earlier | {"compiled": [200.0]}, run_id="d", device="EPYC")
    assert "compiled" not in augmentation_speed.text_p4_peers(runs(old, cpu))
    few = peer(earlier | {"compiled": [40.0, 50.0, 60.0]}, run_id="b")
    many = peer(earlier | {"compiled": [25.0]}, M=8, run_id="c")
    table = lines(augmentation_speed.tbl_p4_peers(runs(old, few, many)))  # type: ignore[arg-type]
    assert [row[3] for row in table[1:]] == ["–", "2.0 (1.5–3.0)", "4.0 (3.6–4.8)"]  # 90/60, 120/40; 90/25, 120/25
    assert augmentation_speed.text_p4_peers(runs(old, few, many)) == (
        "On an H100 the step's images per second are 2.0 (M = 4) to 4.0 (M = 8) times the compiled peer's and 10.0 "
        "(M = 4) to 10.0 (M = 8) times the conventional loop's. The peers were not timed there with M = 1, 2, 16 and "
        "32."
    )
    assert augmentation_speed.text_p4_peers(many).startswith(
        "On an H100 the step's images per second are 4.0 (M = 8) times the compiled peer's and 10.0 (M = 8) times the "
        "conventional loop's. The peers were not timed there with M = 1, 2, 4, 16 and 32."
    )
    every = runs(*(peer(earlier, M=m, run_id=str(m)) for m in (1, 2, 4, 8, 16, 32)))
    assert "not timed" not in augmentation_speed.text_p4_peers(every)


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
