"""The ResNet-50 that PyTorch learners train: torchvision's, or where there is none, this project's."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from derivations import imagenet_resnet as derivation
from experiments.p1 import frameworks
from experiments.p1.torch_resnet50 import Bottleneck, ResNet50


@pytest.fixture
def learner() -> Any:
    """One that Horovod has not joined to others; building its network needs none."""
    made: Any = frameworks.Torch.__new__(frameworks.Torch)
    made._torch = torch
    return made


def test_torchvisions_is_taken_and_named(learner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("torchvision")
    module.__version__, theirs = "0.99.1", torch.nn.Linear(2, 3)
    module.models = SimpleNamespace(resnet50=lambda: theirs)
    monkeypatch.setitem(sys.modules, "torchvision", module)
    assert learner._network("resnet50") is theirs
    assert learner.model == "torchvision 0.99.1 resnet50"


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError"])  # the latter: built for another torch
def test_where_torchvision_fails_to_import_the_row_names_the_fallback(
    error: str, learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision.py").write_text(f"raise {error}('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with torch.device("meta"):
        assert isinstance(learner._network("resnet50"), ResNet50)
    assert learner.model == "experiments/p1/torch_resnet50.py"


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
