"""Problem 1's figures, tables and answers on hand-made runs, and its chapter, in which each has one call."""

from __future__ import annotations

import inspect
from typing import Any

import pandas as pd
import pytest

from experiments.store.files import ROOT
from report.answers import Answer, Missing
from report.figures import horovod, horovod_costs, horovod_runs
from tests.figure_functions import functions
from tests.frames import H100, p1
from tests.p1_runs import BOTH, NO_SUMS, NONE, TWO_HOSTS, cores, data, gpus, lines, runs, text, two_hosts

CHAPTER = (ROOT / "report" / "p1-horovod.qmd").read_text(encoding="utf-8")
# ---- the chapter ---------------------------------------------------------------------------------------------------


def test_answers_name_labels_of_the_chapter() -> None:
    for name, function in functions("horovod", "answer_").items():
        found = function(BOTH if name != "answer_p1_hosts" else TWO_HOSTS)
        assert f"#| label: {found.figure}\n" in CHAPTER


@pytest.mark.parametrize("name", sorted(functions("horovod", "fig_", "tbl_", "answer_")))
def test_without_runs_the_command_that_makes_them_is_named(name: str) -> None:
    function = functions("horovod", "fig_", "tbl_", "answer_")[name]
    found = function(NONE, NO_SUMS) if len(inspect.signature(function).parameters) == 2 else function(NONE)
    assert isinstance(found, Missing) and found.command.startswith("python experiments/p1_horovod.py")


# ---- series --------------------------------------------------------------------------------------------------------


def test_a_series_is_named_by_what_tells_it_from_others() -> None:
    found = runs(
        *gpus({1: 1.0, 2: 1.0}),
        *gpus({1: 1.0, 2: 1.0}, device=H100),
        *gpus({1: 1.0, 2: 1.0}, device=H100, batch_size=256),
        *gpus({1: 1.0, 2: 1.0}, precision="mixed", compiled=True),
        *cores({1: 1.0, 2: 1.0}),
        *cores({2: 1.0}, hosts=2, launcher="none"),
    )
    assert set(found.series.str.replace("\u00a0", " ")) == {
        "PyTorch, H200",
        "PyTorch, H100, B = 64",
        "PyTorch, H100, B = 256",
        "PyTorch, H200, mixed, compiled",
        "TensorFlow, CPU",
    }


def test_of_two_launchers_the_one_with_more_sizes_is_shown() -> None:
    beside: dict[str, Any] = {"launcher": "none", "allocation": "two"}  # as the jobs beside those on two hosts have it
    found = horovod_runs.shown(runs(*cores({1: 1.0, 2: 1.0, 4: 1.0}), *cores({2: 1.0, 4: 1.0}, **beside)))
    assert set(found.series) == {"TensorFlow, CPU"} and set(found.launcher) == {"horovodrun"}
    assert sorted(found.learners.unique()) == [1, 2, 4]


def test_figures_show_one_allocation_a_series_and_no_single_sizes() -> None:
    found = horovod_runs.shown(
        runs(
            *gpus({1: 1.0, 2: 1.0, 4: 1.0}),
            *gpus({1: 9.0, 2: 9.0}, repeats=5, allocation="two", device=H100),
            *gpus({2: 1.0}, precision="mixed"),
            *gpus({1: 1.0, 2: 1.0}, allreduce=False),
            *cores({2: 1.0, 4: 1.0}, hosts=2),
        )
    )
    assert set(zip(found.allocation, found.series, found.learners, strict=True)) == {
        ("one", "PyTorch, H200", 1),
        ("one", "PyTorch, H200", 2),
        ("one", "PyTorch, H200", 4),
    }


def test_runs_of_tests_and_projections_are_left_out() -> None:
    assert len(runs(p1([1.0]), p1([1.0], model="tiny", repeat=2), p1([1.0], kind="projected", repeat=3))) == 1


# ---- 1.1 -----------------------------------------------------------------------------------------------------------


def test_throughput_and_run_time_in_words() -> None:
    answer = horovod.answer_p1_throughput(BOTH)
    said = text(answer)
    # 2 steps of 64 images in 1 s; four learners: 512 images in 1.1 s. Cores: 32 in 2 s, and 16 · 32 in 4 s.
    assert "From one to four H200 GPUs, throughput grows from 128 to 465 images/s" in said
    assert "2 epochs of 2 steps take 2.2 s instead of 2.0 s, +10.0 % (three repetitions, +7.8 to +12.2 %" in text(
        answer
    )
    assert "From one to 16 CPU cores, throughput grows from 16.0 to 128 images/s" in said
    assert "2 epochs of 2 steps take 8.0 s instead of 4.0 s, +100.0 %" in said
    assert "set-up takes 20.0 s instead of 20.0 s" in said
    assert isinstance(answer, Answer) and (answer.part, answer.runs, answer.basis) == ("1.1", 18, "measured")
    assert answer.device == "1 to 4 NVIDIA H200 and 1 to 16 cores of an Intel Xeon"


def test_an_answer_changes_with_its_rows() -> None:
    slower = runs(*gpus({1: 1.0, 4: 2.0}))
    assert "from 128 to 256 images/s" in text(horovod.answer_p1_throughput(slower))
    assert "2.00 times as many images per second as on one, 50.0 % of ideal" in text(horovod.answer_p1_scaling(slower))


def test_run_times_of_different_lengths_are_refused_in_words() -> None:
    found = runs(p1([1.0] * 25), p1([1.1] * 10, learners=4))
    assert "The run times can't be compared: run times need jobs of one length" in text(
        horovod.answer_p1_throughput(found)
    )


def test_throughput_is_drawn_with_the_range_of_repetitions() -> None:
    four = [row for row in data(horovod.fig_p1_throughput(BOTH)) if row["learners"] == 4]
    assert [(row["value"], row["low"], row["high"], row["repetitions"]) for row in four] == [
        (pytest.approx(512 / 1.1), pytest.approx(512 / 1.111), pytest.approx(512 / 1.089), 3)
    ]


def test_a_panel_has_run_times_of_one_length_with_and_without_set_up() -> None:
    found = runs(*gpus({1: 1.0, 2: 1.0}), *[p1([1.0] * 10, learners=n, precision="mixed") for n in (1, 2)])
    chart = horovod.fig_p1_time(found)
    assert not isinstance(chart, Missing)
    spec = chart.to_dict()
    assert len(spec["vconcat"]) == 2
    for panel in spec["vconcat"]:
        rows = spec["datasets"][panel["data"]["name"] if "data" in panel else panel["layer"][0]["data"]["name"]]
        assert len({row["series"] for row in rows}) == 1
    ones = {
        (row["series"], row["measure"]): row["value"]
        for rows in spec["datasets"].values()
        for row in rows
        if row["learners"] == 1
    }
    # Set-up takes 20 s and the end 1 s.
    assert ones["PyTorch, H200", horovod.WITH] == pytest.approx(23.0)
    assert ones["PyTorch, H200", horovod.WITHOUT] == pytest.approx(2.0)
    assert ones["PyTorch, H200, mixed", horovod.WITHOUT] == pytest.approx(10.0)


def test_the_table_of_series_says_what_ran() -> None:
    head, *rows = lines(str(horovod.tbl_p1_settings(BOTH)))
    assert len(head) == 7
    assert rows == [
        ["PyTorch, H200", "NVIDIA H200", "1, 2 and 4", "224 px", "64", "2 × 2", "3"],
        ["TensorFlow, CPU", "Intel Xeon, 1 core", "1, 8 and 16", "64 px", "16", "2 × 2", "3"],
    ]


def test_the_order_of_repetitions_is_told_from_their_times() -> None:
    def started(order: list[int], **other: Any) -> list[pd.DataFrame]:
        hours = (pd.Timestamp("2027-01-01T00:00Z") + pd.Timedelta(hours=hour) for hour in range(len(order)))
        return [
            p1([1.0], learners=n, repeat=repeat, started=when, **other)
            for repeat, (n, when) in enumerate(zip(order, hours, strict=True), 1)
        ]

    found = runs(*started([1, 2, 2, 1]), *started([1, 1, 2, 2], precision="mixed"))
    assert horovod.text_p1_order(found) == (
        "Sizes ran in turn, so that a drift of the host falls on all: PyTorch, H200. "
        "One size ran after the other: PyTorch, H200, mixed."
    )


def test_sizes_that_no_gpu_job_had_are_named() -> None:
    assert horovod.text_p1_not_run(BOTH).startswith("Of the homework's numbers of GPUs, 8 and 16 were not run")
    every = runs(*gpus({n: 1.0 for n in (1, 2, 4, 8, 16)}, repeats=1))
    assert horovod.text_p1_not_run(every) == "All of the homework's numbers of GPUs were run."


# ---- 1.2 -----------------------------------------------------------------------------------------------------------


def test_scaling_in_words() -> None:
    answer = horovod.answer_p1_scaling(BOTH)
    # 4 / 1.1 = 3.636; the cores' 16 · 2 / 4 = 8 of 16.
    assert text(answer).startswith(
        "On four H200 GPUs Horovod trains 3.64 times as many images per second as on one, 90.9 % of ideal "
        "(three repetitions, 89.1–92.7 %); on 16 CPU cores 8.00 times as many, 50.0 % of ideal"
    )
    assert isinstance(answer, Answer) and answer.runs == 12  # those of one learner and of the most, of both series
    assert answer.markdown().endswith(
        "Measured on 1 to 4 NVIDIA H200 and 1 to 16 cores of an Intel Xeon, 12 runs (@fig-p1-scaling)."
    )


def test_h200_beside_h100_is_no_efficiency() -> None:
    h100 = gpus({1: 2.0, 2: 2.2}, device=H100, allocation="two")
    h200 = gpus({4: 1.0}, allocation="one")
    (one, two) = data(horovod.fig_p1_scaling(runs(*h100, *h200)))[-2:]
    assert (one["efficiency"], two["efficiency"]) == (1.0, pytest.approx(1 / 1.1))
    assert isinstance(horovod.fig_p1_scaling(runs(*gpus({2: 1.0, 4: 1.0}))), Missing)


def test_the_table_of_scaling_has_medians_ranges_and_intervals() -> None:
    head, *rows = lines(str(horovod.tbl_p1_scaling(BOTH)))
    assert head == ["Series", "N", "Images/s (range)", "Speed-up", "Efficiency", "95 % interval"]
    assert rows[0] == ["PyTorch, H200", "1", "128 (127–129)", "1.00", "100.0 %", "–"]
    assert rows[2] == ["", "4", "465 (461–470)", "3.64", "90.9 %", "89.1–92.7 %"]


def test_the_table_flags_efficiencies_above_the_ideal_and_names_few_runs() -> None:
    _, *rows = lines(str(horovod.tbl_p1_scaling(runs(*gpus({1: 1.0, 2: 0.95}, repeats=1)))))
    assert rows[1][-2:] == ["105.3 % (above ideal)", "one run"]
    _, *rows = lines(str(horovod.tbl_p1_scaling(runs(*gpus({1: 1.0, 2: 1.25}, repeats=2)))))
    assert rows[1][-2:] == ["80.0 %", "79.2–80.8 % (2 runs)"]


# ---- 1.3 -----------------------------------------------------------------------------------------------------------


def test_the_effective_batch_in_words_and_numbers() -> None:
    answer = horovod.answer_p1_batch(BOTH)
    assert "64 to 256 images on one to four H200 GPUs and 16 to 256 images on one to 16" in text(answer)
    assert "**weak scaling**" in text(answer)
    assert isinstance(answer, Answer)
    assert answer.markdown().endswith(
        "checked in 18 runs on 1 to 4 NVIDIA H200 and 1 to 16 cores of an Intel Xeon (@tbl-p1-batch)."
    )
    assert lines(str(horovod.tbl_p1_batch(BOTH))) == [
        ["Series", "B", "N = 1", "N = 2", "N = 4", "N = 8", "N = 16"],
        ["PyTorch, H200", "64", "64", "128", "256", "–", "–"],
        ["TensorFlow, CPU", "16", "16", "–", "–", "128", "256"],
    ]  # fmt: skip


def test_a_row_that_contradicts_the_answer_stops_the_page() -> None:
    wrong = BOTH.assign(effective_batch=BOTH.effective_batch.where(BOTH.learners != 8, 16))
    with pytest.raises(ValueError, match="the effective batch is not N times a learner's in one-tensorflow"):
        horovod.answer_p1_batch(wrong)


# ---- all jobs ------------------------------------------------------------------------------------------------------


def test_the_list_of_jobs_keeps_apart_what_may_not_be_pooled() -> None:
    found = runs(
        *gpus({2: 1.0}),
        *gpus({2: 2.0}, device=H100, allocation="two"),
        *gpus({2: 1.0}, allreduce=False),
        *two_hosts(4.0, 10.0, 9.5),
    )
    head, *rows = lines(str(horovod_runs.tbl_p1_runs(found)))
    assert len(head) == 7
    assert [row[:4] for row in rows] == [
        ["one", "PyTorch, H200, independent", "2", "3"],
        ["", "PyTorch, H200", "2", "3"],
        ["", "TensorFlow, CPU, two hosts at 10 Gbit/s", "16", "3"],
        ["two", "PyTorch, H100", "2", "3"],
    ]


@pytest.mark.slow  # the render that test_pages.py looks at shows them all, too
def test_the_stored_runs_can_be_shown() -> None:
    stored, stored_sums = horovod_runs.load(), horovod_costs.load_sums()
    for name, function in functions("horovod", "fig_", "tbl_", "answer_", "text_").items():
        both = len(inspect.signature(function).parameters) == 2
        found = function(stored, stored_sums) if both else function(stored)
        assert found is not None, name
        if isinstance(found, str) and name.startswith("tbl_"):
            assert len(lines(found)[0]) <= 7, name
