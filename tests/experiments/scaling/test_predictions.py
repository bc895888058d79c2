"""experiments.scaling.predictions: published points, and GPUs from one of them and the link, are predicted unseen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from derivations import scaling
from experiments.scaling import predictions, published, series
from experiments.scaling.fit import PREDICTS
from experiments.store import parquet
from experiments.store.provenance import provenance
from tests.measured_runs import Epochs


def points_of(learners: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"learners": learners})


@pytest.mark.parametrize(
    ("learners", "held"),
    [([1, 2, 4, 8, 16], [8, 16]), ([1, 2, 4], [4]), ([1, 2], [2]), ([1, 8, 16, 32], [16, 32]), ([1, 4, 8], [8])],
)
def test_the_largest_point_is_always_held_out(learners: list[int], held: list[int]) -> None:
    assert [p for p, out in zip(learners, predictions.held_out(points_of(learners)), strict=True) if out] == held


# ---- published curves ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted() -> pd.DataFrame:
    return pd.DataFrame(predictions.predictions(published.load(), pd.DataFrame(columns=series.POINTS), draws=400))


def test_a_held_out_value_does_not_change_its_prediction() -> None:
    frame = published.load()
    frame = frame[frame.series == "MXNet V100 AMP"]
    changed = frame.assign(value=frame.value.where(frame.learners < 8, 1.0))
    nothing = pd.DataFrame(columns=series.POINTS)
    first, second = (pd.DataFrame(predictions.predictions(x, nothing, draws=100)) for x in (frame, changed))
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
    curves = predicted[predicted.method == "curve"]
    dgx = curves[(curves.series == "TF P100 VGG-16") & (curves.per_learner_batch == 32)]
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
    strong = predicted[predicted.series.str.startswith("K80, strong")]
    assert (strong.learners * strong.per_learner_batch == 256).all()


def test_the_projection_of_two_nodes_is_the_derivation_of_nodes(predicted: pd.DataFrame) -> None:
    """k(8) inside a node, and eight rings that share one network card: by `scaling.hierarchical`, and by hand."""
    node = series.throughputs(published.load()).query(f"series == '{published.K80_NODE}'")
    c, o, s = predictions.fitted(node).form("bandwidth").parameters
    size, card = 4 * 25_557_032, 10e9 / 8  # bytes of a gradient; bytes/s of a node's card
    given = {scaling.g: 8, scaling.m: 2, scaling.n: size, scaling.beta_in: s / size, scaling.alpha_in: 0}
    given |= {scaling.beta_out: 8 / card, scaling.alpha_out: 0}
    nodes = float(scaling.hierarchical().subs(given))
    # Inside: 2·7/8 of the bytes. Between: eight rings at once, 2·(2 − 1)/2 of an eighth each, over an eighth of a card.
    assert nodes == pytest.approx(s * 7 / 4 + size / card)
    for name, batch in (("K80, weak", 64), ("K80, strong", 16)):
        sixteen = predicted[predicted.series.str.startswith(name) & (predicted.learners == 16)].iloc[0]
        assert sixteen.per_learner_batch == batch
        assert sixteen.predicted == pytest.approx(16 * batch / (c * batch + o + nodes))
        assert sixteen.exposed_seconds == pytest.approx(nodes / batch)
        assert sixteen.low < sixteen.predicted < sixteen.high


def test_the_form_was_chosen_on_fitted_points_alone(predicted: pd.DataFrame) -> None:
    rows = predicted[predicted.method.str.startswith("choice, ")]
    assert set(rows.role) == {"chosen on"} and rows.learners.max() == predictions.FIT_UP_TO
    errors = rows.error.abs().groupby(rows.method).mean()
    assert errors.idxmin() == f"choice, {PREDICTS}" and set(errors.index) == {
        f"choice, {name}" for name in ("bandwidth", "latency", "tree", "mean")
    }
    held = predicted[predicted.role == "held out"]
    keys = ["series", "learners", "per_learner_batch"]
    assert not set(rows[keys].itertuples(index=False)) & set(held[keys].itertuples(index=False))


def test_a_choices_error_by_hand() -> None:
    """1 and 2 learners give c = 1, s = 0.1 in the ring's bandwidth: 4 learners then do 4/1.15, published as 4/1.2."""
    points = pd.DataFrame({"series": "A", "network": "N", "source": "me", "learners": [1, 2, 4, 8]})
    points = points.assign(per_learner_batch=np.nan, gradient_bytes=np.nan, link_gbit_per_second=np.nan)
    points = points.assign(images_per_second=[1, 2 / 1.1, 4 / 1.2, 99.0])
    rows = pd.DataFrame(predictions.choices(points)).set_index("method")
    assert rows.error["choice, bandwidth"] == pytest.approx(1.2 / 1.15 - 1)
    assert rows.error["choice, latency"] == pytest.approx(1.2 / 1.3 - 1)  # k: 2 at 2 learners, 6 at 4
    assert rows.error["choice, tree"] == pytest.approx(0, abs=1e-12)  # k: 2 and 4
    assert rows.error["choice, mean"] == pytest.approx(1.2 / ((1.15 + 1.3 + 1.2) / 3) - 1)
    assert set(rows.fit_points) == {"1, 2"} and set(rows.learners) == {4}


def test_committed_projections_are_what_the_published_curves_give_today(predicted: pd.DataFrame) -> None:
    stored = parquet.read("scaling_fit")
    stored = stored[stored.source != "measured"].reset_index(drop=True)
    assert list(stored.series) == list(predicted.series), "run python experiments/scaling_fit.py again"
    assert stored.predicted.to_numpy() == pytest.approx(predicted.predicted.to_numpy())
    assert set(stored.kind) == {"projected"}


# ---- measured runs -------------------------------------------------------------------------------------------------


def test_gpus_are_predicted_from_one_and_the_link_alone(measured: Epochs, tmp_path: Path) -> None:
    """One GPU: 100 images/s of 8, so 80 ms a step. Two share a link of 1 µs and 1 GB/s, by hand."""
    sizes = [1e3, 1e6, 1e9]
    rows = [
        {"backend": "nccl", "hosts": 1, "learners": 2, "bytes": n, "seconds": 2 * (1e-6 + n / 2 / 1e9)} for n in sizes
    ]
    origin = provenance("allreduce", "link", {}, seed=None, device="a GPU", started=datetime(2026, 1, 2, tzinfo=UTC))
    parquet.write(pd.DataFrame(rows), origin, results=tmp_path)
    made, runs = predictions.by_link(tmp_path)
    frame = pd.DataFrame(made).set_index(["method", "learners"]).sort_index()
    size = 25_557_032 * 4
    # The slowest of two and of four learners takes a second for its 100 images.
    for p, communication in ((2, 2e-6 + size / 1e9), (4, 6e-6 + 1.5 * size / 1e9)):  # the link of two serves four
        assert frame.observed["link, nothing hidden", p] == 100 * p
        exposed = p * 8 / (0.08 + communication)
        assert frame.predicted["link, nothing hidden", p] == pytest.approx(exposed, rel=1e-9)
        hidden = p * 8 / (0.08 + communication - 2 / 3 * 0.08)
        assert frame.predicted["link, backward pass hides", p] == pytest.approx(hidden, rel=1e-9)
        assert frame.error["link, nothing hidden", p] == pytest.approx(exposed / (100 * p) - 1)
    assert set(frame.fit_points) == {"1, and NCCL's all-reduce between 2 of a GPU"}
    assert {"link", "p1-2-1-True", "p1-4-1-True"} <= set(runs) and "p1-2-2-True" not in runs
    for row in measured["p1_horovod"]:
        row["allocation"] = "there"
    assert predictions.by_link(tmp_path) == ([], [])
