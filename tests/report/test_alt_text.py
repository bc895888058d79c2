"""The words that stand in for a chart."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from report import alt_text

POINTS = pd.DataFrame(
    {"n": [1, 2, 4, 4, 1, 2], "rate": [10.0, 19.5, 36.0, 38.0, 1234.5, 2000.0], "name": ["A"] * 4 + ["B"] * 2}
)


def words(chart: Any, what: str = "") -> str:
    return alt_text.described(chart.to_dict(), what)


def test_a_series_is_told_by_its_first_and_last_value() -> None:
    base = alt.Chart(POINTS).encode(x=alt.X("n:Q", title="learners"), color="name:N")
    bars = base.mark_rule().encode(y=alt.Y("rate:Q", title="images/s"), y2="rate:Q")
    layered = (bars + base.mark_line().encode(y="rate:Q")).properties(title="GPUs")
    # At four learners A has 36 and 38: their median.
    told = "GPUs: images/s against learners: A: 10 at 1 to 37 at 4; B: 1,234 at 1 to 2,000 at 2."
    assert words(layered, "Throughput.") == f"Throughput. {told}"
    assert words(alt.vconcat(alt.hconcat(layered))) == told  # also where views stand within views


def test_lines_through_shapes_are_told_shape_by_shape() -> None:
    both = pd.concat([POINTS[:2].assign(part="whole"), POINTS[:2].assign(part="half", rate=[5.0, 8.0])])
    base = alt.Chart(both).encode(x="n:Q", y="rate:Q", color="name:N")
    chart = base.mark_line().encode(detail="part:N") + base.mark_point().encode(shape="part:N")
    assert words(chart) == "rate against n: A, whole: 10 at 1 to 19.5 at 2; A, half: 5 at 1 to 8 at 2."


def test_names_on_an_axis_have_a_range_or_a_value() -> None:
    base = alt.Chart(POINTS).encode(x=alt.X("rate:Q", title="images/s"), y=alt.Y("name:N", title=["all-", "reduce"]))
    assert words(base.mark_tick()) == "all- reduce against images/s: A: 10 to 38; B: 1,234 to 2,000."
    assert words(alt.Chart(POINTS[:1]).mark_bar().encode(x="rate:Q", y="name:N")) == "name against rate: A: 10."


def test_what_has_no_name_is_told_alone() -> None:
    ideal = alt.Chart(POINTS[:2]).mark_line().encode(x="n:Q", y="rate:Q")
    assert words(ideal) == "rate against n: 10 at 1 to 19.5 at 2."
    named = alt.Chart(POINTS[4:]).mark_point().encode(x="n:Q", y="rate:Q", color="name:N")
    assert words(ideal + named) == "rate against n: B: 1,234 at 1 to 2,000 at 2."


def test_numbers_that_the_chart_works_out_itself_are_not_told() -> None:
    counted = alt.Chart(POINTS).mark_bar().encode(x="n:O", y="count()")
    assert words(counted) == "n."
    filtered = alt.Chart(POINTS).transform_filter("datum.n > 1").mark_line().encode(x="n:Q", y="rate:Q")
    assert words(filtered) == "rate against n."
    of_a = alt.Chart(POINTS).transform_filter(alt.FieldEqualPredicate(field="name", equal="A"))
    assert words(of_a.mark_line().encode(x="n:Q", y="rate:Q")) == "rate against n: 10 at 1 to 37 at 4."


def test_points_tell_the_values_rather_than_lines_beside_them() -> None:
    line = alt.Chart(POINTS[4:]).mark_line().encode(x="n:Q", y="rate:Q")
    points = alt.Chart(POINTS[:2]).mark_point().encode(x="n:Q", y="rate:Q")
    assert words(line + points) == "rate against n: 10 at 1 to 19.5 at 2."


def test_a_series_that_is_a_number_is_named_by_what_it_counts() -> None:
    of_m = (
        alt.Chart(POINTS[:2].assign(m=[8.0, 16.0])).mark_point().encode(y="rate:Q", color=alt.Color("m:N", title="M"))
    )
    assert words(of_m) == "rate: M 8: 10; M 16: 19.5."


def test_only_so_many_series_are_named() -> None:
    many = pd.DataFrame({"x": range(10), "name": [f"s{i}" for i in range(10)]})
    found = words(alt.Chart(many).mark_point().encode(x="x:Q", color="name:N"))
    assert found == "x: s0: 0; s1: 1; s2: 2; s3: 3; s4: 4; s5: 5; s6: 6; s7: 7 and 2 more."


def test_points_beside_their_place_are_told_at_it() -> None:
    beside = alt.Chart(POINTS[:2].assign(x=[0.97, 2.06])).mark_point().encode(x=alt.X("x:Q", title="n"), y="rate:Q")
    assert words(beside) == "rate against n: 10 at 1 to 19.5 at 2."
