"""The fused kernels, in Triton's interpreter on the CPU, against PyTorch's autograd and optimiser."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86_64 only")

from experiments.p4 import augment
from experiments.p4.fused_engine import FusedEngine
from experiments.p4.plain_engine import PlainEngine
from experiments.p4.resnet import Block, ResNet, seeded

pytestmark = pytest.mark.usefixtures("one_thread")

# Three images of 8×8 pixels are one and a half tiles of the first stage, and less than a tile of the last.
SIZE, BATCH, HOLE = 8, 3, 4
SETTINGS: dict[str, Any] = {
    "batch": BATCH,
    "steps": 2,
    "hole": HOLE,
    "mean": torch.tensor([0.5, 0.4, 0.3]),
    "std": torch.tensor([0.2, 0.25, 0.3]),
    "dtype": torch.float32,  # the interpreter does not know bfloat16
    "weight_decay": 1e-2,
    "momentum": 0.9,
}


def model() -> ResNet:
    """A ResNet-14 away from its initial values, where many gradients vanish and all logits are alike."""
    net = seeded(14, 0)
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data = 1 + 0.2 * torch.randn(module.weight.shape, generator=generator)
            module.bias.data = 0.2 * torch.randn(module.bias.shape, generator=generator)
    net.fc.weight.data *= 10
    return net


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(24)  # some predictions are right, some wrong
    images = torch.randint(0, 256, (13, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (13,), generator=generator)
    return images[:8], labels[:8], images[8:], labels[8:]


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    return augment.draw_epoch(8, SIZE, BATCH, 1, "cutout", seed=4, device="cpu")


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


def modules(net: ResNet) -> list[tuple[torch.nn.Conv2d, torch.nn.BatchNorm2d]]:
    """Every convolution with its BatchNorm, in the engine's packing order."""
    found = [(net.conv, net.bn)]
    for block in net.blocks:
        assert isinstance(block, Block)
        found += [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if len(block.shortcut):
            found.append((block.shortcut[0], block.shortcut[1]))  # type: ignore[arg-type]
    return found


def taps(weight: torch.Tensor) -> torch.Tensor:
    """A convolution's weights (C_out, C_in, k, k) as the engine packs them, (k·k, C_in, C_out)."""
    return weight.detach().permute(2, 3, 1, 0).flatten(0, 1)


def test_every_gradient_is_autograds(data: tuple[torch.Tensor, ...], table: torch.Tensor) -> None:
    engine = FusedEngine(model(), *data, **SETTINGS)
    engine.start_epoch(table, 0.1)
    engine.step_count.fill_(1)  # as if one step were done
    engine._launch_gradients()

    reference = model().double().train()
    images, labels, _, _ = data
    x = augment.transform(images, table[1], HOLE, SETTINGS["mean"], SETTINGS["std"]).double()
    targets = labels[table[1][:, augment.INDEX].long()]
    logits = reference(x)
    loss = F.cross_entropy(logits, targets)
    loss.backward()
    errors = (logits.argmax(1) != targets).sum().item()

    assert 0 < errors < BATCH
    assert engine.metrics_buffer.tolist() == pytest.approx([loss.item() * BATCH, errors], rel=1e-6)
    for conv, (module, norm) in zip(engine.layers.all(), modules(reference), strict=True):
        assert module.weight.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
        want, got = taps(module.weight.grad), engine.gradient(conv)
        assert relative(got[:, : want.shape[1]], want) < 1e-5
        assert not got[:, want.shape[1] :].any()  # the stem's padding learns nothing
        gamma, beta = engine._norm_gradient(conv)
        assert relative(gamma, norm.weight.grad) < 1e-5
        assert relative(beta, norm.bias.grad) < 1e-5
    assert reference.fc.weight.grad is not None and reference.fc.bias.grad is not None
    weight = engine.gradients[engine.fc_at : engine.bias_at].view(64, -1)
    bias = engine.gradients[engine.bias_at : engine.gamma_at]
    assert relative(weight[:, :10], reference.fc.weight.grad.T) < 1e-5
    assert relative(bias[:10], reference.fc.bias.grad) < 1e-5
    assert not weight[:, 10:].any() and not bias[10:].any()


@pytest.mark.slow
def test_a_batch_may_be_larger_than_the_test_set(data: tuple[torch.Tensor, ...]) -> None:
    many = augment.draw_epoch(8, SIZE, BATCH, 3, "cutout", seed=4, device="cpu")
    settings = SETTINGS | {"batch": 3 * BATCH}
    plain, engine = PlainEngine(model(), *data, **settings), FusedEngine(model(), *data, **settings)
    assert len(engine.stem_gradient) == 3 * BATCH * SIZE**2 > len(data[2]) * SIZE**2
    for each in (plain, engine):
        each.start_epoch(many, 0.01)
        each.step()
        each.step()
    assert engine.train_metrics() == pytest.approx(plain.train_metrics(), rel=1e-4)


def test_steps_and_validation_are_the_plain_engines_also_after_a_checkpoint(
    data: tuple[torch.Tensor, ...], table: torch.Tensor
) -> None:
    plain = PlainEngine(model(), *data, **SETTINGS)
    engine = FusedEngine(model(), *data, **SETTINGS)
    for each in (plain, engine):
        each.start_epoch(table, 0.01)
        each.step()
    assert engine.step_count.item() == 1
    assert not engine.gradients.any() and not engine.sums.any()  # ready for the next step
    resumed = FusedEngine(seeded(14, 9), *data, **SETTINGS)
    resumed.gradients.fill_(1.0)  # what an interrupted step leaves
    resumed.sums.fill_(1.0)
    resumed.load_state({name: tensor.clone() for name, tensor in engine.state().items()})
    assert torch.equal(resumed.packed, engine.packed)  # kernels.cu's copies of the weights
    for each in (plain, resumed):
        each.start_epoch(table[1:].expand(2, -1, -1), 0.003)  # another rate
        each.step()

    assert resumed.train_metrics() == pytest.approx(plain.train_metrics(), rel=1e-5)
    assert resumed.evaluate() == pytest.approx(plain.evaluate(), rel=1e-5)
    for conv, (module, norm) in zip(resumed.layers.all(), modules(plain.model), strict=True):
        want, here = taps(module.weight), slice(conv.channel, conv.channel + conv.c_out)
        assert relative(resumed._taps(conv)[:, : want.shape[1]], want) < 1e-5
        assert relative(resumed.gamma[here], norm.weight.detach()) < 1e-5
        assert relative(resumed.beta[here], norm.bias.detach()) < 1e-5
        assert norm.running_mean is not None and norm.running_var is not None
        assert relative(resumed.running[0, here], norm.running_mean) < 1e-5
        assert relative(resumed.running[1, here], norm.running_var) < 1e-5
        momentum = taps(plain.optimiser.state[module.weight]["momentum_buffer"])
        assert relative(resumed._taps(conv, resumed.momenta)[:, : want.shape[1]], momentum) < 1e-4
        momentum = plain.optimiser.state[norm.weight]["momentum_buffer"]
        at = resumed.gamma_at + conv.channel
        assert relative(resumed.momenta[at : at + conv.c_out], momentum) < 1e-4
    assert relative(resumed.fc_weight[:, :10], plain.model.fc.weight.detach().T) < 1e-5
    assert relative(resumed.fc_bias[:10], plain.model.fc.bias.detach()) < 1e-5


def test_validation_changes_nothing(data: tuple[torch.Tensor, ...], table: torch.Tensor) -> None:
    engine = FusedEngine(model(), *data, **SETTINGS)
    engine.start_epoch(table, 0.05)
    before = {name: tensor.clone() for name, tensor in engine.state().items()}
    assert engine.evaluate() == engine.evaluate()
    assert all(torch.equal(before[name], tensor) for name, tensor in engine.state().items())
    assert not engine.gradients.any() and not engine.sums.any() and not engine.metrics_buffer.any()


def test_the_state_of_another_network_is_refused(data: tuple[torch.Tensor, ...]) -> None:
    engine = FusedEngine(model(), *data, **SETTINGS)
    state = dict(engine.state())
    with pytest.raises(ValueError, match="'momenta' does not fit"):
        engine.load_state(state | {"momenta": torch.zeros(3)})
    del state["running"]
    with pytest.raises(ValueError, match="'running' does not fit"):
        engine.load_state(state)


def test_a_last_block_with_a_projection_is_refused(data: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(ValueError, match="depth of at least 14"):
        FusedEngine(ResNet(8), *data, **SETTINGS)
