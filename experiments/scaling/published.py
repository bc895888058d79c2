"""Published throughputs of data-parallel training, and the sizes of the networks that they were measured with.

Reading them needs neither scipy nor a framework, since the report does so too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from derivations import alexnet, imagenet_resnet, vgg
from derivations.layers import totals
from experiments.cli import UsageError

SOURCE = Path(__file__).with_name("scaling.csv")
OPTIONAL = ["node_learners", "link_gbit_per_second", "per_learner_batch"]  # empty where the source does not say
NUMBERS = [*OPTIONAL, "learners", "value"]
COLUMNS = ["series", "framework", "network", "machine", "precision", "unit", "source", *NUMBERS]
FP32 = 4  # bytes
# One and up to eight of the homework's nodes with 8 K80, which projections start from and are held against.
K80_NODE, K80_CLUSTER = "TF K80 EC2 ResNet-50", "TF K80 EC2 cluster ResNet-50"


def networks() -> dict[str, tuple[int, int]]:
    """Bytes of an fp32 gradient, and MACs of an image's forward pass, of the networks that are derived."""
    resnets = {
        "ResNet-50": imagenet_resnet.RESNET50,
        "ResNet-101": imagenet_resnet.RESNET101,
        "ResNet-152": imagenet_resnet.RESNET152,
    }
    plain = {"AlexNet": alexnet.layers(), "VGG-16": vgg.layers(vgg.BLOCKS_VGG16), "VGG-19": vgg.layers()}
    counts = {
        name: (imagenet_resnet.parameters(blocks), imagenet_resnet.macs(blocks)) for name, blocks in resnets.items()
    }
    counts |= {name: (totals(net).parameters, totals(net).macs) for name, net in plain.items()}
    return {name: (FP32 * int(parameters), int(macs)) for name, (parameters, macs) in counts.items()}


def load(path: Path = SOURCE) -> pd.DataFrame:
    """The published series with COLUMNS; the batch, the node's learners and its link are empty where not stated.

    Raises UsageError that names the file for what can't be used.
    """
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if missing := [name for name in COLUMNS if name not in frame]:
        raise UsageError(f"{path}: columns are missing: {', '.join(missing)}")
    try:
        frame[NUMBERS] = frame[NUMBERS].astype(float)
    except ValueError as error:
        raise UsageError(f"{path}: {', '.join(NUMBERS)} must be numbers: {error}") from error
    required = [name for name in COLUMNS if name not in OPTIONAL]
    if frame[required].isna().any(axis=None):
        raise UsageError(f"{path}: a cell is empty that must not be; only {', '.join(OPTIONAL)} may be")
    if frame.duplicated(["series", "learners", "per_learner_batch"]).any():
        raise UsageError(f"{path}: a series has the same learners and batch twice")
    if unknown := set(frame.unit) - {"images/s", "efficiency"}:
        raise UsageError(f"{path}: unknown unit {', '.join(sorted(map(str, unknown)))}; give images/s or efficiency")
    amounts = frame[NUMBERS].to_numpy()
    if (amounts <= 0).any() or np.isinf(amounts).any():
        raise UsageError(f"{path}: numbers must be positive and finite")
    if (frame.learners % 1).any():
        raise UsageError(f"{path}: learners must be whole numbers")
    if (frame.groupby("series").per_learner_batch.transform(lambda b: b.isna().any() and b.notna().any())).any():
        raise UsageError(f"{path}: a series gives a batch for some of its points only")
    return frame


def p100_seconds(frame: pd.DataFrame, batch: int = 64) -> dict[str, float]:
    """Seconds of a published P100's step on an image; ResNet-101 stands between -50 and -152 as its MACs do."""
    alone = frame[(frame.machine == "DGX-1 P100") & (frame.learners == 1) & (frame.per_learner_batch == batch)]
    seconds = {str(network): 1 / value for network, value in zip(alone.network, alone.value, strict=True)}
    near = ("ResNet-50", "ResNet-152")
    if set(near) <= set(seconds):
        macs = {name: count for name, (_, count) in networks().items()}
        times = [seconds[name] for name in near]
        seconds["ResNet-101"] = float(np.interp(macs["ResNet-101"], [macs[name] for name in near], times))
    return seconds
