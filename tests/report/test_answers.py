"""Answers as chapters and as JSON show them."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from report.answers import Answer


@pytest.mark.parametrize(
    ("basis", "runs", "ends"),
    [
        ("measured", 1, "Measured on 2 GPUs, 1 run (@fig-a)."),
        ("derived", 12, "Derived, and checked in 12 runs on 2 GPUs (@fig-a)."),
        ("derived", 0, "Derived (@fig-a)."),
        ("projected", 0, "Projected for 2 GPUs (@fig-a)."),
    ],
)
def test_an_answer_says_what_it_rests_on(
    basis: Literal["measured", "derived", "projected"], runs: int, ends: str
) -> None:
    assert Answer("1.2", "It scales.", "2 GPUs", runs, basis, "fig-a").markdown() == f"**Answer.** It scales. {ends}"


def test_an_answer_fits_json() -> None:
    answer = Answer("1.2", "It scales.", "2 GPUs", 3, "measured", "fig-a")
    assert Answer(**json.loads(json.dumps(answer.record()))) == answer
