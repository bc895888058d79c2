"""Problem 4: precisions, published errors and training errors, on hand-made runs."""

from __future__ import annotations

from report.answers import Missing
from report.figures import augmentation_more
from tests.p1_runs import lines
from tests.p4_epochs import BASIC, ONE, TWO, plain, run, runs, seeds


def test_precisions_are_compared_in_errors_and_within_an_allocation_in_speed() -> None:
    full = seeds([[9, 8, 7, 7.0], [9, 8, 7, 7.1], [9, 8, 7, 5.9]], precision="fp32", allocation="two", step=40.0)
    here = run([9, 8, 7, 7.05], precision="fp32", seed=9, step=20.0)
    table = lines(augmentation_more.tbl_p4_precision(runs(ONE, full, here)))  # type: ignore[arg-type]
    assert table[1][:2] + table[1][4:] == ["cutout, M = 1", "bf16", "no: 93.00 %", "6,400"]
    assert table[2][:3] + table[2][4:] == ["cutout, M = 1", "fp32", "4", "4 (1 of 4)", "3,200"]
    text = augmentation_more.text_p4_precision(runs(ONE, full))
    # medians of 7.0; of three draws with replacement the median may be any: 6.9 − 7.1 to 7.1 − 5.9
    assert text == "bf16's error is 0.00 points (−0.20 to 1.20) below fp32's with M = 1, which is within noise."
    worse = seeds([[9] * 4, [9] * 4, [9.1] * 4], precision="fp32")
    assert "below fp32's with M = 1, beyond noise" in augmentation_more.text_p4_precision(runs(ONE, worse))
    assert "no verdict" in augmentation_more.text_p4_precision(runs(ONE, here))


def test_published_errors_stand_first() -> None:
    table = lines(augmentation_more.tbl_p4_published(runs(BASIC, run([9, 8, 7, 6], 8))))
    assert [row[1] for row in table[1:4]] == ["7.17", "4.72", "3.99"]
    assert table[4:] == [
        ["ResNet-44, basic, M = 1 (here)", "7.70 (7.50–7.90)", "4 epochs, 3 seeds"],
        ["ResNet-44, cutout, M = 8 (here)", "6.00", "4 epochs, single run"],
    ]
    assert "the homework's 94 % asks for 1.17 points less" in augmentation_more.text_p4_published()
    network = augmentation_more.text_p4_network()
    assert "661,338 parameters" in network and "781 updates of 64" in network  # 50,000 // 64


def test_training_and_test_errors() -> None:
    fitting = TWO.assign(train_error=0.05)
    text = plain(augmentation_more.text_p4_generalisation(runs(ONE, fitting)))
    assert "is 10.00 % for M = 1 and 5.00 % for M = 2; on the original test images it is 7.00 % and 5.80 %" in text
    assert "fits the augmented training images better, and the test images too" in text
    worse = TWO.assign(train_error=0.2)
    assert "it regularises" in plain(augmentation_more.text_p4_generalisation(runs(ONE, worse)))
    assert "within noise" in plain(augmentation_more.text_p4_generalisation(runs(ONE, TWO)))
    assert isinstance(augmentation_more.text_p4_generalisation(runs(ONE, run([9, 8, 7, 6], 8))), Missing)
