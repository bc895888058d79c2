"""CIFAR-10 (Krizhevsky 2009) as four arrays, and what they must be: their statistics and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.cli import UsageError

# Over the 50,000 training images, pixels scaled to 0..1; red, green, blue.
MEAN = (0.49139968, 0.48215841, 0.44653091)
STD = (0.24703223, 0.24348513, 0.26158784)


class DataError(UsageError):
    """The data set is missing, damaged or not what it claims to be; the message is one line and names the file."""


@dataclass(frozen=True)
class Spec:
    """What a complete data set has: images per training batch (of five), test images, SHA-256 of each array, and the
    published MD5 of each official pickle."""

    batch: int
    test: int
    hashes: Mapping[str, str]
    pickles: Mapping[str, str]


CIFAR10 = Spec(
    batch=10_000,
    test=10_000,
    hashes={
        "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    },
    # As torchvision.datasets.CIFAR10 lists them. Nobody can make another file with the MD5 of a given one.
    pickles={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)


@dataclass(frozen=True, eq=False)
class Cifar:
    """Images are (n, 32, 32, 3) uint8 NHWC, red-green-blue; labels are (n,) int64 in 0..9.

    `name` is 'cifar10' or 'synthetic'; `origin` says which files the arrays came from.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    origin: str = ""

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each array's bytes, labels as uint8."""
        return {
            name: hashlib.sha256(np.ascontiguousarray(getattr(self, name), np.uint8).data).hexdigest()
            for name in CIFAR10.hashes
        }


class Batch(NamedTuple):
    """One part of the data set: images (n, 32, 32, 3) uint8 and labels (n,)."""

    images: np.ndarray
    labels: np.ndarray
