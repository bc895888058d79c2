"""A small stand-in for CIFAR-10 in each of its containers, written here and not by the code that reads them."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.p4 import datasets
from experiments.p4.cifar10 import Cifar, DataError, Spec

BATCH, TEST = 20, 40


def _tiny() -> Cifar:
    draw = np.random.default_rng(7)
    images = draw.integers(0, 256, (5 * BATCH + TEST, 32, 32, 3), dtype=np.uint8)
    labels = draw.integers(0, 10, 5 * BATCH + TEST)
    return Cifar("cifar10", images[:-TEST], labels[:-TEST], images[-TEST:], labels[-TEST:])


TINY = _tiny()


def parts() -> list[tuple[np.ndarray, np.ndarray]]:
    train = [(TINY.train_images[i : i + BATCH], TINY.train_labels[i : i + BATCH]) for i in range(0, 5 * BATCH, BATCH)]
    return [*train, (TINY.test_images, TINY.test_labels)]


def planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072)


def py2_string(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def py2_int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def py2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 and its NumPy pickled it, written opcode by opcode: pickle can't write this form any more."""
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + py2_int(0) + b"\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\n" + py2_string(b"u1") + py2_int(0) + py2_int(1) + b"\x87R"
    dtype += b"(" + py2_int(3) + py2_string(b"|") + b"NNN" + py2_int(-1) + py2_int(-1) + py2_int(0) + b"tb"
    shape = b"(" + b"".join(py2_int(n) for n in data.shape) + b"t"
    array = reconstruct + b"(" + py2_int(1) + shape + dtype + b"\x89" + py2_string(data.tobytes()) + b"tb"
    entries = py2_string(b"batch_label") + py2_string(b"training batch 1 of 5")
    entries += py2_string(b"labels") + b"](" + b"".join(map(py2_int, labels)) + b"e"
    entries += py2_string(b"data") + array
    return b"\x80\x02}(" + entries + b"u."


def python_files() -> dict[str, bytes]:
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    return {name: py2_batch(planes(x), y.tolist()) for name, (x, y) in zip(names, parts(), strict=True)}


def md5(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in files.items()}


SPEC = Spec(BATCH, TEST, TINY.hashes(), md5(python_files()))
load = partial(datasets.load, spec=SPEC)


def binary_files() -> dict[str, bytes]:
    names = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
    records = [np.concatenate([y[:, None].astype(np.uint8), planes(x)], axis=1).tobytes() for x, y in parts()]
    return dict(zip(names, records, strict=True))


def mosaic(images: np.ndarray, form: str = "WEBP") -> bytes:
    rows = len(images) // 20
    pixels = images.reshape(20, rows, 32, 32, 3).transpose(1, 2, 0, 3, 4).reshape(32 * rows, 640, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, lossless=True, exact=True, method=0)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def mosaic_files() -> dict[str, bytes]:
    names = [*(f"cifar10_train_{k}.webp" for k in range(1, 6)), "cifar10_test.webp"]
    files = {name: mosaic(x) for name, (x, _) in zip(names, parts(), strict=True)}
    labels = np.concatenate([TINY.train_labels, TINY.test_labels]).astype(np.uint8)
    return files | {"cifar10_labels.npy": npy(labels)}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def packed(folder: str, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name, content in {"readme.html": b"<html>", **files}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def python_archive() -> bytes:
    return packed("cifar-10-batches-py", python_files())


def binary_archive() -> bytes:
    return packed("cifar-10-batches-bin", binary_files())


def assert_tiny(data: Cifar) -> None:
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        array, expected = getattr(data, name), getattr(TINY, name)
        assert array.dtype == (np.int64 if name.endswith("labels") else np.uint8)
        assert array.flags.writeable and array.flags.c_contiguous
        np.testing.assert_array_equal(array, expected)


def refusal(place: Path | None, match: str) -> str:
    """The message of the DataError that loading ends with: one line that says what was wrong."""
    with pytest.raises(DataError, match=match) as caught:
        load(place)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def flipped(content: bytes, position: int) -> bytes:
    position %= len(content)
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
