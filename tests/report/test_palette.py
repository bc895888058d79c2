"""The same thing has the same colour in all chapters."""

from __future__ import annotations

import json
import re

from experiments.store.files import ROOT
from report import palette


def test_a_device_has_its_colour_whatever_a_series_is_called() -> None:
    names = ["PyTorch, H200", "H200, 224 px, XLA", "NCCL, NVIDIA H200, one host, 4 learners", "H200"]
    assert {palette.device(name) for name in names} == {"#0072B2"}
    cores = ["PyTorch, CPU", "CPU, Mirrored, 32 px", "Gloo, Intel Xeon, one host, 2 learners", "AMD EPYC"]
    assert {palette.device(name) for name in cores} == {"#D55E00"}
    assert palette.device("K80, 224 px: projected from published runs") == "#E69F00"
    assert palette.device("yours: 2 × RTX 4090, PyTorch") == palette.OTHER_DEVICE


def test_a_devices_series_are_shades_of_its_colour() -> None:
    found = palette.series(["PyTorch, CPU", "PyTorch, H200", "PyTorch, H200, mixed", "H100", "TensorFlow, CPU"])
    # 55 % of 0x72 and 0xB2 are 62.7 and 97.9, of 0xD5 and 0x5E 117.2 and 51.7: 0x3F, 0x62, 0x75 and 0x34.
    assert found == ["#D55E00", "#0072B2", "#003F62", "#56B4E9", "#753400"]
    five = palette.series([f"H200, {i}" for i in range(5)])
    assert len(set(five)) == 5


def test_every_m_has_its_own_colour_whatever_others_are_shown() -> None:
    assert palette.instances([1, 2, 4, 8, 16, 32]) == palette.INSTANCES
    assert palette.instances([8]) == ["#21918C"]
    assert palette.instances([3, 64]) == ["#31688E", "#90D743"]  # log2(3) = 1.58 is nearer to M = 4


def test_no_two_things_share_a_colour() -> None:
    told = [*palette.DEVICES.values(), palette.OTHER_DEVICE, *palette.SCALINGS.values(), palette.MODEL]
    assert len(set(told)) == len(told)


def luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_names_in_a_lines_colour_can_be_read_on_white() -> None:
    for colour in (*palette.SCALINGS.values(), *palette.INSTANCES):
        assert 1.05 / (luminance(palette.ink(colour)) + 0.05) >= 4.5, colour


def test_charts_take_their_colours_from_here() -> None:
    """A colour that a figure's module spells out is one that the next chapter would choose otherwise."""
    spelled = {
        path.name: found
        for path in sorted((ROOT / "report/figures").glob("*.py"))
        if (found := re.findall(r"#[0-9A-Fa-f]{6}\b", path.read_text(encoding="utf-8")))
    }
    assert json.dumps(spelled) == "{}"
