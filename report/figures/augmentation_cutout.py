"""Problem 4.1: what cutout masks, shown on two images and counted."""

from __future__ import annotations

import io

import pandas as pd
import sympy as sp
from PIL import Image

from derivations import cutout
from experiments.machine.device_names import short_name
from experiments.store import parquet
from report import show
from report.answers import Answer, Missing

HOLE, SIDE = 16, 32  # pixels: of the square, of an image
SCALE, GAP = 4, 8
MADE_BY = "python experiments/p4_images.py"


def load_images() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The example images, original and masked, and the measured mean of the masked area: each from one run."""
    pictures, area = parquet.read("p4_images"), parquet.read("p4_masked_area")
    pictures = pictures[pictures.dataset == "cifar10"]
    return tuple(frame[frame.run_id == frame.run_id.max()] for frame in (pictures, area))  # type: ignore[return-value]


def answer_p4_cutout(pictures: pd.DataFrame, area: pd.DataFrame) -> Answer | Missing:
    """4.1: what cutout does, why it is not dropout, and how much it masks."""
    if pictures.empty:
        return Missing("The example images", MADE_BY)
    counted = ""
    if len(area):
        row = area.iloc[0]
        counted = f"; {show.count(row.draws)} draws by the training code masked {show.percent(row.mean_share)}"
    runs = pd.concat([frame[["run_id", "device"]] for frame in (pictures, area)])
    return Answer(
        "4.1",
        f"Cutout sets a square of {HOLE}×{HOLE} pixels at a random place of each {SIDE}×{SIDE} training image to the "
        "mean colour, anew in every epoch. Dropout in a convolutional layer removes single activations whose "
        "neighbours carry much the same information. Cutout removes a connected region from the input: no layer sees "
        "it, and the network has to use the rest. Clipped at the border, the square masks "
        f"{show.percent(float(cutout.masked_share(HOLE, SIDE)))} of an image on average, as derived{counted}.",
        f"one {short_name(runs.device.iloc[0])}",
        int(runs.run_id.nunique()),
        "measured",
        "fig-p4-cutout",
    )


def fig_p4_cutout(pictures: pd.DataFrame) -> bytes | Missing:
    """A line for each image, the original first, then its cutouts: a PNG."""
    if pictures.empty:
        return Missing("The example images", MADE_BY)
    side = SIDE * SCALE
    columns, lines = int(pictures.draw.max()) + 1, pictures["index"].nunique()
    sheet = Image.new("RGB", (columns * (side + GAP) - GAP, lines * (side + GAP) - GAP), "white")
    for line, (_, group) in enumerate(pictures.groupby("index")):
        for draw, png in zip(group.draw, group.png, strict=True):
            tile = Image.open(io.BytesIO(png)).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (draw * (side + GAP), line * (side + GAP)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def text_p4_shares(pictures: pd.DataFrame) -> str:
    """The share of each example that is masked."""
    shares = [
        f"{group.label.iloc[0]}, " + ", ".join(show.percent(s, 1) for s in group.masked_share[group.draw > 0])
        for _, group in pictures.sort_values(["index", "draw"]).groupby("index")
    ]
    return f"Masked, from left to right: {'; '.join(shares)}." if shares else ""


def text_p4_area(area: pd.DataFrame) -> str | Missing:
    """The expected masked share of an image, derived, and how far the counted one is from it."""
    if area.empty:
        return Missing("The masked share, counted over many draws", MADE_BY)
    row = area.iloc[0]
    share = cutout.masked_share(int(row.length), int(row.side))
    distance = abs(row.mean_share - float(share)) / row.standard_error
    whole = sp.Rational(int(row.length) ** 2, int(row.side) ** 2)
    return (
        "With a side of $2h$ pixels and a centre that is uniform over the $n$ pixels of an axis, clipping at both "
        "borders leaves on average\n\n"
        rf"$$\mathrm{{E}}[\text{{masked pixels of an axis}}] = {sp.latex(cutout.expected_length())}$$"
        "\n\npixels of it. Rows and columns are independent, so the expected share of the image is the square of "
        "this over $n$:\n\n"
        rf"$${sp.latex(cutout.expected_share())} = {sp.latex(share)} \quad\text{{for }} "
        rf"h={row.length // 2},\ n={row.side}$$"
        f"\n\nThat is {show.percent(float(share))}, not the {show.percent(float(whole))} of a square that is never "
        f"clipped. The mean over {show.count(row.draws)} draws of the training code is "
        f"{show.percent(row.mean_share)} with a standard error of {show.percent(row.standard_error, 3)}: "
        f"{distance:.1f} standard errors from the expectation."
    )
