"""The what-if panel: throughput, efficiency and cost that the reader's sliders redraw, with no server.

Its formulas are those of derivations/scaling.py, printed as Vega expressions, so that the browser computes what was
derived: learners in nodes of eight, as the homework has them. Each has a link of its own in the node, and the rings
between nodes share a node's network. There is neither latency nor overhead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import altair as alt
import pandas as pd
import sympy as sp

from derivations import scaling
from experiments.scaling import published
from report import palette, show
from report.answers import Missing
from report.figures.horovod_runs import rate_text
from report.figures.scaling_k80 import NONE, providers

LEARNERS = (1, 2, 4, 8, 16, 32, 64)
NODE = 8  # learners
MILLION = 1_000_000  # images
_price, _link, _network, _gradient, _speed = sp.symbols("price link network gradient speed", positive=True)


@dataclass(frozen=True)
class Slider:
    """A reader's parameter, in the unit that its label names; `meaning` is what it stands for in the derivation."""

    name: str
    label: str
    low: float
    high: float
    step: float
    meaning: tuple[sp.Symbol, sp.Expr] | None = None


SLIDERS = (
    Slider("price", "price of a GPU (USD/h)", 0.1, 15, 0.01),
    Slider("link", "link of a learner in its node (Gbit/s)", 1, 400, 0.01, (scaling.beta_in, 8 / (_link * 10**9))),
    Slider("network", "network of a node (Gbit/s)", 1, 3200, 1, (scaling.beta_out, scaling.g * 8 / (_network * 10**9))),
    Slider("batch", "batch of a learner (images)", 8, 512, 8, (scaling.b, scaling.b)),
    Slider("gradient", "gradient (MB)", 1, 600, 0.01, (scaling.n, _gradient * 10**6)),
    Slider("speed", "one GPU (images/s)", 10, 4000, 0.01, (scaling.c, 1 / _speed)),
    Slider("overlap", "backward pass that hides (share)", 0, 1, 0.05, (scaling.phi, scaling.phi)),
)
# What a sympy symbol is called in the panel's specification.
NAMES = {
    **{scaling.p: "datum.learners", scaling.b: "batch", scaling.phi: "overlap"},
    **{symbol: symbol.name for symbol in (_price, _link, _network, _gradient, _speed)},
}


def quantities() -> dict[str, sp.Expr]:
    """Images/s of all learners, efficiency (a share) and US dollars for a million images, of the sliders' symbols."""
    meanings = dict(slider.meaning for slider in SLIDERS if slider.meaning)
    fixed = {scaling.alpha_in: 0, scaling.alpha_out: 0, scaling.o: 0, scaling.w: scaling.BACKWARD}
    inside = sp.Min(scaling.p, NODE)
    nodes = {scaling.g: inside, scaling.m: scaling.p / inside}
    step = scaling.step(scaling.hierarchical())
    # The sliders' meanings speak of g, so that comes last.
    throughput = (scaling.p * scaling.b / step).subs(meanings | fixed).subs(nodes)
    efficiency = scaling.weak_efficiency(step).subs(meanings | fixed).subs(nodes)
    return {
        "throughput": throughput,
        "efficiency": efficiency,
        "cost": _price / 3600 * scaling.p * MILLION / throughput,
    }


def expression(quantity: sp.Expr, names: Mapping[sp.Symbol, str] | None = None) -> str:
    """A sympy expression as a Vega expression, which has JavaScript's functions without ``Math.``.

    Raises ValueError for a symbol without a name.
    """
    known = NAMES if names is None else names
    if unnamed := quantity.free_symbols - set(known):
        raise ValueError(f"no name for {', '.join(sorted(str(symbol) for symbol in unnamed))}")
    text = sp.jscode(quantity.xreplace({symbol: sp.Symbol(name) for symbol, name in known.items()}))
    return text.replace("Math.", "")


def setting(rows: pd.DataFrame) -> dict[str, float]:
    """The sliders' first values: ResNet-50 on K80 as fitted, so that the panel starts from the projected jobs; empty
    without them."""
    node = rows[(rows.method == "curve") & (rows.series == published.K80_NODE) & (rows.learners == NODE)]
    jobs = rows[(rows.method == "homework") & rows.series.str.contains("weak")]
    if node.empty or jobs.empty:
        return {}
    alone, most = jobs.iloc[int(jobs.learners.argmin())], jobs.iloc[int(jobs.learners.argmax())]
    exact = {
        "price": max(providers().values()),
        "link": node.bus_bytes_per_second.iloc[0] * 8e-9,
        "network": most.link_gbit_per_second,
        "batch": alone.per_learner_batch,
        "gradient": alone.gradient_bytes / 1e6,
        "speed": alone.predicted,
        "overlap": 0.0,
    }
    # A slider shows whole steps.
    return {slider.name: round(round(exact[slider.name] / slider.step) * slider.step, 2) for slider in SLIDERS}


def text_scaling_whatif(rows: pd.DataFrame) -> str:
    """The panel's first values, and the batch at which two nodes wait for half of each step."""
    values = setting(rows)
    if not values:
        return "Without the K80's projection there are no values to start with."
    meanings = dict(slider.meaning for slider in SLIDERS if slider.meaning)
    sixteen = {scaling.g: NODE, scaling.m: 2, scaling.p: 2 * NODE, scaling.alpha_in: 0, scaling.alpha_out: 0}
    known = {symbol: values[symbol.name] for symbol in (_link, _network, _gradient, _speed)}
    few = scaling.half_batch(scaling.hierarchical()).subs(meanings).subs(sixteen | known)
    few = float(few.subs({scaling.phi: 0, scaling.o: 0}))
    listed = "; ".join(f"{slider.label}: {values[slider.name]:g}" for slider in SLIDERS)
    return (
        f"The panel starts with ResNet-50 on K80. {show.capitalised(listed)}. With these values, "
        f"{2 * NODE} learners with {rate_text(few)} images each would spend half of each step waiting."
    )


def fig_scaling_whatif(rows: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The panel, at the K80's values."""
    values = setting(rows)
    return panel(values) if values else NONE


def panel(values: Mapping[str, float]) -> alt.VConcatChart:
    """The panel, with its sliders at ``values``. Raises ValueError for a value outside of its slider's range."""
    params = []
    for slider in SLIDERS:
        if not slider.low <= values[slider.name] <= slider.high:
            raise ValueError(f"{slider.name} must lie between {slider.low} and {slider.high}")
        bind = alt.binding_range(min=slider.low, max=slider.high, step=slider.step, name=slider.label)
        params.append(alt.param(name=slider.name, value=values[slider.name], bind=bind))
    frame = pd.DataFrame({"learners": LEARNERS})
    base = alt.Chart(frame).transform_calculate(
        **{name: expression(quantity) for name, quantity in quantities().items()},
        ideal="datum.learners * speed",
        perfect="1",
        least="price / 3600 * 1000000 / speed",
        projected="'projected'",
        perfectly="'perfect scaling'",
    )
    x = alt.X("learners:Q", title="learners", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=list(LEARNERS)))
    kinds = alt.Scale(domain=["projected", "perfect scaling"], range=[palette.MODEL, "black"])
    dashed = [line["strokeDash"] for line in (palette.PROJECTED_LINE, palette.IDEAL_LINE)]
    dashes = alt.Scale(domain=["projected", "perfect scaling"], range=dashed)

    def view(
        field: str, ideal: str, title: str, form: str, first: bool, log: bool = False
    ) -> alt.LayerChart | alt.FacetChart:
        scale = alt.Scale(type="log") if log else alt.Scale(zero=True)
        y = alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=form, tickCount=5))
        tips = [alt.Tooltip("learners:Q"), alt.Tooltip(f"{field}:Q", title=f"projected {title}", format=form)]

        def encoded(kind: str) -> dict[str, alt.SchemaBase]:
            legend = alt.Legend(title=None, symbolType="stroke") if first else None
            return {
                "color": alt.Color(f"{kind}:N", scale=kinds, legend=legend),
                "strokeDash": alt.StrokeDash(f"{kind}:N", scale=dashes, legend=legend),
            }

        line = base.mark_line().encode(x=x, y=y, **encoded("projected"))
        points = base.mark_point(filled=False, size=60, opacity=1, color=palette.MODEL).encode(x=x, y=y, tooltip=tips)
        bound = base.mark_line().encode(x=x, y=alt.Y(f"{ideal}:Q"), **encoded("perfectly"))
        return alt.layer(bound, line, points, width=560, height=125)

    return (
        alt.vconcat(
            view("throughput", "ideal", "images/s", "~s", first=True, log=True),
            view("efficiency", "perfect", "efficiency", ".0%", first=False),
            view("cost", "least", "USD a million images", ",.2f", first=False),
        )
        .resolve_scale(color="independent", strokeDash="independent")
        .add_params(*params)
    )
