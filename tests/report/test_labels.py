"""A chapter is prose: each figure, table, text and answer in it is one call of the function that its label names."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from report.answers import Answer, Missing

REPORT = Path(__file__).resolve().parents[2] / "report"
# A chapter's modules are named after its subject; the panel of the last has one of its own.
CHAPTERS = {
    "p3-architectures.qmd": "architectures",
    "p4-batch-augmentation.qmd": "augmentation",
    "scaling-model.qmd": "scaling",
}
OTHERS = {"scaling": ["whatif"]}
SHOWN = ("fig_", "tbl_", "answer_", "text_", "calculation_", "proof_", "formula_", "sum_")
# A chapter's parts of the homework, then what goes beyond it.
HEADINGS = {
    "p3-architectures.qmd": ["sec-p3-alexnet", "sec-p3-vgg", "sec-p3-field", "sec-p3-inception", "sec-p3-beyond"],
    "p4-batch-augmentation.qmd": ["sec-p4-cutout", "sec-p4-baseline", "sec-p4-batch", "sec-p4-beyond"],
    "scaling-model.qmd": [
        *("sec-scaling-link", "sec-scaling-fit", "sec-scaling-k80", "sec-scaling-model", "sec-scaling-beyond"),
    ],
}
PARTS = {
    "p3-architectures.qmd": ["3.1", "3.2", "3.3", "3.4a", "3.4b", "3.4c", "3.4d"],
    "p4-batch-augmentation.qmd": ["4.1", "4.2", "4.3"],
    "scaling-model.qmd": ["5.1", "5.2", "5.3"],
}


def source(chapter: str) -> str:
    return (REPORT / chapter).read_text(encoding="utf-8")


def cells(chapter: str) -> list[str]:
    return re.findall(r"^```\{python\}\n(.*?)^```$", source(chapter), re.DOTALL | re.MULTILINE)


def code(cell: str) -> list[str]:
    return [line for line in cell.splitlines() if line and not line.startswith("#|")]


def modules(subject: str) -> list[ModuleType]:
    own = [path.stem for path in sorted((REPORT / "figures").glob(f"{subject}*.py"))]
    return [importlib.import_module(f"report.figures.{name}") for name in [*own, *OTHERS.get(subject, [])]]


def functions(subject: str, prefixes: tuple[str, ...] = SHOWN) -> dict[str, Any]:
    """The subject's own public functions whose names start so."""
    return {
        name: function
        for module in modules(subject)
        for name, function in vars(module).items()
        if name.startswith(prefixes) and inspect.isfunction(function) and function.__module__ == module.__name__
    }


def made(call: str, names: dict[str, Any]) -> Any:
    """What the function of a cell's one call returns."""
    function, *arguments = eval(f"({call.removeprefix('show.result(').removesuffix(')')},)", names)
    return function(*arguments)


each = pytest.mark.parametrize(("chapter", "subject"), CHAPTERS.items())


@each
def test_every_label_has_its_function_and_every_function_its_cell(chapter: str, subject: str) -> None:
    labelled, called = {}, []
    for cell in cells(chapter)[1:]:
        names = "|".join([rf"{subject}\w*", *OTHERS.get(subject, [])])
        (call,) = re.findall(rf"^show\.result\((?:{names})\.(\w+)(?:, .*)?\)$", "\n".join(code(cell)))
        called.append(call)
        if label := re.search(r"^#\| label: (\S+)$", cell, re.MULTILINE):
            labelled[label[1].replace("-", "_")] = call
    assert labelled and labelled == {name: name for name in functions(subject, ("fig_", "tbl_"))}
    assert sorted(set(called)) == sorted(functions(subject))


@each
def test_answers_stand_in_the_homeworks_order_and_name_labels(chapter: str, subject: str) -> None:
    names: dict[str, Any] = {}
    found = []
    for cell in cells(chapter):
        (*_, last) = code(cell)
        if ".answer_" in last:
            found.append(made(last, names))
        elif not names:
            exec(cell, names)
    assert all(isinstance(answer, Answer) for answer in found)
    assert [answer.part for answer in found] == PARTS[chapter]
    assert all(f"#| label: {answer.figure}\n" in source(chapter) for answer in found)


@each
def test_headings_are_the_homeworks_parts(chapter: str, subject: str) -> None:
    assert re.findall(r"^## .*\{#(\S+)\}$", source(chapter), re.MULTILINE) == HEADINGS[chapter]


@each
def test_code_is_a_small_part(chapter: str, subject: str) -> None:
    assert sum(len(code(cell)) for cell in cells(chapter)) <= 0.15 * len(source(chapter).splitlines())


@each
def test_no_table_has_more_than_seven_columns(chapter: str, subject: str) -> None:
    names: dict[str, Any] = {}
    exec(cells(chapter)[0], names)
    for cell in cells(chapter)[1:]:
        if ".tbl_" in cell:
            table = made(code(cell)[-1], names)
            assert isinstance(table, Missing) or table.splitlines()[0].count("|") - 1 <= 7, cell
