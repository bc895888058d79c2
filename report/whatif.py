"""The what-if panel: throughput, efficiency and cost that the reader's sliders redraw, with no server.

Its formulas are those of derivations/scaling.py, printed as Vega expressions, so that the browser computes what was
derived: p learners in a ring, each with a link of its own; no latency and no overhead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import altair as alt
import pandas as pd
import sympy as sp

from derivations import scaling
from report import show

LEARNERS = (1, 2, 4, 8, 16, 32, 64)
MILLION = 1_000_000  # images
_price, _link, _gradient, _speed = sp.symbols("price link gradient speed", positive=True)


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
    Slider("link", "link of a learner (Gbit/s)", 1, 400, 1, (scaling.beta, 8 / (_link * 10**9))),
    Slider("batch", "batch of a learner (images)", 8, 512, 8, (scaling.b, scaling.b)),
    Slider("gradient", "gradient (MB)", 1, 600, 1, (scaling.n, _gradient * 10**6)),
    Slider("speed", "one GPU (images/s)", 10, 4000, 1, (scaling.c, 1 / _speed)),
    Slider("overlap", "backward pass that hides (share)", 0, 1, 0.05, (scaling.phi, scaling.phi)),
)
# What a sympy symbol is called in the panel's specification.
NAMES = {
    **{scaling.p: "datum.learners", scaling.b: "batch", scaling.phi: "overlap"},
    **{symbol: symbol.name for symbol in (_price, _link, _gradient, _speed)},
}


def quantities() -> dict[str, sp.Expr]:
    """Images/s of all learners, efficiency (a share) and US dollars for a million images, of the sliders' symbols."""
    meanings = dict(slider.meaning for slider in SLIDERS if slider.meaning)
    fixed = {scaling.alpha: 0, scaling.o: 0, scaling.w: scaling.BACKWARD}
    step = scaling.step().subs(meanings | fixed)
    throughput = scaling.p * scaling.b / step
    efficiency = scaling.weak_efficiency(scaling.step()).subs(meanings | fixed)
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
    text = sp.jscode(quantity.subs({symbol: sp.Symbol(name) for symbol, name in known.items()}, simultaneous=True))
    return text.replace("Math.", "")


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
    kinds = alt.Scale(domain=["projected", "perfect scaling"], range=[show.CATEGORIES[0], "#555555"])
    dashes = alt.Scale(domain=["projected", "perfect scaling"], range=[[6, 4], [1, 3]])

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
        points = base.mark_point(filled=False, size=60, opacity=1, color=show.CATEGORIES[0]).encode(
            x=x, y=y, tooltip=tips
        )
        bound = base.mark_line().encode(x=x, y=alt.Y(f"{ideal}:Q"), **encoded("perfectly"))
        return alt.layer(bound, line, points, width=560, height=125)

    return alt.vconcat(
        view("throughput", "ideal", "images/s", "~s", first=True, log=True),
        view("efficiency", "perfect", "efficiency", ".0%", first=False),
        view("cost", "least", "USD a million images", ",.2f", first=False),
    ).add_params(*params)
