"""CIFAR-10's containers, at a small size: round trips, damage, hostile files; the stand-in; the download."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from experiments.p4 import cifar10, cifar10_archives, datasets
from experiments.p4.cifar10 import Cifar, DataError, Spec
from experiments.p4.synthetic import synthetic
from experiments.store import ROOT

BATCH, TEST = 20, 40
SCRIPT = ROOT / "tools" / "get_cifar10.py"


def _tiny() -> Cifar:
    draw = np.random.default_rng(7)
    images = draw.integers(0, 256, (5 * BATCH + TEST, 32, 32, 3), dtype=np.uint8)
    labels = draw.integers(0, 10, 5 * BATCH + TEST)
    return Cifar("cifar10", images[:-TEST], labels[:-TEST], images[-TEST:], labels[-TEST:])


TINY = _tiny()


# ---- writers of each container -------------------------------------------------------------------------------------


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


def test_environment_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_DATA", str(put(tmp_path, binary_files())))
    assert_tiny(load(None))


def test_an_unpacked_folder_with_parts_missing_gives_way_to_the_archive_beside_it(tmp_path: Path) -> None:
    """What an interrupted unpacking leaves."""
    folder = put(tmp_path / "cifar-10-batches-py", python_files())
    (folder / "test_batch").unlink()
    refusal(tmp_path, "without test_batch")
    put(tmp_path, {"cifar-10-python.tar.gz": python_archive()})
    assert_tiny(load(tmp_path))


# ---- missing data --------------------------------------------------------------------------------------------------


def test_no_folder_given_says_how_to_get_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLPERF_DATA", raising=False)
    message = refusal(None, "no CIFAR-10 data")
    for hint in (cifar10_archives.PAGE, "--download", "--data-dir", "DLPERF_DATA", "--data synthetic"):
        assert hint in message


def test_folders_without_data(tmp_path: Path) -> None:
    refusal(tmp_path / "gone", "gone does not exist")
    assert str(tmp_path) in refusal(tmp_path, "no CIFAR-10 data in")
    refusal(put(tmp_path, {"other.zip": b""}) / "other.zip", "nor an archive named cifar-10-python.tar.gz")


def test_unknown_data_set() -> None:
    with pytest.raises(DataError, match="unknown data set 'mnist'"):
        datasets.load(None, "mnist")


@pytest.mark.parametrize("files", [mosaic_files, python_files, binary_files])
def test_every_missing_part_is_named(tmp_path: Path, files: Callable[[], dict[str, bytes]]) -> None:
    content = files()
    for k, name in enumerate(content):
        put(tmp_path / str(k), {other: data for other, data in content.items() if other != name})
        refusal(tmp_path / str(k), f"without {name}")


# ---- damage --------------------------------------------------------------------------------------------------------


def flipped(content: bytes, position: int) -> bytes:
    position %= len(content)
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


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


# ---- the stand-in --------------------------------------------------------------------------------------------------


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


# ---- the download --------------------------------------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    content: ClassVar[bytes]
    claimed: ClassVar[int | None]
    requests: ClassVar[int]

    def do_GET(self) -> None:
        type(self).requests += 1
        if "gone" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        if self.claimed is not None:
            self.send_header("Content-Length", str(self.claimed))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.content = python_archive()
    Server.claimed, Server.requests = len(Server.content), 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_download(tmp_path: Path, server: str) -> None:
    folder = tmp_path / "new" / "folder"
    target = cifar10_archives.download(folder, f"{server}/cifar-10-python.tar.gz", SPEC)
    assert target.read_bytes() == Server.content and os.listdir(folder) == ["cifar-10-python.tar.gz"]
    assert_tiny(load(folder))
    assert cifar10_archives.download(folder, f"{server}/cifar-10-python.tar.gz", SPEC) == target
    assert Server.requests == 1


def test_download_without_a_length(tmp_path: Path, server: str) -> None:
    Server.claimed = None
    assert_tiny(load(cifar10_archives.download(tmp_path, f"{server}/cifar-10-python.tar.gz", SPEC)))


def test_failed_downloads_leave_nothing(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str, match: str) -> None:
        with pytest.raises(DataError, match=match) as caught:
            cifar10_archives.download(tmp_path, f"{server}/{path}", SPEC)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())

    fails("gone/cifar-10-python.tar.gz", "404")
    good = Server.content
    Server.claimed = len(good) + 1000
    fails("cifar-10-python.tar.gz", "broke off|cannot be downloaded")
    Server.content, Server.claimed = b"<html>sorry</html>", None
    fails("cifar-10-python.tar.gz", "damaged archive")
    other = python_files() | {"test_batch": py2_batch(planes(TINY.test_images) ^ 1, TINY.test_labels.tolist())}
    Server.content = packed("cifar-10-batches-py", other)
    fails("cifar-10-python.tar.gz", "test_batch: not the official batch")
    Server.content = good

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    fails("cifar-10-python.tar.gz", "No space left on device")


def test_download_from_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be downloaded"):
        cifar10_archives.download(tmp_path, "http://127.0.0.1:9/cifar-10-python.tar.gz", SPEC)


# ---- the command, and the real data --------------------------------------------------------------------------------


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "DLPERF_DATA"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=kept | environment, cwd="/"
    )


def test_command_refuses_bad_input_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, binary_files())  # the real command expects the real size
    for done in (command(), command("--data-dir", "/nowhere"), command(DLPERF_DATA=str(tmp_path))):
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("get_cifar10: ") and done.stderr.count("\n") == 1


def test_command_shows_what_it_found() -> None:
    done = command("--data", "synthetic")
    assert done.returncode == 0 and done.stderr == ""
    assert "(5000, 32, 32, 3)" in done.stdout and done.stdout.count("sha256") == 4


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
