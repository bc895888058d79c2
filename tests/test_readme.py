"""README's figures and its picture against the committed runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd
import pytest

from experiments.store.files import ROOT
from report import show
from report.estimates import word
from report.figures import augmentation_runs, horovod_runs, strategy_reductions, strategy_runs
from tools import draw_readme

README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
NAMES = r"ResNet-\d+|VGG-\d+|CIFAR-\d+|H\d+s?|^\d\."  # digits that count nothing


def item(number: int) -> str:
    """An item of README's list of problems."""
    found = re.search(rf" {number}\. (\*\*.*?)(?= {number + 1}\. \*\*| A further chapter)", README)
    assert found
    return found[1]


def gpus(runs: pd.DataFrame) -> str:
    """1, 2 and 4 H200s: the sizes on the device that has most of them."""
    own = runs[runs.device_kind == "gpu"]
    sizes = own.groupby("device").learners.unique()
    device = max(sizes.index, key=lambda name: len(sizes[name]))
    return f"{numbers(sizes[device])} {device.removeprefix('NVIDIA ')}s"


def cores(runs: pd.DataFrame) -> str:
    own = runs[runs.device_kind == "cpu"].learners
    return f"{own.min()} to {own.max()} CPU learners"


def numbers(values: Iterable[int]) -> str:
    return show.listing([str(value) for value in sorted(values)])


def contenders(column: str, strategy: str, names: dict[str, str]) -> int:
    """How many implementations the contests on GPUs have, but for the default."""
    runs = strategy_runs.load()
    found = strategy_reductions.contests(runs[runs.strategy == strategy], column, names, "gpu")
    return len({how for one in found for how in one[column]} - {"default"})


def of_horovod() -> list[str]:
    runs = horovod_runs.load()
    hosts = show.listing([word(n) for n in sorted(runs[runs.device_kind == "cpu"].hosts.unique())])
    return [gpus(runs), f"{cores(runs)} of {hosts} hosts"]


def of_strategy() -> list[str]:
    runs = strategy_runs.load()
    whole = strategy_runs.ten_epochs(runs)
    reductions = contenders("all_reduce", "mirrored", strategy_reductions.REDUCTIONS)
    communications = contenders("communication", "multiworker", strategy_reductions.COMMUNICATIONS)
    compared = f"{word(reductions)} all-reduces and {word(communications)} communications"
    return [f"ten whole epochs on {gpus(whole)}", compared, cores(runs)]


def of_augmentation() -> list[str]:
    found = augmentation_runs.finished(augmentation_runs.load())
    runs = augmentation_runs.main(found)
    assert not runs.elsewhere.any()
    (device,) = {device.split()[1] for device in runs.device}
    place = ["device", "code", "precision", "epochs_planned"]
    whole = augmentation_runs.placed_as(found, runs, place)  # of both schedules
    seeds = whole.groupby(["augment", "M", "schedule"]).seed.nunique()
    cutout = whole[whole.augment == "cutout"]
    (schedules,) = set(cutout.groupby("M").schedule.nunique())
    measured = (
        f"an {device}, the baseline, and M = {numbers(cutout.M.unique())} with {word(schedules)} schedules, "
        f"{word(int(seeds.min()))} seeds or more each"
    )
    return [measured, f"{100 - augmentation_runs.GOAL:g} %"]


@pytest.mark.parametrize(("number", "figures"), [(1, of_horovod), (2, of_strategy), (3, list), (4, of_augmentation)])
def test_its_list_counts_what_is_stored_and_nothing_else(number: int, figures: type) -> None:
    text = item(number)
    for phrase in figures():
        assert phrase in text
        text = text.replace(phrase, "")
    assert not re.search(r"\d", re.sub(NAMES, "", text)), f"a figure that nothing computes: {text}"


def test_its_picture_shows_the_rows_of_today() -> None:
    picture = draw_readme.PICTURE.read_text(encoding="utf-8")
    assert f"sha256 {draw_readme.digest(draw_readme.specification())} " in picture, "run: make readme"
    assert draw_readme.PICTURE.stat().st_size < 100_000
    assert f"]({draw_readme.PICTURE.relative_to(ROOT)})" in README


def test_its_first_screen_has_the_command_before_its_picture() -> None:
    command, picture = README.index("make measure"), README.index(draw_readme.PICTURE.name)
    assert command < picture < README.index("## Three commands")
