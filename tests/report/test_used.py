"""What is remembered: equal frames are worked on once, others and changed ones anew."""

from __future__ import annotations

import pandas as pd

from report.used import KEPT, remembered


def test_equal_arguments_are_worked_on_once() -> None:
    calls = []

    @remembered
    def doubled(frame: pd.DataFrame, factor: int = 2) -> pd.DataFrame:
        calls.append(factor)
        return frame * factor

    first = pd.DataFrame({"a": [1, 2]})
    assert doubled(first).a.tolist() == doubled(first.copy()).a.tolist() == [2, 4]
    assert doubled(first, 3).a.tolist() == [3, 6]
    assert calls == [2, 3]
    doubled(first).loc[:, "a"] = 0  # what a caller does with its result is its own
    assert doubled(first).a.tolist() == [2, 4] and calls == [2, 3]
    first.loc[0, "a"] = 5  # a changed frame is another one
    assert doubled(first).a.tolist() == [10, 4] and calls == [2, 3, 2]


def test_only_the_last_results_are_kept() -> None:
    calls = []

    @remembered
    def same(frame: pd.DataFrame) -> pd.DataFrame:
        calls.append(int(frame.a[0]))
        return frame

    for value in [*range(KEPT + 1), 0]:
        same(pd.DataFrame({"a": [value]}))
    assert calls == [*range(KEPT + 1), 0]
