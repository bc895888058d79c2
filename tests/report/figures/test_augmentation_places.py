"""Problem 4's runs of two places, on hand-made runs: side by side, and compared only to tell how they differ."""

from __future__ import annotations

from report.answers import Answer
from report.figures import augmentation, augmentation_time
from report.figures.augmentation_places import text_p4_elsewhere, text_p4_shift
from report.figures.augmentation_runs import finished, main, same_length, trainings
from tests.frames import H200
from tests.p4_epochs import BASIC, FOUR, ONE, TWO, plain, runs, seeds

EARLIER = {"device": H200, "code": "older", "allocation": "two"}
OTHER_TWO, OTHER_BASIC = TWO.assign(**EARLIER), BASIC.assign(**EARLIER)
for frame in (OTHER_TWO, OTHER_BASIC):
    frame["run_id"] += "-older"
BOTH = runs(ONE, FOUR, OTHER_TWO, OTHER_BASIC)


def test_a_training_that_one_place_lacks_is_shown_from_another_and_compared_with_none() -> None:
    shown = main(finished(BOTH))
    assert shown.groupby(["augment", "M"]).elsewhere.all().to_dict() == {
        ("basic", 1): True,
        ("cutout", 1): False,
        ("cutout", 2): True,
        ("cutout", 4): False,
    }
    assert set(same_length(finished(BOTH)).M) == {1, 4}
    names = [name for name, _ in trainings(finished(BOTH))]
    assert names == ["basic, M = 1, on an H200", "cutout, M = 1", "cutout, M = 2, on an H200", "cutout, M = 4"]
    assert "from M = 1 to 4" in plain(augmentation.text_p4_errors(BOTH))
    answer = augmentation_time.answer_p4_augmentation(BOTH)
    assert isinstance(answer, Answer) and (answer.device, answer.runs) == ("one H100, M = 2 on one H200", 9)
    assert "min for M = 4" in augmentation_time.clock_text(BOTH)


def test_of_two_places_with_as_many_m_the_one_of_todays_code_is_shown() -> None:
    older = seeds([[9, 8, 7, 6]] * 4, 1, **EARLIER)
    shown = main(finished(runs(ONE, older)))
    assert set(shown.code) == {"today's"} and not shown.elsewhere.any()
    wider = main(finished(runs(ONE, older, OTHER_TWO)))
    assert set(wider.code) == {"older"}


def test_the_places_are_told() -> None:
    assert text_p4_elsewhere(runs(ONE, FOUR)) == ""
    assert plain(text_p4_elsewhere(BOTH)) == (
        "**Two places:** the baseline and M = 2 ran on an H200 by earlier kernels; all other M on an H100 by today's. "
        "What ran elsewhere is shown beside the others and compared with none of them."
    )
    other = seeds([[9, 8, 6, 5]], 2, precision="fp32")
    assert "M = 2 ran on an H100 in fp32; all other M on an H100" in plain(text_p4_elsewhere(runs(ONE, FOUR, other)))


def test_the_errors_of_two_places_are_compared_where_both_ran_three_seeds() -> None:
    four = seeds([[9, 8, 6, 6.8], [9, 8, 6, 6.9], [9, 8, 6, 6.7]], 4, **EARLIER)
    eight = seeds([[9, 8, 6, 5]] * 3, 8)
    assert plain(text_p4_shift(runs(BOTH, eight, four))) == (
        "Three seeds or more ran in both places: beside the H200's by earlier kernels, the H100's last error is 1.00 "
        "points (0.80 to 1.20) lower with M = 4, where the training error is 10.00 against 10.00 % and the 3 runs "
        "lie wholly apart from the 3, as equal ones do in 10.0 % of cases."
    )
    outlier = seeds([[9, 8, 6, 5.0]] * 8 + [[9, 8, 6, 7.0]], 4)
    overlapping = plain(text_p4_shift(runs(ONE, outlier, four)))
    assert overlapping.endswith("lower with M = 4, where the training error is 10.00 against 10.00 %.")
    alike = plain(text_p4_shift(runs(ONE, FOUR, seeds([[9, 8, 7, 6.9]] * 3, 1, device=H200, allocation="two"))))
    assert alike == (
        "Three seeds or more ran in both places: beside the H200's, the H100's last error is 0.10 points (0.00 to "
        "0.20) higher with M = 1, which is within noise."
    )
    assert text_p4_shift(runs(BOTH, eight, four[four.seed < 2])) == ""
