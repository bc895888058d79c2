"""report.figures.whatif: the panel's expressions compute what derivations/scaling.py derives."""

from __future__ import annotations

import functools
import re
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import sympy as sp
import vl_convert

from derivations import scaling
from report import show
from report.figures import scaling_runs, whatif
from report.figures.horovod_runs import rate_text
from tests.scaling_rows import K80, fitted

SETTING = {"price": 0.9, "link": 21.0, "network": 10.0, "batch": 64.0, "gradient": 102.0, "speed": 51.0, "overlap": 0.0}
TITLES = {"throughput": "images/s", "efficiency": "efficiency", "cost": "USD a million images"}


@functools.cache
def panel_text(name: str) -> str:
    return whatif.expression(whatif.quantities()[name])


def evaluated(name: str, learners: int, setting: dict[str, float]) -> float:
    """The panel's own text, which Python reads like Vega: arithmetic and max."""
    known: dict[str, Any] = {"max": max, "min": min, "datum": SimpleNamespace(learners=learners), "__builtins__": {}}
    return float(eval(panel_text(name), known, setting))


def derived(learners: int, setting: dict[str, float]) -> dict[str, float]:
    """By hand, in nodes of eight: a ring inside, and eight rings that share a node's network between them."""
    size, batch = setting["gradient"] * 1e6, setting["batch"]
    local = min(learners, 8)
    nodes = learners / local
    inside = 2 * (local - 1) / local * size * 8 / (setting["link"] * 1e9)
    between = 2 * (nodes - 1) / nodes * (size / local) * local * 8 / (setting["network"] * 1e9)
    alone = batch / setting["speed"]
    step = alone + max(0.0, inside + between - setting["overlap"] * 2 / 3 * alone)
    seconds = 1e6 / (learners * batch / step)
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
    {"network": 100.0},
]


@pytest.mark.parametrize(("learners", "changes"), list(product((1, 2, 16, 64), CHANGES)))
def test_the_panels_text_is_the_derivation(learners: int, changes: dict[str, float]) -> None:
    setting = SETTING | changes
    for name, value in derived(learners, setting).items():
        assert evaluated(name, learners, setting) == pytest.approx(value), name


def test_full_overlap_hides_a_short_exchange() -> None:
    assert evaluated("efficiency", 64, SETTING | {"overlap": 1.0, "network": 100.0}) == 1
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
    before = {name: evaluated(name, 16, base) for name in TITLES}
    for slider in whatif.SLIDERS:
        after = {name: evaluated(name, 16, base | {slider.name: 0.9 * base[slider.name]}) for name in TITLES}
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


def test_the_panel_starts_from_the_projected_jobs() -> None:
    """The stored fit: the panel and the table have the same images/s on 1, 8 and 16 K80."""
    rows = scaling_runs.load()
    values = whatif.setting(rows)
    weak = rows[rows.series.str.startswith("K80, weak")].set_index("learners").predicted
    for learners in (1, 2, 4, 8, 16):
        panel = evaluated("throughput", learners, values)
        assert panel == pytest.approx(weak[learners], rel=5e-4)
        assert rate_text(panel) == rate_text(weak[learners])


def test_the_first_values_by_hand() -> None:
    values = whatif.setting(fitted())
    assert values == {
        **{"price": 0.9, "link": 16.0, "network": 10, "batch": 64, "gradient": 100, "speed": K80["speed"]},
        "overlap": 0,
    }
    # Inside 2·7/8·100 MB over 2 GB/s, between 100 MB over 1.25 GB/s: 87.5 + 80 ms, at 50 images/s 8.4 images.
    assert (
        "With these values, 16 learners with 8.4 images each would spend half of each step waiting."
        in whatif.text_scaling_whatif(fitted())
    )
    assert whatif.fig_scaling_whatif(fitted().iloc[:0]) == whatif.NONE
    assert whatif.text_scaling_whatif(fitted().iloc[:0]).startswith("Without the K80's projection")
