"""experiments.p4.synthetic: the same everywhere, and learnable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from experiments.p4 import datasets
from experiments.p4.synthetic import synthetic


def test_synthetic_is_the_same_everywhere() -> None:
    data = synthetic(train=200, test=50)
    assert data.name == "synthetic" and datasets.load(None, "synthetic").name == "synthetic"
    assert data.train_images.shape == (200, 32, 32, 3) and data.train_images.dtype == np.uint8
    assert data.test_labels.shape == (50,) and data.test_labels.dtype == np.int64
    assert np.bincount(data.train_labels).tolist() == [20] * 10
    assert data.hashes() == synthetic(train=200, test=50).hashes()
    assert data.hashes()["train_images"].startswith("5a265bf4a423f4bc")
    assert data.hashes()["train_images"] != synthetic(1, train=200, test=50).hashes()["train_images"]
    assert not (data.train_images[:50] == data.test_images).all(axis=(1, 2, 3)).any()


def test_synthetic_is_learnable_but_not_from_raw_pixels() -> None:
    """A ridge regression finds the classes in the images' spectra (flipped or not), and not in their pixels."""
    data = synthetic(train=2000, test=500)

    def spectrum(images: np.ndarray) -> np.ndarray:
        grey = images.astype(float) - images.mean(axis=(1, 2), keepdims=True)
        power = np.log1p(np.abs(np.fft.rfft2(grey, axes=(1, 2))).max(axis=3))
        return (power[:, :, :9] + np.roll(power[:, ::-1, :9], 1, axis=1)).reshape(len(images), -1)

    def pixels(images: np.ndarray) -> np.ndarray:
        return images[:, ::2, ::2].reshape(len(images), -1) / 255

    def accuracy(features: Callable[[np.ndarray], np.ndarray], test: np.ndarray) -> float:
        x = features(data.train_images)
        mean, scale = x.mean(axis=0), x.std()
        x = (x - mean) / scale
        weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ np.eye(10)[data.train_labels])
        return float((((features(test) - mean) / scale @ weights).argmax(axis=1) == data.test_labels).mean())

    learned = accuracy(spectrum, data.test_images)
    assert learned > 0.9
    assert accuracy(spectrum, data.test_images[:, :, ::-1]) == pytest.approx(learned, abs=0.03)
    assert accuracy(pixels, data.test_images) < 0.3
