"""A chart as HTML, and lower views for the PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest
import vl_convert

from report import vega

POINTS = pd.DataFrame({"x": [1, 2], "y": [3, 4], "name": ["a</script>", "<table>"]})


def spec() -> dict[str, Any]:
    return alt.Chart(POINTS).mark_point().encode(x="x", y="y", color="name").to_dict()


def test_no_tag_hides_in_the_scripts() -> None:
    html = vega.drawing(spec())
    assert html.count("</script") == 1 and "<table" not in html
    script = vega.script()
    assert script.count("</script") == 1 and script.count("<script") == 1 and "<table" not in script
    assert "http://" not in script[:200] and "src=" not in script[:200]
    assert len(script) >= len(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def test_views_are_lower_in_the_pdf() -> None:
    spec = {"vconcat": [{"height": 100, "width": 560}], "config": {"view": {"continuousHeight": 250}}}
    assert vega.printed(spec) == {
        "vconcat": [{"height": 64, "width": 560}],
        "config": {"view": {"continuousHeight": 160}},
    }


def test_labels_that_are_hidden_are_not_in_the_picture() -> None:
    axis = alt.Axis(values=[100, 101, 200], labelOverlap="greedy")
    many = alt.Chart(pd.DataFrame({"y": [0, 200]})).mark_point().encode(y=alt.Y("y", axis=axis)).properties(height=100)
    svg = vega.svg(many.to_dict())
    assert ">100<" in svg and ">200<" in svg and ">101<" not in svg


def test_a_picture_without_script_has_its_words_escaped() -> None:
    assert vega.without_script("a.svg", 'a "b" <c>') == (
        '<noscript><img src="a.svg" alt="a &quot;b&quot; &lt;c&gt;"></noscript>'
    )


def test_the_bundle_is_made_once_for_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "dlperf").mkdir()
    monkeypatch.setattr("report.vega.vl_convert.javascript_bundle", lambda code: f"made; {code}")
    assert vega.bundle() == "(() => {made; window.vegaEmbed = vegaEmbed;})();"
    monkeypatch.setattr("report.vega.vl_convert.javascript_bundle", lambda code: pytest.fail("made again"))
    assert vega.bundle() == "(() => {made; window.vegaEmbed = vegaEmbed;})();"
    monkeypatch.setattr("report.vega.metadata.version", lambda package: "of another day")
    monkeypatch.setattr("report.vega.vl_convert.javascript_bundle", lambda code: "newer")
    assert vega.bundle() == "(() => {newer})();"
