"""Suspicious runs, on hand-made rows: each kind is flagged, an explanation lifts the flag, and no answer counts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.store import evidence, parquet, suspicious
from experiments.store.suspicious import Flag, of_epochs, of_run, trusted
from report import comparisons
from report.figures import provenance as page
from tests.frames import H100, cpu, p1, p2
from tests.stored_run import counts, fixed_commit, origin  # noqa: F401

QUOTA = "its CPU quota was used up in 3 periods, in which it waited"


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> Any:
    def explain(*rows: tuple[str, str]) -> None:
        monkeypatch.setattr(suspicious, "explanations", lambda: rows)

    return explain


def joined(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def whys(*frames: pd.DataFrame) -> list[str]:
    return [flag.why for flag in of_epochs(joined(*frames))]


# ---- efficiency ----------------------------------------------------------------------------------------------------


def test_an_efficiency_above_110_percent_of_its_own_baseline() -> None:
    # One learner: 128 images a second. Two in 0.9 s: 256 / 0.9 of 256, so 111.1 %; in 0.92 s 108.7 %.
    assert whys(cpu([1.0]), cpu([0.9], learners=2)) == ["an efficiency of 111.1%, above 110% of ideal"]
    assert whys(cpu([1.0]), cpu([0.92], learners=2)) == []


def test_the_baseline_is_the_median_of_its_allocation_and_setting() -> None:
    # Baselines take 1.0, 1.0 and 0.8 s: their median is what counts, so 0.9 s are suspicious.
    ones = [cpu([s], repeat=i) for i, s in enumerate((1.0, 0.8, 1.0), 1)]
    assert len(whys(*ones, cpu([0.9], learners=2))) == 1
    assert whys(*ones, cpu([0.9], learners=2, allocation="other")) == []  # which has no baseline
    assert whys(*ones, cpu([0.9], learners=2, compiled=True)) == []
    unknown = [cpu([s], learners=n, allocation="") for n, s in ((1, 1.0), (2, 0.9))]
    assert whys(*unknown) == []


def test_learners_that_do_not_average_have_the_same_baseline() -> None:
    assert len(whys(cpu([1.0]), cpu([0.9], learners=2, allreduce=False))) == 1


def test_problem_2_is_judged_alike() -> None:
    # 128 images of one learner in a second; four times two learners' 256 in 0.9 s.
    one = p2([1.0], learners=1, workers=1, communication=None)
    assert whys(one, p2([0.9])) == ["an efficiency of 111.1%, above 110% of ideal"]


# ---- roofline and quota --------------------------------------------------------------------------------------------


def test_more_arithmetic_than_a_gpu_is_sold_for() -> None:
    # 6 · 3,857,973,248 operations an image of 224 pixels: 494.7e12 a second are 21,371 images.
    fast, slow = (p1([128 / rate], device=H100, model="torchvision resnet50") for rate in (22_000, 21_000))
    (why,) = whys(fast)
    assert why == "22,000 images/s are above the roofline of 21,371"
    assert whys(slow) == []
    assert whys(fast.assign(precision="mixed")) == []  # twice as much
    assert whys(fast.assign(device="another")) == []
    assert len(whys(slow.assign(image_size=448))) == 1  # four times the work


def test_a_core_has_a_roofline_too() -> None:
    # 396.8e9 / (6 · 3.858e9 · (64 / 224)²): 210 images a second of a core.
    assert len(whys(cpu([32 / 220]))) == 1 and whys(cpu([32 / 200])) == []
    assert whys(cpu([32 / 220], threads=2)) == []


def test_more_traffic_than_the_memory_has(fixed_commit: None) -> None:  # noqa: F811
    of = origin(experiment="p4_throughput")
    rows = pd.DataFrame({"images_per_second": [10.0, 11.0], "bytes_per_image": 100, "copy_bandwidth": 1050.0})
    # 11 · 100 bytes of 1050
    why = "a rate above the roofline: its step would move 1.05 times what the memory can"
    assert of_run(rows.assign(run_id=of.run_id), of) == [Flag(of.run_id, why)]
    assert of_run(rows[:1].assign(run_id=of.run_id), of) == []


def test_a_training_is_bound_by_the_memory_of_all_its_gpus(fixed_commit: None) -> None:  # noqa: F811
    of = origin(experiment="p4_split", device=H100, config={"depth": 44})
    # 14 passes of two bytes over the outputs of 15 convolutions of 16·32², 15 of 32·16² and 15 of 64·8² values.
    most = 2 * 3.35e12 / (14 * 2 * 15 * (16 * 32**2 + 32 * 16**2 + 64 * 8**2))  # images/s of two GPUs
    run = pd.DataFrame({"images": [1000], "engine": "plain", "precision": "bf16", "learners": 2, "run_id": of.run_id})
    assert len(of_run(run.assign(seconds=1000 / (1.01 * most)), of)) == 1
    assert of_run(run.assign(seconds=1000 / (0.99 * most)), of) == []


def test_a_quota_that_was_used_up(fixed_commit: None) -> None:  # noqa: F811
    run = cpu([1.0])
    assert whys(run.assign(throttled_periods=3)) == [QUOTA]
    assert whys(run.assign(throttled_periods=0)) == whys(run.assign(throttled_periods=None)) == []
    of = origin(experiment="allreduce")
    assert of_run(pd.DataFrame({"run_id": ["a", "a"], "throttled_periods": 3}), of) == [Flag("a", QUOTA)]


# ---- what becomes of them ------------------------------------------------------------------------------------------


def test_answers_leave_them_out_until_they_are_explained(explained: Any) -> None:
    runs = joined(cpu([1.0]), cpu([0.9], learners=2))
    fast = runs.run_id[runs.learners == 2].iloc[0]
    assert list(comparisons.jobs(runs).learners) == [1]
    explained((f"{fast[:5]}*", "The cache of two cores holds the batch."))
    assert list(comparisons.jobs(runs).learners) == [1, 2]
    (flag,) = of_epochs(runs)
    assert suspicious.told(flag).endswith("above 110% of ideal; The cache of two cores holds the batch.")


def test_only_flagged_runs_are_left_out() -> None:
    frame = pd.DataFrame({"run_id": ["a", "b", "b"]})
    assert list(trusted(frame, [Flag("b", "why")]).run_id) == ["a"]
    assert len(trusted(frame, [Flag("b", "why", "because")])) == 3


def test_verify_the_page_and_the_script_name_them(
    fixed_commit: None,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suspicious, "TIMED", ["p3_crosscheck"])
    path = parquet.write(counts(1), origin(throttled_periods=3), results=tmp_path)
    suspicious.warn([path])
    why = f"{QUOTA}; answers leave it out until explained.csv explains it"
    assert capsys.readouterr().err == f"warning: {path.stem} is suspicious: {why}\n"
    verdict = evidence.verify(tmp_path)
    assert verdict.suspicious == [("p3_crosscheck", Flag(path.stem, QUOTA))]
    assert path.stem in page.text_provenance_suspicious(
        verdict
    ) and "in which it waited" in page.text_provenance_suspicious(verdict)
    assert comparisons.trusted("p3_crosscheck", tmp_path).empty


def test_the_table_of_explanations_is_of_runs_that_are_flagged() -> None:
    """None is left of a run that is no longer there. Today no stored run is suspicious."""
    assert suspicious.explanations() == ()
