"""Problem 3's derivations beside what other programs count on the same networks (`experiments/p3_crosscheck.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from derivations import alexnet, cifar_resnet, inception, layers, vgg
from derivations.layers import Layer, Totals
from experiments.store import parquet
from report import show
from report.answers import Missing

EXPERIMENT = "p3_crosscheck"
MADE_BY = f"python experiments/{EXPERIMENT}.py"
COUNTERS = {
    "torch": "torch",
    "keras": "Keras",
    "torchvision": "torchvision",
    "torch.flop_counter": "flop_counter",
    "fvcore": "fvcore",
}
FACTORS = {"parameters": 1, "macs": 1, "flops": 2}  # of a quantity, to the derivation's parameters or MACs


def load() -> pd.DataFrame:
    """The counts of other programs, and the measured receptive fields."""
    return parquet.read(EXPERIMENT)


def of_module(module: inception.Module) -> list[Layer]:
    """The layers of all of an inception module's branches."""
    return [layer for branch in module.values() for layer in branch]


def derived() -> dict[str, Totals]:
    """The derivations' counts, by the cross-check's name of the network."""
    course = inception.COURSE
    nets: dict[str, Iterable[Layer]] = {
        "alexnet": alexnet.layers(),
        "alexnet-ungrouped": alexnet.layers(groups=1),
        "alexnet-torchvision": alexnet.torchvision_layers(),
        "vgg19": vgg.layers(),
        "inception-naive": of_module(inception.naive(course)),
        "inception-reduced": of_module(inception.reduced(course)),
        "inception-3b": of_module(inception.reduced(inception.GOOGLENET_3B)),
    }
    counts = cifar_resnet.counts(44)
    resnet44 = Totals(0, counts.weights, counts.parameters - counts.weights, counts.macs)  # BatchNorm's are no weights
    return {name: layers.totals(net) for name, net in nets.items()} | {"resnet44": resnet44}


def counts_of(checks: pd.DataFrame, net: str, quantity: str) -> dict[str, int]:
    """What each program counted."""
    rows = checks[(checks.net == net) & (checks.quantity == quantity) & (checks.counter != "derivation")]
    return {str(counter): int(value) for counter, value in zip(rows.counter, rows.value, strict=True)}


def checked(checks: pd.DataFrame, *nets: str) -> int:
    """The number of runs in which other programs counted these networks.

    Raises ValueError where one of them counts anything else than the derivation.
    """
    known = derived()
    for net in nets:
        for quantity, expected in _quantities(known[net]).items():
            for counter, value in counts_of(checks, net, quantity).items():
                if value != expected:
                    raise ValueError(f"{counter} counts {value:,} {quantity} of {net}, the derivation {expected:,}")
    return int(checks[checks.net.isin(nets)].run_id.nunique())


def _quantities(total: Totals) -> dict[str, layers.Size]:
    return {"parameters": total.parameters, "macs": total.macs, "flops": total.flops}


def checkers(checks: pd.DataFrame, *nets: str) -> str:
    """Where these networks were counted, and by what: a CPU by torch and Keras."""
    by = set(checks.counter[checks.net.isin(nets)])
    names = [name for counter, name in COUNTERS.items() if counter in by]
    return f"a CPU by {show.listing(names)}" if names else ""


# ---- the tables ----------------------------------------------------------------------------------------------------


def tbl_crosscheck_parameters(checks: pd.DataFrame) -> str | Missing:
    """Parameters of each network: the derivation's and each counter's."""
    return _table(checks, {net: {"parameters": total.parameters} for net, total in derived().items()}, "Derivation")


def tbl_crosscheck_operations(checks: pd.DataFrame) -> str | Missing:
    """Multiply-accumulates of each network: the derivation's, and each counter's MACs or FLOPs."""
    return _table(checks, {net: {"flops": total.macs, "macs": total.macs} for net, total in derived().items()}, "MACs")


def _table(checks: pd.DataFrame, expected: Mapping[str, Mapping[str, layers.Size]], first: str) -> str | Missing:
    """`expected` has for each network and quantity the derivation's count, before the quantity's factor."""
    if checks.empty:
        return Missing("The cross-check", MADE_BY)
    found = {
        (net, quantity): counts_of(checks, net, quantity)
        for net, quantities in expected.items()
        for quantity in quantities
    }
    columns = [
        (counter, quantity)
        for counter in COUNTERS
        for quantity in next(iter(expected.values()))
        if any(counter in counts for (_, q), counts in found.items() if q == quantity)
    ]
    lines = []
    for net, quantities in expected.items():
        numbers = [found[net, quantity].get(counter) for counter, quantity in columns]
        off = []
        for (counter, quantity), number in zip(columns, numbers, strict=True):
            excess = 0 if number is None else number - FACTORS[quantity] * int(quantities[quantity])
            off += [f"{COUNTERS[counter]} {excess:+,}".replace("-", "−")] if excess else []
        verdict = "; ".join(off) if off else "agree" if any(n is not None for n in numbers) else "not counted"
        lines.append((net, int(next(iter(quantities.values()))), *numbers, verdict))
    heads = ["Net", first, *(COUNTERS[counter] for counter, _ in columns), "Verdict"]
    return show.table_text(lines, heads, "l" + "r" * (len(columns) + 1) + "l")


def text_crosscheck(checks: pd.DataFrame) -> str | Missing:
    """What fvcore counts beyond convolutions and fully-connected layers, beside what the derivation makes of it."""
    if checks.empty:
        return Missing("What fvcore counts beside convolutions", MADE_BY)
    work = {
        "resnet44": ("ResNet-44's BatchNorm", 2 * cifar_resnet.counts(44).conv_activations),
        "alexnet-torchvision": ("torchvision's adaptive pooling", alexnet.torchvision_layers()[7].activations),
    }
    parts = []
    for net, (what, derivation) in work.items():
        counted = counts_of(checks, net, "elementwise").get("fvcore")
        if counted is not None:
            parts.append(f"{show.count(counted)} for {what} (derived: {show.count(derivation)})")
    return (
        "fvcore also counts element-wise layers: BatchNorm with a multiplication and an addition for each value, and "
        f"an adaptive pooling with one for each output. They make up all of the difference: {show.listing(parts)}."
    )
