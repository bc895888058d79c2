"""report.whatif: the panel's expressions compute what derivations/scaling.py derives."""

from __future__ import annotations

import re
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import sympy as sp
import vl_convert

from derivations import scaling
from report import show, whatif

SETTING = {"price": 0.9, "link": 21.0, "batch": 64.0, "gradient": 102.0, "speed": 51.0, "overlap": 0.0}
TITLES = {"throughput": "images/s", "efficiency": "efficiency", "cost": "USD a million images"}


def evaluated(name: str, learners: int, setting: dict[str, float]) -> float:
    """The panel's own text, which Python reads like Vega: arithmetic and max."""
    text = whatif.expression(whatif.quantities()[name])
    known: dict[str, Any] = {"max": max, "datum": SimpleNamespace(learners=learners), "__builtins__": {}}
    return float(eval(text, known, setting))


def derived(learners: int, setting: dict[str, float]) -> dict[str, float]:
    """From the derivation, with the units converted here."""
    point = {
        scaling.n: setting["gradient"] * 1e6,
        scaling.beta: 8 / (setting["link"] * 1e9),
        scaling.b: setting["batch"],
        scaling.c: 1 / setting["speed"],
        scaling.phi: setting["overlap"],
        scaling.w: 2 / 3,
        scaling.alpha: 0,
        scaling.o: 0,
    }
    alone, step = (float(scaling.step().subs(point).subs(scaling.p, p)) for p in (1, learners))
    seconds = 1e6 / (learners * setting["batch"] / step)
    return {
        "throughput": 1e6 / seconds,
        "efficiency": alone / step,
        "cost": setting["price"] * learners * seconds / 3600,
    }


CHANGES: list[dict[str, float]] = [
    {},
    {"link": 1.0, "gradient": 553.0},
    {"overlap": 0.5, "batch": 8.0},
    {"price": 12.29},
]


@pytest.mark.parametrize(("learners", "changes"), list(product((1, 2, 16, 64), CHANGES)))
def test_the_panels_text_is_the_derivation(learners: int, changes: dict[str, float]) -> None:
    setting = SETTING | changes
    for name, value in derived(learners, setting).items():
        assert evaluated(name, learners, setting) == pytest.approx(value), name


def test_full_overlap_hides_a_short_exchange() -> None:
    assert evaluated("efficiency", 64, SETTING | {"overlap": 1.0}) == 1
    assert evaluated("efficiency", 64, SETTING) < 1


def drawn(setting: dict[str, float]) -> set[str]:
    svg = vl_convert.vegalite_to_svg(show.specification(whatif.panel(setting)))
    return set(re.findall(r'aria-label="(learners: [^"]*; projected [^:"]*: [^"]*)"', svg))


@pytest.mark.parametrize("changes", CHANGES)
def test_vega_draws_what_python_computes(changes: dict[str, float]) -> None:
    setting = SETTING | changes
    labels = drawn(setting)
    assert len(labels) == 3 * len(whatif.LEARNERS)
    for learners in whatif.LEARNERS:
        expected = derived(learners, setting)
        for name, title in TITLES.items():
            (label,) = [text for text in labels if text.startswith(f"learners: {learners}; {title}: ")]
            figure = label.split(f"projected {title}: ")[1]
            number = float(re.sub(r"[,%k]", "", figure)) * (1e3 if "k" in figure else 0.01 if "%" in figure else 1)
            assert number == pytest.approx(expected[name], rel=0.006, abs=0.006), label


def test_every_slider_moves_something() -> None:
    base = SETTING | {"link": 1.0, "overlap": 0.2}
    before = {name: evaluated(name, 8, base) for name in TITLES}
    for slider in whatif.SLIDERS:
        after = {name: evaluated(name, 8, base | {slider.name: 0.9 * base[slider.name]}) for name in TITLES}
        assert after != before, slider.name


def test_the_panel_has_its_sliders_and_says_projected() -> None:
    spec = show.specification(whatif.panel(SETTING))
    assert {p["name"]: p["value"] for p in spec["params"]} == SETTING
    assert all(p["bind"]["input"] == "range" for p in spec["params"])
    assert "http" not in str({key: value for key, value in spec.items() if key != "$schema"})


def test_what_can_not_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="price must lie between"):
        whatif.panel(SETTING | {"price": 0.0})
    with pytest.raises(ValueError, match="no name for q"):
        whatif.expression(sp.Symbol("q") + scaling.b)
