"""The derivation: what all-reduces and steps cost, and what follows for many learners."""

from __future__ import annotations

import sympy as sp

from derivations import scaling
from report import show
from report.figures.architectures import formula

MEANINGS = {
    scaling.p: "learners",
    scaling.g: "learners in a node",
    scaling.m: "nodes",
    scaling.b: "images of a learner in a step",
    scaling.B: "images of all learners in a step",
    scaling.n: "gradient",
    scaling.alpha: "latency of a message",
    scaling.beta: "time for each byte, the inverse of the link's speed",
    scaling.c: "computing an image, forward and backward",
    scaling.o: "overhead of a step",
    scaling.w: "the backward pass's share of computing",
    scaling.phi: "share of the backward pass that hides communication",
}


def latex(expression: sp.Basic) -> str:
    """LaTeX, with logarithms to base two as one reads them."""
    levels = sp.Symbol("L", positive=True)
    return str(sp.latex(expression.subs(sp.log(scaling.p), levels * sp.log(2)))).replace("L", r"\log_2 p\,")


def formula_scaling_ring() -> str:
    """The ring's two halves and their sum, as @eq-ring."""
    halves = f"{latex(scaling.reduce_scatter())} + {latex(scaling.all_gather())}"
    return formula(f"{halves} = {latex(scaling.ring())}") + " {#eq-ring}"


def formula_scaling_others() -> str:
    """A tree, and recursive halving and doubling."""
    tree = rf"T_{{\text{{tree}}}} = {latex(scaling.tree())}"
    halving = rf"T_{{\text{{halving}}}} = {latex(scaling.halving_doubling())}"
    return formula(rf"{tree}, \qquad {halving}")


def formula_scaling_nodes() -> str:
    """Rings inside nodes and between them, as @eq-hierarchical."""
    inside = scaling.hierarchical().subs(scaling.m, 1)
    outside = scaling.hierarchical() - inside
    parts = (
        rf"\underbrace{{{latex(inside)}}}_{{\text{{inside}}}} + \underbrace{{{latex(outside)}}}_{{\text{{between}}}}"
    )
    return formula(rf"T_{{\text{{nodes}}}} = {parts}") + " {#eq-hierarchical}"


def formula_scaling_step() -> str:
    """A step of p learners in a ring, as @eq-step."""
    return formula(f"t(p) = {latex(scaling.step())}") + " {#eq-step}"


def tbl_scaling_symbols() -> str:
    """The symbols and their units."""
    lines = [(f"${latex(symbol)}$", meaning, scaling.units(symbol)) for symbol, meaning in MEANINGS.items()]
    return show.table_text(lines, ["Symbol", "Meaning", "Unit"], "lll")


def calculation_scaling_limits() -> str:
    """What many learners, few images and slow links come to, where communication outlasts what hides it."""
    free = {scaling.alpha: 0}
    weak = sp.limit(scaling.weak_efficiency().subs(free), scaling.p, sp.oo)
    strong = sp.limit(scaling.strong_speedup().subs(free), scaling.p, sp.oo)
    most = sp.limit(scaling.weak_speedup(), scaling.p, sp.oo)
    lost = sp.limit(scaling.strong_speedup(), scaling.p, sp.oo)
    exposed = rf"2\beta n > {latex(scaling.phi * scaling.w * scaling.b * scaling.c)}"
    pairs = [
        (
            "**Weak scaling** ($b$ images a learner) keeps a constant efficiency however many learners there are, as "
            "long as latency is negligible. A link too fast for the condition on the right costs nothing:",
            rf"\lim_{{p\to\infty}} E_{{\text{{weak}}}} = {latex(weak)} \qquad (\alpha = 0,\ {exposed})",
        ),
        (
            "**Strong scaling** ($B$ images in all) has a maximum speed-up. In the end, no computing is left, nor "
            "anything to hide communication behind:",
            rf"\lim_{{p\to\infty}} S_{{\text{{strong}}}} = {latex(strong)} \qquad (\alpha = 0)",
        ),
        (
            "**With latency** the weak speed-up stays finite, and the strong one falls to zero:",
            rf"\lim_{{p\to\infty}} S_{{\text{{weak}}}} = {latex(most)}, \qquad "
            rf"\lim_{{p\to\infty}} S_{{\text{{strong}}}} = {latex(lost)}",
        ),
        (
            "**Half of a step is waiting** when a learner has only this many images, for an all-reduce of $T$ seconds:",
            rf"b_{{1/2}} = {latex(scaling.half_batch(sp.Symbol('T')))}",
        ),
    ]
    return "\n\n".join(f"{text}\n\n{formula(line)}" for text, line in pairs)
