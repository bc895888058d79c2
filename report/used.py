"""Which runs a figure uses: those that its selections let through.

Functions that choose runs are marked with `selects`. While a `Watch` is open, each of them notes which runs it
returned. A selection made from another one's result takes its place; one inside another doesn't count. A figure that
selects nothing uses all runs that it was given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import pandas as pd

P = ParamSpec("P")
T = TypeVar("T")


def runs_in(value: Any) -> frozenset[str]:
    """The ids of the runs whose rows a frame has, or the frames in a list, tuple, mapping or dataclass."""
    if isinstance(value, pd.DataFrame):
        return frozenset(value.run_id) if "run_id" in value else frozenset()
    if dataclasses.is_dataclass(value):
        return runs_in(list(vars(value).values()))
    if isinstance(value, dict):
        return runs_in(list(value.values()))
    return frozenset[str]().union(*map(runs_in, value)) if isinstance(value, list | tuple) else frozenset()


class Watch:
    """Notes selections from `with` on until its end; `runs` are the ids of the runs used."""

    def __init__(self, arguments: Iterable[Any]) -> None:
        self._given = runs_in(list(arguments))
        self._selections: list[frozenset[str]] = []
        self.inside = False

    def __enter__(self) -> Watch:
        global _watch
        _watch = self
        return self

    def __exit__(self, *_: object) -> None:
        global _watch
        _watch = None

    def note(self, given: frozenset[str], chosen: frozenset[str]) -> None:
        self._selections = [*(one for one in self._selections if one != given), chosen]

    @property
    def runs(self) -> list[str]:
        return sorted(frozenset().union(*self._selections) if self._selections else self._given)


_watch: Watch | None = None


def selects(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function that chooses runs and returns their rows."""

    @wraps(function)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> T:
        watch = _watch
        if watch is None or watch.inside:
            return function(*args, **kwargs)
        watch.inside = True
        try:
            found = function(*args, **kwargs)
        finally:
            watch.inside = False
        watch.note(runs_in(list(args)), runs_in(found))
        return found

    return chosen


KEPT = 4  # results of each function


def remembered(function: Callable[P, pd.DataFrame]) -> Callable[P, pd.DataFrame]:
    """Mark a slow function that makes a frame of a frame for many figures: equal arguments are worked on once."""
    kept: list[tuple[pd.DataFrame, Any, pd.DataFrame]] = []

    @wraps(function)
    def found(*args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        frame, others = cast(pd.DataFrame, args[0]), (args[1:], kwargs)
        for known, with_others, result in kept:
            if with_others == others and known.equals(frame):
                return result.copy()
        result = function(*args, **kwargs)
        kept.append((frame.copy(), others, result.copy()))
        del kept[:-KEPT]
        return result

    return found
