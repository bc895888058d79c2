"""A stage's first convolutions by the fused kernels in Triton's interpreter, against autograd in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86_64 only")

from experiments.p4.activations import Activations
from experiments.p4.fused_passes import TILES
from experiments.p4.packing import Conv
from tests.p4_kernels import Bench, assert_alike, bench

pytestmark = pytest.mark.usefixtures("one_thread")
FP32 = 1e-5  # the interpreter's: 2^-24, grown by sums of hundreds of products that partly cancel
# Images by the side of the stage's output: two and a half tiles of 32 pixels and a little more, for two programs.
BATCHES = {4: 5, 2: 21}


def images(flat: Tensor, side: int) -> Tensor:
    return flat.double().unflatten(0, (-1, side, side)).permute(0, 3, 1, 2).contiguous()


def flat(of: Tensor) -> Tensor:
    return of.detach().permute(0, 2, 3, 1).flatten(0, 2).float().contiguous()


def weight(on: Bench, conv: Conv) -> Tensor:
    """(C_out, C_in, k, k), to be differentiated."""
    taps = on.passes._taps(conv, on.passes.weights).double()
    return taps.unflatten(0, (conv.kernel, conv.kernel)).permute(3, 2, 0, 1).requires_grad_()


def gradient(on: Bench, conv: Conv, of: Tensor) -> tuple[Tensor, Tensor]:
    """The packed gradient of a convolution's weights, and autograd's in the same order."""
    assert of.grad is not None
    return on.passes.gradient(conv).clone(), of.grad.permute(2, 3, 1, 0).flatten(0, 1)


@pytest.mark.parametrize("side", BATCHES)
def test_both_ways(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    on = bench(16, 8, BATCHES[side])
    passes, block = on.passes, {4: 2, 2: 4}[side]
    conv, _, projection = passes.layers.blocks[block]
    before = passes.layers.blocks[block - 1][1]
    assert projection is not None and conv.out_size == side
    for kind in ("downsample", "downsample back"):
        monkeypatch.setitem(TILES, (kind, conv.c_out), (32, 4, 2))

    drawn = torch.Generator().manual_seed(3)
    raw, shortcut = (torch.randn(passes.batch * conv.size**2, conv.c_in, generator=drawn) for _ in range(2))
    norms = {one: on.scales(one) for one in (before, conv, projection)}
    w, w_side = weight(on, conv), weight(on, projection)
    value = F.batch_norm(images(raw, conv.size), None, None, *norms[before], training=True)
    value = value + images(shortcut, conv.size)
    value.retain_grad()
    x = value.relu()
    y, s = F.conv2d(x, w, stride=2, padding=1), F.conv2d(x, w_side, stride=2)

    passes.sums.zero_()
    made = Activations(*(torch.full_like(flat(y), torch.nan) for _ in range(4)))
    assert made.shortcut is not None
    passes._downsample(conv, projection, flat(x), made.y1, made.shortcut, passes.batch, passes.sums)
    got, want = {"y": made.y1, "side": made.shortcut}, {"y": flat(y), "side": flat(s)}
    for name, one in (("y", conv), ("side", projection)):
        total, square, _, _ = passes._norm(one, passes.sums)
        got |= {f"{name} sum": total.clone(), f"{name} square": square.clone()}
        want |= {f"{name} sum": want[name].double().sum(0), f"{name} square": want[name].double().square().sum(0)}
    assert_alike(got, want, FP32)

    z, z_side = (
        F.batch_norm(one, None, None, *norms[norm], training=True) for one, norm in ((y, conv), (s, projection))
    )
    made.dz1, made.dz = (torch.randn(made.y1.shape, generator=drawn) for _ in range(2))
    ((z * images(made.dz1, side)).sum() + (z_side * images(made.dz, side)).sum()).backward()
    on.set_sums(before, raw, passes.sums, 1)
    passes.gradients.zero_()
    for one in (conv, projection):
        for to, scale in zip(passes._norm_gradient(one), norms[one], strict=True):
            assert scale.grad is not None
            to.copy_(scale.grad)
    previous = Activations(raw, raw, flat(x), dz=torch.full_like(raw, torch.nan))
    passes._downsample_back(conv, projection, made, before, previous)
    assert previous.dz is not None and value.grad is not None
    got, want = {"x": previous.dz}, {"x": flat(value.grad)}
    got["weight"], want["weight"] = gradient(on, conv, w)
    got["projection"], want["projection"] = gradient(on, projection, w_side)
    for name, to, scale in zip(("gamma", "beta"), passes._norm_gradient(before), norms[before], strict=True):
        assert scale.grad is not None
        got[name], want[name] = to.clone(), scale.grad
    assert_alike(got, want, FP32)
