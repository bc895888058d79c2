"""experiments.p4.cifar10_archives: round trips, damage and hostile files."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.p4 import cifar10_archives, datasets
from experiments.p4.cifar10 import DataError, Spec
from tests.cifar10_files import (
    BATCH,
    SPEC,
    TEST,
    TINY,
    assert_tiny,
    binary_archive,
    binary_files,
    flipped,
    load,
    md5,
    mosaic,
    mosaic_files,
    npy,
    packed,
    planes,
    put,
    py2_batch,
    python_archive,
    python_files,
    refusal,
)

# ---- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "sub"),
    [
        (mosaic_files, "."),
        (mosaic_files, "cifar10"),
        (python_files, "."),
        (python_files, "cifar-10-batches-py"),
        (binary_files, "."),
        (binary_files, "cifar-10-batches-bin"),
    ],
)
def test_folders(tmp_path: Path, files: Callable[[], dict[str, bytes]], sub: str) -> None:
    put(tmp_path / sub, files())
    assert_tiny(load(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"), [("cifar-10-python.tar.gz", python_archive), ("cifar-10-binary.tar.gz", binary_archive)]
)
def test_archives(tmp_path: Path, name: str, content: Callable[[], bytes]) -> None:
    put(tmp_path, {name: content()})
    before = sorted(tmp_path.rglob("*"))
    assert_tiny(load(tmp_path))
    data = load(tmp_path / name)
    assert_tiny(data)
    assert data.name == "cifar10" and name in data.origin
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unpacked_folder_with_parts_missing_gives_way_to_the_archive_beside_it(tmp_path: Path) -> None:
    """What an interrupted unpacking leaves."""
    folder = put(tmp_path / "cifar-10-batches-py", python_files())
    (folder / "test_batch").unlink()
    refusal(tmp_path, "without test_batch")
    put(tmp_path, {"cifar-10-python.tar.gz": python_archive()})
    assert_tiny(load(tmp_path))


# ---- missing data --------------------------------------------------------------------------------------------------


def test_folders_without_data(tmp_path: Path) -> None:
    refusal(tmp_path / "gone", "gone does not exist")
    assert str(tmp_path) in refusal(tmp_path, "no CIFAR-10 data in")
    refusal(put(tmp_path, {"other.zip": b""}) / "other.zip", "nor an archive named cifar-10-python.tar.gz")


@pytest.mark.parametrize("files", [mosaic_files, python_files, binary_files])
def test_every_missing_part_is_named(tmp_path: Path, files: Callable[[], dict[str, bytes]]) -> None:
    content = files()
    for k, name in enumerate(content):
        put(tmp_path / str(k), {other: data for other, data in content.items() if other != name})
        refusal(tmp_path / str(k), f"without {name}")


# ---- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "name", "position"),
    [
        ("train_images", "data_batch_2.bin", 3072),
        ("train_labels", "data_batch_5.bin", 0),
        ("test_images", "test_batch.bin", -1),
        ("test_labels", "test_batch.bin", 3073),
    ],
)
def test_one_flipped_bit_is_found_in_each_array(tmp_path: Path, array: str, name: str, position: int) -> None:
    """A label's lowest bit leaves it in 0..9, so that only the hash can tell."""
    files = binary_files()
    files[name] = flipped(files[name], position)
    message = refusal(put(tmp_path, files), f"{array} of data_batch_1.bin … test_batch.bin are not CIFAR-10's")
    assert SPEC.hashes[array] in message and str(tmp_path) in message


def test_swapped_batches_are_found(tmp_path: Path) -> None:
    files = binary_files()
    files["data_batch_1.bin"], files["data_batch_2.bin"] = files["data_batch_2.bin"], files["data_batch_1.bin"]
    refusal(put(tmp_path, files), "train_images .* are not CIFAR-10's")


@pytest.mark.parametrize("length", [0, 1, 3072, -1])
def test_binary_batches_of_a_wrong_length(tmp_path: Path, length: int) -> None:
    files = binary_files()
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:length]
    refusal(put(tmp_path, files), rf"data_batch_3.bin: has \d+ bytes, expected {BATCH * 3073}")


def test_labels_out_of_range(tmp_path: Path) -> None:
    files = binary_files()
    files["test_batch.bin"] = b"\x0a" + files["test_batch.bin"][1:]
    refusal(put(tmp_path, files), "labels from 0 to 10, expected 0 to 9")


def test_labels_that_only_look_right_modulo_256(tmp_path: Path) -> None:
    files = mosaic_files()
    labels = np.concatenate([TINY.train_labels, TINY.test_labels]) + 256
    files["cifar10_labels.npy"] = npy(labels)
    assert hashlib.sha256(labels[: 5 * BATCH].astype(np.uint8).data).hexdigest() == SPEC.hashes["train_labels"]
    refusal(put(tmp_path, files), "expected 0 to 9")


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((5 * BATCH + TEST, 1), np.uint8), "expected 140 integers"),
        (np.zeros(5 * BATCH, np.uint8), "expected 140 integers"),
        (np.full(5 * BATCH + TEST, np.nan), "expected 140 integers"),
        (np.full(5 * BATCH + TEST, 3.0), "expected 140 integers"),
        (np.array([{}] * (5 * BATCH + TEST)), "not a readable array"),
        (b"", "not a readable array"),
        (b"\x93NUMPY\x01\x00", "not a readable array"),
        (b"\x80\x04N.", "not a readable array"),
        (b"PK\x03\x04 not an npz", "not a readable array"),
    ],
)
def test_mosaic_labels_of_a_wrong_form(tmp_path: Path, labels: Any, match: str) -> None:
    content = labels if isinstance(labels, bytes) else npy(labels)
    refusal(put(tmp_path, mosaic_files() | {"cifar10_labels.npy": content}), f"cifar10_labels.npy: .*{match}")


def test_a_changed_byte_in_the_labels_is_refused_or_harmless(tmp_path: Path) -> None:
    files, container = mosaic_files(), cifar10_archives.CONTAINERS[0]
    labels = files["cifar10_labels.npy"]
    outcomes = set()
    for position in range(len(labels)):
        for bits in (1, 0x80):
            changed = labels[:position] + bytes([labels[position] ^ bits]) + labels[position + 1 :]
            try:
                assert_tiny(
                    cifar10_archives.assemble(container, files | {"cifar10_labels.npy": changed}, tmp_path, SPEC)
                )
                outcomes.add("harmless")
            except DataError:
                outcomes.add("refused")
    assert "refused" in outcomes


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (lambda: mosaic(TINY.test_images), "has 640×64 pixels, expected 640×32"),
        (lambda: mosaic(TINY.train_images[:BATCH], "PNG"), "not a readable WebP image"),
        (lambda: b"", "not a readable WebP image"),
        (lambda: mosaic(TINY.train_images[:BATCH])[:2000], "not a readable WebP image"),
        (lambda: mosaic(TINY.train_images[:BATCH])[:-2000], "not a readable WebP image"),
    ],
)
def test_unreadable_mosaics(tmp_path: Path, content: Callable[[], bytes], match: str) -> None:
    message = refusal(put(tmp_path, mosaic_files() | {"cifar10_train_4.webp": content()}), match)
    assert "cifar10_train_4.webp" in message


@pytest.mark.parametrize("kept", [0, 10, 200, 0.3, 0.7, 0.99])
def test_truncated_archives(tmp_path: Path, kept: float) -> None:
    content = python_archive()
    length = int(kept * len(content)) if isinstance(kept, float) else kept
    put(tmp_path, {"cifar-10-python.tar.gz": content[:length]})
    assert "cifar-10-python.tar.gz" in refusal(tmp_path, "get the data again")


def test_archives_that_are_none(tmp_path: Path) -> None:
    put(tmp_path, {"cifar-10-python.tar.gz": b"<html>404</html>"})
    refusal(tmp_path, "cifar-10-python.tar.gz: damaged archive")
    put(tmp_path, {"cifar-10-python.tar.gz": packed("cifar-10-batches-py", {"data_batch_1": b""})})
    refusal(tmp_path, "without data_batch_2, .*test_batch")


def test_an_archive_with_a_flipped_byte(tmp_path: Path) -> None:
    content = python_archive()
    for position in range(20, len(content) - 20, len(content) // 20):
        put(tmp_path, {"cifar-10-python.tar.gz": flipped(content, position)})
        refusal(tmp_path, "get the data again")


# ---- hostile archives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../cifar-10-batches-py/data_batch_1",
        "/cifar-10-batches-py/data_batch_1",
        "cifar-10-batches-py/../data_batch_1",
        "cifar-10-batches-py//data_batch_1",
        "cifar-10-batches-py/sub/data_batch_1",
        "cifar-10-batches-py/data_batch_1\x00",
    ],
)
def test_archive_members_count_by_their_exact_name_and_are_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files = python_files()
    batch = files.pop("data_batch_1")
    out = io.BytesIO(packed("cifar-10-batches-py", files))
    with tarfile.open(fileobj=out) as archive:
        members = [(m, archive.extractfile(m)) for m in archive.getmembers()]
        hostile = tarfile.TarInfo(name)
        hostile.size = len(batch)
        again = io.BytesIO()
        with tarfile.open(fileobj=again, mode="w:gz", format=tarfile.PAX_FORMAT) as target:
            for member, content in members:
                target.addfile(member, content)
            target.addfile(hostile, io.BytesIO(batch))
    inside = put(tmp_path / "a" / "b", {"cifar-10-python.tar.gz": again.getvalue()})
    monkeypatch.chdir(inside)
    before = sorted(tmp_path.rglob("*"))
    if name.endswith("\x00"):  # the format itself ends names there
        assert_tiny(load(inside))
    else:
        refusal(inside, "without data_batch_1")
    assert sorted(tmp_path.rglob("*")) == before


def test_archive_links_are_not_followed(tmp_path: Path) -> None:
    secret = put(tmp_path, {"secret": python_files()["data_batch_1"]}) / "secret"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
            link.type, link.linkname = kind, str(secret)
            archive.addfile(link)
        put(tmp_path, {"cifar-10-python.tar.gz": out.getvalue()})
        refusal(tmp_path, "without data_batch_1")


def test_archive_members_that_claim_a_huge_size(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.size = 1 << 40
    put(tmp_path, {"cifar-10-python.tar.gz": gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))})
    refusal(tmp_path, "data_batch_1 claims to have 1099511627776 bytes")


# ---- pickles -------------------------------------------------------------------------------------------------------


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_that_is_not_the_official_one_is_not_read(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hostile = pickle.dumps({b"data": Touch(canary), b"labels": [1]})
    files = python_files() | {"test_batch": hostile}
    message = refusal(put(tmp_path / "data", files), "test_batch: not the official batch, so not read: MD5 ")
    assert SPEC.pickles["test_batch"] in message and not canary.exists()
    pickle.loads(hostile)  # would have run code
    assert canary.exists()


@pytest.mark.parametrize("position", [0, 100, 1000, -1])
def test_one_flipped_bit_is_found_in_a_pickle(tmp_path: Path, position: int) -> None:
    files = python_files()
    files["data_batch_3"] = flipped(files["data_batch_3"], position)
    refusal(put(tmp_path, files), "data_batch_3: not the official batch")


def test_batches_of_other_images_are_refused_by_the_arrays_hashes_too(tmp_path: Path) -> None:
    """Should files and their hashes ever disagree with the arrays' hashes."""
    files = python_files() | {"test_batch": py2_batch(planes(TINY.test_images) ^ 1, TINY.test_labels.tolist())}
    spec = Spec(BATCH, TEST, TINY.hashes(), md5(files))
    with pytest.raises(DataError, match=r"test_images .* are not CIFAR-10's"):
        datasets.load(put(tmp_path, files), spec=spec)
