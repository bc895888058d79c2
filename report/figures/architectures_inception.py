"""Problem 3.4: the inception module, naive and with dimensionality reduction: sizes, operations, saving."""

from __future__ import annotations

import re

import altair as alt
import pandas as pd
import sympy as sp

from derivations import inception, layers
from derivations.inception import COURSE, GOOGLENET_3B, Module
from report import show
from report.answers import Answer
from report.figures.architectures import formula
from report.figures.architectures_checks import checked, checkers, of_module

NETS = ("inception-naive", "inception-reduced")


def _modules() -> dict[str, Module]:
    return {
        "naive": inception.naive(COURSE),
        "reduced": inception.reduced(COURSE),
        "GoogLeNet (3b)": inception.reduced(GOOGLENET_3B),
    }


def _answer(part: str, sentence: str, checks: pd.DataFrame, figure: str) -> Answer:
    return Answer(part, sentence, checkers(checks, *NETS), checked(checks, *NETS), "derived", figure)


def _aligned(lines: list[str]) -> str:
    body = r" \\ ".join(lines)
    return formula(rf"\begin{{aligned}}{body}\end{{aligned}}")


def text_p3_widths() -> str:
    """Which filters the modules have, as the homework gives none."""
    return (
        f"The input is {inception.INPUT}. The homework does not say how many filters; we take those of CS231n's figure "
        f"[@cs231n2017], which the question follows: {COURSE.one} 1×1, {COURSE.three} 3×3 and {COURSE.five} 5×5 "
        f"filters, with bottlenecks and a pool projection {COURSE.three_reduce} wide. Beside them stands GoogLeNet's "
        "own module on 256 channels, inception (3b) in Table 1 of @szegedy2015: the same filters, but bottlenecks of "
        f"{GOOGLENET_3B.three_reduce} before the 3×3 and {GOOGLENET_3B.five_reduce} before the 5×5."
    )


# ---- (a) and (b) ---------------------------------------------------------------------------------------------------


def answer_p3_inception_idea(checks: pd.DataFrame) -> Answer:
    """3.4a: the idea. That its branches can be concatenated is what the numbers show."""
    naive = _modules()["naive"]
    out = inception.output(naive)
    return _answer(
        "3.4a",
        "The right size of a filter isn't known beforehand and differs within one image, so an inception module "
        f"applies {show.listing(list(naive)[:-1])} filters and a pooling side by side and lets training weigh them. "
        f"Padding keeps the {out.h}×{out.w} pixels of an image in all {len(naive)} branches, so their channels can "
        "be concatenated, and the next layer combines features of several scales.",
        checks,
        "fig-inception",
    )


def answer_p3_inception_size(checks: pd.DataFrame) -> Answer:
    """3.4b: the output sizes."""
    modules = _modules()
    return _answer(
        "3.4b",
        f"The naive module's output is **{inception.output(modules['naive'])}**, because pooling passes on all of its "
        f"input's channels. With dimensionality reduction, it is **{inception.output(modules['reduced'])}**.",
        checks,
        "fig-inception",
    )


def calculation_p3_inception_size() -> str:
    """The channels of both modules, added up."""
    lines = []
    for name, module in list(_modules().items())[:2]:
        out = inception.output(module)
        parts = "+".join(str(branch[-1].out.c) for branch in module.values())
        size = rf"{out.h}\times{out.w}"
        lines.append(rf"\text{{{name}: }}&{size}\times({parts}) \\ &={size}\times{out.c}")
    return _aligned(lines)


# ---- (c) -----------------------------------------------------------------------------------------------------------


def answer_p3_inception_operations(checks: pd.DataFrame) -> Answer:
    """3.4c: the multiply-accumulates of both modules."""
    macs = {name: inception.macs(module) for name, module in _modules().items()}
    return _answer(
        "3.4c",
        f"The naive module's convolutions take **{show.count(macs['naive'])} multiply-accumulates** and the reduced "
        f"one's **{show.count(macs['reduced'])}** ({show.count(macs['GoogLeNet (3b)'])} with GoogLeNet's own "
        f"bottlenecks). In FLOPs, these are {show.si(2 * macs['naive'])} and {show.si(2 * macs['reduced'])}.",
        checks,
        "fig-inception",
    )


def calculation_p3_inception(name: str) -> str:
    """A line for each convolution of a module, output pixels times weights, and the sum."""
    module = _modules()[name]
    lines = [
        rf"\text{{{layer.name}: }}&"
        + layers.product_latex(layer.out.h, layer.out.w, layer.kernel, layer.kernel, layer.source.c, layer.out.c)
        + rf"={layers.number_latex(layer.macs)}"
        for layer in of_module(module)
        if layer.kind == "conv"
    ]
    lines.append(rf"\text{{total: }}&{layers.number_latex(inception.macs(module))}")
    return _aligned(lines)


def text_p3_uncounted() -> str:
    """How many operations biases and pooling would add to the reduced module."""
    module = _modules()["reduced"]
    left = inception.uncounted(module)
    share = (left.bias_additions + left.pool_comparisons) / inception.macs(module)
    return (
        f"Biases and pooling are not counted. For the reduced module they are {show.count(left.bias_additions)} "
        f"additions and {show.count(left.pool_comparisons)} comparisons, {show.percent(float(share))} of its "
        "multiply-accumulates."
    )


def fig_inception() -> alt.TopLevelMixin:
    """Multiply-accumulates of the modules by branch."""
    frame = pd.DataFrame(
        {"module": name, "branch": branch, "macs": int(macs) / 1e6, "exact": show.count(macs), "place": place}
        for name, module in _modules().items()
        for place, (branch, macs) in enumerate(inception.branch_macs(module).items())
    )
    return (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            y=alt.Y("module:N", sort=None, title=None),
            x=alt.X("macs:Q", title="multiply-accumulates (millions)"),
            color=alt.Color("branch:N", sort=None, title="branch"),
            order="place:Q",
            tooltip=["module:N", "branch:N", alt.Tooltip("exact:N", title="MACs")],
        )
        .properties(width=480, height=120)
    )


# ---- (d) -----------------------------------------------------------------------------------------------------------


def answer_p3_inception_saving(checks: pd.DataFrame) -> Answer:
    """3.4d: what is wrong with the naive module, and how much reduction saves."""
    modules = _modules()
    naive = inception.branch_macs(modules["naive"])
    total = inception.macs(modules["naive"])
    large = (naive["3×3"] + naive["5×5"]) / total
    saving, googlenet = inception.saving(COURSE), inception.saving(GOOGLENET_3B)
    less = total / inception.macs(modules["reduced"])
    return _answer(
        "3.4d",
        f"The naive module's 3×3 and 5×5 filters read all {inception.INPUT.c} channels and take "
        f"{show.percent(large, 1)} of its operations. Its output is wider than its input, so the next module costs "
        "even more. Dimensionality reduction first narrows the filters' input by 1×1 convolutions: that **saves "
        f"{show.percent(float(saving), 1)}** of the operations (exactly {saving}), a factor of {less:.2f}; "
        f"GoogLeNet's own bottlenecks save {show.percent(float(googlenet), 1)}.",
        checks,
        "fig-inception",
    )


def formula_p3_inception() -> str:
    """Operations and saving for bottlenecks and a projection of any width."""
    operations = sp.expand(inception.macs(inception.reduced(inception.SYMBOLIC)))
    saving = inception.saving(inception.SYMBOLIC)
    return "\n\n".join(
        formula(rf"\begin{{aligned}}\text{{{name}}}&={_line_by_term(expression)}\end{{aligned}}")
        for name, expression in (("MACs", operations), ("saving", saving))
    )


def _line_by_term(expression: sp.Expr) -> str:
    """A sum with a term a line, which fits narrow pages, and its thousands separated."""
    ordered = [sp.latex(term) for term in reversed(expression.as_ordered_terms())]
    terms = [re.sub(r"\d{4,}", lambda m: layers.number_latex(int(m[0])), term) for term in ordered]
    return r" \\ &".join(t if t.startswith("-") or not i else f"+{t}" for i, t in enumerate(terms))


def text_p3_break_even() -> str:
    """Up to which width a bottleneck pays."""
    three, five = (int(sp.floor(inception.break_even(branch))) for branch in ("3×3", "5×5"))
    return f"A bottleneck pays up to a width of {three} channels before the 3×3 filters and of {five} before the 5×5."


def fig_saving() -> alt.TopLevelMixin:
    """Operations saved against one common width of bottlenecks and projection, with the course's choice."""
    width = sp.Symbol("b")
    along = sp.lambdify(width, inception.saving(inception.SYMBOLIC).subs(dict.fromkeys(inception.BOTTLENECKS, width)))
    curve = pd.DataFrame({"width": b, "saving": 100 * float(along(b))} for b in range(8, 257, 8))
    point = pd.DataFrame([{"width": COURSE.three_reduce, "saving": 100 * float(inception.saving(COURSE))}])
    x = alt.X("width:Q", title="common width b of the 1×1 convolutions")
    y = alt.Y("saving:Q", title="operations saved (%)")
    tips = ["width:Q", alt.Tooltip("saving:Q", format=".1f")]
    return alt.layer(
        alt.Chart(curve).mark_line().encode(x=x, y=y),
        alt.Chart(point).mark_point(filled=True, size=80).encode(x=x, y=y, tooltip=tips),
    ).properties(width=480, height=220)


def text_p3_slide() -> str:
    """CS231n's printed totals beside the sums of the slide's lines."""
    source = inception.SLIDE_INPUT
    naive, reduced = (inception.macs(make(COURSE, source)) for make in (inception.naive, inception.reduced))
    printed = inception.SLIDE_PRINTED
    return (
        f"CS231n's slide [@cs231n2017] has the same modules on {source}. For the naive one it prints "
        f"{printed['naive']}M operations, and its lines add up to {show.si(naive)}. For the reduced one it prints "
        f"{printed['reduced']}M, but its lines add up to {show.si(reduced)}. The printed total is what comes out "
        f"when one line, the {show.listing(inception.counted_twice())} convolution, is added twice, and no other "
        f"line gives it. So the saving on the slide is a factor of {naive / reduced:.2f}, as here, and not "
        f"{printed['naive'] / printed['reduced']:.2f}."
    )
