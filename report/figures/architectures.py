"""Problem 3.1: AlexNet's parameters, layer by layer; and the answers of all of Problem 3."""

from __future__ import annotations

import pandas as pd

from derivations import alexnet, layers
from derivations.layers import Layer
from report import show
from report.answers import Answer
from report.figures.architectures_checks import (
    checked,
    checkers,
    load,
    tbl_crosscheck_operations,
    tbl_crosscheck_parameters,
    text_crosscheck,
)

__all__ = ["load", "tbl_crosscheck_operations", "tbl_crosscheck_parameters", "text_crosscheck"]


def formula(latex: str) -> str:
    """A formula on lines of its own."""
    return f"$$\n{latex.strip()}\n$$"


def answer_p3_alexnet(checks: pd.DataFrame) -> Answer:
    """3.1: the number of AlexNet's parameters, and which layers hold them."""
    net = alexnet.layers()
    total = layers.totals(net)
    in_fc = sum(layer.parameters for layer in net if layer.kind == "fc") / total.parameters
    in_conv = sum(layer.macs for layer in net if layer.kind == "conv") / total.macs
    return Answer(
        "3.1",
        f"AlexNet has **{show.count(total.parameters)} parameters**: {show.count(total.weights)} weights and "
        f"{show.count(total.biases)} biases. The fully-connected layers hold {show.percent(in_fc, 1)} of them; the "
        f"convolutions do {show.percent(in_conv, 1)} of the {show.si(total.macs)} multiply-accumulates.",
        checkers(checks, "alexnet"),
        checked(checks, "alexnet"),
        "derived",
        "tbl-alexnet",
    )


def calculation_p3_alexnet() -> str:
    """Every layer's calculation, with its numbers put in."""
    return "\n\n".join(
        f"**{layer.name}**: {layer}\n\n{formula(layer.calculation_latex())}" for layer in alexnet.layers()
    )


def calculation_p3_alexnet_parameters() -> str:
    """Every layer's weights and, with its biases, parameters: a line each."""
    lines = [
        rf"\text{{{layer.name}: }}&{layer.weights_latex()},\quad {layer.parameters_latex()}"
        for layer in _learned(alexnet.layers())
    ]
    return formula(r"\begin{aligned}" + r" \\ ".join(lines) + r"\end{aligned}")


def sum_p3_alexnet() -> str:
    """The sum of the layers' parameters."""
    return formula(layers.sum_latex(layer.parameters for layer in _learned(alexnet.layers())))


def _learned(net: list[Layer]) -> list[Layer]:
    return [layer for layer in net if layer.kind != "pool"]


def tbl_alexnet() -> str:
    """Each layer's output, weights, biases and operations, and their sums."""
    net = alexnet.layers()
    total = layers.totals(net)
    lines = [(layer.name, str(layer.out), layer.weights, layer.biases, layer.macs) for layer in net]
    lines.append(("Total", "", total.weights, total.biases, total.macs))
    return show.table_text(lines, ["Layer", "Output", "Weights", "Biases", "MACs"], "llrrr")


# ---- the input's size ----------------------------------------------------------------------------------------------


def tbl_input() -> str:
    """conv1's output for each reading of its input."""
    lines = [
        (choice.size, str(choice.padding), f"{float(choice.steps):g}", choice.output, choice.exact)
        for choice in alexnet.input_choices()
    ]
    return show.table_text(lines, ["Input", "Padding", "Strides", "Output", "Even"], "rrrrl")


def text_p3_input() -> str:
    """What the printed 224 pixels would mean, and that it changes no count where the output has 55 pixels."""
    printed, framework, exact, larger = alexnet.input_choices()
    paper = layers.totals(alexnet.layers())
    padded = layers.totals(alexnet.layers(size=framework.size, padding=framework.padding))
    if padded != paper:
        raise ValueError("the readings with 55 pixels differ in their counts")
    small = alexnet.layers(size=printed.size)
    return (
        f"The paper prints {printed.size} pixels. Its 11-pixel kernel with stride 4 and no padding does not come out "
        f"even there, and the floor gives {printed.output} pixels instead of Fig. 2's {exact.output} (@tbl-input). "
        f"Solved for {exact.output}, @eq-size asks for {2 * exact.padding} pixels of padding in total, such as one "
        f"on one side and two on the other, or, which is the same, for {larger.size} pixels without padding. "
        f"Frameworks that keep {framework.size} pad by {framework.padding} on each side and let the floor drop a "
        f"pixel. A convolution's parameters don't depend on the input's size, so every reading with {exact.output} "
        f"pixels gives the same count. With {printed.output} pixels fc6 would read {small[7].out} and the net would "
        f"have {show.count(layers.totals(small).parameters)} parameters."
    )


def text_p3_neurons() -> str:
    """Which of the numbers of neurons in Fig. 2's caption the derivation does not confirm."""
    found = alexnet.neuron_checks()
    out = {layer.name: layer.out for layer in alexnet.layers()}
    wrong = [
        f"that of {check.name} is printed as {show.count(check.printed)} = "
        f"{out[check.name].h}·{check.printed // (out[check.name].h * out[check.name].c)}·{out[check.name].c}, where "
        f"{str(out[check.name]).replace('×', '·')} is {show.count(check.derived)}"
        for check in found
        if not check.agrees
    ]
    agreeing = sum(check.agrees for check in found)
    return f"Fig. 2's caption gives numbers of neurons: {agreeing} agree with the derivation; {show.listing(wrong)}."


# ---- three networks of that name -----------------------------------------------------------------------------------


def tbl_alexnets() -> str:
    """Parameters of the paper's net, of the same without its split, and of torchvision's."""
    nets = [_learned(net) for net in (alexnet.layers(), alexnet.layers(groups=1), alexnet.torchvision_layers())]
    lines = [(same[0].name, *(layer.parameters for layer in same)) for same in zip(*nets, strict=True)]
    lines.append(("Total", *(layers.totals(net).parameters for net in nets)))
    return show.table_text(lines, ["Layer", "Paper", "No groups", "torchvision"], "lrrr")


def text_p3_alexnets() -> str:
    """How the three differ."""
    paper, vision = alexnet.layers(), alexnet.torchvision_layers()
    filters, narrower = (show.listing(layer.out.c for layer in net if layer.kind == "conv") for net in (paper, vision))
    heads = [[layer.parameters for layer in net if layer.kind == "fc"] for net in (paper, vision)]
    same = "the same" if heads[0] == heads[1] else "other"
    return (
        "On one GPU, without the split, every filter of conv2, conv4 and conv5 reads all channels, which doubles their "
        "weights (@tbl-alexnets). torchvision's `alexnet` is another network, the single-column one of @krizhevsky2014 "
        f'("One weird trick"), without groups and with {narrower} filters in place of {filters}. Fewer filters make '
        "conv1 and conv3 smaller, the missing groups make conv4 and conv5 larger, and in conv2 both cancel but for the "
        f"biases. The fully-connected layers have {same} parameters."
    )
