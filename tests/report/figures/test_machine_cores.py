"""What stands in for 2.3 and 2.5 on a machine without a GPU, from hand-made runs."""

from __future__ import annotations

from typing import Any

import pytest

from report.answers import Answer, Missing
from report.figures import machine_cores
from report.figures.strategy_costs import answer_p2_cost
from report.figures.strategy_reductions import answer_p2_allreduce
from tests.p2_runs import NONE, core, job, runs

ALONE = runs(core([2.0] * 3), core([2.5] * 3, 2))
MIRRORED: dict[str, Any] = {"strategy": "mirrored", "communication": None, "workers": 1}
REDUCED = runs(*(core([s] * 3, 2, all_reduce=how, **MIRRORED) for how, s in (("default", 2.0), ("hierarchical", 1.6))))


def test_core_hours_stand_in_for_the_cost() -> None:
    found = machine_cores.stand_in("2.3", answer_p2_cost(ALONE), ALONE)
    # Ten epochs are 10 × 937 steps of 1 s on one core, and 10 × 468 of 1.25 s on each of two: 2.6 and 3.25 core-hours.
    assert isinstance(found, Answer) and found.basis == "projected" and found.runs == 2
    assert "2.6 core-hours on one and 3.2 on two with weak scaling, 1.25 times as much" in found.sentence
    assert found.sentence.startswith("Without a GPU, core-hours stand in for the cost.")


def test_tensorflows_default_stands_in_for_nccl() -> None:
    found = machine_cores.stand_in("2.5", answer_p2_allreduce(REDUCED), REDUCED)
    # 256 images in 2 s, and in 1.6 s.
    assert isinstance(found, Answer) and found.basis == "measured"
    assert (
        "On two CPU cores with 64 images each, the default trains 128 images/s and HierarchicalCopyAllReduce 1.25"
        in (found.sentence)
    )
    assert "TensorFlow's default for NcclAllReduce, which needs GPUs" in found.sentence


@pytest.mark.parametrize("part", ["2.3", "2.5"])
def test_one_core_alone_says_which_command_is_missing(part: str) -> None:
    few = runs(core([2.0] * 3))
    found = machine_cores.stand_in(part, Missing("an answer on GPUs", "with a GPU"), few)
    assert isinstance(found, Missing) and found.command == "python experiments/measure.py --problems 2"


def test_nothing_stands_in_for_a_gpu_or_for_no_runs() -> None:
    missing = Missing("an answer on GPUs", "with a GPU")
    for frame in (NONE, runs(job([2.0] * 3), core([2.0] * 3))):
        assert machine_cores.stand_in("2.3", missing, frame) is missing
    assert machine_cores.stand_in("2.4", missing, ALONE) is missing
