"""Problem 4: cutout's pictures and the masked share, on hand-made rows."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
from PIL import Image

from report import show
from report.answers import Answer, Missing
from report.figures import augmentation_cutout
from tests.p4_epochs import plain


def images() -> pd.DataFrame:
    """Two images: a white one with a black cutout, and a grey one."""
    rows = []
    for index, colours in ((3, ("white", "black")), (7, ("grey", "grey"))):
        for draw, colour in enumerate(colours):
            buffer = io.BytesIO()
            Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
            share = 0.25 if draw else 0.0
            rows.append({"index": index, "label": f"class {index}", "draw": draw, "masked_share": share})
            rows[-1] |= {"png": buffer.getvalue(), "run_id": "pictures", "device": "AMD EPYC"}
    return pd.DataFrame(rows)


def area(mean: float) -> pd.DataFrame:
    row = {"length": 16, "side": 32, "draws": 1000, "mean_share": mean, "standard_error": 0.001}
    return pd.DataFrame([row | {"run_id": "area", "device": "AMD EPYC"}])


def test_cutouts_answer_and_area() -> None:
    # an axis keeps 16 − 64/32 = 14 of its 32 pixels masked on average: (14/32)² = 19.14 %
    found = augmentation_cutout.answer_p4_cutout(images(), area(0.2))
    assert isinstance(found, Answer) and found.runs == 2 and found.device == "one AMD EPYC"
    assert "masks 19.14 % of an image on average, as derived; 1,000 draws" in plain(found)
    assert "code masked 20.00 %" in plain(found)
    text = plain(augmentation_cutout.text_p4_area(area(0.2)))
    distance = (0.2 - 0.19140625) / 0.001
    assert (
        r"\frac{49}{256}" in text and "not the 25.00 %" in text and f"0.100 %: {distance:.1f} standard errors" in text
    )
    assert plain(augmentation_cutout.answer_p4_cutout(images(), area(0.2).iloc[:0])).endswith("as derived.")


def test_two_images_and_their_cutouts() -> None:
    png = augmentation_cutout.fig_p4_cutout(images())
    assert isinstance(png, bytes)
    sheet = Image.open(io.BytesIO(png))
    assert sheet.size == (2 * 128 + 8, 2 * 128 + 8)  # 32 pixels four times as large, 8 between
    assert sheet.getpixel((5, 5)) == (255, 255, 255) and sheet.getpixel((140, 5)) == (0, 0, 0)
    assert sheet.getpixel((5, 140)) == (128, 128, 128)
    text = augmentation_cutout.text_p4_shares(images())
    assert text == "Masked, from left to right: class 3, 25.0 %; class 7, 25.0 %."


def test_without_images_their_command_is_named() -> None:
    for cut in (augmentation_cutout.answer_p4_cutout, augmentation_cutout.fig_p4_cutout):
        found: Any = cut(images().iloc[:0], *([area(0.2)] if cut is augmentation_cutout.answer_p4_cutout else []))
        assert isinstance(found, Missing) and "p4_images.py" in found.command
    assert show.count(1000) in plain(augmentation_cutout.text_p4_area(area(0.2)))
