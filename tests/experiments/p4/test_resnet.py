"""ResNet-44 as the papers describe it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from derivations import cifar_resnet as derived
from experiments.p4 import resnet


def test_resnet44_has_the_derived_number_of_parameters() -> None:
    model = resnet.resnet44()
    assert sum(p.numel() for p in model.parameters()) == 661_338 == derived.counts(44, "B").parameters
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in model.modules()) == 43


def test_shapes() -> None:
    model = resnet.ResNet(14)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert model.blocks(torch.zeros(2, 16, 32, 32)).shape == (2, 64, 8, 8)


@pytest.mark.parametrize("depth", [2, 7, 12, 43])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"not {depth}"):
        resnet.ResNet(depth)


def test_a_block_starts_as_its_shortcut() -> None:
    block = resnet.ResNet(14).blocks[1]
    x = torch.rand(2, 16, 8, 8)
    torch.testing.assert_close(block(x), x)  # bn2's scale is 0, and x is positive already


def test_initialisation_has_the_authors_variances() -> None:
    model = resnet.seeded(44, 0)
    first, last = model.blocks[14], model.blocks[-1]  # the first of the third stage, and the last
    assert isinstance(first, resnet.Block) and isinstance(last, resnet.Block)
    # N(0, √(2/(k²·C_out))); the numbers of draws are 9·32·64, 32·64 and 9·64·64.
    assert first.conv1.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    assert next(first.shortcut.parameters()).std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.06)
    assert last.conv2.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not model.fc.bias.any()


def test_weight_decay_is_on_weights_alone() -> None:
    model = resnet.ResNet(14)
    decayed, rest = resnet.parameter_groups(model, 1e-4)
    assert decayed["weight_decay"] == 1e-4 and rest["weight_decay"] == 0.0
    names = {id(p): name for name, p in model.named_parameters()}
    kept = [names[id(p)] for p in rest["params"]]  # type: ignore[attr-defined]
    assert all("bn" in name or "shortcut.1" in name or name == "fc.bias" for name in kept)
    assert len(kept) + len(decayed["params"]) == len(names)  # type: ignore[arg-type]


def test_initial_weights_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    first = resnet.seeded(14, 1).conv.weight
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(first, resnet.seeded(14, 1).conv.weight)
    assert not torch.equal(first, resnet.seeded(14, 2).conv.weight)
