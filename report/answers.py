"""Answers to the homework's parts, as objects: a chapter, the front page and `answers.json` show the same ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

# The homework's parts as the chapters ask them.
QUESTIONS = {
    "1.1": "How do average throughput and total run time change with the number of learners?",
    "1.2": "How close does the throughput of N learners come to N times that of one?",
    "1.3": "What is the effective batch of each job, and does Horovod employ strong or weak scaling?",
    "1.4": "How do throughput and training time of 16 learners on two nodes compare with those of 8 on one?",
    "2.1": "How does throughput grow with the number of learners, for weak and for strong scaling?",
    "2.2": "How long does training take for ten epochs?",
    "2.3": "What do ten epochs cost?",
    "2.4": "By how much does the time of one iteration grow as learners are added?",
    "2.5": "Within one process, which of `NcclAllReduce`, `HierarchicalCopyAllReduce` and `ReductionToOneDevice` "
    "trains faster?",
    "2.6": "With two workers, how do `AUTO`, `NCCL` and `RING` compare, and does AUTO give the best throughput?",
    "3.1": "How many parameters does AlexNet have, layer by layer and in total?",
    "3.2": "How many activations and weights, biases not counted, does each layer of VGG-19 have?",
    "3.3": "Show that $N$ stacked $F \\times F$ convolutions see as much as one of $(NF - N + 1) \\times (NF - N + 1)$"
    ". What do three 5×5 filters see?",
    "3.4a": "What is the general idea behind the design of an inception module?",
    "3.4b": "What is the size of each module's output for an input of 32×32×256?",
    "3.4c": "How many convolution operations does each module take for this input?",
    "3.4d": "What is the problem of the naive module, how does dimensionality reduction help, and how much does it "
    "save?",
    "4.1": "What is cutout, why is it better than simple dropout, and what do two images look like after it?",
    "4.2": "How does the validation error of ResNet-44 with the simple augmentation of He et al. fall over the epochs?",
    "4.3": "How does the validation error fall over the epochs for M = 2, 4, 8, 16 and 32, and after how many epochs "
    "and how much wall clock does each M reach 94 % accuracy?",
}


@dataclass(frozen=True)
class Answer:
    """One part's answer: a sentence or two that can stand alone, and what it rests on."""

    part: str  # of the homework: 1.2
    sentence: str  # with its numbers; Markdown
    device: str
    runs: int  # that the numbers come from
    basis: Literal["measured", "derived", "projected"]
    figure: str  # label of the figure or table to look at

    def markdown(self, whose: str = "") -> str:
        """How a section begins; `whose` machine it is about, where there are several."""
        runs = f"{self.runs} run{'s' * (self.runs != 1)}"
        basis = {
            "measured": f"Measured on {self.device}, {runs}",
            "derived": f"Derived, and checked in {runs} on {self.device}" if self.runs else "Derived",
            "projected": f"Projected for {self.device}",
        }[self.basis]
        return f"**Answer{f' ({whose})' if whose else ''}.** {self.sentence} {basis} (@{self.figure})."

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Missing:
    """What can't be shown because runs are missing, and the command that makes them."""

    what: str
    command: str


def as_json(answers: Mapping[str, Answer | Missing]) -> str:
    """The answers by part, each with its question: `answers.json`. One that is missing has what is missing, and the
    command that makes it."""
    records = []
    for part, answer in answers.items():
        found = answer.record() if isinstance(answer, Answer) else {"missing": answer.what, "command": answer.command}
        records.append({"part": part, "question": QUESTIONS[part]} | found)
    return json.dumps(records, ensure_ascii=False, indent=1) + "\n"
