"""VGG-19's table and the comparison with the homework's printed cells."""

import pytest

from derivations.layers import totals
from derivations.vgg import BLOCKS_VGG16, HOMEWORK, Missing, compare, layers, memory, table


def test_table_has_the_homeworks_form():
    rows = table()
    assert len(rows) == 25
    assert [row.name for row in rows].count("CONV3-512") == 8
    assert (rows[4].name, rows[4].activations_text, rows[4].weights_text) == (
        "CONV3-128",
        "112*112*128",
        "(3*3*64)*128",
    )
    assert (rows[4].activations, rows[4].weights) == (1_605_632, 73_728)
    assert (rows[22].activations_text, rows[22].weights_text, rows[22].weights) == (
        "4096",
        "(7*7*512)*4096",
        102_760_448,
    )
    assert rows[24].weights_text == "4096*1000"


def test_totals():
    total = totals(layers())
    assert total.weights == 143_652_544
    assert total.parameters == 143_667_240
    assert totals(layers(BLOCKS_VGG16)).weights == 138_344_128
    # By block, in units of 50,176 = 224²: input 3, 2·64 + 16, 2·32 + 8, 4·16 + 4, 4·8 + 2, 4·2 + ½; then 9,192 units.
    units = 3 + (128 + 16) + (64 + 8) + (64 + 4) + (32 + 2) + 8.5
    assert sum(row.activations for row in table()) == units * 50_176 + 9_192 == 16_542_184


def test_memory():
    needs = memory()
    assert needs.forward == 4 * 16_542_184
    assert needs.training == 2 * needs.forward
    assert needs.forward_least == 4 * (3_211_264 + 3_211_264)  # in and out of the second convolution
    assert needs.parameters == 4 * 143_667_240
    assert needs.training_parameters == 3 * needs.parameters
    assert memory(bias=False).parameters == 4 * 143_652_544


def test_every_printed_figure_is_2_24_squared_taken_as_50_000():
    cells, _ = compare()
    inexact = [cell for cell in cells if cell.verdict != "exact"]
    assert {cell.error for cell in inexact} == {inexact[0].error}
    assert 1 + inexact[0].error == pytest.approx(50_000 / 224**2, rel=1e-12)


def test_verdicts_on_the_homeworks_table():
    cells, missing = compare()
    found = {cell.printed: cell.verdict for cell in cells}
    assert found["224*224*64=3.2M"] == "rounded"
    for loose in ("224*224*3=150K", "112*112*64=800K", "56*56*128=400K", "56*56*256=800K", "28*28*512=400K"):
        assert found[loose] == "loose"
    assert {cell.rounded for cell in cells if cell.verdict == "loose"} == {"151K", "803K", "401K"}
    assert found["4096*4096 = 16,777,216"] == found["4096"] == "exact"
    assert "wrong" not in found.values()
    assert missing == [Missing(17, "CONV3-512", 3)]
    assert len(cells) == sum(bool(text) for _, *texts in HOMEWORK for text in texts)


def test_k_is_a_thousand():
    """With K = 1024 a printed cell would be wrong, so the table means K = 1000."""
    assert "wrong" in {cell.verdict for cell in compare(unit=1024)[0]}


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [
        ("224*224*64=3.1M", "wrong"),
        ("224*224*63=3.2M", "wrong"),  # the product is not the layer's, whatever it rounds to
        ("3,211,264", "exact"),
        ("3,211,263", "wrong"),
        ("224*224*64=3211K", "rounded"),
        ("224*224*64=3210K", "loose"),
    ],
)
def test_a_changed_cell_is_judged(cell, verdict):
    printed = list(HOMEWORK)
    printed[1] = ("CONV3-64", cell, "")
    assert compare(tuple(printed))[0][2].verdict == verdict


def test_tables_that_are_not_vgg19():
    with pytest.raises(ValueError, match="cannot read the activations cell"):
        compare((("Input", "lots", "0"), *HOMEWORK[1:]))
    with pytest.raises(ValueError, match="has 0 poolings"):
        compare(HOMEWORK[:2])
    with pytest.raises(ValueError, match="printed row 2 is CONV3-65"):
        compare((HOMEWORK[0], ("CONV3-65", "", ""), *HOMEWORK[2:]))
    with pytest.raises(ValueError, match="printed row 4, CONV3-64, is not in VGG-19"):
        compare((*HOMEWORK[:3], HOMEWORK[2], *HOMEWORK[3:]))
