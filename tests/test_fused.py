"""The fused kernels, in Triton's interpreter on the CPU, against PyTorch's autograd and optimiser."""

from __future__ import annotations

import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: it decides when a kernel is defined

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86_64 only")

from experiments import augment, fused
from experiments.plain import PlainEngine
from experiments.resnet import Block, ResNet, seeded

SIZE, BATCH, INSTANCES, HOLE = 8, 2, 2, 4
SETTINGS: dict[str, Any] = {
    "batch": BATCH * INSTANCES,
    "steps": 4,
    "hole": HOLE,
    "mean": torch.tensor([0.5, 0.4, 0.3]),
    "std": torch.tensor([0.2, 0.25, 0.3]),
    "dtype": torch.float32,
    "weight_decay": 1e-2,
    "momentum": 0.9,
}


def model() -> ResNet:
    """A ResNet-14 whose BatchNorms are not at their initial values, where many gradients would vanish."""
    net = seeded(14, 0)
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data = 1 + 0.2 * torch.randn(module.weight.shape, generator=generator)
            module.bias.data = 0.2 * torch.randn(module.bias.shape, generator=generator)
    return net


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (16, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (16,), generator=generator)
    return images[:8], labels[:8], images[8:], labels[8:]


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    return augment.draw_epoch(8, SIZE, BATCH, INSTANCES, "cutout", seed=4, device="cpu")


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


def test_every_gradient_is_autograds(data: tuple[torch.Tensor, ...], table: torch.Tensor) -> None:
    net = model()
    engine = fused.FusedEngine(net, *data, **SETTINGS)
    engine.start_epoch(table, 0.1)
    engine._launch_gradients()

    reference = net.double().train()
    images, labels, _, _ = data
    x = augment.transform(images, table[0], HOLE, SETTINGS["mean"], SETTINGS["std"]).double()
    targets = labels[table[0][:, augment.INDEX].long()]
    logits = reference(x)
    loss = F.cross_entropy(logits, targets)
    loss.backward()

    assert engine.metrics_buffer[0].item() / len(targets) == pytest.approx(loss.item(), rel=1e-6)
    assert engine.metrics_buffer[1].item() == (logits.argmax(1) != targets).sum().item()
    for conv, (module, norm) in zip(engine.layers.all(), engine.modules, strict=True):
        want = module.weight.grad.permute(2, 3, 1, 0).reshape(conv.kernel**2, -1, conv.c_out)
        got = engine.gradient(conv)
        assert relative(got[:, : want.shape[1]], want) < 1e-5
        assert not got[:, want.shape[1] :].any()  # the stem's padding learns nothing
        gamma, beta = engine._norm_gradient(conv)
        assert relative(gamma, norm.weight.grad) < 1e-5
        assert relative(beta, norm.bias.grad) < 1e-5
    assert reference.fc.weight.grad is not None
    fc = engine.gradients[engine.fc_at : engine.bias_at].view(64, -1)
    assert relative(fc[:, :10], reference.fc.weight.grad.T) < 1e-5
    assert not fc[:, 10:].any()


def test_steps_and_validation_are_the_plain_engines(data: tuple[torch.Tensor, ...], table: torch.Tensor) -> None:
    engine = fused.FusedEngine(model(), *data, **SETTINGS)
    plain = PlainEngine(model(), *data, **SETTINGS)
    for each in (engine, plain):
        each.start_epoch(table, 0.05)
        for _ in range(3):
            each.step()
    assert engine.train_metrics() == pytest.approx(plain.train_metrics(), rel=1e-4)
    assert engine.evaluate() == pytest.approx(plain.evaluate(), rel=1e-4)
    for conv, (_, norm), (module, want) in zip(engine.layers.all(), engine.modules, _modules(plain.model), strict=True):
        here = slice(conv.channel, conv.channel + conv.c_out)
        assert norm is not want  # two networks, not one compared with itself
        torch.testing.assert_close(engine.running[0, here], want.running_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(engine.running[1, here], want.running_var, rtol=1e-4, atol=1e-5)
        taps = module.weight.detach().permute(2, 3, 1, 0).reshape(conv.kernel**2, -1, conv.c_out)
        torch.testing.assert_close(engine._taps(conv)[:, : taps.shape[1]], taps, rtol=1e-3, atol=1e-5)
        momentum = plain.optimiser.state[module.weight]["momentum_buffer"].permute(2, 3, 1, 0).reshape(taps.shape)
        got = engine._taps(conv, engine.momenta)[:, : taps.shape[1]]
        assert relative(got, momentum.double()) < 1e-3


def _modules(net: ResNet) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = [(net.conv, net.bn)]
    for block in net.blocks:
        assert isinstance(block, Block)
        found += [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if len(block.shortcut):
            found.append((block.shortcut[0], block.shortcut[1]))
    return found


def test_state_continues_where_it_was_saved(data: tuple[torch.Tensor, ...], table: torch.Tensor) -> None:
    engine = fused.FusedEngine(model(), *data, **SETTINGS)
    engine.start_epoch(table, 0.05)
    engine.step()
    saved = {name: tensor.clone() for name, tensor in engine.state().items()}
    other = fused.FusedEngine(seeded(14, 9), *data, **SETTINGS)
    other.load_state(saved)
    for each in (engine, other):
        each.start_epoch(table, 0.05)
        each.step()
    torch.testing.assert_close(engine.parameters, other.parameters)
    with pytest.raises(ValueError, match="momenta"):
        other.load_state({"parameters": saved["parameters"], "momenta": torch.zeros(3)})


def test_a_last_block_with_a_projection_is_refused(data: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(ValueError, match="depth of at least 14"):
        fused.FusedEngine(ResNet(8), *data, **SETTINGS)


@pytest.mark.parametrize("rows_are_inputs", [True, False])
def test_weights_are_packed_as_mma_wants_its_second_operand(rows_are_inputs: bool) -> None:
    conv = fused.Conv(c_in=32, c_out=32, kernel=3, stride=1, size=16, weight=0, channel=0)
    order = fused.FusedEngine._pack_order(conv, rows_are_inputs)
    assert sorted(order.tolist()) == list(range(9 * 32 * 32))
    weights = torch.arange(9 * 32 * 32).view(9, 32, 32)  # (tap, C_in, C_out)
    packed = torch.empty_like(weights.flatten())
    packed[order.long()] = weights.flatten()
    by_lane = packed.view(9, 2, 2, 32, 2, 2, 2)  # tap, k/16, n/16, lane, n half, k half, parity
    # PTX ISA, m16n8k16, matrix B: lane holds k = (lane % 4)·2 + parity (+ 8), n = lane // 4.
    for lane in range(32):
        for half_n, half_k, parity in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)):
            k = 16 + half_k * 8 + lane % 4 * 2 + parity
            n = half_n * 8 + lane // 4
            want = weights[5, k, n] if rows_are_inputs else weights[5, n, k]
            assert by_lane[5, 1, 0, lane, half_n, half_k, parity] == want
