"""Problem 3's networks in torch, written out here rather than made from `derivations`: the two are independent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments.p4.resnet import resnet44


def paper_alexnet(groups: int) -> nn.Sequential:
    """Krizhevsky et al. 2012, for (1, 3, 227, 227); groups 2 as in the paper, 1 without the split."""
    return nn.Sequential(
        *(nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), nn.LocalResponseNorm(5, k=2), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=groups), nn.ReLU(), nn.LocalResponseNorm(5, k=2), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=groups), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=groups), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten()),
        *(nn.Dropout(), nn.Linear(6 * 6 * 256, 4096), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)),
    )


def torchvision_alexnet() -> nn.Sequential:
    """torchvision's layout of Krizhevsky 2014, for (1, 3, 224, 224), written out as torchvision may be missing."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.AdaptiveAvgPool2d(6), nn.Flatten()),
        *(nn.Dropout(), nn.Linear(6 * 6 * 256, 4096), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)),
    )


def vgg19() -> nn.Sequential:
    """Simonyan & Zisserman's column E, for (1, 3, 224, 224)."""
    net: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0):
        if width:
            net += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            net.append(nn.MaxPool2d(2))
    head = [nn.Linear(7 * 7 * 512, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*net, nn.Flatten(), *head)


class Branches(nn.Module):
    """Branches side by side on the same (N, 256, 32, 32), concatenated along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def naive_inception() -> Branches:
    """Szegedy et al. 2015, Fig. 2a, with the course's filters."""
    return Branches(
        nn.Conv2d(256, 128, 1),
        nn.Conv2d(256, 192, 3, padding=1),
        nn.Conv2d(256, 96, 5, padding=2),
        nn.MaxPool2d(3, 1, 1),
    )


def reduced_inception(three_reduce: int, five_reduce: int) -> Branches:
    """Szegedy et al. 2015, Fig. 2b, with the course's filters and these bottlenecks; pool projection 64."""
    return Branches(
        nn.Conv2d(256, 128, 1),
        nn.Sequential(nn.Conv2d(256, three_reduce, 1), nn.ReLU(), nn.Conv2d(three_reduce, 192, 3, padding=1)),
        nn.Sequential(nn.Conv2d(256, five_reduce, 1), nn.ReLU(), nn.Conv2d(five_reduce, 96, 5, padding=2)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(256, 64, 1)),
    )


Build = Callable[[], nn.Module]
# Name → how torch builds it, and the shape of its input.
NETS: dict[str, tuple[Build, tuple[int, int, int]]] = {
    "alexnet": (lambda: paper_alexnet(2), (3, 227, 227)),
    "alexnet-ungrouped": (lambda: paper_alexnet(1), (3, 227, 227)),
    "alexnet-torchvision": (torchvision_alexnet, (3, 224, 224)),
    "vgg19": (vgg19, (3, 224, 224)),
    "inception-naive": (naive_inception, (256, 32, 32)),
    "inception-reduced": (lambda: reduced_inception(64, 64), (256, 32, 32)),
    "inception-3b": (lambda: reduced_inception(128, 32), (256, 32, 32)),
    "resnet44": (resnet44, (3, 32, 32)),
}
