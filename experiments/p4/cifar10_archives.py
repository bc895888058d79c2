"""CIFAR-10's usual containers, packed or not: found, read, and held against the hashes; and the download.

Whatever the container, the decoded arrays must have the SHA-256 that cifar10.py pins, so that no run trains on damaged
or different data. Archives are never unpacked to disk. A pickle can run code when it is read, so one is only read if it
is the official file by its published hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import tarfile
import tokenize
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from experiments.p4.cifar10 import CIFAR10, Batch, Cifar, DataError, Spec

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
HOW_TO_GET_IT = (
    f"download cifar-10-python.tar.gz from {PAGE} or with `python tools/get_cifar10.py --download DIR`, then give "
    "--data-dir DIR or set DLPERF_DATA=DIR; `--data synthetic` needs no data"
)
LARGEST_MEMBER = 64 << 20  # bytes; an official batch has 31 MB, so more means a hostile or broken archive


class Container(NamedTuple):
    """One form in which CIFAR-10 is handed around: its files, the folder and archive they come in, their decoder."""

    title: str
    files: tuple[str, ...]
    folder: str
    archive: str | None
    decode: Callable[[Mapping[str, bytes], Spec], list[Batch]]  # five training batches, then the test batch


def _mosaics(files: Mapping[str, bytes], spec: Spec) -> list[Batch]:
    """Lossless WebP mosaics of 20 columns of tiles, filled column by column, and one array of all labels."""
    *mosaics, labels_name = files

    def tiles(name: str, count: int) -> np.ndarray:
        rows = count // 20
        try:
            with Image.open(io.BytesIO(files[name]), formats=["WEBP"]) as image:
                if image.size != (640, 32 * rows):
                    raise DataError(f"{name}: has {image.size[0]}×{image.size[1]} pixels, expected 640×{32 * rows}")
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{name}: not a readable WebP image ({error})") from error
        return pixels.reshape(rows, 32, 20, 32, 3).transpose(2, 0, 1, 3, 4).reshape(count, 32, 32, 3)

    counts = [spec.batch] * 5 + [spec.test]
    try:
        labels = np.lib.format.read_array(io.BytesIO(files[labels_name]), allow_pickle=False)
    except (ValueError, MemoryError, tokenize.TokenError) as error:
        raise DataError(f"{labels_name}: not a readable array of numbers ({_one_line(error)})") from error
    if labels.dtype.kind not in "iu" or labels.shape != (sum(counts),):
        raise DataError(f"{labels_name}: expected {sum(counts)} integers in one row")
    with ThreadPoolExecutor(min(6, os.cpu_count() or 1)) as pool:  # the decoder lets other threads run
        images = list(pool.map(tiles, mosaics, counts))
    return [Batch(*pair) for pair in zip(images, np.split(labels, np.cumsum(counts)[:-1]), strict=True)]


def _pickles(files: Mapping[str, bytes], spec: Spec) -> list[Batch]:
    """The official python batches: pickled by Python 2, rows of 1,024 red, then green, then blue values."""
    for name, content in files.items():
        if (got := hashlib.md5(content, usedforsecurity=False).hexdigest()) != spec.pickles[name]:
            raise DataError(f"{name}: not the official batch, so not read: MD5 {got}, expected {spec.pickles[name]}")
    batches = [pickle.loads(content, encoding="bytes") for content in files.values()]
    images = [batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for batch in batches]
    return [Batch(x, np.array(batch[b"labels"])) for x, batch in zip(images, batches, strict=True)]


def _records(files: Mapping[str, bytes], spec: Spec) -> list[Batch]:
    """The official binary batches: records of a label byte and 3,072 bytes, red, then green, then blue."""

    def batch(name: str, count: int) -> Batch:
        if len(files[name]) != count * 3073:
            raise DataError(f"{name}: has {len(files[name])} bytes, expected {count * 3073}")
        records = np.frombuffer(files[name], np.uint8).reshape(count, 3073)
        return Batch(records[:, 1:].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])

    return [batch(name, count) for name, count in zip(files, [spec.batch] * 5 + [spec.test], strict=True)]


CONTAINERS = (
    Container(
        "lossless WebP mosaics",
        (*(f"cifar10_train_{k}.webp" for k in range(1, 6)), "cifar10_test.webp", "cifar10_labels.npy"),
        "cifar10",
        None,
        _mosaics,
    ),
    Container(
        "official python batches",
        (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"),
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        _pickles,
    ),
    Container(
        "official binary batches",
        (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"),
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        _records,
    ),
)


def find(place: Path) -> tuple[Container, Path]:
    """The container in `place`, with its folder or archive; a complete one goes before one with parts missing."""
    if not place.exists():
        raise DataError(f"no CIFAR-10 data: {place} does not exist; {HOW_TO_GET_IT}")
    if place.is_file():
        for container in CONTAINERS:
            if place.name == container.archive:
                return container, place
        known = ", ".join(c.archive for c in CONTAINERS if c.archive)
        raise DataError(f"{place}: not a folder, nor an archive named {known}")
    incomplete = []
    for folder in (place, *(place / container.folder for container in CONTAINERS)):
        for container in CONTAINERS:
            missing = [name for name in container.files if not (folder / name).is_file()]
            if not missing:
                return container, folder
            if len(missing) < len(container.files):
                incomplete.append(f"{folder}: {container.title} without {', '.join(missing)}; get the data again")
    for folder in (place, *(place / container.folder for container in CONTAINERS)):
        for container in CONTAINERS:
            if container.archive and (folder / container.archive).is_file():
                return container, folder / container.archive
    raise DataError(incomplete[0] if incomplete else f"no CIFAR-10 data in {place}: {HOW_TO_GET_IT}")


def read_folder(folder: Path, container: Container) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in container.files}


def read_archive(source: Path | io.BytesIO, container: Container) -> dict[str, bytes]:
    """The container's files by their names in the archive; every other member is passed over, none is written."""
    shown = source if isinstance(source, Path) else container.archive
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(
            name=source if isinstance(source, Path) else None,
            fileobj=source if isinstance(source, io.BytesIO) else None,
            mode="r:gz",
        ) as archive:
            for member in archive:
                folder, _, name = member.name.partition("/")
                if folder != container.folder or name not in container.files or not member.isfile():
                    continue
                if member.size > LARGEST_MEMBER:
                    raise DataError(f"{shown}: {name} claims to have {member.size} bytes; get the data again")
                content = archive.extractfile(member)
                assert content is not None  # a regular file has content
                found[name] = content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{shown}: damaged archive ({_one_line(error)}); get the data again") from error
    if missing := [name for name in container.files if name not in found]:
        raise DataError(f"{shown}: an archive without {', '.join(missing)}; get the data again")
    return {name: found[name] for name in container.files}


def assemble(container: Container, files: Mapping[str, bytes], path: Path, spec: Spec) -> Cifar:
    """Decode the files, join the parts and hold them against the hashes."""
    try:
        *train, test = container.decode(files, spec)
    except DataError as error:
        raise DataError(f"{path}: {error}; get the data again") from error

    def joined(batches: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((sum(len(batch.images) for batch in batches), 32, 32, 3), np.uint8)
        np.concatenate([batch.images for batch in batches], out=images)
        return images, np.concatenate([batch.labels for batch in batches]).astype(np.int64)

    data = Cifar("cifar10", *joined(train), *joined([test]), origin=f"{container.title} in {path}")
    labels = np.concatenate([data.train_labels, data.test_labels])
    if labels.min() < 0 or labels.max() > 9:  # the hashes are of bytes, which 256 would look like 0 in
        raise DataError(f"{path}: labels from {labels.min()} to {labels.max()}, expected 0 to 9; get the data again")
    for name, got in data.hashes().items():
        if got != spec.hashes[name]:
            first, *_, last = container.files
            raise DataError(
                f"{path}: {name} of {first} … {last} are not CIFAR-10's: SHA-256 {got}, expected {spec.hashes[name]}; "
                "get the data again"
            )
    return data


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200]


def download(folder: Path, url: str = URL, spec: Spec = CIFAR10) -> Path:
    """Fetch the official python archive into `folder`, check its arrays and only then give it its name.

    An archive that is already there and right is left alone, a broken one is replaced. Raises DataError.
    """
    container = next(c for c in CONTAINERS if c.archive == Path(url).name)
    target = folder / Path(url).name
    if target.is_file():
        with contextlib.suppress(DataError):
            assemble(container, read_archive(target, container), target, spec)
            return target
    content = io.BytesIO()
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            size = int(response.headers.get("Content-Length", 0)) or None
            with tqdm(total=size, unit="B", unit_scale=True, desc=target.name) as bar:
                while block := response.read(1 << 20):
                    content.write(block)
                    bar.update(len(block))
    except (OSError, HTTPException, ValueError) as error:
        raise DataError(f"{url}: cannot be downloaded ({_one_line(error)})") from error
    if size and content.tell() != size:
        raise DataError(f"{url}: the download broke off after {content.tell()} of {size} bytes; try again")
    content.seek(0)
    assemble(container, read_archive(content, container), Path(container.archive or ""), spec)
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.getbuffer())
        partial.replace(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
    return target
