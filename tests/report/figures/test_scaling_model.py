"""The derivation as the chapter prints it."""

from __future__ import annotations

import re

from derivations import scaling
from report.figures import scaling_model
from tests.scaling_rows import cells


def test_logarithms_are_to_base_two() -> None:
    """A tree of 8 learners has log₂ 8 = 3 levels, there and back."""
    text = scaling_model.formula_scaling_others()
    assert text.count(r"\log_2 p") == 2 and r"\log{" not in text and "log_{2 p}" not in text
    assert scaling_model.latex(scaling.tree()).startswith(r"2 \log_2 p\, ")


def test_equations_have_their_labels() -> None:
    ring, nodes = scaling_model.formula_scaling_ring(), scaling_model.formula_scaling_nodes()
    assert ring.endswith("$$ {#eq-ring}") and r"2 \alpha \left(p - 1\right)" in ring
    assert nodes.endswith("$$ {#eq-hierarchical}")
    inside, between = re.findall(r"\\underbrace\{(.*?)\}_\{\\text\{(?:inside|between)\}\}", nodes)
    assert "out" not in inside and r"\mathrm{in}" not in between
    assert scaling_model.formula_scaling_step().endswith("$$ {#eq-step}")


def test_the_weak_limit_has_its_condition() -> None:
    text = scaling_model.calculation_scaling_limits()
    assert text.count("$$") == 8 and r"2\beta n > b c \phi w" in text


def test_every_symbol_has_a_meaning_and_a_unit() -> None:
    rows = cells(scaling_model.tbl_scaling_symbols())[1:]
    assert len(rows) == len(scaling_model.MEANINGS) == 12
    assert ["$m$", "nodes", "–"] in rows and [r"$\beta$", rows[7][1], "s·byte⁻¹"] in rows
