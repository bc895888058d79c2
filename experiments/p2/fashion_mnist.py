"""Fashion-MNIST (Xiao et al. 2017) from its four idx files, checked by hash; and a stand-in.

The files may be compressed by gzip or not. The hash is that of the content, since distributors compress it differently.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import urllib.request
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np

from experiments.cli import UsageError
from experiments.store.files import write_atomically

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"  # Keras's source
FOLDERS = ("", "fashion-mnist", "FashionMNIST/raw", "dataset-fashion-mnist")  # usual names of data folders
CLASSES = 10
SIDE = 28  # pixels
# File, shape and SHA-256 of the uncompressed file.
FILES: dict[str, tuple[str, tuple[int, ...], str]] = {
    "train_images": (
        "train-images-idx3-ubyte",
        (60_000, SIDE, SIDE),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train_labels": (
        "train-labels-idx1-ubyte",
        (60_000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "test_images": (
        "t10k-images-idx3-ubyte",
        (10_000, SIDE, SIDE),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "test_labels": (
        "t10k-labels-idx1-ubyte",
        (10_000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
HOW_TO_GET_IT = (
    "give --data-dir DIR or set DLPERF_DATA=DIR, a folder with the four idx files (Debian's package "
    "dataset-fashion-mnist installs one, `python tools/get_fashion_mnist.py --download DIR` fetches them); "
    "`--data synthetic` needs no data"
)


class DataError(UsageError):
    """The data set is missing, damaged or not Fashion-MNIST; the message is one line and names the file."""


@dataclass(frozen=True)
class Fashion:
    """Images are (n, 28, 28) uint8, labels (n,) uint8 in 0..9."""

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(data_dir: Path | None, dataset: str = "fashion") -> Fashion:
    """Read a data set whole: 'fashion' from `data_dir`, else from where DLPERF_DATA points; or 'synthetic'.

    Raises DataError when the data are missing, damaged or not Fashion-MNIST.
    """
    if dataset == "synthetic":
        return synthetic()
    place = data_dir or os.environ.get("DLPERF_DATA")
    if not place:
        raise DataError(f"no Fashion-MNIST data: {HOW_TO_GET_IT}")
    folder = _find(Path(place))
    return Fashion("fashion", **{name: _read(folder, name) for name in FILES})


def _find(place: Path) -> Path:
    """The folder, among the usual ones in `place`, that has the files. Raises DataError."""
    for folder in (place / name for name in FOLDERS):
        if any(_path(folder, name) for name in FILES):
            missing = [FILES[name][0] for name in FILES if _path(folder, name) is None]
            if missing:
                raise DataError(f"{folder}: {', '.join(missing)} missing; {HOW_TO_GET_IT}")
            return folder
    raise DataError(f"{place}: no Fashion-MNIST files there; {HOW_TO_GET_IT}")


def _path(folder: Path, name: str) -> Path | None:
    """The file, compressed or not."""
    return next((p for suffix in (".gz", "") if (p := folder / f"{FILES[name][0]}{suffix}").is_file()), None)


def _read(folder: Path, name: str) -> np.ndarray:
    """One array. Raises DataError."""
    path = _path(folder, name)
    assert path is not None  # `_find` saw it
    try:
        content = path.read_bytes()
        return decode(content, name, str(path), compressed=path.suffix == ".gz")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); get the file again") from error


def decode(content: bytes, name: str, origin: str, compressed: bool) -> np.ndarray:
    """The array in an idx file's bytes; `origin` is for messages. Raises DataError."""
    _, shape, digest = FILES[name]
    if compressed:
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{origin}: damaged ({error}); get the file again") from error
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    expected = len(header) + int(np.prod(shape))
    if len(content) != expected or not content.startswith(header):
        raise DataError(
            f"{origin}: not the idx file of {shape} bytes that it should be ({len(content):,} bytes instead of "
            f"{expected:,}, or another header); get the file again"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise DataError(f"{origin}: SHA-256 of its content is {found}, not {digest}; get the file again")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def synthetic(seed: int = 0, train: int = 2_000, test: int = 400) -> Fashion:
    """A deterministic, offline, learnable stand-in: a bright block in noise, whose place is the class."""
    generator = np.random.default_rng(seed)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.integers(0, CLASSES, count, dtype=np.uint8)
        images = generator.integers(0, 128, (count, SIDE, SIDE), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 5)
            image[14 * row + 2 : 14 * row + 12, 5 * column + 1 : 5 * column + 6] = 255
        return images, labels

    return Fashion("synthetic", *part(train), *part(test))


def download(folder: Path, url: str = URL) -> None:
    """Fetch the four files into `folder`; a file appears there only once its content is right.

    Files that are right already are left alone, broken ones are replaced. Raises DataError.
    """
    for name, (file, _, _) in FILES.items():
        target = folder / f"{file}.gz"
        if target.is_file():
            with contextlib.suppress(DataError):
                _read(folder, name)
                continue
        try:
            with urllib.request.urlopen(f"{url}{file}.gz", timeout=60) as response:
                content = response.read()
        except (OSError, HTTPException, ValueError) as error:
            raise DataError(f"{url}{file}.gz: cannot be downloaded ({' '.join(str(error).split())})") from error
        decode(content, name, f"{url}{file}.gz", compressed=True)
        write_atomically(target, content)
