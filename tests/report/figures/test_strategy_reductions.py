"""Problem 2's comparisons of all-reduces (2.5, 2.6) on hand-made runs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from report.answers import Answer, Missing
from report.figures import strategy_reductions
from report.figures.strategy_reductions import (
    answer_p2_allreduce,
    answer_p2_communication,
    fig_p2_allreduce,
    fig_p2_communication,
    tbl_p2_allreduce,
    tbl_p2_communication,
    tbl_p2_cpu_allreduce,
    tbl_p2_cpu_communication,
    text_p2_allreduce_growth,
    text_p2_allreduce_sizes,
)
from tests.frames import H100, XEON
from tests.p1_runs import data, lines, text
from tests.p2_runs import core, job, repeated, runs

# An epoch is 256 images on two GPUs.
EQUAL = [*repeated(1.0, 2, all_reduce="nccl"), *repeated(1.0, 2, all_reduce="hierarchical")]
SLOW = repeated(2.0, 2, all_reduce="one-device")


def workers(seconds: float, how: str, **other: Any) -> list[pd.DataFrame]:
    """Three runs of two workers of one GPU each."""
    two: dict[str, Any] = {"strategy": "multiworker", "all_reduce": None, "communication": how, "workers": 2}
    return repeated(seconds, other.pop("learners", 2), **(two | other))


def one(seconds: float, how: str, **other: Any) -> pd.DataFrame:
    """The second of them."""
    return workers(seconds, how, **other)[1]


# ---- 2.5 -----------------------------------------------------------------------------------------------------------


def test_all_reduces_in_words_with_verdicts_from_three_repetitions_on() -> None:
    answer = answer_p2_allreduce(runs(*EQUAL, *SLOW))
    said = text(answer)
    assert said.startswith(
        "On 2 H200 GPUs (224 px, float32, XLA) with 64 images each, NcclAllReduce trains 256 images/s, "
    )
    assert "HierarchicalCopyAllReduce 1.00 (0.98–1.02) times as many and ReductionToOneDevice 0.50 (0.49" in said
    assert "ReductionToOneDevice is slower than NcclAllReduce" in said
    assert "HierarchicalCopyAllReduce is within the noise of NcclAllReduce" in said
    assert isinstance(answer, Answer) and (answer.part, answer.runs) == ("2.5", 9)


def test_single_runs_have_no_verdict() -> None:
    said = text(answer_p2_allreduce(runs(job([1.0], 2, all_reduce="nccl"), job([2.0], 2, all_reduce="one-device"))))
    assert "ReductionToOneDevice 0.50 times as many. Single runs, too few for a verdict." in said
    assert not any(word in said for word in ("faster", "slower", "noise"))


def test_all_sizes_of_the_first_contests_setting_are_in_the_answer_each_from_one_allocation() -> None:
    four = [job([2.0], 4, all_reduce=how, allocation="four") for how in ("nccl", "one-device")]
    four.append(job([1.0], 4, all_reduce="hierarchical", allocation="four"))
    elsewhere = [job([1.0], 2, all_reduce=how, allocation="two", image_size=32) for how in ("nccl", "one-device")]
    said = text(answer_p2_allreduce(runs(*EQUAL, *four, *elsewhere)))
    assert said.index("On 2 H200 GPUs") < said.index("On 4 H200 GPUs") and "32 px" not in said
    assert "HierarchicalCopyAllReduce 2.00 times as many" in said


def test_all_reduces_of_two_allocations_are_not_compared() -> None:
    apart = [job([1.0], 2, all_reduce="nccl"), job([1.0], 2, all_reduce="hierarchical", allocation="two", device=H100)]
    assert isinstance(answer_p2_allreduce(runs(*apart)), Missing)
    assert isinstance(tbl_p2_allreduce(runs(*apart)), Missing)


def test_one_gpu_and_cores_are_no_contest() -> None:
    alone = [job([1.0], 1, all_reduce=how) for how in ("nccl", "hierarchical")]
    cores = [
        core([1.0], 2, strategy="mirrored", workers=1, communication=None, all_reduce=how)
        for how in ("nccl", "one-device")
    ]
    assert isinstance(fig_p2_allreduce(runs(*alone, *cores)), Missing)


def test_a_point_is_a_run_and_the_table_has_ratios_to_nccl() -> None:
    found = runs(*EQUAL, *SLOW)
    rates = [row["rate"] for row in data(fig_p2_allreduce(found)) if row["name"] == "ReductionToOneDevice"]
    assert [round(rate, 1) for rate in rates] == [129.3, 128.0, 126.7]  # 256 / 1.98, 2, 2.02
    head, *rows = lines(str(tbl_p2_allreduce(found)))
    assert head == ["Job", "All-reduce", "Images/s", "Of NCCL's", "Interval", "Runs"]
    assert rows[0] == ["H200, 2 × 64, 224 px, XLA", "Nccl", "256 (253–259)", "1", "–", "3"]
    assert rows[2][1:4] == ["ReductionToOneDevice", "128 (127–129)", "0.50"]


def test_each_ones_share_of_nccls_throughput_is_told_by_size() -> None:
    four = [job([s], 4, all_reduce=how, allocation="four") for s, how in ((3.0, "nccl"), (4.0, "one-device"))]
    assert text_p2_allreduce_growth(runs(*EQUAL, *SLOW, *four)) == (
        "Of NcclAllReduce's throughput in the same allocation HierarchicalCopyAllReduce reaches 100 % on 2 GPUs; "
        "ReductionToOneDevice reaches 50 % on 2 GPUs and 75 % on 4 GPUs."
    )
    assert text_p2_allreduce_growth(runs(*EQUAL, *SLOW)) == ""


def test_sizes_that_were_not_compared_are_named() -> None:
    assert text_p2_allreduce_sizes(runs(*EQUAL)) == (
        "The comparison on 4 and 8 GPUs is missing: no machine with that many was available."
    )
    every = [job([1.0], n, all_reduce=how) for n in (2, 4, 8) for how in ("nccl", "hierarchical")]
    assert text_p2_allreduce_sizes(runs(*every)) == "The comparison was made on 2, 4 and 8 GPUs, as asked."


# ---- 2.6 -----------------------------------------------------------------------------------------------------------


def test_auto_against_nccl_and_ring_in_words() -> None:
    answer = answer_p2_communication(runs(*workers(4.0, "auto"), *workers(1.0, "nccl"), *workers(4.0, "ring")))
    said = text(answer)
    assert said.startswith(
        "AUTO does not give the best throughput: NCCL does better. With two workers of one H200 GPU each on one host "
        "(224 px, float32, XLA), AUTO trains 64 images/s, NCCL 4.00 (3.9"
    )
    assert "and RING 1.00 (0.98–1.02) times as many. Brackets hold 95 % intervals over at least three rep" in said
    assert isinstance(answer, Answer) and (answer.part, answer.runs) == ("2.6", 9)


def test_auto_may_be_the_best_or_near_it() -> None:
    best = runs(*workers(1.0, "auto"), *workers(2.0, "nccl"), *workers(4.0, "ring"))
    assert text(answer_p2_communication(best)).startswith("AUTO gives the best throughput.")
    near = runs(*workers(1.0, "auto"), *workers(1.0, "nccl"), *workers(4.0, "ring"))
    assert text(answer_p2_communication(near)).startswith("AUTO's throughput is within the noise of the best.")


def test_without_repetitions_there_is_no_word_for_auto() -> None:
    said = text(answer_p2_communication(runs(one(4.0, "auto", learners=4), one(1.0, "nccl", learners=4))))
    assert said.startswith("With two workers of 2 H200 GPUs each on one host")
    assert said.endswith("NCCL 4.00 times as many. Single runs, too few for a verdict.")


def test_the_contest_with_all_three_is_preferred_and_one_without_auto_is_none() -> None:
    two = [one(1.0, "auto", learners=4), one(1.0, "nccl", learners=4)]
    three = [one(1.0, how, device=H100, allocation="two") for how in ("auto", "nccl", "ring")]
    assert "one H100 GPU each" in text(answer_p2_communication(runs(*two, *three)))
    assert isinstance(answer_p2_communication(runs(one(1.0, "nccl"), one(1.0, "ring"))), Missing)


def test_cores_do_not_answer_for_gpus() -> None:
    cores = runs(*[core([1.0], 2, communication=how) for how in ("auto", "nccl", "ring")])
    assert isinstance(answer_p2_communication(cores), Missing) and isinstance(fig_p2_communication(cores), Missing)
    head, *rows = lines(str(tbl_p2_cpu_communication(cores)))
    assert head[3] == "Of AUTO's"
    assert [row[1] for row in rows] == ["AUTO", "NCCL", "RING"] and rows[0][0] == "CPU, 2 × 64, 32 px"


def test_the_table_of_communication_and_that_of_cores_in_one_process() -> None:
    found = runs(*workers(4.0, "auto"), *workers(1.0, "nccl"))
    _, *rows = lines(str(tbl_p2_communication(found)))
    assert [row[1:4] for row in rows] == [["AUTO", "64 (63.4–64.6)", "1"], ["NCCL", "256 (253–259)", "4.00"]]
    within: dict[str, Any] = {"strategy": "mirrored", "workers": 1, "communication": None, "device": XEON}
    cores = runs(*[core([s], 8, all_reduce=how, **within) for how, s in (("default", 2.0), ("hierarchical", 1.0))])
    head, *rows = lines(str(tbl_p2_cpu_allreduce(cores)))
    assert head[3] == "Of the default's" and [row[3] for row in rows] == ["1", "2.00"]


def test_the_title_names_workers_and_hosts() -> None:
    found = runs(core([1.0], 2, hosts=2, gbit=10.0)).iloc[0]
    assert strategy_reductions.title(found) == "CPU, weak, 2 × 64, 32 px; 2 workers, 2 hosts, 10 Gbit/s"


def test_a_job_breaks_in_a_table_only_between_what_runs_and_on_what() -> None:
    gpus, hosts = runs(job([1.0], 4)).iloc[0], runs(core([1.0], 2, hosts=2, gbit=10.0)).iloc[0]
    assert strategy_reductions.named(gpus).split(" ") == ["H200,\u00a04\u00a0×\u00a064,", "224\u00a0px,\u00a0XLA"]
    assert strategy_reductions.named(hosts).replace("\u00a0", "~").split(" ") == [
        "CPU,~2~×~64,",
        "32~px,",
        "2~hosts,~10~Gbit/s",
    ]
