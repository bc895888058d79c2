"""Intervals, ranges and their words."""

from __future__ import annotations

from report.estimates import Estimate, estimate, exactly, verdict


def test_estimates_in_words() -> None:
    assert Estimate(0.9638, 0.9627, 0.9694, "interval", 3, 4).text(after="of ideal") == (
        "96.4 % of ideal (three repetitions, 96.3–96.9 %)"
    )
    assert Estimate(0.82, 0.81, 0.84, "range", 2, 4).text(digits=0) == (
        "82 % (two runs, 81–84 %, too few for a verdict)"
    )
    assert Estimate(0.6, 0.6, 0.6, "range", 1).text(digits=0) == "60 % (one run each, too few for a verdict)"
    assert Estimate(3.857, 3.85, 3.88, "interval", 12).text("times", "as many images per second") == (
        "3.86 times as many images per second (12 repetitions, 3.85–3.88)"
    )
    assert Estimate(1.234, -0.1, 2.5, "interval", 3).text("s") == "1.23 s (three repetitions, −0.10 to 2.50 s)"


def test_an_interval_that_leaves_out_one_does_not_seem_to_touch_it() -> None:
    assert Estimate(0.916, 0.866, 0.9989, "interval", 3).brief("") == "0.916 (0.866–0.999)"
    assert Estimate(0.916, 0.866, 1.0, "interval", 3).brief("") == "0.92 (0.87–1.00)"


def test_a_verdict_needs_an_interval() -> None:
    assert verdict(Estimate(1.1, 1.05, 1.2, "interval", 3), 1.0) == "above"
    assert verdict(Estimate(0.9, 0.8, 0.95, "interval", 3), 1.0) == "below"
    assert verdict(Estimate(1.1, 0.9, 1.2, "interval", 3), 1.0) == "within the noise of"
    assert verdict(Estimate(1.1, 1.05, 1.2, "range", 2), 1.0) is None


def test_of_three_repetitions_the_interval_is_the_range() -> None:
    found = estimate(lambda median: median, [9.0, 1.0, 4.0])
    assert (found.value, found.low, found.high, found.kind) == (4.0, 1.0, 9.0, "interval")
    apart = estimate(lambda a, b: a - b, [4.0, 5.0, 9.0], [1.0, 2.0, 3.5])
    assert (apart.low, apart.high) == (0.5, 8.0) and verdict(apart, 0) == "above"  # wholly apart, by 4 − 3.5


def test_numbers_that_belong_together_are_drawn_together() -> None:
    pairs = [[1.0, 1.5], [2.0, 2.5], [9.0, 9.5]]
    found = estimate(lambda m: m[..., 1] - m[..., 0], pairs)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_a_number_without_spread_is_an_interval_from_three_repetitions_on() -> None:
    assert exactly(1.0, 3) == Estimate(1.0, 1.0, 1.0, "interval", 3)
    assert exactly(1.0, 2, ideal=1.0) == Estimate(1.0, 1.0, 1.0, "range", 2, 1.0)


def test_a_change_is_signed_and_has_no_ideal() -> None:
    added = Estimate(1.012, 0.997, 1.02, "interval", 3).change
    assert added.text(signed=True) == "+1.2 % (three repetitions, −0.3 to +2.0 %)"
    assert not Estimate(1.5, 1.5, 1.5, "interval", 3, ideal=4).change.flagged


def test_brief_leaves_the_repetitions_out_and_gives_a_single_run_no_range() -> None:
    assert Estimate(0.81, 0.8, 0.84, "interval", 3).brief(after="of ideal") == "81.0 % of ideal (80.0–84.0 %)"
    assert Estimate(1.47, 1.4, 1.5, "range", 2).brief("times") == "1.47 times (1.40–1.50)"
    assert Estimate(1.47, 1.47, 1.47, "range", 1).brief("times") == "1.47 times"
