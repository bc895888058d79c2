"""The functions that a chapter's cells call: its subject's modules in report/figures, and what they define."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

from experiments.store.files import ROOT

# A subject's modules are named after it; the panel of the last has one of its own.
OTHERS = {"scaling": ["whatif"]}
SHOWN = ("fig_", "tbl_", "answer_", "text_", "calculation_", "proof_", "formula_", "sum_")


def modules(subject: str) -> list[ModuleType]:
    own = [path.stem for path in sorted((ROOT / "report" / "figures").glob(f"{subject}*.py"))]
    return [importlib.import_module(f"report.figures.{name}") for name in [*own, *OTHERS.get(subject, [])]]


def functions(subject: str, *prefixes: str) -> dict[str, Any]:
    """The subject's own public functions whose names start so; by default all that a chapter shows."""
    return {
        name: function
        for module in modules(subject)
        for name, function in vars(module).items()
        if name.startswith(prefixes or SHOWN)
        and inspect.isfunction(function)
        and function.__module__ == module.__name__
    }
