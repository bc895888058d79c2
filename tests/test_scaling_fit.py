"""experiments.scaling_fit: known parameters come back, intervals cover, published points are predicted, bad input."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from derivations import scaling
from experiments import allocation, epochs, published, schemas, store
from experiments import scaling_fit as sf

SMALL, LARGE = np.array([1.0, 2.0, 4.0]), np.array([8.0, 16.0])
ONES = np.ones(3)


def rates(form: str, learners: sf.Array, batches: sf.Array, c: float, o: float, s: float) -> sf.Array:
    return learners / (c + o / batches + s * sf.GROWTH[form](learners) / batches)


def test_growth_is_the_derivations() -> None:
    assert [float(f(8)) for f in sf.GROWTH.values()] == [2 * 7 / 8, 14, 6]
    assert list(sf.GROWTH) == list(scaling.growth())


@pytest.mark.parametrize("form", list(sf.GROWTH))
def test_exact_points_give_their_parameters_back(form: str) -> None:
    points = np.array([1.0, 2.0, 4.0, 8.0])
    result = sf.fit(points, np.ones(4), rates(form, points, np.ones(4), 2e-3, 0, 3e-4))
    assert result.best.name == form and result.best.weight > 0.95
    assert result.best.parameters == pytest.approx([2e-3, 3e-4])
    assert result.predict(LARGE, np.ones(2)) == pytest.approx(rates(form, LARGE, np.ones(2), 2e-3, 0, 3e-4), rel=0.03)


def test_batches_tell_overhead_from_computation() -> None:
    learners, batches = np.tile([1.0, 2.0, 4.0, 8.0], 2), np.repeat([64.0, 32.0], 4)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.002, 8))
    result = sf.fit(learners, batches, rates("bandwidth", learners, batches, 2e-2, 6e-2, 4e-2) * noise)
    assert result.overhead and result.freedom == 5 and result.best.name == "bandwidth"
    assert result.best.parameters == pytest.approx([2e-2, 6e-2, 4e-2], rel=0.15)
    assert 0.0005 < result.best.noise < 0.006
    compute, overhead, exposed = result.parts(np.array([4.0]), np.array([32.0]))[:, 0]
    assert 4 / (compute + overhead + exposed) == pytest.approx(result.predict(np.array([4.0]), np.array([32.0]))[0])


def test_communication_is_never_negative() -> None:
    result = sf.fit(SMALL, ONES, np.array([100.0, 203.0, 409.0]))  # better than ideal, by noise
    assert all((form.parameters >= 0).all() for form in result.forms)
    assert np.isfinite(result.predict(LARGE, np.ones(2))).all()
    assert (result.predict(LARGE, np.ones(2)) <= LARGE * 103).all()


def test_as_many_parameters_as_points_leave_no_interval() -> None:
    result = sf.fit(np.array([1.0, 2.0]), np.ones(2), np.array([100.0, 190.0]))
    assert result.freedom == 0 and np.isfinite(result.predict(LARGE, np.ones(2))).all()
    assert np.isnan(result.interval(LARGE, np.ones(2), np.random.default_rng(0))).all()


def test_extra_time_is_added_to_each_image() -> None:
    result = sf.fit(SMALL, ONES, SMALL / 2e-3)
    assert result.predict(LARGE, np.ones(2), extra=2e-3) == pytest.approx(LARGE / 4e-3)
    low, high = result.interval(LARGE, np.ones(2), np.random.default_rng(0), extra=2e-3, draws=100)
    assert (low <= LARGE / 4e-3 * 1.000001).all() and (high >= LARGE / 4e-3 * 0.999999).all()


def test_predictions_stay_finite_whatever_the_noise() -> None:
    result = sf.fit(SMALL, ONES, np.array([100.0, 120.0, 390.0]))  # hardly a scaling curve
    bounds = result.interval(LARGE, np.ones(2), np.random.default_rng(0))
    assert np.isfinite(bounds).all() and (bounds > 0).all() and (bounds[0] < bounds[1]).all()


@pytest.mark.parametrize("noise", [0.003, 0.02])
def test_intervals_cover_at_about_their_nominal_rate(noise: float) -> None:
    """Over truths drawn from the three forms; a binomial share of 240 at 80 % has a standard deviation of 2.6 %."""
    rng, inside, count = np.random.default_rng(1), np.zeros(2), 240
    for i in range(count):
        form = list(sf.GROWTH)[i % 3]
        lost = rng.uniform(0.02, 0.15)  # of the time at 4 learners
        s = lost / (1 - lost) / sf.GROWTH[form](4.0)
        seen, unseen = (rates(form, p, np.ones(len(p)), 1.0, 0.0, s) for p in (SMALL, LARGE))
        result = sf.fit(SMALL, ONES, seen * np.exp(rng.normal(0, noise, 3)))
        low, high = result.interval(LARGE, np.ones(2), rng, draws=200)
        again = unseen * np.exp(rng.normal(0, noise, 2))
        inside += (low <= again) & (again <= high)
    assert (inside / count > 0.7).all() and (inside / count < 0.92).all(), inside / count


def test_wider_levels_give_wider_intervals() -> None:
    result = sf.fit(SMALL, ONES, np.array([417.0, 821.0, 1623.0]))
    narrow, wide = (result.interval(LARGE, np.ones(2), np.random.default_rng(0), level=x) for x in (0.5, 0.95))
    assert (wide[0] < narrow[0]).all() and (wide[1] > narrow[1]).all()


@pytest.mark.parametrize(
    ("learners", "values", "message"),
    [
        ([1, 2], [1, np.nan], "positive numbers"),
        ([1, 2], [1, 0], "positive numbers"),
        ([1, 2], [1, np.inf], "positive numbers"),
        ([2, 4], [1, 2], "of 1 learner and of more"),
        ([1], [1], "two points are needed"),
        ([1, 1], [1, 1], "of 1 learner and of more"),
        ([1, 2, 4], [1, 1000, 1001], "no time is left to compute"),
    ],
)
def test_points_that_can_not_be_fitted(learners: list[float], values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sf.fit(np.array(learners, float), np.ones(len(learners)), np.array(values, float))


def points_of(learners: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"learners": learners})


@pytest.mark.parametrize(
    ("learners", "held"),
    [([1, 2, 4, 8, 16], [8, 16]), ([1, 2, 4], [4]), ([1, 2], [2]), ([1, 8, 16, 32], [16, 32]), ([1, 4, 8], [8])],
)
def test_the_largest_point_is_always_held_out(learners: list[int], held: list[int]) -> None:
    assert [p for p, out in zip(learners, sf.held_out(points_of(learners)), strict=True) if out] == held


# ---- published curves ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted() -> pd.DataFrame:
    return pd.DataFrame(sf.predictions(published.load(), pd.DataFrame(columns=sf.POINTS), draws=400))


def test_a_held_out_value_does_not_change_its_prediction() -> None:
    frame = published.load()
    frame = frame[frame.series == "MXNet V100 AMP"]
    changed = frame.assign(value=frame.value.where(frame.learners < 8, 1.0))
    nothing = pd.DataFrame(columns=sf.POINTS)
    first, second = (pd.DataFrame(sf.predictions(x, nothing, draws=100)) for x in (frame, changed))
    assert (first.predicted == second.predicted).all() and (first.low.dropna() == second.low.dropna()).all()
    assert (first.error != second.error).sum() == 2


def test_every_published_point_has_its_row(predicted: pd.DataFrame) -> None:
    assert (predicted.role == "projected").sum() == 10
    rates = published.load().query("unit == 'images/s'")
    seen = predicted[predicted.method.isin(["curve", "borrowed"])]
    keys = ["series", "learners", "per_learner_batch"]
    assert set(seen[keys].fillna(0).itertuples(index=False)) == set(rates[keys].fillna(0).itertuples(index=False))


def test_the_mxnet_curves_are_predicted_within_ten_per_cent_and_their_intervals(predicted: pd.DataFrame) -> None:
    rows = predicted[predicted.series.str.startswith("MXNet") & (predicted.role == "held out")]
    assert list(rows.learners) == [8, 16, 8, 16, 8]
    assert (rows.error.abs() < 0.1).all()
    known = rows[rows.freedom > 0]  # A100's two points determine two parameters, and no interval
    assert len(known) == 4 and ((known.low < known.observed) & (known.observed < known.high)).all()
    assert rows[rows.freedom == 0][["low", "high"]].isna().all(axis=None)


def test_borrowed_communication_predicts_eight_gpus_within_ten_per_cent(predicted: pd.DataFrame) -> None:
    rows = predicted[(predicted.method == "borrowed") & (predicted.role == "held out")]
    assert len(rows) == 6 and (rows.error.abs() < 0.1).all()
    tf32 = rows[rows.series == "PyTorch A100 TF32"].predicted.iloc[0]
    assert tf32 == pytest.approx(8 / (1 / 938 + 8 / 16621 - 1 / 2470))  # by hand


def test_where_the_model_fails_is_known(predicted: pd.DataFrame) -> None:
    vgg = predicted[predicted.series == "Horovod VGG-16"].set_index("method").error
    assert vgg["bytes per MACs, nothing hidden"] > 0.2
    assert abs(vgg["bytes per P100 seconds, nothing hidden"]) < 0.1
    dgx = predicted[(predicted.series == "TF P100 VGG-16") & (predicted.per_learner_batch == 32)]
    assert dgx.error.iloc[-1] > 0.2


def test_gradient_bytes_by_hand(predicted: pd.DataFrame) -> None:
    vgg = predicted[predicted.series == "Horovod VGG-16"].set_index("method")
    assert vgg.gradient_bytes.iloc[0] == 4 * 138_357_544
    seconds = 1 / 154 / published.p100_seconds(published.load())["ResNet-101"]
    expected = 1 / (1 + (1 / 0.9 - 1) * 138_357_544 / 44_549_160 / seconds)
    assert vgg.predicted["bytes per P100 seconds, nothing hidden"] == pytest.approx(expected)
    assert 91.8 < 1 / published.p100_seconds(published.load())["ResNet-101"] < 219


def test_the_homeworks_sixteen_k80_match_the_published_cluster(predicted: pd.DataFrame) -> None:
    weak = predicted[predicted.series.str.startswith("K80, weak")].set_index("learners").predicted
    where = f"series == '{published.K80_CLUSTER}' and learners == 16 and per_learner_batch == 64"
    printed = published.load().query(where).value.iloc[0]
    assert weak[16] == pytest.approx(printed, rel=0.1)
    node = predicted[
        (predicted.series == published.K80_NODE) & (predicted.learners == 8) & (predicted.per_learner_batch == 64)
    ]
    assert weak[8] == pytest.approx(node.predicted.iloc[0])
    # Two nodes exchange all bytes once each way over 10 Gbit/s: 2·(2−1)/2·n/W seconds a step.
    own = sf.throughputs(published.load()).query(f"series == '{published.K80_NODE}'")
    inside = sf.fitted(own).parts(np.array([16.0]), np.array([64.0])).sum()
    assert weak[16] == pytest.approx(16 / (inside + 4 * 25_557_032 / 1.25e9 / 64))
    strong = predicted[predicted.series.str.startswith("K80, strong")]
    assert (strong.learners * strong.per_learner_batch == 256).all()


def test_committed_projections_are_what_the_published_curves_give_today(predicted: pd.DataFrame) -> None:
    stored = store.read("scaling_fit")
    stored = stored[stored.source != "measured"].reset_index(drop=True)
    assert list(stored.series) == list(predicted.series), "run python experiments/scaling_fit.py again"
    assert stored.predicted.to_numpy() == pytest.approx(predicted.predicted.to_numpy())
    assert set(stored.kind) == {"projected"}


# ---- measured runs -------------------------------------------------------------------------------------------------

LINK = {
    "backend": pa.string(), "hosts": pa.int64(), "learners": pa.int64(), "bytes": pa.float64(), "seconds": pa.float64(),
}  # fmt: skip
HERE: dict[str, Any] = {"kind": "measured", "device": "a GPU", "allocation": "here"}
HERE |= {"started": datetime(2026, 1, 2, tzinfo=UTC), "hosts": 1}
HOROVOD: dict[str, Any] = HERE | {"framework": "torch", "device_kind": "gpu", "batch_size": 8, "image_size": 224}
HOROVOD |= {"images": 100, "precision": "float32", "compiled": False, "allreduce": True}
STRATEGY: dict[str, Any] = HERE | {"precision": "float32", "jit_compile": False, "steps_per_execution": 1}
STRATEGY |= {"image_size": 32, "all_reduce": None, "communication": None}
Epochs = dict[str, list[dict[str, Any]]]


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Epochs:
    """Epochs of 1, 2 and 4 learners of both problems, by experiment; all-reduces have a schema of what is read."""
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    monkeypatch.setenv(allocation.TOKEN, "a go")
    monkeypatch.setattr(allocation, "current", lambda: "here")
    fields = [schemas.column(column, kind, "-", "-", nullable=True) for column, kind in LINK.items()]
    monkeypatch.setitem(schemas.SCHEMAS, "allreduce", pa.schema(fields))
    found: Epochs = {"p1_horovod": [], "p2_strategy": []}
    for p in (1, 2, 4):
        for allreduce, hosts, base in ((True, 1, 1.0), (True, 2, 7.0), (False, 1, 0.1)):
            run = {"learners": p, "hosts": hosts, "allreduce": allreduce, "run_id": f"p1-{p}-{hosts}-{allreduce}"}
            for epoch, rank in product((1, 2, 3), range(p if hosts <= p else 0)):
                seconds = base * (5.0 if epoch == 1 else 1.0) - 0.01 * rank
                found["p1_horovod"].append(HOROVOD | run | {"epoch": epoch, "rank": rank, "seconds": seconds})
        run = {"learners": p, "per_learner_batch": 256 // p, "scaling": "strong", "strategy": "mirrored"}
        run |= {"all_reduce": "nccl", "run_id": f"p2-{p}", "images": 256}
        found["p2_strategy"] += [STRATEGY | run | {"epoch": e, "seconds": 1 / p + 0.1} for e in (1, 2)]
    monkeypatch.setattr(epochs, "read", lambda experiment, results: pd.DataFrame(found[experiment]))
    return found


def test_measured_runs_become_points(measured: Epochs, tmp_path: Path) -> None:
    points, runs = sf.measured(tmp_path)
    horovod = points[points.series.str.startswith("Horovod")]
    # The slowest learner's time counts, the first epoch's warm-up does not; neither two hosts nor lone learners.
    assert list(horovod.images_per_second) == [100, 200, 400]
    assert set(horovod.series) == {"Horovod torch, a GPU, 224 pixels"} and set(horovod.per_learner_batch) == {8}
    strategy = points[points.series.str.startswith("tf.distribute")]
    assert list(strategy.per_learner_batch) == [256, 128, 64]
    assert list(strategy.images_per_second) == pytest.approx([256 / (1 / p + 0.1) for p in (1, 2, 4)])
    assert "p1-4-1-True" in runs and "p2-4" in runs and "p1-4-1-False" not in runs


def test_a_curve_comes_from_one_allocation(measured: Epochs, tmp_path: Path) -> None:
    """Another host, twice as fast, has two of the sizes only; then all of them, and more runs."""
    for p in (1, 4):
        run = {"learners": p, "run_id": f"fast-{p}", "allocation": "there", "epoch": 1, "rank": 0, "seconds": 0.5}
        measured["p1_horovod"].append(HOROVOD | run | {"images": 100 * p})
    rates = sf.measured(tmp_path)[0].query("series == 'Horovod torch, a GPU, 224 pixels'").images_per_second
    assert list(rates) == [100, 200, 400]
    for repeat in (1, 2, 3):
        run = {"learners": 2, "run_id": f"fast-2-r{repeat}", "allocation": "there", "epoch": 1, "rank": 0}
        measured["p1_horovod"].append(HOROVOD | run | {"images": 200, "seconds": 0.5})
    points, runs = sf.measured(tmp_path)
    rates = points.query("series == 'Horovod torch, a GPU, 224 pixels'").images_per_second
    assert list(rates) == [200, 400, 800] and not any(run.startswith("p1-") for run in runs)


def test_more_than_eight_learners_are_the_homeworks_two_hosts(measured: Epochs, tmp_path: Path) -> None:
    job = {"scaling": "weak", "strategy": "multiworker", "communication": "auto", "per_learner_batch": 64, "images": 64}
    for learners, hosts, seconds in ((8, 1, 1.0), (8, 2, 2.0), (16, 1, 4.0), (16, 2, 8.0)):
        run = {"learners": learners, "hosts": hosts, "seconds": seconds, "epoch": 1, "run_id": f"w-{learners}-{hosts}"}
        measured["p2_strategy"] += [STRATEGY | job | run] * learners
    points, runs = sf.measured(tmp_path)
    weak = points[points.series.str.contains("multiworker auto, weak")]
    assert dict(zip(weak.learners, weak.images_per_second, strict=True)) == {8: 64 * 8 / 1.0, 16: 64 * 16 / 8.0}
    assert {"w-8-1", "w-16-2"} <= set(runs) and not {"w-8-2", "w-16-1"} & set(runs)


def test_gpus_are_predicted_from_one_and_the_link_alone(measured: Epochs, tmp_path: Path) -> None:
    """One GPU: 100 images/s of 8, so 80 ms a step. Two share a link of 1 µs and 1 GB/s, by hand."""
    sizes = [1e3, 1e6, 1e9]
    rows = [
        {"backend": "nccl", "hosts": 1, "learners": 2, "bytes": n, "seconds": 2 * (1e-6 + n / 2 / 1e9)} for n in sizes
    ]
    origin = store.provenance(
        "allreduce", "link", {}, seed=None, device="a GPU", started=datetime(2026, 1, 2, tzinfo=UTC)
    )
    store.write(pd.DataFrame(rows), origin, results=tmp_path)
    made, runs = sf.by_link(tmp_path)
    frame = pd.DataFrame(made).set_index("method")
    assert set(frame.learners) == {2} and set(frame.observed) == {200}
    communication = 2e-6 + 25_557_032 * 4 / 1e9
    assert frame.predicted["link, nothing hidden"] == pytest.approx(2 * 8 / (0.08 + communication), rel=1e-9)
    hidden = 0.08 + communication - 2 / 3 * 0.08
    assert frame.predicted["link, backward pass hides"] == pytest.approx(2 * 8 / hidden, rel=1e-9)
    assert frame.error["link, nothing hidden"] == pytest.approx(2 * 8 / (0.08 + communication) / 200 - 1)
    assert "link" in runs and "p1-2-1-True" in runs and not any(run.startswith("p1-4") for run in runs)
    for row in measured["p1_horovod"]:
        row["allocation"] = "there"
    assert sf.by_link(tmp_path) == ([], [])


def test_without_measured_runs_there_are_no_points(tmp_path: Path) -> None:
    points, runs = sf.measured(tmp_path)
    assert points.empty and list(points.columns) == sf.POINTS and runs == []
    assert sf.by_link(tmp_path) == ([], [])


# ---- command line --------------------------------------------------------------------------------------------------

HEAD = "series,framework,network,machine,precision,node_learners,link_gbit_per_second,learners,per_learner_batch"
FEW = f"""{HEAD},unit,value,source
A,F,N,M,FP32,,,1,,images/s,100,me
A,F,N,M,FP32,,,2,,images/s,190,me
A,F,N,M,FP32,,,4,,images/s,360,me
A,F,N,M,FP32,,,8,,images/s,700,me
"""


def test_command_writes_projected_rows_and_names_its_inputs(
    measured: Epochs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path
    source = results / "few.csv"
    source.write_text(FEW + "B,F,N,other,FP32,,,1,,images/s,100,me\n")
    arguments = ["--references", str(source), "--draws", "100", "--results", str(results)]
    assert sf.main(arguments) == 0
    before = store.read("scaling_fit", results)
    source.write_text(FEW)
    assert sf.main([*arguments, "--seed", "1"]) == 0  # another setting stays beside it
    assert len(list((results / "scaling_fit").glob("*.parquet"))) == 2
    next(run for run in store.runs(results) if run.provenance.seed == 1).path.unlink()
    assert sf.main(arguments) == 0  # other inputs, which replace the earlier ones
    frame = store.read("scaling_fit", results)
    assert set(frame.kind) == {"projected"} and frame.run_id.nunique() == before.run_id.nunique() == 1
    own = frame[frame.series == "A"]
    assert list(own.role) == ["fitted"] * 3 + ["held out"] and own.low.notna().sum() == 1
    horovod = frame[frame.series.str.startswith("Horovod")]
    assert list(horovod.role) == ["fitted", "fitted", "held out"] and set(horovod.source) == {"measured"}
    (run,) = [run for run in store.runs(results) if run.provenance.experiment == "scaling_fit"]
    assert (
        "p1-4-1-True" in run.provenance.config["measured_runs"]
        and len(run.provenance.config["references_sha256"]) == 64
    )
    assert "experiments/references/scaling.csv" in run.provenance.sources and "scipy" in run.provenance.versions
    said = capsys.readouterr().err
    assert "B is left out: two points are needed" in said
    strategy = frame[frame.series.str.startswith("tf.distribute")]
    assert list(strategy.role) == ["fitted", "fitted", "held out"] and strategy.overhead_seconds.isna().all()


def test_bad_references_are_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    source = tmp_path / "series.csv"
    for text, message in (
        ("series,learners\n", "columns are missing"),
        (FEW.partition("A,F,N,M,FP32,,,2")[0], "nothing"),
    ):
        source.write_text(text)
        assert sf.main(["--references", str(source), "--draws", "100", "--results", str(tmp_path)]) == 2
        said = capsys.readouterr().err.splitlines()
        assert message in said[-1] and str(source) in said[-1]
    assert not (tmp_path / "scaling_fit").exists()


def test_an_untold_commit_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "yesterday's")
    assert sf.main(["--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("scaling_fit: DLPERF_COMMIT must be a commit")


def test_script_runs_from_anywhere_and_refuses_bad_levels(tmp_path: Path) -> None:
    command = [sys.executable, sf.__file__, "--level", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["scaling_fit: --level must lie between 0 and 1, and --draws be at least 100"]
