"""Where CPU learners lose time, on hand-made steps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from experiments.store import parquet, schemas
from experiments.store.provenance import provenance
from report.figures import horovod_costs, horovod_runs
from tests.frames import cpu, steps, sums
from tests.p1_runs import NO_SUMS, data, lines, runs


def stepped(frame: pd.DataFrame, *of_steps: list[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A run of one epoch, with the seconds of its steps: a list of learners' for each."""
    return frame, steps(frame, [list(of_steps)])


def split(repeats: int, **other: Any) -> pd.DataFrame:
    """One learner's step takes 1 s. Two independent ones: 1.0 and 1.4 s, then 1.4 and 1.0: mean 1.2, slowest 1.4. Two
    that average: 1.9 s."""
    made = []
    for repeat in range(1, repeats + 1):
        settings = other | {"repeat": repeat}
        made += [
            stepped(cpu([2.0], **settings), [1.0], [1.0]),
            stepped(cpu([[2.4, 2.4]], learners=2, allreduce=False, **settings), [1.0, 1.4], [1.4, 1.0]),
            stepped(cpu([3.8], learners=2, **settings), [1.8, 1.8], [2.0, 2.0]),
        ]
    return runs(*(run for run, _ in made), of_steps=pd.concat([rows for _, rows in made]))


def test_lost_time_is_split_in_three_parts_that_add_up() -> None:
    (two,) = horovod_costs.lost(split(3))
    assert (two.one.value, two.step.value) == (pytest.approx(1.0), pytest.approx(1.9))
    assert two.hardware.value == pytest.approx(0.2)
    assert two.waiting.value == pytest.approx(0.2)
    assert two.allreduce.value == pytest.approx(0.5)
    assert two.whole == pytest.approx(0.9)
    assert two.share("allreduce") == pytest.approx(5 / 9)
    assert two.check() == "0.200 + 0.200 + 0.500 = 0.900 s, the step of 1.900 s less 1.000 s"
    assert (two.waiting.kind, two.waiting.repetitions) == ("interval", 3)


def test_parts_that_do_not_add_up_stop_the_page() -> None:
    (two,) = horovod_costs.lost(split(3))
    broken = horovod_costs.Lost(2, "one", two.one, two.step, two.hardware, two.hardware, two.hardware)
    with pytest.raises(ArithmeticError, match="don't add up to 0"):
        broken.check()


def test_lost_time_is_split_within_one_allocation_alone() -> None:
    elsewhere = cpu([1.0], allocation="two")
    pair = cpu([[2.4, 2.4]], learners=2, allreduce=False)
    together = cpu([3.8], learners=2)
    rows = pd.concat([steps(elsewhere, [[[0.5]]]), steps(pair, [[[1.2, 1.2]]]), steps(together, [[[1.9, 1.9]]])])
    found = runs(elsewhere, pair, together, of_steps=rows)
    with pytest.raises(horovod_costs.Incomparable, match="beside those of one learner") as error:
        horovod_costs.lost(found)
    assert error.value.command == horovod_runs.ON_CORES
    assert horovod_costs.text_p1_lost(found, NO_SUMS).startswith("The split can't be given: there are no runs")


def test_the_table_of_lost_time_has_the_stand_in_beside_it() -> None:
    found = split(3)
    size = int(found.gradient_bytes.iloc[0])
    table = str(horovod_costs.tbl_p1_lost(found, sums({size: 0.25})))
    assert lines(table.replace("\u00a0", " ")) == [
        ["N", "Lost to", "Seconds a step", "95 % interval", "Of the loss"],
        ["2", "shared hardware", "0.200", "0.200 to 0.200", "22 %"],
        ["", "waiting for the slowest", "0.200", "0.200 to 0.200", "22 %"],
        ["", "all-reduce", "0.500", "0.500 to 0.500", "56 %"],
        ["", "together", "0.900", "–", "100 %"],
        ["", "stand-in: Gloo alone", "0.250", "one run", "–"],
    ]
    _, *rows = lines(str(horovod_costs.tbl_p1_lost(split(2), NO_SUMS)))
    assert [row[3] for row in rows] == ["two runs", "two runs", "two runs", "–", "not run"]


def test_the_lost_time_in_words() -> None:
    found = split(3)
    said = horovod_costs.text_p1_lost(found, sums({int(found.gradient_bytes.iloc[0]): 0.25}))
    assert said.startswith("Of two learners' loss the largest part goes to the all-reduce. The parts add up")
    assert "The parts add up: 0.200 + 0.200 + 0.500 = 0.900 s" in said
    assert said.endswith("in 0.25 s (one run each, too few for a verdict), 0.50 times the all-reduce's part.")


def test_no_part_is_called_the_largest_where_intervals_overlap_or_runs_are_few() -> None:
    (two,) = horovod_costs.lost(split(3))
    wide = replace(two, hardware=replace(two.hardware, high=0.6))  # the all-reduce's 0.5 lies inside
    assert "is open: the intervals of the parts overlap" in horovod_costs._largest(wide)
    assert horovod_costs.text_p1_lost(split(2), NO_SUMS).startswith("Too few runs were made to say what two learners")


def test_the_parts_are_stacked_on_one_learners_step() -> None:
    rows = {row["part"]: row["seconds"] for row in data(horovod_costs.fig_p1_lost(split(3)))}
    assert rows == {
        "one learner's step": pytest.approx(1.0),
        "shared hardware": pytest.approx(0.2),
        "waiting for the slowest": pytest.approx(0.2),
        "all-reduce": pytest.approx(0.5),
    }


def test_an_all_reduce_alone_is_interpolated_within_its_allocation() -> None:
    measured = sums({100: 1.0, 10_000: 100.0})
    found = horovod_costs.alone(measured, "gloo", 2, 1000, "one")
    assert found and found.value == pytest.approx(10.0)  # halfway between the sizes' logarithms
    for backend, learners, size, allocation in (
        ("nccl", 2, 1000, "one"),
        ("gloo", 4, 1000, "one"),
        ("gloo", 2, 99, "one"),
        ("gloo", 2, 1000, "two"),
        ("gloo", 2, 1000, ""),
    ):
        assert horovod_costs.alone(measured, backend, learners, size, allocation) is None


def stored(n: int, allreduce: bool, of_steps: list[list[float]]) -> pd.DataFrame:
    """Rows of version 2 as a script stores them: set-up until 5 s, steps of all learners, and an end of 1 s."""
    filled = {
        field.name: "x" if field.type == pa.string() else 1 if field.type == pa.int64() else None
        for field in schemas.SCHEMAS["p1_horovod"]
    }
    job = filled | {
        "host": 0,
        "framework": "tensorflow",
        "device_kind": "cpu",
        "precision": "float32",
        "batch_size": 16,
    }
    job |= {"learners": n, "allreduce": allreduce, "compiled": False, "effective_batch": 16 * n if allreduce else 16}
    rows = []
    for rank in range(n):
        began = 5.0
        rows.append(job | {"rank": rank, "phase": "set-up", "epoch": 0, "step": 0, "began": 0.0, "seconds": 5.0})
        for step, seconds in enumerate(of_steps, 1):
            now = {"phase": "train", "epoch": 1, "step": step, "began": began, "seconds": seconds[rank], "images": 16}
            rows.append(job | {"rank": rank} | now)
            began += seconds[rank]
        end = {"phase": "end", "epoch": 0, "step": 0, "began": began, "seconds": 1.0}
        rows.append(job | {"rank": rank, "images": 0} | end)
    return pd.DataFrame(rows).astype({"gbit": float, "link_gbit": float, "link_round_trip_us": float})


def test_stored_steps_are_read_split_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    for name, rows in {
        "alone": stored(1, True, [[1.0], [1.0]]),
        "free": stored(2, False, [[1.0, 1.4], [1.4, 1.0]]),
        "together": stored(2, True, [[1.8, 1.8], [2.0, 2.0]]),
    }.items():
        origin = provenance("p1_horovod", name, {}, seed=0, device="a CPU", started=datetime.now(UTC))
        parquet.write(rows, origin, results=tmp_path)
    found = horovod_runs.load(tmp_path).set_index("run_id")
    assert found.rate.to_dict() == {
        "alone": pytest.approx(16.0),
        "free": pytest.approx(2 * 32 / 2.4),
        "together": pytest.approx(64 / 3.8),
    }
    set_up, whole = (found.at["together", name] for name in ("setup_seconds", "job_seconds"))
    assert (set_up, whole) == (5.0, pytest.approx(5 + 3.8 + 1))
    (two,) = horovod_costs.lost(found.reset_index())
    assert two.check() == "0.200 + 0.200 + 0.500 = 0.900 s, the step of 1.900 s less 1.000 s"
