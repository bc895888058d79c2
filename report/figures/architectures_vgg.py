"""Problem 3.2: VGG-19's activations and weights, in the form of the homework's Table 1."""

from __future__ import annotations

import altair as alt
import pandas as pd

from derivations import layers, vgg
from report import palette, show
from report.answers import Answer
from report.figures.architectures_checks import checked, checkers

EARLY = 6  # rows: the input to the second block


def answer_p3_vgg(checks: pd.DataFrame) -> Answer:
    """3.2: the table's totals, and where memory and weights are."""
    rows, total = vgg.table(), layers.totals(vgg.layers())
    activations = sum(row.activations for row in rows)
    early = sum(row.activations for row in rows[:EARLY]) / activations
    largest = max(vgg.layers(), key=lambda layer: layer.weights)
    return Answer(
        "3.2",
        f"VGG-19 has **{show.count(total.weights)} weights** ({show.count(total.parameters)} parameters with biases) "
        f"and **{show.count(activations)} activations** per image, its input included, which take "
        f"{show.si(vgg.memory().forward)}B in fp32. Early layers hold most activations, late ones most weights: the "
        f"input and the first {EARLY - 1} layers hold {show.percent(early, 1)} of the activations, and the first "
        f"fully-connected layer alone holds {show.percent(largest.weights / total.weights, 1)} of the weights.",
        checkers(checks, "vgg19"),
        checked(checks, "vgg19"),
        "derived",
        "tbl-vgg",
    )


def tbl_vgg() -> str:
    """The homework's Table 1, completed in its own form."""
    rows, total = vgg.table(), layers.totals(vgg.layers())
    lines = [
        (row.name, _counted(row.activations_text, row.activations), _counted(row.weights_text, row.weights))
        for row in rows
    ]
    lines.append(("TOTAL", show.count(sum(row.activations for row in rows)), show.count(total.weights)))
    return show.table_text(lines, ["Layer", "Number of activations (memory)", "Parameters (weights)"])


def _counted(text: str, value: layers.Size) -> str:
    """'224·224·64 = 3,211,264', or the number alone."""
    return f"{text.replace('*', '·')} = {show.count(value)}" if "*" in text else show.count(value)


def fig_vgg() -> alt.TopLevelMixin:
    """Activations and weights of each row, a panel each."""
    frame = pd.DataFrame(
        {
            "layer": f"{place:02d} {row.name}",
            "activations": int(row.activations) / 1e6,
            "weights": int(row.weights) / 1e6,
            "exact_activations": show.count(row.activations),
            "exact_weights": show.count(row.weights),
        }
        for place, row in enumerate(vgg.table())
    )
    bare, named = alt.Axis(labels=False, ticks=False), alt.Axis(labelAngle=-90)
    return alt.vconcat(_panel(frame, "activations", bare), _panel(frame, "weights", named))


def _panel(frame: pd.DataFrame, kind: str, axis: alt.Axis) -> alt.Chart:
    colour = palette.CATEGORIES[kind == "weights"]
    return (
        alt.Chart(frame)
        .mark_bar(color=colour)
        .encode(
            x=alt.X("layer:N", title=None, sort=None, axis=axis),
            y=alt.Y(f"{kind}:Q", title=f"{kind} (millions)"),
            tooltip=["layer:N", alt.Tooltip(f"exact_{kind}:N", title=kind)],
        )
        .properties(width=520, height=130)
    )


# ---- the handout's figures -----------------------------------------------------------------------------------------


def tbl_misprints() -> str:
    """The printed figures that are rounded, beside the exact counts."""
    lines = [
        (f"{cell.row + 1} {cell.name}", cell.printed.replace("*", "·"), cell.derived, cell.rounded)
        for cell in vgg.compare()[0]
        if cell.verdict != "exact"
    ]
    return show.table_text(lines, ["Row", "Printed", "Exact", "Rounded like that"], "llrr")


def text_p3_misprints() -> str:
    """What the handout's Table 1 rounds and leaves out. Raises ValueError where it prints something else than that."""
    cells, missing = vgg.compare()
    if wrong := [cell.printed for cell in cells if cell.verdict == "wrong"]:
        raise ValueError(f"the handout's Table 1 is wrong in {', '.join(wrong)}")
    inexact = [cell for cell in cells if cell.verdict != "exact"]
    (error,) = {cell.error for cell in inexact}
    pixels = vgg.INPUT.h * vgg.INPUT.w
    rows, total = vgg.table(), layers.totals(vgg.layers())
    as_printed = total.weights - sum(gone.count * rows[gone.row].weights for gone in missing)
    rarer = sum(cell.verdict == "wrong" for cell in vgg.compare(unit=1024)[0])
    gone = show.listing(f"{gone.count} further {gone.name} rows" for gone in missing)
    return (
        f"{len(cells) - len(inexact)} of the {len(cells)} printed cells are exact; {len(inexact)} are rounded, all "
        f"off by the same {show.percent(float(-error))}, because they round 224·224 = {show.count(pixels)} to "
        f"{show.count(round(pixels * (1 + error)))} and go on from there (@tbl-misprints). K is 1000 and M its "
        f"square: with 1024, {rarer} cells would be wrong. The printed table lacks {gone}, so its weights sum to "
        f'{show.count(as_printed)}. Its column "Parameters (Compute)" leaves out {show.count(total.biases)} biases, '
        "and weights aren't the compute: a convolution uses each of them once per output pixel, and an image costs "
        f"{show.si(total.macs)} multiply-accumulates."
    )


# ---- memory --------------------------------------------------------------------------------------------------------


def tbl_vgg_memory() -> str:
    """Bytes for one image, and for the parameters that a batch shares, in fp32."""
    memory = vgg.memory()
    lines = [
        ("Forward, every output kept", "input and each layer's output once", memory.forward),
        ("Forward, nothing kept", "the largest pair of input and output", memory.forward_least),
        ("Training, at most", "the kept outputs and a gradient for each", memory.training),
        ("Parameters, for any batch", "weights and biases", memory.parameters),
        ("Parameters in training", "with gradients and momentum", memory.training_parameters),
    ]
    return show.table_text([(*line[:2], f"{show.si(line[2])}B") for line in lines], ["What", "Counted", "fp32"], "llr")


def text_p3_notes() -> str:
    """CS231n's total for VGG-16 beside the sum of its rows."""
    total = sum(row.activations for row in vgg.table(vgg.BLOCKS_VGG16))
    return (
        f"CS231n's notes [@cs231n] print a total of {vgg.NOTES_PRINTED} M activations for VGG-16, whose rows sum to "
        f"{show.si(total)}, {show.si(vgg.FP32 * total)}B in fp32."
    )
