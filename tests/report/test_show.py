"""The chapters' helpers: what each display carries in each engine, and how numbers and tables are written."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest

from report import show, vega
from report.answers import Answer, Missing

# A PNG's beginning: its signature, then a chunk that starts with the width and the height.
PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\0\x03" + b"\0\0\0\x02"
CHART = alt.Chart(pd.DataFrame({"x": [1, 2], "y": [3, 4], "name": ["a</script>", "<table>"]})).mark_point().encode(
    x="x", y="y", color="name", tooltip=["name"]
)  # fmt: skip


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The mimebundles that were displayed, outside of any engine."""
    bundles: list[dict[str, str]] = []
    monkeypatch.setattr(show, "display", lambda data, raw, metadata=None: bundles.append(data | (metadata or {})))
    monkeypatch.delenv("DLPERF_ENGINE", raising=False)
    monkeypatch.delenv("QUARTO_EXECUTE_INFO", raising=False)
    show.setup()
    return bundles


def test_the_embedded_engine_gets_html_without_the_bundle_and_svg(
    shown: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLPERF_ENGINE", "embedded")
    show.chart(CHART)
    (bundle,) = shown
    assert set(bundle) == {"text/html", "image/svg+xml", "alt"}
    assert bundle["alt"] == "y against x: a</script>: 3 at 1; <table>: 4 at 2."
    assert "vegaEmbed(" in bundle["text/html"] and "window.vegaEmbed=" not in bundle["text/html"]
    assert bundle["image/svg+xml"].startswith("<svg")


@pytest.fixture
def quarto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says which format Quarto makes, as it tells it."""

    def making(target: str) -> None:
        told = tmp_path / "information.json"
        told.write_text(json.dumps({"format": {"identifier": {"target-format": target}}}))
        monkeypatch.setenv("QUARTO_EXECUTE_INFO", str(told))

    return making


RAW = re.compile(r"^`{8}\{=(\w+)\}\n.*?\n`{8}$", flags=re.MULTILINE | re.DOTALL)


def test_quarto_gets_what_the_format_at_hand_needs_and_never_text_html(
    shown: list[dict[str, str]], quarto: Callable[[str], None]
) -> None:
    quarto("html")
    show.chart(CHART, what="Two points.")
    show.chart(CHART)
    quarto("typst")
    show.chart(CHART, what="Two points.")
    assert [set(bundle) for bundle in shown] == [{"text/markdown"}] * 3
    first, second, paper = (bundle["text/markdown"] for bundle in shown)
    assert [RAW.findall(text) for text in (first, second, paper)] == [["html"], ["html"], ["typst"]]
    assert "window.vegaEmbed=" in first and "window.vegaEmbed=" not in second
    assert '<noscript><img src="data:image/svg+xml;base64,' in first and 'alt="Two points. y against x' in first
    assert 'alt: "Two points. y against x: a</script>: 3 at 1; <table>: 4 at 2."' in paper and "vegaEmbed" not in paper


def test_setup_starts_a_page_that_needs_the_bundle_again(
    shown: list[dict[str, str]], quarto: Callable[[str], None]
) -> None:
    quarto("html")
    for _ in range(2):
        show.setup()
        show.chart(CHART)
    assert all("window.vegaEmbed=" in bundle["text/markdown"] for bundle in shown)


def test_charts_have_one_look_and_a_stable_id() -> None:
    spec = show.specification(CHART.configure(font="Comic Sans"))
    assert spec["config"] == show.CONFIG
    spec["config"]["font"] = "changed"
    assert show.CONFIG["font"] == "sans-serif"
    again = show.specification(CHART)
    assert vega.drawing(again) == vega.drawing(show.specification(CHART))
    assert vega.drawing(again) != vega.drawing(spec)


def test_a_result_is_described_by_its_function(shown: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def fig_points(made: object) -> object:
        """Two points, one
        above the other.

        Not said: what follows.
        """
        return made

    monkeypatch.setenv("DLPERF_ENGINE", "embedded")
    show.result(fig_points, CHART)
    show.result(fig_points, PNG)
    assert [bundle["alt"] for bundle in shown] == [
        "Two points, one above the other. y against x: a</script>: 3 at 1; <table>: 4 at 2.",
        "Two points, one above the other.",
    ]
    assert 'alt="Two points, one above the other."' in shown[1]["text/html"]


def test_picture(shown: list[dict[str, str]]) -> None:
    show.picture(PNG)
    assert '<svg xmlns="http://www.w3.org/2000/svg" width="3" height="2">' in shown[0]["image/svg+xml"]
    assert f'href="data:image/png;base64,{base64.b64encode(PNG).decode()}"' in shown[0]["image/svg+xml"]


def test_a_channels_setter_gives_another_one_and_leaves_the_first() -> None:
    show.setup()
    y = alt.Y(title="error")
    low, high = y.field("low").type("quantitative"), y.field("high")
    assert low.to_dict() == {"field": "low", "title": "error", "type": "quantitative"}
    assert high.to_dict() == {"field": "high", "title": "error"}


def test_charts_share_their_channels_and_read_texts_as_channels() -> None:
    show.setup()
    high = alt.Y2("high:Q")
    assert copy.deepcopy(high) is high
    for given in (high, "high:Q"):
        assert CHART.encode(y2=given).to_dict()["encoding"]["y2"] == {"field": "high"}


def test_table() -> None:
    text = show.table_text([("conv1", 34_848, "1.5 s"), ("a|b", None, "12 min")], ["Layer", "Count", "Time"])
    assert text.splitlines() == [
        "| Layer | Count | Time |",
        "| :---- | -----: | -----: |",
        "| conv1 | 34,848 | 1.5\u00a0s |",
        "| a\\|b | – | 12\u00a0min |",
    ]
    calculation, long = "(3·3·512)·512 = 2,359,296", "a sentence that may be broken"
    (row,) = show.table_text([(calculation, long, "CONV3-512")], ["a", "b", "c"]).splitlines()[2:]
    assert row == f"| {calculation.replace(' ', chr(0xA0))} | {long} | CONV3\u2060-\u2060512 |"
    # Where room is short, a head wraps, and a range goes below its number.
    head, _, row = show.table_text([("1,437 (1,287–1,439)",)], ["USD, whole job"]).splitlines()
    assert head == "| USD, whole job |" and row == "| 1,437 (1,287\u2060–\u20601,439) |"
    frame = pd.DataFrame({"M": [1, 2], "error": [0.5, float("nan")]})
    assert show.table_text(frame, align="lc").splitlines()[1:] == ["| :-- | :---: |", "| 1 | 0.5 |", "| 2 | – |"]


@pytest.mark.parametrize(
    ("column", "right"),
    [(["1,234", "–", "−5"], True), (["6.5 (6.4–6.6)", "7 %"], True), (["1: Horovod"], False), (["–"], False)],
)
def test_numbers_stand_right(column: list[str], right: bool) -> None:
    rule = show.table_text([(text,) for text in column], ["x"]).splitlines()[1]
    assert rule.endswith(": |") is right


@pytest.mark.parametrize("arguments", [([(1, 2)], ["a"]), ([(1,)], None), ([(1,)], ["a"], "rr"), ([(1,)], ["a"], "x")])
def test_a_table_that_does_not_fit_is_refused(arguments: Any) -> None:
    with pytest.raises(ValueError):
        show.table_text(*arguments)


def test_text_displays(shown: list[dict[str, str]]) -> None:
    show.callout("note", "Text.", "Title")
    show.missing("The curves", "python experiments/x.py")
    texts = [bundle["text/markdown"] for bundle in shown]
    assert texts[0] == "::: {.callout-note}\n## Title\n\nText.\n:::"
    assert texts[1].startswith("::: {.callout-important}") and "```\npython experiments/x.py\n```" in texts[1]
    with pytest.raises(ValueError, match="unknown kind"):
        show.callout("danger", "Text.")


def test_numbers() -> None:
    assert show.count(1_234_567.0) == "1,234,567"
    assert [show.si(v) for v in (0, 0.5, 999, 60_965_224, 1.5e9)] == ["0", "0.500", "999", "61.0 M", "1.50 G"]
    assert show.percent(0.19140625) == "19.14 %" and show.percent(0.5, 0) == "50 %"
    assert [show.seconds(v) for v in (0.85, 42, 125, 738, 7380)] == ["0.85 s", "42.0 s", "125 s", "12.3 min", "2.05 h"]
    assert [show.seconds(v) for v in (91, 99.94, 99.96)] == ["91.0 s", "99.9 s", "100 s"]
    assert show.seconds(float("nan")) == "–"
    assert show.mean_range([6.5]) == "6.50" and show.mean_range([]) == "–"
    assert show.mean_range([6.0, 7.0]) == "6.50 (6.00–7.00)"
    assert show.mean_range([1000, 3000], show.count) == "2,000 (1,000–3,000)"
    assert [show.listing(x) for x in ([], [1], [1, 2], [1, 2, 8])] == ["none", "1", "1 and 2", "1, 2 and 8"]


def test_a_sentence_begins_with_a_capital_and_keeps_the_others() -> None:
    assert show.capitalised("with M = 4 on an H100") == "With M = 4 on an H100"


def test_a_result_is_shown_by_its_kind(shown: list[dict[str, str]]) -> None:
    for found in (
        CHART,
        "| a |\n|---|\n| 1 |",
        Answer("1.2", "It scales.", "2 GPUs", 3, "measured", "fig-a"),
        Missing("Runs", "python make.py"),
        PNG,
    ):
        show.result(lambda made: made, found)
    kinds = [next(iter(bundle)) for bundle in shown]
    assert kinds == ["image/svg+xml", "text/markdown", "text/markdown", "text/markdown", "image/svg+xml"]
    assert shown[2]["text/markdown"].startswith("**Answer.** It scales.")
    assert "callout-important" in shown[3]["text/markdown"] and "python make.py" in shown[3]["text/markdown"]


def test_a_first_cell_that_repeats_is_shown_once() -> None:
    assert show.once([("a", 1), ("a", 2), ("b", 1), ("a", 1)]) == [("a", 1), ("", 2), ("b", 1), ("a", 1)]
