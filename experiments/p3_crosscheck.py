"""Problem 3 cross-check: build the derived networks in torch and let other counters count them.

    python experiments/p3_crosscheck.py

Parameters are counted by torch and in Keras's and torchvision's own networks; operations by torch.utils.flop_counter (2
per multiply-accumulate, biases not counted) and fvcore (1 per multiply-accumulate, some element-wise layers counted
too); receptive fields by the support of an input gradient. fvcore, Keras and torchvision are optional. Nets are written
out in experiments/p3/torch_nets.py, not made from `derivations`, so that the two sides are independent.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

# Before PyTorch: this package removes variables that would pin threads.
from experiments.cli import Parser, exit_status, path

# isort: split
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from derivations import alexnet, cifar_resnet, inception, receptive_field, vgg
from derivations.layers import Layer, totals
from experiments.p3.torch_nets import NETS
from experiments.store import parquet
from experiments.store.files import RESULTS, check_writable
from experiments.store.provenance import Code, provenance, run_id

EXPERIMENT = "p3_crosscheck"


def derived() -> dict[str, dict[str, int]]:
    """The derivations' counts of each net. 'biases' are all vectors: in ResNet-44 BatchNorm's scales and shifts too."""

    def count(layers: Iterable[Layer], batchnorm: int = 0) -> dict[str, int]:
        total = totals(layers)
        biases = int(total.biases) + batchnorm
        weights, macs = int(total.weights), int(total.macs)
        return {"parameters": weights + biases, "weights": weights, "biases": biases, "macs": macs, "flops": 2 * macs}

    def module(branches: inception.Module) -> dict[str, int]:
        return count(layer for branch in branches.values() for layer in branch)

    return {
        "alexnet": count(alexnet.layers()),
        "alexnet-ungrouped": count(alexnet.layers(groups=1)),
        "alexnet-torchvision": count(alexnet.torchvision_layers()),
        "vgg19": count(vgg.layers()),
        "inception-naive": module(inception.naive(inception.COURSE)),
        "inception-reduced": module(inception.reduced(inception.COURSE)),
        "inception-3b": module(inception.reduced(inception.GOOGLENET_3B)),
        "resnet44": count(cifar_resnet.layers(44), int(cifar_resnet.counts(44).batchnorm)),
    }


def parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of a torch model: weights are tensors of two or more dimensions, biases are the vectors."""
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    biases = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    return {"parameters": weights + biases, "weights": weights, "biases": biases}


def flop_counter(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Forward FLOPs by torch.utils.flop_counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return {"flops": counter.get_total_flops()}


def fvcore(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Forward count by fvcore, which calls a multiply-accumulate one flop; 'elementwise' is the part of it that is
    neither convolution nor fully-connected."""
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    operators = analysis.by_operator()
    macs = int(analysis.total())
    return {"macs": macs, "elementwise": macs - int(operators["conv"]) - int(operators["linear"])}


def keras_vgg19() -> dict[str, int]:
    """Parameters of keras.applications.VGG19, untrained."""
    os.environ["KERAS_BACKEND"] = "torch"  # the one backend that is certainly installed
    import keras

    variables = keras.applications.VGG19(weights=None).trainable_weights
    sizes = [(len(v.shape), int(torch.Size(v.shape).numel())) for v in variables]
    weights = sum(size for dimensions, size in sizes if dimensions > 1)
    biases = sum(size for dimensions, size in sizes if dimensions == 1)
    return {"parameters": weights + biases, "weights": weights, "biases": biases}


def torchvision_nets() -> dict[str, dict[str, int]]:
    """Parameters of torchvision's own nets, untrained; none where it can't be imported."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError):  # RuntimeError: built for another torch
        return {}
    with torch.device("meta"):
        return {"alexnet-torchvision": parameters(models.alexnet()), "vgg19": parameters(models.vgg19())}


def gradient_support(layers: list[tuple[int, int]], size: int) -> int:
    """Side in pixels of the input region that the central output of a stack of (kernel, stride) convolutions reads.

    One channel, no padding, all weights one: contributions are positive and can't cancel, so the support of the
    gradient is the receptive field. Float64, as path counts grow like kernel^(2·layers).
    Raises ValueError when the region reaches the border of the size×size input or is not a full square.
    """
    x = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    y: Tensor = x
    for kernel, stride in layers:
        y = nn.functional.conv2d(y, torch.ones(1, 1, kernel, kernel, dtype=torch.float64), stride=stride)
        y = y / kernel**2  # keeps deep stacks within range
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    assert x.grad is not None
    support = x.grad[0, 0] != 0
    rows, columns = support.any(1).nonzero().flatten(), support.any(0).nonzero().flatten()
    if 0 in rows or size - 1 in rows:
        raise ValueError(f"a {size}-pixel input is too small for this stack")
    if len(rows) != len(columns) or int(support.sum()) != len(rows) * len(columns):
        raise ValueError("the support is not a full square")
    return len(rows)


def windows(layers: Iterable[Layer]) -> list[tuple[int, int]]:
    """(kernel, stride) of the convolutions and poolings before the classifier."""
    return [(int(layer.kernel), int(layer.stride)) for layer in layers if layer.kind != "fc"]


# (kernel, stride) up to the last pooling, written out independently of the derivations.
ALEXNET_WINDOWS = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]
VGG19_WINDOWS = [w for convs in (2, 2, 4, 4, 4) for w in [(3, 1)] * convs + [(2, 2)]]


Row = dict[str, Any]


def rows_of(net: str, counter: str, counts: dict[str, int]) -> list[Row]:
    shared = {"net": net, "counter": counter, "layers": None, "kernel": None}
    return [shared | {"quantity": quantity, "value": value} for quantity, value in counts.items()]


def field_row(net: str, counter: str, value: int, layers: int, kernel: int | None) -> Row:
    return {
        "net": net,
        "quantity": "receptive_field",
        "counter": counter,
        "value": value,
        "layers": layers,
        "kernel": kernel,
    }


def count_nets(nets: Iterable[str], with_fvcore: bool) -> list[Row]:
    """Derivation's and counters' rows; models are built on the meta device, without weights to initialise."""
    expected = derived()
    rows: list[Row] = []
    for net in nets:
        build, shape = NETS[net]
        with torch.device("meta"):
            model, x = build().eval(), torch.empty(1, *shape)
        rows += rows_of(net, "derivation", expected[net])
        rows += rows_of(net, "torch", parameters(model))
        rows += rows_of(net, "torch.flop_counter", flop_counter(model, x))
        if with_fvcore:
            # Tracing needs real tensors, but not their values.
            rows += rows_of(net, "fvcore", fvcore(model.to_empty(device="cpu"), torch.zeros(x.shape)))
    return rows


def receptive_fields(depths: Iterable[int], kernels: Iterable[int]) -> list[Row]:
    """The grid of N stacked F×F convolutions, and the fields of AlexNet's and VGG-19's last pooling."""
    rows = []
    for n in depths:
        for f in kernels:
            measured = gradient_support([(f, 1)] * n, size=2 * n * f + 1)
            rows.append(field_row("stack", "torch", measured, n, f))
            rows.append(field_row("stack", "derivation", int(receptive_field.stacked(n, f)), n, f))
    for net, stack, layers in (
        ("alexnet", ALEXNET_WINDOWS, alexnet.layers()),
        ("vgg19", VGG19_WINDOWS, vgg.layers()),
    ):
        derivation = int(receptive_field.field(windows(layers)))
        rows.append(field_row(net, "torch", gradient_support(stack, size=512), len(stack), None))
        rows.append(field_row(net, "derivation", derivation, len(stack), None))
    return rows


def run(max_layers: int, kernels: list[int], results: Path) -> int:
    """Count, compare and write; 0. Raises UsageError when the commit can't be told, OSError for a folder of no use."""
    started, code = datetime.now(UTC), Code.now()
    check_writable(results)
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    found = {name: importlib.util.find_spec(name) is not None for name in ("fvcore", "keras")}
    for name in (name for name, there in found.items() if not there):
        print(f"p3_crosscheck: {name} is not installed, its counts are left out; pip install {name}", file=sys.stderr)

    rows = count_nets(NETS, found["fvcore"])
    if found["keras"]:
        rows += rows_of("vgg19", "keras", keras_vgg19())
    from_torchvision = torchvision_nets()
    if not from_torchvision:
        print("p3_crosscheck: torchvision can't be imported, its counts are left out", file=sys.stderr)
    for net, counts in from_torchvision.items():
        rows += rows_of(net, "torchvision", counts)
    rows += receptive_fields(range(1, max_layers + 1), kernels)
    frame = pd.DataFrame(rows).astype({"layers": "Int64", "kernel": "Int64"})

    config = {"max_layers": max_layers, "kernels": kernels}
    name = run_id("counts", config)
    origin = provenance(EXPERIMENT, name, config, seed=None, device="cpu", started=started, code=code)
    log = frame.to_string(index=False) + "\n"
    path = parquet.write(frame, origin, log=log, results=results)
    print(log, end="")
    print(path)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 2 for bad input."""
    parser = Parser(EXPERIMENT, (__doc__ or "").splitlines()[0])
    parser.add_argument("--max-layers", type=int, default=6, metavar="N", help="deepest stack (default 6)")
    parser.add_argument("--kernels", type=int, nargs="+", default=[1, 3, 5, 7], metavar="F", help="filter sizes")
    parser.add_argument("--results", type=path, default=RESULTS, help="folder of the results store")
    args = parser.parse_args(argv)
    if args.max_layers < 1 or min(args.kernels) < 1:
        parser.error("--max-layers and --kernels must be at least 1")
    return exit_status(EXPERIMENT, lambda: run(args.max_layers, sorted(set(args.kernels)), args.results))


if __name__ == "__main__":
    sys.exit(main())
