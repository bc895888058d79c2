"""A whole training step with the CUDA kernels, emulated, between Triton's in its interpreter: every weight's gradient.

Only the CUDA kernels round to bf16, which the interpreter does not know: what they read and write is converted on the
way. Rounding turns single ReLUs on or off, so the BatchNorms' β are raised until few are near their edge.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86_64 only")

from experiments.p4 import augment, cuda_kernels
from experiments.p4.fused_engine import FusedEngine
from experiments.p4.fused_passes import Passes
from experiments.p4.packing import Conv
from experiments.p4.resnet import ResNet
from tests.cuda_emulator.library import Emulated, parameters
from tests.experiments.p4.test_fused_engine import SETTINGS, model, modules, relative, taps

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed"),
]

SIZE, BATCH, HOLE = 32, 4, 16  # the smallest images of which the CUDA kernels know the shapes
HALF = {"x", "w", "y", "s", "joined", "dz", "dx", "x_raw", "add", "s_raw"}  # parameters in bf16
WRITTEN = {"conv_forward": {"y", "joined"}, "conv_backward": {"dx"}}
# bf16 has 8 bits: each of some 30 roundings on a gradient's way moves it by up to 2^-9 = 0.2 %, and ReLUs that it turns
# by more. Triton's kernels with the same results rounded, but fp32 within, are 8 % from autograd at most.
ROUNDED = 0.15


def raised() -> ResNet:
    net = model()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.data += 1.5
    net.fc.weight.data /= 10
    return net


class Rounding:
    """In the place of `cuda_kernels._call`: fp32 tensors go to the emulated kernels as bf16, and their results back."""

    def __init__(self, folder: Path) -> None:
        self.emulated, self.calls = Emulated(folder), 0

    def __call__(self, function: str, *arguments: Any) -> None:
        names = list(parameters(function))[: len(arguments)]
        halves: dict[int, tuple[Tensor, Tensor]] = {}
        given = []
        for name, value in zip(names, arguments, strict=True):
            if name in HALF:
                value = halves.setdefault(value.data_ptr(), (value.to(torch.bfloat16), value))[0]
            given.append(value)
        self.emulated(function, *given)
        written = {v.data_ptr() for name, v in zip(names, arguments, strict=True) if name in WRITTEN[function]}
        for pointer in written:
            half, full = halves[pointer]
            full.copy_(half)
        self.calls += 1


@pytest.fixture
def data() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(24)
    images = torch.randint(0, 256, (12, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (12,), generator=generator)
    return images[:8], labels[:8], images[8:], labels[8:]


def errors(data: tuple[Tensor, ...]) -> list[float]:
    """Each convolution's error of its weights' gradient, as a share of autograd's."""
    settings = SETTINGS | {"batch": BATCH, "hole": HOLE}
    table = augment.draw_epoch(8, SIZE, BATCH, 1, "cutout", seed=4, device="cpu")
    engine = FusedEngine(raised(), *data, **settings)
    engine.use_cuda = True
    engine.start_epoch(table, 0.1)
    engine._launch_gradients()
    reference = raised().double().train()
    images, labels, _, _ = data
    x = augment.transform(images, table[0], HOLE, settings["mean"], settings["std"]).double()
    F.cross_entropy(reference(x), labels[table[0][:, augment.INDEX].long()]).backward()
    found = []
    for conv, (module, _) in zip(engine.layers.all(), modules(reference), strict=True):
        assert module.weight.grad is not None
        want = taps(module.weight.grad)
        found.append(relative(engine.gradient(conv)[:, : want.shape[1]], want))
    return found


def test_every_weights_gradient_is_autograds(
    data: tuple[Tensor, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounding = Rounding(tmp_path)
    monkeypatch.setattr(cuda_kernels, "_call", rounding)
    found = errors(data)
    assert rounding.calls == 22  # of 11 convolutions with a twin: 16 channels 5, 32 and 64 three each
    assert max(found) < ROUNDED


def test_a_convolution_with_anothers_batchnorm_is_outside(
    data: tuple[Tensor, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Passes._norm

    def wrong(self: Passes, conv: Conv, sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """γ and β of the stem for the first block's second convolution."""
        mean, square, gamma, beta = usual(self, conv, sums)
        if conv is self.layers.blocks[0][1]:
            _, _, gamma, beta = usual(self, self.layers.stem, sums)
        return mean, square, gamma, beta

    monkeypatch.setattr(Passes, "_norm", wrong)
    monkeypatch.setattr(cuda_kernels, "_call", Rounding(tmp_path))
    assert max(errors(data)) > 2 * ROUNDED
