"""ResNet-50 [He et al. 2016, table 1] in PyTorch, for where torchvision can't be imported.

As in torchvision, a stage's stride is in the 3×3 convolution of its first block; the parameter counts agree too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STAGES = [(3, 64), (4, 128), (6, 256), (3, 512)]  # blocks, width; a block's output is 4 times as wide
EXPANSION = 4


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 and a shortcut, (N, inputs, H, W) → (N, 4·width, H/stride, W/stride)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.reduce = _convolution(inputs, width, 1)
        self.middle = _convolution(width, width, 3, stride)
        self.expand = _convolution(width, outputs, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = torch.relu(self.middle(torch.relu(self.reduce(x))))
        return torch.relu(self.expand(y) + self.shortcut(x))


class ResNet50(nn.Sequential):
    """Images (N, 3, H, W), H and W at least 32, to logits (N, classes)."""

    def __init__(self, classes: int = 1000) -> None:
        stem = _convolution(3, 64, 7, 2)
        blocks: list[nn.Module] = []
        inputs = 64
        for stage, (count, width) in enumerate(STAGES):
            for block in range(count):
                blocks.append(Bottleneck(inputs, width, stride=2 if stage and not block else 1))
                inputs = EXPANSION * width
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
        super().__init__(stem, nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), *blocks, *head)
