"""Problem 4's trainings: those that the document asks for, and which come next after those that are done.

Which schedules are short enough is searched: of the lengths E, the fewest epochs with which all seeds of an M reach
94 % accuracy. One seed that doesn't shows that a schedule is too short.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

GOAL = 6.0  # % validation error: the homework's accuracy of 94 %
CAP = 100  # epochs: the homework's
BATCH, DEPTH = 64, 44  # distinct samples in a batch; layers of the ResNet
ALL_M = (1, 2, 4, 8, 16, 32)  # the baseline's, and the homework's
SEARCHED_M = (1, 4, 8, 32)
LENGTHS = (10, 15, 20, 30, 40, 60, 80, 100)  # the epochs E that are tried
BUDGETS = (100, 400)  # of gradient evaluations, in passes over the training set
FEWEST = 10  # epochs, below which a scaled schedule has no room for its three drops
PARTS = ("authors", "shortest", "scaled", "budgets")


class Training(NamedTuple):
    """What tells a training from the others of one machine, precision and engine."""

    augment: str
    M: int
    epochs: int
    schedule: str
    seed: int

    def words(self) -> list[str]:
        """The options of p4_cutout.py."""
        return [word for name, value in self._asdict().items() for word in (f"--{name}", str(value))]


def wanted(parts: Iterable[str], seeds: int, lowest: Mapping[Training, float]) -> list[Training]:
    """The trainings that can start now, most important first, of those that these parts of the document lack.

    `lowest` has the lowest validation error (%) of each that is done.
    """
    found: list[Training] = []
    for part in parts:
        if part == "authors":
            found += _seeds("basic", 1, CAP, "authors", seeds)
            found += [one for m in reversed(ALL_M) for one in _seeds("cutout", m, CAP, "authors", seeds)]
        elif part == "shortest":
            found += [one for m in reversed(SEARCHED_M) for one in shortest(m, seeds, lowest)]
        elif part == "scaled":
            found += [one for m in reversed(ALL_M) for one in _seeds("cutout", m, CAP, "scaled", seeds)]
        else:
            found += [one for m, epochs in budgets() for one in _seeds("cutout", m, epochs, "scaled", seeds)]
    return [one for one in dict.fromkeys(found) if one not in lowest]


def shortest(m: int, seeds: int, lowest: Mapping[Training, float]) -> list[Training]:
    """What decides next which schedule of M is the shortest: the middle one of those between too short and long enough,
    its first seed alone, the others once that one is there. Empty where it is decided."""
    runs = {epochs: _seeds("cutout", m, epochs, "scaled", seeds) for epochs in LENGTHS}
    there = {epochs: [lowest[one] <= GOAL + 1e-9 for one in own if one in lowest] for epochs, own in runs.items()}
    enough = min((epochs for epochs in LENGTHS if there[epochs].count(True) == seeds), default=math.inf)
    short = max((epochs for epochs in LENGTHS if epochs < enough and False in there[epochs]), default=0)
    left = between(short, enough)
    if not left:
        return []
    middle = left[len(left) // 2]
    missing = [one for one in runs[middle] if one not in lowest]
    return missing if there[middle] else missing[:1]


def between(short: float, enough: float) -> list[int]:
    """The lengths still to try where one is too short and another long enough; none where the search is over."""
    return [epochs for epochs in LENGTHS if short < epochs < enough]


def budgets() -> list[tuple[int, int]]:
    """M and epochs whose product comes to a budget, or as near below it as whole epochs allow."""
    pairs = [(m, budget // m) for budget in BUDGETS for m in ALL_M]
    return [(m, epochs) for m, epochs in pairs if FEWEST <= epochs <= CAP]


def _seeds(augment: str, m: int, epochs: int, schedule: str, seeds: int) -> list[Training]:
    return [Training(augment, m, epochs, schedule, seed) for seed in range(seeds)]
