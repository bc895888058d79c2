"""experiments.p4.datasets: which data a name and a folder mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.p4 import cifar10_archives, datasets
from experiments.p4.cifar10 import DataError
from tests.cifar10_files import assert_tiny, binary_files, load, put, refusal


def test_environment_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_DATA", str(put(tmp_path, binary_files())))
    assert_tiny(load(None))


def test_no_folder_given_says_how_to_get_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLPERF_DATA", raising=False)
    message = refusal(None, "no CIFAR-10 data")
    for hint in (cifar10_archives.PAGE, "--download", "--data-dir", "DLPERF_DATA", "--data synthetic"):
        assert hint in message


def test_unknown_data_set() -> None:
    with pytest.raises(DataError, match="unknown data set 'mnist'"):
        datasets.load(None, "mnist")
