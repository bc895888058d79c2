"""ResNet-(6n+2) for 32×32 images (He et al. 2015, §4.2) with projection shortcuts, as plain PyTorch.

Shortcuts that change the shape are 1×1 convolutions with BatchNorm (option B) and the initialisation is that
of Hoffer et al.'s code: convolutions N(0, √(2/(k²·C_out))), the last BatchNorm scale of each block 0, so that
every block starts as the identity, and the classifier N(0, 0.01²). ResNet-44 has 661,338 parameters.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)); shape (N, C_in, H, W) → (N, C_out, H/s, W/s)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Images (N, 3, 32, 32), normalised floats → logits (N, classes).

    Raises ValueError for a depth that is not 6n+2.
    """

    def __init__(self, depth: int = 44, classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n+2 with n ≥ 1, not {depth}")
        per_stage = (depth - 2) // 6
        self.conv = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        blocks: list[nn.Module] = []
        c_in = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for i in range(per_stage):
                blocks.append(Block(c_in, width, stride=2 if stage and not i else 1))
                c_in = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(c_in, classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                k = module.kernel_size[0] * module.kernel_size[1]
                nn.init.normal_(module.weight, 0, math.sqrt(2 / (k * module.out_channels)))
            elif isinstance(module, Block):
                nn.init.zeros_(module.bn2.weight)
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return cast(Tensor, self.fc(x.mean(dim=(2, 3))))


def resnet44(classes: int = 10) -> ResNet:
    """ResNet-44: n = 7, 661,338 parameters for 10 classes."""
    return ResNet(44, classes)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on weights of convolutions and of the classifier only, as in Hoffer et al.'s regime."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def seeded(depth: int, seed: int) -> ResNet:
    """The same initial weights on every device: drawn on the CPU by a generator of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet(depth)
