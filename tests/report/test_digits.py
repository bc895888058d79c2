"""No result is typed: a digit in a chapter's prose or caption is made by code, cited, or the homework's own setting."""

from __future__ import annotations

import re

import pytest

from experiments.store.files import ROOT
from report.engine import Book

CHAPTERS = Book.read(ROOT).chapters
CITED = re.findall(r"^@\w+\{([^,]+),", (ROOT / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)

# What isn't prose: cells and code, formulas, options of blocks, targets of links.
NOT_PROSE = [
    r"^(`{3,}).*?^\1$",
    r"\$\$.*?\$\$(?: \{#[\w-]+\})?",
    r"^:::.*?$",
    r"`[^`\n]+`",
    r"\$[^$\n]+\$",
    r"\{[#.][^}]*\}",
    r"\]\([^)]*\)",
    r"@(?:fig|tbl|sec|eq)-[\w-]+",
]

# Digits that are no results, and why.
ALLOWED = {
    "names": r"(?:ResNet|VGG|CIFAR|DGX)-\d+|\b[KHP]\d+s?\b|\b(?:TF|fp|bf|float|bfloat)\d+\b|\bconv\d\b|\bfc\d\b|CS231n",
    "the version of TensorFlow whose source is quoted": r"TensorFlow 2\.21",
    "the homework's date": r"autumn 2019",
    "numbers of its parts, of papers' and of a module": r"(?:Problem|part|Table|Fig\.) \d|§[\d.]+|\(3b\)",
    "how many GPUs it asks for": r"\b(?:1, 2, 4(?:, 8)? and (?:8|16)|8 (?:and|or) 16|1 to 16|16) "
    r"(?:GPUs|learners|of them)|those of 8 on one|16 cores form",
    "its batches, its M, its accuracy to reach and its cap": r"B = 64|\b64 (?:images|N|distinct)"
    r"|\b256 (?:images|in all)|256/N|M = [\d, and]*\d|94 % accuracy"
    r"|(?:least|crosses|cross|to|that reaches) 94 %|homework's 100 epochs",
    "sizes of filters, images and data sets": r"\b(?:1|2|3|5|28|32|224) ?× ?(?:1|2|3|5|28|32|224)\b(?:×256)?"
    r"|224 (?:or 227 )?pixels|60,000 images|10,000 (?:original )?test images|(?:stride|padding) [012, and]*[012]",
    "definitions": r"\b1/N\b|t\(1\)|2\(N−1\)/N|powers of 1000|1 MB is 10⁶ bytes|2 or 1 per|above 100 %",
    "this project's rule (report/comparisons.py)": r"(?:95|80) % (?:bootstrap )?intervals?|(?:above|from) 102 %",
}


def prose(source: str) -> list[str]:
    """The sentences of a chapter and of its captions."""
    typed_there = r"^#\| (?:fig|tbl)-cap: \"(.*)\"$|title=\"([^\"]*)\""
    captions = [one or other for one, other in re.findall(typed_there, source, re.MULTILINE)]
    for pattern in NOT_PROSE:
        source = re.sub(pattern, " ", source, flags=re.DOTALL | re.MULTILINE)
    blocks = re.split(r"\n\s*\n|^(?:#+|-|\d+\.) ", source, flags=re.MULTILINE)
    texts = [*blocks, *captions]
    for pattern in NOT_PROSE[3:]:
        texts = [re.sub(pattern, " ", text) for text in texts]
    return [s for text in texts for s in re.split(r"(?<=[.!?:;])\s+(?=[*\"A-Z(])", " ".join(text.split())) if s]


def typed(sentence: str) -> str:
    """What is left of the digits when those that are no results are taken away; nothing of a sentence that cites."""
    if any(f"@{key}" in sentence for key in CITED):
        return ""
    for pattern in ALLOWED.values():
        sentence = re.sub(pattern, " ", sentence)
    return " ".join(re.findall(r"\S*\d\S*", sentence))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_result_is_typed(chapter: str) -> None:
    found = [(typed(s), s) for s in prose((ROOT / chapter).read_text(encoding="utf-8"))]
    assert [pair for pair in found if pair[0]] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("It trains 3.86 times as many images.", "3.86"),
        ("On 16 GPUs efficiency is 94 %, on 8 it is 97 %.", "94 8 97"),
        ("Four GPUs reach 96 % of ideal [@sergeev2018].", ""),  # cited
        ("It gains `{python} gain` %, by $2 x$, as in @fig-p1-link2.", ""),  # made by code, a formula, a reference
        ("```{python}\nx = 5\n```\n\nResNet-50 on 224 × 224 pixels.", ""),
        ('```{python}\n#| fig-cap: "The loss falls by 12 %."\nx\n```', "12"),
        ("# A {#sec-a1}\n\n- one: 7 s\n- two", "7"),
    ],
)
def test_a_typed_result_is_found(source: str, found: str) -> None:
    assert " ".join(filter(None, (typed(sentence) for sentence in prose(source)))) == found
