"""Fashion-MNIST's idx files, at a small size: what is read, what is refused, and the stand-in."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from experiments.p2 import fashion_mnist
from tools import get_fashion_mnist

SHAPES = {"train_images": (6, 28, 28), "train_labels": (6,), "test_images": (3, 28, 28), "test_labels": (3,)}


def idx(array: np.ndarray) -> bytes:
    """The array as LeCun's format has it."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Uncompressed content by file name, which `fashion` then takes for the real data."""
    monkeypatch.delenv("DLPERF_DATA", raising=False)
    generator = np.random.default_rng(5)
    made, small = {}, {}
    for name, shape in SHAPES.items():
        file = fashion_mnist.FILES[name][0]
        made[file] = idx(generator.integers(0, 10, shape, dtype=np.uint8))
        small[name] = (file, shape, hashlib.sha256(made[file]).hexdigest())
    monkeypatch.setattr("experiments.p2.fashion_mnist.FILES", small)
    return made


def put(folder: Path, files: dict[str, bytes], compressed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (f"{name}.gz" if compressed else name)).write_bytes(gzip.compress(content) if compressed else content)
    return folder


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("below", fashion_mnist.FOLDERS)
def test_all_four_arrays_are_read(files: dict[str, bytes], tmp_path: Path, below: str, compressed: bool) -> None:
    put(tmp_path / below, files, compressed)
    data = fashion_mnist.load(tmp_path)
    for name, (file, shape, _) in fashion_mnist.FILES.items():
        array = getattr(data, name)
        assert array.shape == shape and array.dtype == np.uint8
        assert files[file].endswith(array.tobytes())


def test_the_variable_names_the_folder(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLPERF_DATA", str(put(tmp_path, files)))
    assert fashion_mnist.load(None).train_images.shape == (6, 28, 28)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda c: gzip.compress(c)[:-20], "damaged"),
        (lambda c: b"no gzip", "damaged"),
        (lambda c: gzip.compress(c[:-1]), "not the idx file"),
        (lambda c: gzip.compress(c + b"\0"), "not the idx file"),
        (lambda c: gzip.compress(b"\0\0\x09" + c[3:]), "not the idx file"),
        (lambda c: gzip.compress(c[:-1] + bytes([c[-1] ^ 1])), "SHA-256 of its content is"),
    ],
)
def test_damaged_files_are_named(files: dict[str, bytes], tmp_path: Path, harm, message: str) -> None:  # type: ignore[no-untyped-def]
    put(tmp_path, files)
    file = fashion_mnist.FILES["test_images"][0]
    (tmp_path / f"{file}.gz").write_bytes(harm(files[file]))
    with pytest.raises(fashion_mnist.DataError, match=message) as caught:
        fashion_mnist.load(tmp_path)
    assert f"{file}.gz" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_are_named(files: dict[str, bytes], tmp_path: Path) -> None:
    put(tmp_path, files)
    file = fashion_mnist.FILES["train_labels"][0]
    (tmp_path / f"{file}.gz").unlink()
    with pytest.raises(fashion_mnist.DataError, match=f"{file} missing"):
        fashion_mnist.load(tmp_path)
    with pytest.raises(fashion_mnist.DataError, match="no Fashion-MNIST files there"):
        fashion_mnist.load(tmp_path / "elsewhere")
    with pytest.raises(fashion_mnist.DataError, match=r"no Fashion-MNIST data: give --data-dir"):
        fashion_mnist.load(None)


def test_a_download_is_checked_and_not_repeated(files: dict[str, bytes], tmp_path: Path) -> None:
    source, target = put(tmp_path / "source", files), tmp_path / "target"
    url = f"{source.as_uri()}/"
    fashion_mnist.download(target, url)
    assert fashion_mnist.load(target).test_labels.shape == (3,)
    for path in source.iterdir():
        path.write_bytes(b"changed since")
    fashion_mnist.download(target, url)  # takes nothing, as all is there
    (target / f"{fashion_mnist.FILES['test_labels'][0]}.gz").unlink()
    with pytest.raises(fashion_mnist.DataError, match="damaged"):
        fashion_mnist.download(target, url)
    assert not (target / f"{fashion_mnist.FILES['test_labels'][0]}.gz").exists()
    with pytest.raises(fashion_mnist.DataError, match="cannot be downloaded"):
        fashion_mnist.download(target, f"{(tmp_path / 'nowhere').as_uri()}/")


def test_command_line(files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert get_fashion_mnist.main(["--data-dir", str(put(tmp_path, files))]) == 0
    assert "train_images  (6, 28, 28)" in capsys.readouterr().out
    assert get_fashion_mnist.main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("get_fashion_mnist: no Fashion-MNIST data") and said.count("\n") == 1


def test_the_stand_in_is_the_same_every_time_and_can_be_learnt() -> None:
    first, second = fashion_mnist.load(None, "synthetic"), fashion_mnist.synthetic()
    assert np.array_equal(first.train_images, second.train_images) and first.name == "synthetic"
    assert not np.array_equal(first.train_images, fashion_mnist.synthetic(1).train_images)
    # Means of the classes tell them apart.
    means = np.stack([first.train_images[first.train_labels == c].mean(axis=0) for c in range(fashion_mnist.CLASSES)])
    distances = ((first.test_images[:, None] - means) ** 2).sum(axis=(2, 3))
    assert (distances.argmin(axis=1) == first.test_labels).all()
