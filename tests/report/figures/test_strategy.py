"""Problem 2's throughput and time (2.1, 2.2) on hand-made runs, and its chapter, in which each has one call."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from experiments.store.files import ROOT
from report.answers import Answer, Missing
from report.figures import (
    strategy,
    strategy_charts,
    strategy_runs,
)
from report.figures.strategy_k80 import k80
from report.figures.strategy_runs import homework, ordered, shown, ten_epochs
from tests.figure_functions import functions
from tests.frames import H100
from tests.p1_runs import data, lines, text
from tests.p2_runs import BOTH, CORES, GPUS, K80, NONE, TWO_HOSTS, VERSION_1, core, job, repeated, runs, ten

CHAPTER = (ROOT / "report" / "p2-strategy.qmd").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def hand_made_k80(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy_charts, "k80", lambda: k80(K80))


# ---- the chapter ---------------------------------------------------------------------------------------------------


def test_answers_stand_under_their_headings() -> None:
    headings = re.findall(r"^## .*\{#sec-p2-(\S+)\}$", CHAPTER, re.MULTILINE)
    assert re.findall(r"answer_p2_(\w+)[,)]", CHAPTER) == headings[:6]


def test_answers_name_labels_of_the_chapter_and_parts_of_the_homework() -> None:
    exchanges = [
        job([99.0], 2, strategy="multiworker", all_reduce=None, communication=c, workers=2) for c in ("auto", "nccl")
    ]
    reductions = [job([99.0], 2, all_reduce=how) for how in ("nccl", "hierarchical")]
    found = [
        function(runs(*GPUS, *CORES, *exchanges, *reductions)) for function in functions("strategy", "answer_").values()
    ]
    assert sorted(answer.part for answer in found) == ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6"]
    assert all(f"#| label: {answer.figure}\n" in CHAPTER for answer in found)


@pytest.mark.parametrize("name", sorted({*functions("strategy", "fig_", "tbl_", "answer_")} - {"tbl_p2_input"}))
def test_without_runs_the_command_that_makes_them_is_named(name: str) -> None:
    found = functions("strategy", "fig_", "tbl_", "answer_")[name](NONE)
    assert isinstance(found, Missing) and "python experiments/p2_strategy.py " in found.command


@pytest.mark.parametrize("name", sorted(functions("strategy", "text_")))
def test_without_runs_a_text_is_none_or_short(name: str) -> None:
    found = functions("strategy", "text_")[name](NONE)
    assert isinstance(found, Missing) or len(found) < 400


# ---- which runs are shown ------------------------------------------------------------------------------------------


def test_a_series_is_named_by_what_describes_it() -> None:
    found = runs(
        job([1.0]),
        job([1.0], jit_compile=False, precision="mixed_bfloat16", steps_per_execution=10, device=H100),
        job([1.0], 2, strategy="multiworker", all_reduce=None, communication="auto", workers=2),
        core([1.0], threads=2),
    )
    assert set(found.series) == {
        "H200, 224 px, XLA",
        "H100, 224 px, mixed_bfloat16, 10 steps a call",
        "H200, MultiWorker, 224 px, XLA",
        "CPU, MultiWorker, 32 px, 2 cores a learner",
    }


def test_a_figure_shows_one_allocation_of_a_series_and_no_single_sizes() -> None:
    found = shown(
        runs(
            *GPUS,
            ten(9.0, allocation="two", device=H100),
            ten(9.0, 2, allocation="two", device=H100),
            job([9.0], 2, environment='{"NCCL_ALGO": "Tree"}'),
            job([9.0], 2, each=32),
            job([9.0], 2, all_reduce="nccl"),
            core([9.0], 2),
        )
    )
    kept = set(zip(found.allocation, found.device, found.scaling, found.learners, strict=True))
    assert kept == {("one", "NVIDIA H200", scaling, n) for scaling in ("weak", "strong") for n in (1, 2)}
    assert (found.environment == "{}").all() and (found.base.isin([64, 256])).all()


def test_four_learners_of_64_images_are_weak_and_strong_scaling_in_one() -> None:
    asked = homework(runs(*GPUS, ten(125.0, 4), ten(100.0, 8)))
    four = asked[asked.learners == 4]
    assert set(zip(four.scaling, four.base, strict=True)) == {("weak", 64), ("strong", 256)}
    assert four.run_id.nunique() == 1 and four.shared.all() and not asked.shared[asked.learners != 4].any()
    assert len(homework(asked)) == len(asked) == 7  # once more adds nothing
    # 512 images in 125 s are 4.096 a second, 3.2 times the 1.28 of one learner in both.
    assert text(strategy.answer_p2_throughput(runs(*GPUS, ten(125.0, 4)))).count("by 3.20 with") == 2


def test_weak_and_strong_scaling_come_each_from_one_allocation() -> None:
    two: dict[str, Any] = {"allocation": "two", "started": pd.Timestamp("2027-01-02T00:00Z")}
    found = shown(runs(*GPUS, ten(90.0, **two), ten(95.0, 2, **two), ten(99.0, 8, **two)))
    assert set(zip(found.scaling, found.allocation, strict=True)) == {("weak", "two"), ("strong", "one")}


def test_the_most_telling_series_comes_first() -> None:
    small: dict[str, Any] = {"image_size": 32, "jit_compile": False}
    found = runs(*GPUS, *CORES, ten(1.0, 2, **small), ten(1.0, 4, **small), ten(1.0, 8, **small))
    assert ordered(shown(found)) == ["H200, 224 px, XLA", "H200, 32 px", "CPU, MultiWorker, 32 px"]


def test_runs_of_tests_synthetic_data_and_projections_are_left_out() -> None:
    others: list[dict[str, Any]] = [{"network": "tiny"}, {"dataset": "synthetic"}, {"kind": "projected"}]
    frames = [job([1.0], run_id=f"other-{i}", **other) for i, other in enumerate(others)]
    assert list(runs(*frames, job([1.0], run_id="own")).run_id) == ["own"]


def test_ten_epochs_are_measured_or_projected_from_the_step() -> None:
    found = runs(ten(4.0), job([4.0, 4.0], 2), core([9.0, 2.0, 2.0, 2.0], 2, **VERSION_1)).set_index("learners")
    assert list(found.ten_basis) == ["measured", "projected", "projected"]
    assert found.ten_seconds.loc[1] == 40.0
    # Ten epochs of 60,000 // 128 = 468 steps of 2 s; on the cores of 1 s, after the first epoch, which had no barrier.
    assert list(found.ten_seconds.loc[2]) == [9360.0, 4680.0]


# ---- what was run --------------------------------------------------------------------------------------------------


def test_the_homeworks_ten_jobs_and_what_ran_of_each() -> None:
    head, *rows = lines(str(strategy.tbl_p2_ten(runs(*GPUS, *CORES, job([1.0])))))
    assert len(head) == 6 and len(rows) == 10
    assert rows[0] == ["weak", "1", "64", "64", "H200, 224 px, XLA (1×)", "CPU, 32 px (1×)"]
    assert rows[1] == ["", "2", "64", "128", "H200, 224 px, XLA (1×)", "–"]
    assert rows[9] == ["", "16", "16", "256", "–", "CPU, 32 px (1×)"]


def test_sizes_that_no_gpus_ran_are_named_with_their_command() -> None:
    found = strategy.text_p2_missing(BOTH)
    assert isinstance(found, Missing) and "4, 8 and 16 GPUs" in found.what and "--image-size 224" in found.command
    assert strategy.text_p2_missing(runs(*[job([1.0], n) for n in (1, 2, 4, 8, 16)])) == ""


# ---- 2.1 -----------------------------------------------------------------------------------------------------------


def test_throughput_in_words() -> None:
    answer = strategy.answer_p2_throughput(BOTH)
    # 128 / 100 = 1.28 and 256 / 125 = 2.048 images/s; strong 512 / 400 = 1.28 and 512 / 320 = 1.6.
    assert text(answer).startswith(
        "On H200 GPUs (224 px, float32, XLA), going from 1 to 2 learners multiplies throughput by 1.60 with weak "
        "scaling (1.28 to 2.05 images/s) and by 1.25 with strong scaling (1.28 to 1.6 images/s); the ideal is 2."
    )
    # Cores: 64 and 256 images/s; strong 64 and 128.
    assert "On CPU cores, going from 1 to 16 learners multiplies throughput by 4.00 with weak scaling" in text(answer)
    assert "weak scaling on 2 emulated hosts, 10 Gbit/s (64 to 256 images/s) and by 2.00" in text(answer)
    assert text(answer).endswith("Single runs, too few for a verdict.")
    assert isinstance(answer, Answer) and (answer.part, answer.runs, answer.basis) == ("2.1", 8, "measured")
    assert answer.device == "1 to 2 NVIDIA H200 and 1 to 16 cores of an Intel Xeon"


def test_with_repetitions_throughput_has_intervals() -> None:
    said = text(strategy.answer_p2_throughput(runs(*repeated(1.0), *repeated(1.25, 2))))
    # Medians 128 and 204.8; at most 204.8 / 0.99 over 128 / 1.01.
    assert re.search(r"by 1\.60 \(1\.5\d–1\.6\d\) with weak scaling", said)
    assert said.endswith("Brackets hold 95 % intervals over at least three repetitions.")


def test_intervals_beside_single_runs_are_told_apart() -> None:
    two = [job([s] * 2, 2, repeat=r) for r, s in enumerate((1.0, 1.1), 1)]
    mixed = strategy.answer_p2_throughput(runs(*repeated(1.0), *repeated(1.25, 2), *CORES))
    assert text(mixed).endswith(
        "Brackets hold 95 % intervals over at least three repetitions; the rest are single runs."
    )
    few = strategy.answer_p2_throughput(runs(*repeated(1.0), *two))
    assert text(few).endswith("Fewer than three repetitions give a range and no verdict.")


def test_throughput_is_drawn_by_series_with_the_k80_beside() -> None:
    drawn = data(strategy.fig_p2_throughput(BOTH))
    values = {(row["panel"], row["scaling"], row["learners"]): row["value"] for row in drawn}
    assert values["H200, 224 px, XLA", "weak", 2] == pytest.approx(256 / 125)
    cores = "CPU, MultiWorker, 32 px; 16 on 2 emulated hosts, 10\nGbit/s"
    assert values[cores, "strong", 16] == pytest.approx(128.0)
    assert values[strategy_charts.K80_PANEL, "weak", 16] == 800.0
    assert {row["basis"] for row in drawn if row["panel"] != strategy_charts.K80_PANEL} == {"measured"}


def test_a_panel_says_which_scaling_is_on_several_hosts() -> None:
    found = runs(core([2.0]), core([8.0], 16), core([8.0], 1, "strong"), core([4.0], 16, "strong", **TWO_HOSTS))
    titles = {
        row["panel"].replace("\n", " ") for row in data(strategy.fig_p2_throughput(found)) if row["basis"] == "measured"
    }
    assert titles == {"CPU, MultiWorker, 32 px; strong, 16 on 2 emulated hosts, 10 Gbit/s"}


# ---- 2.2 -----------------------------------------------------------------------------------------------------------


def test_training_time_in_words_with_and_without_set_up() -> None:
    answer = strategy.answer_p2_time(BOTH)
    # Ten epochs of 100 s, and 30 + 10 · 102 + 1 s.
    assert text(answer) == (
        "On 1 and 2 H200 GPUs (224 px, float32, XLA), ten epochs of training with weak scaling take 16.7 min and "
        "20.8 min, +25.0 %; with set-up and tests the jobs take 17.5 min and 21.7 min. Ten epochs of training with "
        "strong scaling take 66.7 min and 53.3 min, −20.0 %; with set-up and tests the jobs take 67.5 min and "
        "54.2 min. Single runs, too few for a verdict."
    )
    assert isinstance(answer, Answer) and (answer.runs, answer.basis) == (4, "measured")


def test_without_ten_whole_epochs_time_is_projected() -> None:
    answer = strategy.answer_p2_time(runs(*CORES))
    # 9,370 steps of 1 s; 10 · 58 steps of 4 s; 2,340 steps of 4 s and 2 s.
    assert text(answer) == (
        "On 1 and 16 CPU cores, ten epochs of training with weak scaling would take 2.60 h and 38.7 min. Ten epochs of "
        "training with strong scaling would take 2.60 h and 78.0 min."
    )
    assert isinstance(answer, Answer) and answer.basis == "projected"


def test_time_is_measured_where_ten_epochs_ran_and_shorter_runs_are_not_mixed_in() -> None:
    chart = data(strategy.fig_p2_time(runs(*GPUS, *CORES, job([700.0] * 2, 2))))
    points = {
        (r["measure"], r["scaling"], r["learners"], r["basis"]): r for r in chart if r["panel"].startswith("H200")
    }
    training = points[strategy.TRAINING, "weak", 2, "measured"]
    assert (training["value"], training["repetitions"]) == (pytest.approx(1250 / 60), 1)
    assert points[strategy.WHOLE, "weak", 2, "measured"]["value"] == pytest.approx(1301 / 60)
    cores = [row for row in chart if row["panel"].startswith("CPU")]
    assert {(row["measure"], row["basis"]) for row in cores} == {(strategy.TRAINING, "projected")}


def test_run_times_come_from_whole_jobs_also_where_shorter_ones_have_more_runs() -> None:
    elsewhere: dict[str, Any] = {"allocation": "two", "started": pd.Timestamp("2028-01-01T00:00Z")}
    short = [run for n in (1, 2) for run in repeated(90.0, n, **elsewhere)]
    found = strategy_runs.timed(runs(*GPUS, *short, *CORES))
    gpus = found[found.device_kind == "gpu"]
    assert set(gpus.ten_basis) == {"measured"} and len(gpus) == len(GPUS)
    assert set(found.ten_basis[found.device_kind == "cpu"]) == {"projected"}
    shorter = strategy_runs.timed(runs(*short))
    assert set(shorter.allocation) == {"two"} and set(shorter.ten_basis) == {"projected"}


def test_the_wall_clock_of_whole_jobs() -> None:
    head, *rows = lines(str(strategy.tbl_p2_time(BOTH)))
    assert head == ["Run on", "Job", "Set-up", "Training", "Tests", "Whole job", "Runs"]
    assert rows[0] == ["H200, 224 px, XLA", "weak, 1 × 64", "30.0 s", "16.7 min", "20.0 s", "17.5 min", "1"]
    assert [row[:2] for row in rows[1:]] == [["", "weak, 2 × 64"], ["", "strong, 1 × 256"], ["", "strong, 2 × 128"]]


def test_the_projection_is_checked_against_measured_jobs() -> None:
    # Ten epochs of 937 steps of 0.1 s are 937 s; one of them took twice as long: 1,030.7 s.
    steady = job([93.7] * 10, whole_epochs=True, steps=937)
    slow = job([93.7] * 9 + [187.4], whole_epochs=True, steps=937, repeat=2)
    assert strategy.text_p2_projection(runs(steady, slow)) == (
        "Checked on the 2 jobs of ten whole epochs, the same projection from a job's own median rate is off by −9.1 to "
        "+0.0 %."
    )


# ---- all jobs ------------------------------------------------------------------------------------------------------


def test_the_list_of_jobs_keeps_apart_what_may_not_be_pooled() -> None:
    found = runs(*repeated(1.0, 2), *repeated(2.0, 2, allocation="two"), core([1.0] * 2, 2, **TWO_HOSTS))
    head, *rows = lines(str(strategy.tbl_p2_runs(found)))
    assert len(head) == 7
    assert rows == [
        ["H200, 224 px, XLA", "weak, 2 × 64", "default", "4", "256 (253–259)", "500", "3"],
        ["", "weak, 2 × 64", "default", "4", "128 (127–129)", "1,000", "3"],
        [
            "CPU, MultiWorker, 32 px",
            "weak, 2 × 64",
            "auto, 2 hosts, 10 Gbit/s",
            "4",
            "256",
            "500",
            "1",
        ],
    ]


def test_every_stored_run_has_a_series() -> None:
    found = strategy_runs.load()
    assert len(found) and not found.series.isna().any() and len(ten_epochs(found))


@pytest.mark.slow  # the render that test_pages.py looks at shows them all, too
def test_the_stored_runs_can_be_shown() -> None:
    found = strategy_runs.load()
    for name, function in functions("strategy", "answer_", "fig_", "tbl_", "text_").items():
        if name != "tbl_p2_input":
            assert function(found) is not None


def test_the_k80s_ten_epochs() -> None:
    found = k80(K80).set_index(["scaling", "learners"])
    # Ten epochs of 937 steps of 64 images at 50 images/s; of 58 steps of 1,024 at 800.
    assert found.ten_seconds["weak", 1] == pytest.approx(9370 * 64 / 50)
    assert found.ten_seconds["weak", 16] == pytest.approx(580 * 1024 / 800)
    assert found.ten_low["strong", 1] == pytest.approx(2340 * 256 / 44)
    assert (
        pd.concat([K80, K80.assign(run_id="older", started=pd.Timestamp("2026-01-01T00:00Z"))])
        .pipe(k80)
        .equals(k80(K80))
    )


def test_single_runs_are_joined_by_what_another_go_repeated() -> None:
    once = [ten(100.0), ten(125.0, 2), ten(130.0, 4)]
    again = [*repeated(1.0, allocation="two"), *repeated(1.25, 2, allocation="two")]
    told = text(strategy.answer_p2_throughput(runs(*once, *again)))
    # 4 × 100 / 130 within the first go; 2 × 1 / 1.25 within the second, whose runs lie 1 % apart on both sides.
    assert "from 1 to 4 learners multiplies throughput by 3.08 with weak scaling" in told
    assert "with at least three repetitions, from 1 to 2 learners: by 1.60 (1.57–1.63) with weak scaling." in told
    # Two repetitions, or one size, are no reason to name another allocation.
    for fewer in (again[:2] + again[3:], again[:3]):
        assert "another allocation" not in text(strategy.answer_p2_throughput(runs(*once, *fewer)))
