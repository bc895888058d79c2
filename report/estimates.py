"""Numbers that are made of repetitions: their interval or range, their text, and which words they allow."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

ABOVE_IDEAL = 1.02
ENOUGH = 3  # repetitions for an interval
DRAWS = 2000
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@dataclass(frozen=True)
class Estimate:
    """A number made of repetitions, with its 95 % interval, or the range where they are fewer than three."""

    value: float
    low: float
    high: float
    kind: Literal["interval", "range"]
    repetitions: int  # on the side that has fewer
    ideal: float | None = None  # what an efficiency is a part of; None for other numbers

    @property
    def flagged(self) -> bool:
        """An efficiency above 102 %: kept, and to be explained."""
        return self.ideal is not None and self.value > ABOVE_IDEAL

    @property
    def change(self) -> Estimate:
        """Of a ratio: what is more, or less, than one."""
        return replace(self, value=self.value - 1, low=self.low - 1, high=self.high - 1, ideal=None)

    def text(self, unit: str = "%", after: str = "", digits: int | None = None, signed: bool = False) -> str:
        """As a sentence has it: 96.4 % of ideal (three repetitions, 96.3–96.9 %). `after` follows the number."""
        number, within = self._written(unit, digits, signed)
        if self.kind == "interval":
            basis = f"{word(self.repetitions)} repetitions, {within}"
        elif not within:
            basis = "one run each, too few for a verdict"
        else:
            basis = f"{word(self.repetitions)} run{'s' * (self.repetitions > 1)}, {within}, too few for a verdict"
        flag = "; above 102 % of ideal, kept as measured" if self.flagged else ""
        return f"{number}{after and ' ' + after} ({basis}{flag})"

    def brief(self, unit: str = "%", after: str = "", digits: int | None = None, signed: bool = False) -> str:
        """The number and, where several runs tell it, what it lies in, for a reader who knows the repetitions."""
        number, within = self._written(unit, digits, signed)
        return f"{number}{after and ' ' + after}" + (f" ({within})" if within else "")

    def _written(self, unit: str, digits: int | None, signed: bool) -> tuple[str, str]:
        """The number with its unit, and its interval or range; no range of a single run."""
        scale = 100 if unit == "%" else 1
        value, low, high = (scale * number for number in (self.value, self.low, self.high))
        if digits is None:
            digits = int(high - low < 5) if unit == "%" else max(0, 2 - int(np.log10(max(abs(value), 1))))
            if unit != "%" and any(end != 1 and round(end, digits) == 1 for end in (low, high)):
                digits += 1  # else an interval that leaves out 1 would seem to touch it
        sign = "+" if signed else ""
        shown, least, most = (f"{number:{sign},.{digits}f}".replace("-", "−") for number in (value, low, high))
        dash = " to " if signed or low < 0 else "–"
        within = f"{least}{dash}{most}" + ("" if unit in ("times", "") else f" {unit}")
        return f"{shown} {unit}".rstrip(), "" if self.kind == "range" and low == high else within


def word(number: int) -> str:
    """A number as a sentence has it: in letters up to ten."""
    return WORDS[number] if number < len(WORDS) else str(number)


def estimate(combine: Callable[..., Any], *samples: Any, ideal: float | None = None) -> Estimate:
    """What `combine` makes of the samples' medians, with its interval.

    A sample has a repetition a row: numbers, or rows of numbers that belong together and are drawn together. `combine`
    must work on arrays of medians (last axis: the numbers of a row).
    """
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    fewest = min(len(array) for array in arrays)
    value = float(combine(*(np.median(array, axis=0) for array in arrays)))
    if fewest < ENOUGH:
        could = [float(combine(*rows)) for rows in itertools.product(*arrays)]
        return Estimate(value, min(could), max(could), "range", fewest, ideal)
    draw = np.random.default_rng(0)  # the same interval at each rendering
    medians = [np.median(a[draw.integers(len(a), size=(DRAWS, len(a)))], axis=1) for a in arrays]
    low, high = np.quantile(combine(*medians), [0.025, 0.975])
    return Estimate(value, float(low), float(high), "interval", fewest, ideal)


def exactly(value: float, repetitions: int, ideal: float | None = None) -> Estimate:
    """A number without spread, such as what a series' base is of itself."""
    kind: Literal["interval", "range"] = "interval" if repetitions >= ENOUGH else "range"
    return Estimate(value, value, value, kind, repetitions, ideal)


def verdict(estimate: Estimate, threshold: float) -> Literal["above", "below", "within the noise of"] | None:
    """How the number stands to a threshold, by its interval; None where too few repetitions ran for any word."""
    if estimate.kind == "range":
        return None
    return "above" if estimate.low > threshold else "below" if estimate.high < threshold else "within the noise of"
