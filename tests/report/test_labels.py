"""A chapter is prose: each figure, table, text and answer in it is one call of the function that its label names."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

from experiments.store.files import ROOT
from report.answers import Answer, Missing
from tests.figure_functions import OTHERS, functions

REPORT = ROOT / "report"
CHAPTERS = {
    "p1-horovod.qmd": "horovod",
    "p2-strategy.qmd": "strategy",
    "p3-architectures.qmd": "architectures",
    "p4-batch-augmentation.qmd": "augmentation",
    "scaling-model.qmd": "scaling",
}
# A chapter's parts of the homework, then what goes beyond it.
HEADINGS = {
    "p1-horovod.qmd": ["sec-p1-throughput", "sec-p1-scaling", "sec-p1-weak", "sec-p1-hosts", "sec-p1-beyond"],
    "p2-strategy.qmd": [
        *("sec-p2-throughput", "sec-p2-time", "sec-p2-cost", "sec-p2-efficiency", "sec-p2-allreduce"),
        *("sec-p2-communication", "sec-p2-beyond"),
    ],
    "p3-architectures.qmd": ["sec-p3-alexnet", "sec-p3-vgg", "sec-p3-field", "sec-p3-inception", "sec-p3-beyond"],
    "p4-batch-augmentation.qmd": ["sec-p4-cutout", "sec-p4-baseline", "sec-p4-batch", "sec-p4-beyond"],
    "scaling-model.qmd": [
        *(
            "sec-scaling-link",
            "sec-scaling-ahead",
            "sec-scaling-fit",
            "sec-scaling-k80",
            "sec-scaling-model",
            "sec-scaling-beyond",
        ),
    ],
}
PARTS = {
    "p1-horovod.qmd": ["1.1", "1.2", "1.3", "1.4"],
    "p2-strategy.qmd": ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6"],
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


@cache
def loaded(chapter: str) -> dict[str, Any]:
    """What the chapter's first cell imports and loads; to be read only."""
    names: dict[str, Any] = {}
    exec(cells(chapter)[0], names)
    return names


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
    assert labelled and labelled == {name: name for name in functions(subject, "fig_", "tbl_")}
    assert sorted(set(called)) == sorted(functions(subject))
    said = ("answer_", "text_")
    assert sorted(name for name in called if name.startswith(said)) == sorted(functions(subject, *said))


@each
def test_answers_stand_in_the_homeworks_order_and_name_labels(chapter: str, subject: str) -> None:
    found = [made(last, loaded(chapter)) for *_, last in map(code, cells(chapter)) if ".answer_" in last]
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
    for cell in cells(chapter)[1:]:
        if ".tbl_" in cell:
            table = made(code(cell)[-1], loaded(chapter))
            assert isinstance(table, Missing) or table.splitlines()[0].count("|") - 1 <= 7, cell
