"""Names at the ends of lines: none on another, near their lines, and with room beside the chart."""

from __future__ import annotations

from itertools import pairwise

import altair as alt
import pandas as pd
import pytest

from report import line_ends, show

POINTS = pd.DataFrame(
    {"learners": [1, 2, 1, 2], "scaling": ["weak", "weak", "strong", "strong"], "value": [1, 4, 2, 2]}
)


def chart() -> alt.LayerChart | alt.FacetChart:
    y = alt.Y("value:Q", scale=alt.Scale(zero=True))
    base = alt.Chart(POINTS).encode(x="learners:Q")
    colours, names = {"weak": "#009E73", "strong": "#CC79A7"}, {"weak": "weak", "strong": "strong"}
    return alt.layer(base.mark_line().encode(y=y), *line_ends.labels(base, POINTS, colours, names, ["scaling"], y, 100))


def test_each_line_is_named_once_at_its_last_point() -> None:
    spec = chart().to_dict()
    _, *texts = spec["layer"]
    assert [text["encoding"]["text"]["value"] for text in texts] == ["weak", "strong"]
    assert texts[1]["transform"] == [{"filter": 'datum.learners == 2 && datum.scaling == "strong"'}]
    # 4 of 0 to 4 is at the top and 2 halfway down of 64 pixels: far enough apart.
    assert [text["mark"]["dy"] for text in texts] == [0, 0]


def test_names_that_would_stand_on_each_other_move_apart() -> None:
    # On an axis from 0 to 10 of 100 pixels, 5 and 5.1 are 1 pixel apart; 13 are needed, so each moves by 6; 10 stays.
    assert line_ends.nudges([5, 5.1, 10], [0, 10], 100, log=False) == pytest.approx([6, -6, 0])
    # Three alike: the one in the middle stays.
    assert sorted(line_ends.nudges([5, 5, 5], [0, 10], 100, log=False)) == pytest.approx([-13, 0, 13])
    # On a logarithmic axis from 1 to 100, 10 is in the middle: 1 and 10 are 50 pixels apart.
    assert line_ends.nudges([1, 10], [1, 100], 100, log=True) == pytest.approx([0, 0])


def test_a_name_pushed_into_another_pushes_on() -> None:
    # At 50, 49 and 38 pixels from the top: the first two need 12 more, and then the third is too near.
    moved = line_ends.nudges([5.0, 5.1, 6.2], [0, 10], 100, log=False)
    places = sorted(at + move for at, move in zip([50, 49, 38], moved, strict=True))
    assert [round(b - a, 6) for a, b in pairwise(places)] == [13, 13]
    assert sum(places) == pytest.approx(50 + 49 + 38)


def test_the_chart_leaves_room_for_the_longest_name() -> None:
    # 9 pixels beside the point and 6.7 for each letter of "strong": 49.2
    assert show.specification(chart())["usermeta"] == {"room": 49}
    stacked = alt.vconcat(chart(), chart())
    assert show.specification(stacked)["usermeta"] == {"room": 49}
    assert "usermeta" not in show.specification(alt.Chart(POINTS).mark_line().encode(x="learners:Q", y="value:Q"))
