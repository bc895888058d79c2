"""Problem 3.3: the receptive field of stacked convolutions, its proofs, and what the gradient of a real stack shows."""

from __future__ import annotations

import altair as alt
import pandas as pd
import sympy as sp

from derivations import alexnet, receptive_field, vgg
from derivations.layers import Layer
from derivations.receptive_field import Induction
from report import palette, show
from report.answers import Answer, Missing
from report.figures.architectures import formula
from report.figures.architectures_checks import MADE_BY

ASKED = (3, 5)  # three filters of 5×5
NETS: dict[str, tuple[str, list[Layer]]] = {"alexnet": ("AlexNet", alexnet.layers()), "vgg19": ("VGG-19", vgg.layers())}


def measured(checks: pd.DataFrame) -> pd.DataFrame:
    """The measured fields of stacks: N, F, the side in pixels, and what the formula gives."""
    rows = checks[(checks.quantity == "receptive_field") & (checks.net == "stack") & (checks.counter == "torch")]
    found = pd.DataFrame({"N": rows.layers, "F": rows.kernel, "side": rows.value, "run_id": rows.run_id})
    found = found.astype({"N": int, "F": int, "side": int}).reset_index(drop=True)
    expected = [int(receptive_field.stacked(n, f)) for n, f in zip(found.N, found.F, strict=True)]
    return found.assign(formula=expected)


def answer_p3_field(checks: pd.DataFrame) -> Answer:
    """3.3: the field of N stacked filters, and of three 5×5. Raises ValueError where the proof or a measure fails."""
    claim = receptive_field.prove_stack().claim
    found = measured(checks)
    if len(off := found[found.side != found.formula]):
        first = off.iloc[0]
        raise ValueError(f"{first.N} filters of {first.F}×{first.F} see {first.side} pixels, not {first.formula}")
    n, f = ASKED
    side = receptive_field.stacked(n, f)
    return Answer(
        "3.3",
        f"$N$ stacked $F \\times F$ convolutions of stride 1 see $r_N = {sp.latex(claim)}$ pixels a side, as each "
        f"layer adds $F - 1$ to the $F$ of the first. Three 5×5 filters therefore see $r_{n} = {n} \\cdot {f} - {n} "
        f"+ 1 = {side}$: **{side}×{side} pixels**.",
        "a CPU by the gradients of torch" if len(found) else "",
        int(found.run_id.nunique()),
        "derived",
        "fig-field",
    )


def fig_field(checks: pd.DataFrame) -> alt.TopLevelMixin:
    """The side of the field against N for several F: the formula as lines, the measured ones as points."""
    points = measured(checks)
    sizes = sorted({1, 3, 5, 7} | set(points.F))
    lines = pd.DataFrame(
        {"N": n, "F": f, "side": int(receptive_field.stacked(n, f))} for n in range(1, 7) for f in sizes
    )
    x = alt.X("N:O", title="stacked convolutions N", axis=alt.Axis(labelAngle=0))
    y = alt.Y("side:Q", title="side of the field (pixels)")
    colour = alt.Color("F:N", title="filter F")
    return alt.layer(
        alt.Chart(lines).mark_line().encode(x=x, y=y, color=colour),
        alt.Chart(points[["N", "F", "side"]])
        .mark_point(**palette.MEASURED_POINT)
        .encode(x=x, y=y, color=colour, tooltip=["N:O", "F:N", "side:Q"]),
    ).properties(width=480, height=240)


# ---- proofs --------------------------------------------------------------------------------------------------------


def proof_p3_stack() -> str:
    """Base case and induction step for N equal filters, which sympy has simplified to zero."""
    return formula(_induction(receptive_field.prove_stack(), "r"))


def proof_p3_closed_form() -> str:
    """The same for any kernels and strides: the spacing, then the field, with the first claim as a special case."""
    spacing, general = receptive_field.prove_spacing(), receptive_field.prove_closed_form()
    special = receptive_field.prove_special_case()
    return "\n\n".join(
        [
            formula(_induction(spacing, "j")),
            formula(_induction(general, "r")),
            "Putting $k_l = F$ and $s_l = 1$ into it gives back the first claim:",
            formula(rf"1+\sum_{{l=1}}^{{N}}(F-1)={sp.latex(special)}"),
        ]
    )


def _induction(proof: Induction, name: str) -> str:
    variable = sp.latex(proof.variable)
    lines = [
        ("claim", f"{name}_{{{variable}}}={_one_first(proof.claim)}"),
        ("base", f"{name}_{{{proof.start}}}={sp.latex(proof.first)}"),
        ("next", _one_first(proof.successor)),
        ("recurrence", _one_first(proof.following)),
        ("difference", sp.latex(proof.difference)),
    ]
    body = r" \\ ".join(rf"\text{{{what}: }}&{latex}" for what, latex in lines)
    return rf"\begin{{aligned}}{body}\end{{aligned}}"


def _one_first(expression: sp.Expr) -> str:
    """LaTeX with the constant before the sums, where it can't be read as part of them; a line for each further sum."""
    if not expression.has(sp.Sum):
        return str(sp.latex(expression))
    return "1+" + r" \\ &+".join(sp.latex(term) for term in sp.Add.make_args(expression - 1))


# ---- whole networks, and what a stack costs ------------------------------------------------------------------------


def text_p3_field_measured(checks: pd.DataFrame) -> str | Missing:
    """How many stacks agree with the formula, and the fields of AlexNet and VGG-19, derived and measured."""
    found = measured(checks)
    if found.empty:
        return Missing("The measured receptive fields", MADE_BY)
    rows = checks[(checks.quantity == "receptive_field") & (checks.counter == "torch")].set_index("net").value
    parts = []
    for net, (name, whole) in NETS.items():
        side = receptive_field.field((layer.kernel, layer.stride) for layer in whole if layer.kind != "fc")
        seen = f"measured: {int(rows[net])}" if net in rows else "not measured"
        parts.append(f"{side} pixels a side after {name}'s last pooling ({seen})")
    return (
        f"{int(sum(found.side == found.formula))} of {len(found)} stacks agree with the formula (@fig-field). For "
        f"whole networks the closed form gives {show.listing(parts)}."
    )


def tbl_stack() -> str:
    """Three small filters against one of the same field: weights and non-linearities."""
    lines = []
    for n, f in (ASKED, (3, 3)):
        compared = receptive_field.compare(n, f)
        stacked, single = compared.nonlinearities
        side = f"{compared.field}×{compared.field}"
        lines.append((f"{n} × ({f}×{f})", side, f"${sp.latex(compared.stacked_weights)}$", stacked, "1"))
        lines.append(
            (f"1 × ({side})", side, f"${sp.latex(compared.single_weights)}$", single, f"{float(compared.ratio):.2f}")
        )
    return show.table_text(lines, ["Convolutions", "Field", "Weights", "ReLUs", "Weights over stack's"], "llrrr")
