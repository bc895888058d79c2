"""The ResNet-50 that PyTorch learners train where there is no torchvision."""

from __future__ import annotations

import torch

from derivations import imagenet_resnet as derivation
from experiments.p1.torch_resnet50 import Bottleneck, ResNet50


def test_it_has_as_many_parameters_as_derived() -> None:
    with torch.device("meta"):
        net = ResNet50()
    counted = sum(parameter.numel() for parameter in net.parameters())
    assert counted == derivation.parameters() == 25_557_032  # the last is torchvision's documentation


def test_shapes() -> None:
    with torch.device("meta"):
        assert ResNet50(10)(torch.empty(2, 3, 64, 96)).shape == (2, 10)
        assert Bottleneck(64, 64, 1)(torch.empty(1, 64, 8, 8)).shape == (1, 256, 8, 8)
        assert Bottleneck(256, 128, 2)(torch.empty(1, 256, 8, 8)).shape == (1, 512, 4, 4)


def test_a_block_that_keeps_its_shape_has_no_projection() -> None:
    block = Bottleneck(256, 64, 1)
    assert isinstance(block.shortcut, torch.nn.Identity)
    x = torch.randn(1, 256, 4, 4)
    with torch.no_grad():
        for parameter in block.expand.parameters():
            parameter.zero_()
    assert torch.equal(block(x), torch.relu(x))
