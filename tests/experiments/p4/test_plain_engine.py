"""The plain engine against training written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from experiments.p4 import augment, plain_engine
from experiments.p4.resnet import ResNet, seeded

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, SAMPLES, BATCH, HOLE = 16, 12, 8, 8  # a batch is two instances of four samples
RATE, DECAY, MOMENTUM = 0.05, 1e-2, 0.9
MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])


def data() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (SAMPLES + 7, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (SAMPLES + 7,), generator=generator)
    return images[:SAMPLES], labels[:SAMPLES], images[SAMPLES:], labels[SAMPLES:]


def table() -> torch.Tensor:
    return augment.draw_epoch(SAMPLES, SIZE, BATCH // 2, 2, "cutout", seed=1, device="cpu")


def make(depth: int = 14, dtype: torch.dtype = torch.float32) -> plain_engine.PlainEngine:
    settings: dict[str, Any] = {"batch": BATCH, "steps": 3, "hole": HOLE, "mean": MEAN, "std": STD, "dtype": dtype}
    return plain_engine.PlainEngine(seeded(depth, 0), *data(), **settings, weight_decay=DECAY, momentum=MOMENTUM)


def logits_and_labels(model: ResNet, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels, _, _ = data()
    return model(augment.transform(images, rows, HOLE, MEAN, STD)), labels[rows[:, augment.INDEX].long()]


def test_an_epoch_is_sgd_with_momentum_and_decay_on_weights_alone() -> None:
    engine, reference = make(), seeded(14, 0).train()
    engine.start_epoch(table(), RATE)
    momenta = {name: torch.zeros_like(p) for name, p in reference.named_parameters()}
    loss_sum = errors = 0.0
    for rows in table():
        engine.step()
        logits, labels = logits_and_labels(reference, rows)
        loss = F.cross_entropy(logits, labels)
        loss_sum, errors = loss_sum + loss.item(), errors + (logits.argmax(1) != labels).sum().item()
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        with torch.no_grad():
            for (name, p), gradient in zip(reference.named_parameters(), gradients, strict=True):
                decay = DECAY if name.endswith("weight") and "bn" not in name and "shortcut.1" not in name else 0.0
                momenta[name] = MOMENTUM * momenta[name] + gradient + decay * p
                p.sub_(RATE * momenta[name])
    assert engine.train_metrics() == pytest.approx((loss_sum / 3, errors / 3 / BATCH), rel=1e-5)
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(engine.state()[name], tensor, rtol=1e-4, atol=1e-6)
    for name, momentum in momenta.items():
        torch.testing.assert_close(engine.state()[f"momentum.{name}"], momentum, rtol=1e-3, atol=1e-6)


def test_metrics_and_rate_are_an_epochs_own() -> None:
    engine = make()
    engine.start_epoch(table(), RATE)
    engine.step()
    engine.start_epoch(table(), 0.0)
    before = {name: p.clone() for name, p in engine.model.named_parameters()}
    engine.step()
    assert all(torch.equal(before[name], p) for name, p in engine.model.named_parameters())  # a rate of 0
    logits, labels = logits_and_labels(engine.model, table()[0])
    errors = (logits.argmax(1) != labels).double().mean().item()
    assert engine.train_metrics() == pytest.approx((F.cross_entropy(logits, labels).item(), errors), rel=1e-5)


def test_validation_is_of_the_untouched_images_by_running_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    engine.start_epoch(table(), RATE)
    engine.step()
    before = {name: tensor.clone() for name, tensor in engine.state().items()}
    monkeypatch.setattr(plain_engine, "TEST_BATCH", 3)  # seven images: the last batch is not full
    got = engine.evaluate()
    assert all(torch.equal(before[name], tensor) for name, tensor in engine.state().items())

    _, _, images, labels = data()
    with torch.no_grad():
        logits = engine.model.eval()(((images / 255 - MEAN) / STD).permute(0, 3, 1, 2))
    errors = (logits.argmax(1) != labels).double().mean().item()
    assert got == pytest.approx((F.cross_entropy(logits, labels).item(), errors), rel=1e-5)


def test_the_engine_trains_on_after_a_validation_as_if_there_had_been_none() -> None:
    engine, other = make(), make()
    for each in (engine, other):
        each.start_epoch(table(), RATE)
        each.step()
    engine.evaluate()
    for each in (engine, other):
        each.start_epoch(table(), RATE)
        each.step()
    assert all(torch.equal(other.state()[name], tensor) for name, tensor in engine.state().items())


def test_a_state_continues_bit_for_bit() -> None:
    engine, other = make(), make()
    engine.start_epoch(table(), RATE)
    engine.step()
    other.load_state({name: tensor.clone() for name, tensor in engine.state().items()})
    for each in (engine, other):
        each.start_epoch(table().flip(0), RATE)
        each.step()
    assert all(torch.equal(other.state()[name], tensor) for name, tensor in engine.state().items())


def test_the_state_of_another_network_is_refused() -> None:
    engine = make()
    with pytest.raises(ValueError, match=r"'blocks\.2\.conv1\.weight' does not fit"):
        engine.load_state(make(depth=20).state())
    state = engine.state()
    del state["momentum.fc.bias"]
    with pytest.raises(ValueError, match=r"'momentum\.fc\.bias' does not fit"):
        engine.load_state(state)


def test_bf16_rounds_activations_only() -> None:
    engine, exact = make(dtype=torch.bfloat16), make()
    for each in (engine, exact):
        each.start_epoch(table(), RATE)
        each.step()
    assert all(not t.is_floating_point() or t.dtype == torch.float32 for t in engine.state().values())
    assert engine.train_metrics()[0] != exact.train_metrics()[0]
    assert engine.train_metrics()[0] == pytest.approx(exact.train_metrics()[0], rel=1e-2)
