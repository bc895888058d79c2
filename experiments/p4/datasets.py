"""Problem 4's data by name: CIFAR-10 from a folder or an archive, or the synthetic stand-in."""

from __future__ import annotations

import os
from pathlib import Path

from experiments.p4.cifar10 import CIFAR10, Cifar, DataError, Spec
from experiments.p4.cifar10_archives import HOW_TO_GET_IT, assemble, find, read_archive, read_folder
from experiments.p4.synthetic import synthetic


def load(data_dir: Path | None, dataset: str = "cifar10", spec: Spec = CIFAR10) -> Cifar:
    """Read a data set whole: 'cifar10' from `data_dir`, else from where DLPERF_DATA points; or 'synthetic'.

    `data_dir` may hold the official python or binary archive, either one unpacked (torchvision's layout), or lossless
    WebP mosaics, directly or in a sub-folder of the usual name; or it may be the archive itself.
    Raises DataError when the data are missing, damaged or not CIFAR-10.
    """
    if dataset == "synthetic":
        return synthetic()
    if dataset != "cifar10":
        raise DataError(f"unknown data set '{dataset}'; known: cifar10, synthetic")
    place = data_dir or os.environ.get("DLPERF_DATA")
    if not place:
        raise DataError(f"no CIFAR-10 data: {HOW_TO_GET_IT}")
    container, path = find(Path(place))
    try:
        files = read_archive(path, container) if path.is_file() else read_folder(path, container)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); get the data again") from error
    return assemble(container, files, path, spec)
