"""The rule of comparison, on hand-made epochs: what it works out, and what it refuses."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from experiments.store import epochs, schemas, timed_jobs
from experiments.store.parquet import ORIGIN
from report.comparisons import (
    Incomparable,
    difference,
    jobs,
    main,
    pooled,
    ratio,
    relative,
    select,
    series,
    spread,
)
from tests.frames import CPU, H100, NOTHING, XEON, cpu, p1, p2

FOUR, ONE = {"learners": 4}, {"learners": 1}


def several(*frames: pd.DataFrame) -> pd.DataFrame:
    return jobs(pd.concat(frames, ignore_index=True))


def repeated(seconds: list[float], first: int = 1, **other: Any) -> list[pd.DataFrame]:
    """A run of three epochs for each time of an epoch."""
    return [p1([s] * 3, repeat=repeat, **other) for repeat, s in enumerate(seconds, first)]


# ---- jobs ----------------------------------------------------------------------------------------------------------


def test_learners_that_average_are_timed_by_the_slowest() -> None:
    # Two steps of 64 images, two learners: 256 images in an epoch, in 0.5, 0.8 and 0.4 s.
    (job,) = several(p1([[0.5, 0.4], [0.8, 0.8], [0.4, 0.4]], learners=2, setup=7.0)).to_dict("records")
    assert job["rate"] == job["slowest_rate"] == pytest.approx(256 / 0.5)
    assert job["step_seconds"] == pytest.approx(0.25)
    assert job["train_seconds"] == pytest.approx(0.5 + 0.8 + 0.4)
    assert (job["epochs"], job["steps"], job["images"]) == (3, 6, 768)
    assert (job["setup_seconds"], job["job_seconds"]) == (7.0, pytest.approx(7 + 1.7 + 1))


def test_rates_of_independent_learners_are_added_up() -> None:
    (job,) = several(p1([[0.5, 1.0]], learners=2, allreduce=False)).to_dict("records")
    assert job["rate"] == pytest.approx(128 / 0.5 + 128 / 1.0)
    assert job["slowest_rate"] == pytest.approx(256 / 1.0)
    assert job["step_seconds"] == pytest.approx(128 / 384)  # two steps' 256 images at 384 images/s, a step


def test_setup_is_the_slowest_learners_and_waiting_a_share_of_all_seconds() -> None:
    frame = p1([[0.5, 0.5], [0.5, 0.5]], learners=2, wait=0.1)
    frame.loc[frame["rank"] == 1, "setup_seconds"] = 33.0
    (job,) = jobs(frame).to_dict("records")
    assert job["setup_seconds"] == 33.0
    assert job["wait_share"] == pytest.approx(4 * 0.1 / (4 * 0.5))


def test_a_slow_first_epoch_counts_in_problem_1() -> None:
    (job,) = several(p1([8.0, 2.0])).to_dict("records")
    assert job["rate"] == pytest.approx((128 / 8 + 128 / 2) / 2)
    assert job["train_seconds"] == 10.0


def test_only_version_1_of_several_workers_loses_its_first_epoch() -> None:
    dropped = several(p2([8.0, 2.0, 2.0], began=NOTHING)).iloc[0]
    assert (dropped.rate, dropped.train_seconds, dropped.epochs, dropped.steps) == (128.0, 4.0, 2, 4)
    for whole in (p2([8.0, 2.0, 2.0]), p2([8.0, 2.0, 2.0], began=NOTHING, workers=1, strategy="mirrored")):
        assert several(whole).iloc[0][["train_seconds", "epochs"]].tolist() == [12.0, 3]


def test_no_epochs_make_no_jobs() -> None:
    empty = jobs(p1([1.0]).iloc[:0])
    assert empty.empty and {"rate", "train_seconds", "allocation"} <= set(empty.columns)
    assert list(series(empty)) == [] and main(empty).empty and relative(empty).empty


@pytest.mark.parametrize("experiment", ["p1_horovod", "p2_strategy"])
def test_every_column_of_the_rows_plays_one_part(experiment: str) -> None:
    parts = [
        *timed_jobs.WHERE,
        *timed_jobs.SETTING,
        *timed_jobs.LENGTH,
        *timed_jobs.DERIVED,
        *timed_jobs.PLACEMENT,
        *timed_jobs.IDENTITY,
        *timed_jobs.MEASURED,
    ]
    assert len(parts) == len(set(parts))
    newest = set(schemas.of(experiment, 2).names) - {"phase", epochs.STEP[experiment]}
    assert {*schemas.of(experiment, 1).names, *newest, *ORIGIN, *epochs.ADDED} <= set(parts)


# ---- ratios --------------------------------------------------------------------------------------------------------


def test_a_speed_up_with_three_repetitions() -> None:
    runs = several(*repeated([1.0, 1.02, 0.98]), *repeated([1.04, 1.0, 1.05], first=4, learners=4))
    speedup = ratio(runs, of=FOUR, to=ONE)
    assert speedup.value == pytest.approx(4 / 1.04)  # medians: 128 images/s in 1 s, 512 in 1.04 s
    # Three runs' medians can't leave the runs, and a quarter of all draws has the slowest or the fastest as median.
    assert (speedup.low, speedup.high) == (pytest.approx(4 / 1.05 * 0.98), pytest.approx(4 / 1.0 * 1.02))
    assert (speedup.kind, speedup.repetitions, speedup.ideal) == ("interval", 3, None)
    assert ratio(runs, of=FOUR, to=ONE) == speedup, "the same at each rendering"


def test_an_efficiency_is_a_part_of_the_ideal() -> None:
    runs = several(*repeated([1.0] * 3), *repeated([1.25] * 3, learners=4))
    assert ratio(runs, of=FOUR, to=ONE, ideal=4).value == pytest.approx(0.8)


def test_a_difference_is_in_seconds() -> None:
    runs = several(*repeated([1.0, 1.1, 1.2]), *repeated([1.6] * 3, learners=4))
    assert difference(runs, of=FOUR, to=ONE).value == pytest.approx((1.6 - 1.1) / 2)  # two steps an epoch
    with pytest.raises(Incomparable, match="no run with learners = 8"):
        difference(runs, of={"learners": 8}, to=ONE)


def test_two_runs_give_a_range_of_what_single_runs_say() -> None:
    runs = several(*repeated([1.0, 1.1]), *repeated([2.0, 2.2, 2.1], learners=4))
    found = ratio(runs, of=FOUR, to=ONE)
    assert (found.kind, found.repetitions) == ("range", 2)
    assert (found.low, found.high) == (pytest.approx(4 * 1.0 / 2.2), pytest.approx(4 * 1.1 / 2.0))


def test_a_planted_outlier_moves_the_interval_and_not_the_value() -> None:
    good, one = [1.0, 1.0, 1.0, 1.01, 0.99], repeated([1.0] * 5)
    calm = ratio(several(*one, *repeated(good, learners=4)), of=FOUR, to=ONE)
    planted = ratio(several(*one, *repeated([*good[:4], 9.0], learners=4)), of=FOUR, to=ONE)
    assert planted.value == pytest.approx(calm.value) == pytest.approx(4.0)
    assert planted.low < calm.low


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"allocation": "two"}, "allocation differs: one and two"),
        ({"device": H100}, "device differs: NVIDIA H100 80GB HBM3 and NVIDIA H200"),
        ({"batch_size": 256}, "batch_size differs: 64 and 256"),
        ({"precision": "mixed"}, "precision differs: float32 and mixed"),
        ({"compiled": True}, "compiled differs: False and True"),
        ({"gbit": 10.0}, "gbit differs: 10 and none"),
        ({"hosts": 2, "gbit": 10.0}, "hosts differs: 1 and 2"),
        ({"environment": '{"NCCL_ALGO": "Ring"}'}, "environment differs: {"),
        ({"allreduce": False}, "allreduce differs: False and True"),
        ({"allocation": ""}, "is unknown"),
    ],
)
def test_what_differs_is_refused_and_named(other: dict[str, Any], says: str) -> None:
    runs = several(*repeated([1.0] * 3), *repeated([1.0] * 3, learners=4, **other))
    with pytest.raises(Incomparable, match=says) as error:
        ratio(runs, of=FOUR, to=ONE)
    assert error.value.command is None


def test_the_axis_may_differ_in_more_than_one_thing() -> None:
    runs = several(cpu([2.0], learners=8), cpu([2.5], learners=16, hosts=2, gbit=10.0, launcher="none"))
    on_two = {"learners": 16, "hosts": 2, "gbit": 10.0, "launcher": "none"}
    on_one = {"learners": 8, "hosts": 1, "gbit": None, "launcher": "horovodrun"}
    assert ratio(runs, of=on_two, to=on_one).value == pytest.approx(2 * 2.0 / 2.5)


def test_a_missing_run_is_named_with_the_command_that_makes_it() -> None:
    runs = several(*repeated([1.0] * 3, learners=4, batch_size=256))
    with pytest.raises(Incomparable, match="no run with learners = 1") as error:
        ratio(runs, of=FOUR, to=ONE)
    made = "python experiments/p1_horovod.py --sweep --repeats 3 --framework torch --device gpu --batch-size 256"
    assert error.value.command == made and str(error.value).endswith(made)


def test_run_times_of_10_and_25_epochs_are_refused_and_their_rates_are_not() -> None:
    runs = several(p1([1.0] * 25), p1([1.0] * 10, learners=4))
    assert ratio(runs, of=FOUR, to=ONE).value == pytest.approx(4.0)
    with pytest.raises(Incomparable, match="not 10 epochs of 2 steps and 25 epochs of 2 steps"):
        ratio(runs, of=FOUR, to=ONE, value="train_seconds")
    more = several(p1([1.0] * 25), p1([1.5] * 25, learners=4, steps=3))
    with pytest.raises(Incomparable, match="25 epochs of 2 steps and 25 epochs of 3 steps"):
        ratio(more, of=FOUR, to=ONE, value="job_seconds")


def test_whole_epochs_have_one_length_whatever_the_steps() -> None:
    runs = several(p2([9.0], learners=4, workers=4, whole_epochs=True), p2([18.0], whole_epochs=True))
    of, to = ({"learners": n, "workers": n} for n in (4, 2))
    assert ratio(runs, of=of, to=to, value="train_seconds").value == pytest.approx(0.5)


def test_set_up_is_not_compared_between_versions_of_the_rows() -> None:
    runs = several(p1([1.0], setup=30.0, began=NOTHING), p1([1.0], setup=60.0, learners=4))
    with pytest.raises(Incomparable, match="version differs: 1 and 2"):
        ratio(runs, of=FOUR, to=ONE, value="setup_seconds")
    assert ratio(runs, of=FOUR, to=ONE).value == pytest.approx(4.0)


def test_what_was_not_recorded_is_refused() -> None:
    runs = several(p1([1.0]), p1([1.0], learners=4, wait=0.1))
    with pytest.raises(Incomparable, match="wait_share was not recorded"):
        ratio(runs, of=FOUR, to=ONE, value="wait_share")


def test_a_ratio_of_two_axes_is_a_mistake_in_the_caller() -> None:
    runs = several(p1([1.0]))
    for of, to, value in ((FOUR, {"hosts": 1}, "rate"), (ONE, ONE, "loss")):
        with pytest.raises(ValueError, match="the same keys on both sides and a known value"):
            ratio(runs, of=of, to=to, value=value)


# ---- series --------------------------------------------------------------------------------------------------------


def test_two_gpu_models_and_two_hosts_are_never_pooled() -> None:
    h200 = [*repeated([1.0] * 3), *repeated([1.25] * 3, learners=4)]
    h100 = [*repeated([2.0] * 3, device=H100), *repeated([2.0] * 3, learners=4, device=H100)]
    elsewhere = [*repeated([4.0] * 3, allocation="two"), *repeated([8.0] * 3, learners=4, allocation="two")]
    found = relative(several(*h200, *h100, *elsewhere))
    of_four = found[found.learners == 4].set_index(["allocation", "device"])
    assert of_four.efficiency.to_dict() == {
        ("one", "NVIDIA H200"): pytest.approx(0.8),
        ("one", H100): pytest.approx(1.0),
        ("two", "NVIDIA H200"): pytest.approx(0.5),
    }
    assert set(of_four.repetitions) == {3}


def test_speed_ups_start_at_one_and_carry_the_jobs_own_rate() -> None:
    found = relative(several(*repeated([1.0, 1.1, 0.9]), *repeated([1.6, 2.0, 2.5], learners=2)))
    one, two = found.to_dict("records")
    assert (one["speedup"], one["efficiency"], one["efficiency_low"], one["efficiency_high"]) == (1, 1, 1, 1)
    assert (two["speedup"], two["efficiency"]) == (pytest.approx(1.0), pytest.approx(0.5))
    assert (two["value"], two["low"], two["high"]) == (128, pytest.approx(256 / 2.5), 160)
    assert two["estimate"].repetitions == 3 and not two["above_ideal"]


def test_an_efficiency_above_102_percent_is_kept_and_flagged() -> None:
    runs = several(*repeated([1.0] * 3), *repeated([0.97] * 3, learners=4))
    four = relative(runs).iloc[1]
    assert four.efficiency == pytest.approx(1 / 0.97) and four.above_ideal
    assert four.estimate.text(after="of ideal") == (
        "103.1 % of ideal (three repetitions, 103.1–103.1 %; above 102 % of ideal, kept as measured)"
    )


def test_a_series_without_its_base_is_refused() -> None:
    with pytest.raises(Incomparable, match="no run with learners = 1 in allocation one; make it with: python"):
        relative(several(p1([1.0], learners=2), p1([1.0], learners=4)))
    # The other host's single learner is no base.
    with pytest.raises(Incomparable, match="in allocation two"):
        relative(several(p1([1.0]), p1([1.0], learners=2, allocation="two")))


def test_runs_of_unknown_allocation_are_series_of_their_own() -> None:
    runs = several(p1([1.0], allocation=""), p1([1.0], allocation="", learners=2), p1([1.0]))
    assert sorted(len(one) for one in series(runs)) == [1, 1, 1]
    with pytest.raises(Incomparable, match="in allocation unknown"):
        relative(runs)


def test_the_main_series_has_most_sizes_then_most_runs_and_takes_no_others_in() -> None:
    few = [p1([1.0] * 3, allocation="few", learners=n, repeat=r) for n in (1, 2) for r in range(1, 6)]
    most = [p1([2.0] * 3, allocation="most", learners=n, device=H100) for n in (1, 2, 4)]
    other = [p1([3.0] * 3, allocation="few", precision="mixed")]
    found = main(several(*few, *most, *other))
    assert sorted(zip(found.allocation, found.precision, found.learners, strict=True)) == [
        ("few", "mixed", 1),
        ("most", "float32", 1),
        ("most", "float32", 2),
        ("most", "float32", 4),
    ]
    again = [p1([2.0] * 3, allocation="again", learners=n, repeat=r) for n in (1, 2, 4) for r in (1, 2)]
    assert set(main(several(*most, *again)).allocation) == {"again"}


def test_a_spread_is_the_median_and_range_of_the_repetitions() -> None:
    (job,) = spread(several(*repeated([1.0, 4.0, 2.0]))).to_dict("records")
    assert (job["value"], job["low"], job["high"], job["repetitions"]) == (64, 32, 128, 3)
    times = spread(several(*repeated([1.0, 4.0, 2.0])), value="train_seconds")
    assert times.value.tolist() == [6.0]


def test_selecting_none_means_without_a_value() -> None:
    runs = several(cpu([1.0], learners=2, hosts=2, gbit=1.0), cpu([2.0], learners=2, hosts=2))
    assert select(runs, gbit=None).rate.tolist() == [32.0]
    assert select(runs, hosts=2, gbit=1.0).rate.tolist() == [64.0]


# ---- errors and epoch counts ---------------------------------------------------------------------------------------


def test_errors_are_pooled_over_allocations_of_one_device_code_and_setting() -> None:
    runs = pd.DataFrame(
        {"allocation": ["a", "b", "b"], "device": H100, "code": "x", "M": 8, "error": [0.05, 0.06, 0.09]}
    )
    found = pooled(runs, "error", ["M"])
    assert (found.value, found.low, found.high, found.repetitions) == (0.06, 0.05, 0.09, 3)
    for name, value in (("device", XEON), ("code", "y"), ("M", 4)):
        changed = runs.astype({name: object})
        changed.loc[2, name] = value
        with pytest.raises(Incomparable, match=f"{name} differs"):
            pooled(changed, "error", ["M"])
    with pytest.raises(Incomparable, match="no run to pool"):
        pooled(runs.iloc[:0], "error", ["M"])


def test_cpu_settings_are_those_of_a_real_run() -> None:
    assert set(CPU) <= set(p1([1.0]).columns)
