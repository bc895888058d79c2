"""Answers to the homework's parts, as objects: a chapter, the front page and `answers.json` show the same ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Answer:
    """One part's answer: a sentence or two that can stand alone, and what it rests on."""

    part: str  # of the homework: 1.2
    sentence: str  # with its numbers; Markdown
    device: str
    runs: int  # that the numbers come from
    basis: Literal["measured", "derived", "projected"]
    figure: str  # label of the figure or table to look at

    def markdown(self) -> str:
        """How a section begins."""
        runs = f"{self.runs} run{'s' * (self.runs != 1)}"
        basis = {
            "measured": f"Measured on {self.device}, {runs}",
            "derived": f"Derived, and checked in {runs} on {self.device}" if self.runs else "Derived",
            "projected": f"Projected for {self.device}",
        }[self.basis]
        return f"**Answer.** {self.sentence} {basis} (@{self.figure})."

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Missing:
    """What can't be shown because runs are missing, and the command that makes them."""

    what: str
    command: str
