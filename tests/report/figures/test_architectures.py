"""Problem 3's figures, tables and answers, against numbers worked out here by hand."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from derivations import vgg
from experiments.store import parquet
from report import show
from report.answers import Missing
from report.figures import architectures, architectures_checks, architectures_field, architectures_inception
from report.figures import architectures_vgg as figures_vgg

# Filters, then inputs that each of them reads; AlexNet's conv2, conv4 and conv5 read half of the channels.
ALEXNET = {
    "conv1": 96 * (11 * 11 * 3 + 1),
    "conv2": 256 * (5 * 5 * 48 + 1),
    "conv3": 384 * (3 * 3 * 256 + 1),
    "conv4": 384 * (3 * 3 * 192 + 1),
    "conv5": 256 * (3 * 3 * 192 + 1),
    "fc6": 4096 * (6 * 6 * 256 + 1),
    "fc7": 4096 * (4096 + 1),
    "fc8": 1000 * (4096 + 1),
}
PARAMETERS = sum(ALEXNET.values())
# Multiply-accumulates of the inception modules on 32×32×256: pixels times filters times what one reads.
NAIVE = 32 * 32 * (128 * 256 + 192 * 9 * 256 + 96 * 25 * 256)
REDUCED = 32 * 32 * (128 * 256 + 64 * 256 + 192 * 9 * 64 + 64 * 256 + 96 * 25 * 64 + 64 * 256)


def checks(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Rows of p3_crosscheck: net, quantity, counter, value, and for a receptive field layers and kernel."""
    names = ["net", "quantity", "counter", "value", "layers", "kernel"]
    filled = [(*row, *[None] * (len(names) - len(row))) for row in rows]
    return pd.DataFrame(filled, columns=names).assign(run_id="a run")


NOTHING = parquet.read(architectures_checks.EXPERIMENT).iloc[:0]


def plain(text: Any) -> str:
    assert isinstance(text, str)
    return text.replace("\u00a0", " ").replace("\u2060", "")


# ---- 3.1 -----------------------------------------------------------------------------------------------------------


def test_alexnets_answer_is_the_sum_of_its_layers() -> None:
    counted = checks(("alexnet", "parameters", "torch", PARAMETERS), ("vgg19", "parameters", "keras", 1))
    found = architectures.answer_p3_alexnet(counted)
    assert f"**{PARAMETERS:,} parameters**" in found.sentence and PARAMETERS == 60_965_224
    biases = 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000
    assert f"{PARAMETERS - biases:,} weights and {biases:,} biases" in found.sentence
    in_fc = ALEXNET["fc6"] + ALEXNET["fc7"] + ALEXNET["fc8"]
    assert f"hold {100 * in_fc / PARAMETERS:.1f} % of them" in found.sentence
    assert (found.part, found.runs, found.device, found.basis) == ("3.1", 1, "a CPU by torch", "derived")


@pytest.mark.parametrize(("quantity", "counter"), [("parameters", "torch"), ("macs", "fvcore"), ("flops", "x")])
def test_an_answer_that_another_program_contradicts_is_not_given(quantity: str, counter: str) -> None:
    with pytest.raises(ValueError, match=f"{counter} counts 7 {quantity} of alexnet, the derivation "):
        architectures.answer_p3_alexnet(checks(("alexnet", quantity, counter, 7)))


def test_every_layers_calculation_is_written_out_and_summed() -> None:
    text = architectures.calculation_p3_alexnet()
    for name, parameters in ALEXNET.items():
        (own,) = re.findall(rf"\*\*{name}\*\*(.*?)\$\$(.*?)\$\$", text, flags=re.DOTALL)
        assert f"={parameters:,}".replace(",", "{,}") in own[1]
    assert r"\frac{227-11}{4}\right\rfloor+1=55" in text and r"(11\cdot 11\cdot 3)\cdot 96=34{,}848" in text
    assert text.count("**pool") == 3
    assert f"={PARAMETERS:,}".replace(",", "{,}") in architectures.sum_p3_alexnet()
    table = architectures.tbl_alexnet()
    assert f"| {PARAMETERS - 10_568:,} | 10,568 |" in table and "| conv2 | 27×27×256 | 307,200 | 256 |" in table


def test_the_readings_of_the_input() -> None:
    # (224 − 11)/4 = 53.25; with 2 pixels on each side (228 − 11)/4 = 54.25; (227 − 11)/4 = 54
    table = architectures.tbl_input()
    for line in ("| 224 | 0 | 53.25 | 54 | no |", "| 224 | 2 | 54.25 | 55 | no |", "| 227 | 0 | 54 | 55 | yes |"):
        assert line in table
    text = architectures.text_p3_input()
    small = PARAMETERS - 4096 * (6 * 6 - 5 * 5) * 256  # fc6 reads 5×5 pixels
    assert f"fc6 would read 5×5×256 and the net would have {small:,} parameters" in text
    assert "3 pixels of padding in total" in text and "for 227 pixels without padding" in text
    neurons = architectures.text_p3_neurons()
    assert f"8 agree with the derivation; that of conv1 is printed as {55 * 48 * 96:,} = 55·48·96" in neurons
    assert f"55·55·96 is {55 * 55 * 96:,}" in neurons


def test_three_alexnets() -> None:
    table = architectures.tbl_alexnets()
    whole = PARAMETERS + 256 * 5 * 5 * 48 + 384 * 9 * 192 + 256 * 9 * 192  # the split layers read twice as much
    vision = 64 * (363 + 1) + 192 * (25 * 64 + 1) + 384 * (9 * 192 + 1) + 256 * (9 * 384 + 1) + 256 * (9 * 256 + 1)
    vision += ALEXNET["fc6"] + ALEXNET["fc7"] + ALEXNET["fc8"]
    assert f"| Total | {PARAMETERS:,} | {whole:,} | {vision:,} |" in table
    text = architectures.text_p3_alexnets()
    assert "64, 192, 384, 256 and 256 filters in place of 96, 256, 384, 384 and 256" in text
    assert "have the same parameters" in text


# ---- 3.2 -----------------------------------------------------------------------------------------------------------


def test_vggs_table_and_answer() -> None:
    pairs = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), *[(256, 256)] * 3, (256, 512), *[(512, 512)] * 7]
    weights = sum(9 * a * b for a, b in pairs) + 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000
    filters = [(224, [64, 64]), (112, [64, 128, 128]), (56, [128, *[256] * 4]), (28, [256, *[512] * 4])]
    filters += [(14, [512, *[512] * 4]), (7, [512])]
    activations = 224 * 224 * 3 + sum(side * side * c for side, own in filters for c in own) + 4096 + 4096 + 1000
    early = 224 * 224 * (3 + 64 + 64) + 112 * 112 * (64 + 128 + 128)
    found = figures_vgg.answer_p3_vgg(checks(("vgg19", "parameters", "keras", weights + 14_696)))
    assert f"**{weights:,} weights** ({weights + 14_696:,} parameters with biases)" in found.sentence
    assert f"**{activations:,} activations**" in found.sentence
    assert f"take {4 * activations / 1e6:.1f} MB" in found.sentence
    assert f"the input and the first 5 layers hold {100 * early / activations:.1f} %" in found.sentence
    assert f"alone holds {100 * 7 * 7 * 512 * 4096 / weights:.1f} % of the weights" in found.sentence
    assert (found.device, found.runs) == ("a CPU by Keras", 1)
    lines = plain(figures_vgg.tbl_vgg()).splitlines()
    assert len(lines) == 2 + 25 + 1  # head and rule, the input with 24 layers, the total
    assert lines[6] == "| CONV3-128 | 112·112·128 = 1,605,632 | (3·3·64)·128 = 73,728 |"
    assert lines[-1] == f"| TOTAL | {activations:,} | {weights:,} |"


def test_the_handouts_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    text = figures_vgg.text_p3_misprints()
    assert "14 of the 22 printed cells are exact; 8 are rounded, all off by the same 0.35 %" in text  # 176/50,176
    assert "round 224·224 = 50,176 to 50,000" in text
    assert "lacks 3 further CONV3-512 rows, so its weights sum to 136,574,656" in text  # less 3 · 9 · 512 · 512
    assert "| 1 Input | 224·224·3=150K | 150,528 | 151K |" in plain(figures_vgg.tbl_misprints())
    false = (("Input", "224*224*3=160K", "0"), *vgg.HOMEWORK[1:])
    compared = vgg.compare(false)
    monkeypatch.setattr(vgg, "compare", lambda **_: compared)
    with pytest.raises(ValueError, match="wrong in 224"):
        figures_vgg.text_p3_misprints()


def test_vggs_memory() -> None:
    table = plain(figures_vgg.tbl_vgg_memory())
    largest = 4 * 2 * 224 * 224 * 64  # the second convolution's input and output
    assert f"| Forward, nothing kept | the largest pair of input and output | {largest / 1e6:.1f} MB |" in table
    assert f"| {4 * 143_667_240 / 1e6:.0f} MB |" in table and f"| {12 * 143_667_240 / 1e9:.2f} GB |" in table
    assert "24 M activations for VGG-16, whose rows sum to 15.2 M" in figures_vgg.text_p3_notes()


def test_vggs_bars_are_in_millions() -> None:
    frame = next(iter(show.specification(figures_vgg.fig_vgg())["datasets"].values()))
    assert len(frame) == 25
    assert frame[0]["activations"] == 0.150528 and frame[0]["exact_activations"] == "150,528"
    assert frame[22]["weights"] == pytest.approx(102.760448)


# ---- 3.3 -----------------------------------------------------------------------------------------------------------


def field(n: int, f: int, side: int) -> tuple[Any, ...]:
    return ("stack", "receptive_field", "torch", side, n, f)


def test_the_field_of_a_stack() -> None:
    found = architectures_field.answer_p3_field(checks(field(2, 3, 5), field(3, 5, 13)))
    assert "r_3 = 3 \\cdot 5 - 3 + 1 = 13$: **13×13 pixels**" in found.sentence and found.runs == 1
    assert "F N - N + 1" in found.sentence
    with pytest.raises(ValueError, match="2 filters of 3×3 see 6 pixels, not 5"):
        architectures_field.answer_p3_field(checks(field(2, 3, 6)))


def test_measured_fields_stand_beside_the_formula() -> None:
    frame = checks(
        field(2, 3, 5), field(2, 9, 16), ("alexnet", "receptive_field", "torch", 195), ("alexnet", "macs", "torch", 1)
    )
    text = architectures_field.text_p3_field_measured(frame)
    assert "1 of 2 stacks agree" in plain(text)  # 2 · 9 − 2 + 1 = 17
    # 11, then 11+2·4=19, 19+4·8=51, 51+2·8=67, then 3 · 2·16 and at last 2·16: 67 + 96 + 32
    assert "195 pixels a side after AlexNet's last pooling (measured: 195)" in plain(text)
    assert "VGG-19's last pooling (not measured)" in plain(text)
    first, second = show.specification(architectures_field.fig_field(frame))["datasets"].values()
    lines, points = (first, second) if len(first) > len(second) else (second, first)
    assert {"N": 3, "F": 5, "side": 13} in lines and {"N": 2, "F": 9, "side": 17} in lines
    assert points == [{"N": 2, "F": 3, "side": 5}, {"N": 2, "F": 9, "side": 16}]
    assert isinstance(architectures_field.text_p3_field_measured(NOTHING), Missing)


def test_proofs_are_printed_with_their_differences() -> None:
    stack, general = architectures_field.proof_p3_stack(), architectures_field.proof_p3_closed_form()
    assert r"\text{base: }&r_{1}=F" in stack and r"\text{difference: }&0" in stack
    assert general.count(r"\text{difference: }&0") == 2 and "=F N - N + 1" in general


def test_what_a_stack_costs() -> None:
    table = plain(architectures_field.tbl_stack())
    assert "| 3 × (5×5) | 13×13 | $75 C^{2}$ | 3 | 1 |" in table  # 3 · 25
    assert f"| 1 × (13×13) | 13×13 | $169 C^{{2}}$ | 1 | {169 / 75:.2f} |" in table


# ---- 3.4 -----------------------------------------------------------------------------------------------------------


def test_inceptions_answers() -> None:
    counted = checks(("inception-naive", "macs", "fvcore", NAIVE), ("inception-reduced", "flops", "x", 2 * REDUCED))
    idea = architectures_inception.answer_p3_inception_idea(counted)
    assert "1×1, 3×3 and 5×5 filters and a pooling side by side" in idea.sentence and "all 4 branches" in idea.sentence
    size = architectures_inception.answer_p3_inception_size(counted)
    # 128 + 192 + 96 and the input's 256 channels, or 64 of the projection
    assert "**32×32×672**" in size.sentence and "**32×32×480**" in size.sentence
    operations = architectures_inception.answer_p3_inception_operations(counted)
    assert f"**{NAIVE:,} multiply-accumulates**" in operations.sentence and f"**{REDUCED:,}**" in operations.sentence
    saving = architectures_inception.answer_p3_inception_saving(counted)
    assert f"**saves {100 * (1 - REDUCED / NAIVE):.1f} %**" in saving.sentence
    assert f"a factor of {NAIVE / REDUCED:.2f}" in saving.sentence
    large = (192 * 9 + 96 * 25) / (128 + 192 * 9 + 96 * 25)
    assert f"take {100 * large:.1f} % of its operations" in saving.sentence
    assert [a.part for a in (idea, size, operations, saving)] == ["3.4a", "3.4b", "3.4c", "3.4d"]
    assert {(a.runs, a.device) for a in (idea, size, operations, saving)} == {(1, "a CPU by fvcore")}
    with pytest.raises(ValueError, match="of inception-naive"):
        architectures_inception.answer_p3_inception_size(checks(("inception-naive", "macs", "fvcore", 1)))


def test_inceptions_calculations() -> None:
    naive = architectures_inception.calculation_p3_inception("naive")
    assert r"\text{5×5: }&32\cdot 32\cdot 5\cdot 5\cdot 256\cdot 96=629{,}145{,}600" in naive
    assert f"{NAIVE:,}".replace(",", "{,}") in naive and naive.count(r"\text") == 3 + 1
    assert architectures_inception.calculation_p3_inception("reduced").count(r"\text") == 6 + 1
    sizes = architectures_inception.calculation_p3_inception_size()
    assert r"32\times32\times(128+192+96+256)" in sizes and r"(128+192+96+64)" in sizes
    # 9·256·192 against 256·b + 9·b·192, and 25·256·96 against 256·b + 25·b·96
    three, five = 9 * 256 * 192 // (256 + 9 * 192), 25 * 256 * 96 // (256 + 25 * 96)
    text = architectures_inception.text_p3_break_even()
    assert f"{three} channels before the 3×3 filters and of {five} before the 5×5" in text
    assert f"+{1024 * (256 + 25 * 96):,} b_{{5}}".replace(",", "{,}") in architectures_inception.formula_p3_inception()
    outputs, pooled = 128 + 64 + 192 + 64 + 96 + 64, 256 * 8  # a 3×3 maximum takes 8 comparisons
    text = architectures_inception.text_p3_uncounted()
    assert f"{1024 * outputs:,} additions and {1024 * pooled:,} comparisons" in text
    assert f"{100 * 1024 * (outputs + pooled) / REDUCED:.2f} %" in text


def test_inceptions_charts() -> None:
    (bars,) = show.specification(architectures_inception.fig_inception())["datasets"].values()
    naive = [bar["macs"] for bar in bars if bar["module"] == "naive"]
    assert naive == [1024 * 256 * n / 1e6 for n in (128, 192 * 9, 96 * 25)] + [0]
    curve, point = sorted(show.specification(architectures_inception.fig_saving())["datasets"].values(), key=len)[::-1]
    assert point == [{"width": 64, "saving": pytest.approx(100 * (1 - REDUCED / NAIVE))}]
    assert {"width": 64, "saving": pytest.approx(point[0]["saving"])} in curve


def test_the_slides_total() -> None:
    text = architectures_inception.text_p3_slide()
    assert f"prints 854M operations, and its lines add up to {NAIVE * 784 / 1024 / 1e6:.0f} M" in text
    assert f"add up to {REDUCED * 784 / 1024 / 1e6:.0f} M" in text and "the 3×3 convolution, is added twice" in text
    assert f"a factor of {NAIVE / REDUCED:.2f}, as here, and not {854 / 358:.2f}" in text


# ---- the cross-check -----------------------------------------------------------------------------------------------


def test_the_cross_checks_tables_say_who_differs_by_how_much() -> None:
    frame = checks(
        ("alexnet", "parameters", "derivation", 1),
        ("alexnet", "parameters", "torch", PARAMETERS),
        ("vgg19", "parameters", "keras", 143_667_240 + 5),
        ("alexnet-torchvision", "parameters", "torchvision", 61_100_840),
        ("inception-naive", "flops", "torch.flop_counter", 2 * NAIVE),
        ("inception-naive", "macs", "fvcore", NAIVE - 3),
    )
    table = plain(architectures.tbl_crosscheck_parameters(frame))
    assert table.splitlines()[0] == "| Net | Derivation | torch | Keras | torchvision | Verdict |"
    assert f"| alexnet | {PARAMETERS:,} | {PARAMETERS:,} | – | – | agree |" in table
    assert "| alexnet-torchvision | 61,100,840 | – | – | 61,100,840 | agree |" in table
    assert "| vgg19 | 143,667,240 | – | 143,667,245 | – | Keras +5 |" in table
    assert "| resnet44 | 661,338 | – | – | – | not counted |" in table
    table = plain(architectures.tbl_crosscheck_operations(frame))
    assert f"| inception-naive | {NAIVE:,} | {2 * NAIVE:,} | {NAIVE - 3:,} | fvcore −3 |" in table


def test_what_fvcore_counts_beside_convolutions() -> None:
    frame = checks(("alexnet-torchvision", "elementwise", "fvcore", 9), ("alexnet", "elementwise", "fvcore", 8))
    text = architectures.text_crosscheck(frame)
    assert plain(text).endswith(": 9 for torchvision's adaptive pooling (derived: 9,216).")  # 6·6·256


def test_without_counts_commands_are_named() -> None:
    for found in (
        architectures.tbl_crosscheck_parameters(NOTHING),
        architectures.tbl_crosscheck_operations(NOTHING),
        architectures.text_crosscheck(NOTHING),
    ):
        assert isinstance(found, Missing) and "p3_crosscheck.py" in found.command
    assert architectures.answer_p3_alexnet(NOTHING).runs == 0


def test_parameters_are_calculated_on_a_line_for_each_layer() -> None:
    text = architectures.calculation_p3_alexnet_parameters()
    # 96 filters of 11 × 11 pixels and 3 channels: 34,848 weights; a bias each.
    assert r"\text{conv1: }&(11\cdot 11\cdot 3)\cdot 96=34{,}848,\quad 34{,}848+96=34{,}944 \\" in text
    assert text.count(r"\text{") == 8 and "pool" not in text
