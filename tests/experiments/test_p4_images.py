"""The cutout examples: originals untouched, holes where the draws say, measured area as derived."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derivations import cutout
from experiments import p4_images
from experiments.p4 import augment, cifar10, datasets
from experiments.p4.synthetic import synthetic
from experiments.store import parquet

SMALL = synthetic(train=10, test=6)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images and few draws."""
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: SMALL)
    monkeypatch.setattr(p4_images, "STEPS", 2)
    monkeypatch.setattr(p4_images, "INSTANCES", 100)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def test_holes_are_where_the_draws_say() -> None:
    frame = p4_images.draw(SMALL, [4, 1], draws=3, seed=7)
    assert frame[["index", "draw"]].values.tolist() == [[i, d] for i in (4, 1) for d in range(4)]
    half = augment.HOLE // 2
    for index in (4, 1):
        group = frame[frame["index"] == index]
        original = SMALL.test_images[index].astype(int)
        assert (pixels(group.png.iloc[0]) == original).all() and group.masked_share.iloc[0] == 0
        for row in group.iloc[1:].to_dict("records"):
            y, x = row["centre_y"], row["centre_x"]
            hole = np.zeros((32, 32), bool)
            hole[max(0, y - half) : y + half, max(0, x - half) : x + half] = 1
            shown = pixels(row["png"])
            assert np.abs(shown - original)[~hole].max() <= 1  # rounding
            assert (shown[hole] == np.round(255 * np.array(cifar10.MEAN))).all()
            assert row["masked_share"] == pytest.approx(hole.mean())


def test_draws_depend_on_the_seed() -> None:
    first, again, other = (p4_images.draw(SMALL, [0], 4, seed) for seed in (0, 0, 1))
    assert first.equals(again) and not first.equals(other)


def test_the_measured_area_agrees_with_the_derivation() -> None:
    row = p4_images.measure(32, seed=0, steps=5, instances=2000).iloc[0]
    assert row.draws == 10_000 and 0 < row.standard_error < 0.001
    assert abs(row.mean_share - float(cutout.masked_share(16, 32))) < 4 * row.standard_error


@pytest.mark.usefixtures("few")
def test_the_script_writes_both_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    command = ["--data", "synthetic", "--images", "0", "2", "--draws", "2", "--results", str(tmp_path)]
    assert p4_images.main(command) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert set(parquet.read("p4_images", tmp_path).dataset) == {"synthetic"}
    assert parquet.read("p4_images", tmp_path)["index"].tolist() == [0, 0, 0, 2, 2, 2]
    assert len(parquet.read("p4_masked_area", tmp_path)) == 1


def test_a_commit_that_cannot_be_told_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "yesterday")
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: pytest.fail("too late"))
    assert p4_images.main(["--data", "synthetic", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("p4_images: DLPERF_COMMIT must be a commit")


@pytest.mark.usefixtures("few")
def test_provenance_tells_the_code_that_the_script_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = iter("abc")
    monkeypatch.setattr("experiments.store.provenance.git_state", lambda: (40 * next(commits), False))
    assert p4_images.main(["--data", "synthetic", "--images", "0", "--draws", "1", "--results", str(tmp_path)]) == 0
    assert [run.provenance.git_commit for run in parquet.runs(tmp_path)] == [40 * "a"] * 2
