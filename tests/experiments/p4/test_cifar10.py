"""experiments.p4.cifar10: its statistics are the real data's, where these are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from experiments.p4 import cifar10, cifar10_archives, datasets
from experiments.p4.cifar10 import DataError


def real_data() -> Path | None:
    place = os.environ.get("DLPERF_DATA")
    if not place:
        return None
    try:
        cifar10_archives.find(Path(place))
    except DataError:
        return None
    return Path(place)


@pytest.mark.skipif(real_data() is None, reason="DLPERF_DATA names no folder with CIFAR-10")
def test_the_real_data() -> None:
    data = datasets.load(None)
    assert data.train_images.shape == (50_000, 32, 32, 3) and data.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.train_labels).tolist() == [5_000] * 10
    assert np.bincount(data.test_labels).tolist() == [1_000] * 10
    counts = [np.bincount(data.train_images[..., c].ravel(), minlength=256) for c in range(3)]
    level = np.arange(256) / 255
    mean = np.array([(n * level).sum() / n.sum() for n in counts])
    std = np.array([np.sqrt((n * level**2).sum() / n.sum()) for n in counts])
    std = np.sqrt(std**2 - mean**2)
    np.testing.assert_allclose(cifar10.MEAN, mean, atol=5e-9)
    np.testing.assert_allclose(cifar10.STD, std, atol=5e-9)
