"""One convolution of the fused engine by its kernels and by PyTorch in double precision, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.p4.activations import (
    BLOCK_END,
    BLOCK_END_TWO,
    INNER,
    JOINED_ALONE,
    JOINED_TWO,
    NORMALISED,
    RAW,
    WEIGHTS_ONLY,
    Join,
)
from experiments.p4.fused_passes import Passes
from experiments.p4.packing import Conv
from experiments.p4.resnet import seeded


@dataclass
class Bench:
    """The passes of a network, and three of its convolutions that have the same shape."""

    passes: Passes
    conv: Conv
    before: Conv  # whose BatchNorm is before `conv`
    side: Conv  # whose BatchNorm is in the shortcut that ends there, too

    def normal(self, seed: int) -> Tensor:
        """(pixels, channels), drawn on the CPU, where all devices' numbers are alike."""
        shape = self.passes.batch * self.conv.size**2, self.conv.c_in
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return drawn.to(self.passes.device, self.passes.dtype)

    def images(self, flat: Tensor) -> Tensor:
        """A kernel's (pixels, channels) as (images, channels, S, S) in double precision."""
        return flat.double().unflatten(0, (-1, self.conv.size, self.conv.size)).permute(0, 3, 1, 2).contiguous()

    def flat(self, images: Tensor) -> Tensor:
        """The other way round, in the kernels' precision."""
        return images.detach().permute(0, 2, 3, 1).flatten(0, 2).to(self.passes.dtype).contiguous()

    def weight(self, conv: Conv) -> Tensor:
        """A convolution's weights as PyTorch wants them, (C_out, C_in, 3, 3), as the kernels round them."""
        return self.passes._taps(conv, self.passes.weights).double().unflatten(0, (3, 3)).permute(3, 2, 0, 1)

    def scales(self, conv: Conv) -> tuple[Tensor, Tensor]:
        """γ and β of the BatchNorm behind a convolution, to be differentiated."""
        _, _, gamma, beta = self.passes._norm(conv, self.passes.sums)
        return gamma.double().requires_grad_(), beta.double().requires_grad_()

    def set_sums(self, conv: Conv, raw: Tensor, sums: Tensor, count: float) -> None:
        """What the kernel that made the convolution's output `raw` leaves for its BatchNorm."""
        total, square, _, _ = self.passes._norm(conv, sums)
        total.copy_(raw.double().sum(0) / count)
        square.copy_(raw.double().square().sum(0) / count)


def bench(channels: int, size: int, batch: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Bench:
    net = seeded(14, 0)
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # away from 1 and 0, which forgive too much
            module.weight.data = 1 + 0.2 * torch.randn(module.weight.shape, generator=generator)
            module.bias.data = 0.2 * torch.randn(module.bias.shape, generator=generator)
    images, labels = torch.zeros(1, size, size, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    data = [tensor.to(device) for tensor in (images, labels, images, labels)]
    mean, std = torch.zeros(3, device=device), torch.ones(3, device=device)
    passes = Passes(net, *data, batch=batch, hole=0, mean=mean, std=std, dtype=dtype)
    of_blocks = [conv for conv1, conv2, _ in passes.layers.blocks for conv in (conv1, conv2)]
    alike = [conv for conv in of_blocks if conv.c_in == conv.c_out == channels]
    return Bench(passes, *alike[:3])


def relative(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


def assert_alike(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor within a share of its norm."""
    assert got.keys() == want.keys()
    apart = {name: relative(got[name], tensor) for name, tensor in want.items()}
    outside = {name: value for name, value in apart.items() if not value <= tolerance}  # nor is NaN
    assert not outside, outside


# ---- forward -------------------------------------------------------------------------------------------------------


def forward(on: Bench, kind: int, train: bool) -> dict[str, Tensor]:
    """The convolution by the engine's kernel, what it has joined, and when training the sums for its BatchNorm."""
    passes, x, s = on.passes, on.normal(0), on.normal(1)
    sums = passes.sums if train else passes.test_sums
    sums.zero_()
    count = 1 if train else len(x)  # validation's are running means
    on.set_sums(on.before, x, sums, count)
    on.set_sums(on.side, s, sums, count)
    y, out = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
    if kind < JOINED_ALONE:
        passes._convolve(on.conv, x, y, passes.batch, sums, on.before if kind == NORMALISED else None)
    else:
        join = Join(on.before, x, out, None if kind == JOINED_ALONE else s, on.side if kind == JOINED_TWO else None)
        passes._convolve(on.conv, out, y, passes.batch, sums, join=join)
    total, square, _, _ = passes._norm(on.conv, sums)
    assert train or not (total.any() or square.any())
    made = {"y": y} if kind < JOINED_ALONE else {"y": y, "joined": out}
    return {**made, **({"sum": total.clone(), "square": square.clone()} if train else {})}


def forward_in_double(on: Bench, kind: int, train: bool) -> dict[str, Tensor]:
    x, s = on.images(on.normal(0)), on.images(on.normal(1))
    if kind != RAW:
        x = F.batch_norm(x, None, None, *on.scales(on.before), training=True)
        if kind > JOINED_ALONE:
            x = x + (F.batch_norm(s, None, None, *on.scales(on.side), training=True) if kind == JOINED_TWO else s)
        x = x.relu()
    y, joined = (
        images.detach().permute(0, 2, 3, 1).flatten(0, 2) for images in (F.conv2d(x, on.weight(on.conv), padding=1), x)
    )
    made = {"y": y} if kind < JOINED_ALONE else {"y": y, "joined": joined}
    return {**made, **({"sum": y.sum(0), "square": y.square().sum(0)} if train else {})}


# ---- backward ------------------------------------------------------------------------------------------------------


@dataclass
class Given:
    """What a backward kernel reads, as the forward pass and the kernels after it leave it."""

    x: Tensor
    y: Tensor
    dz: Tensor
    raw: Tensor  # the output of `before`
    side: Tensor
    add: Tensor
    gamma: Tensor  # gradients of the scales and shifts behind y
    beta: Tensor


def by_autograd(on: Bench, end: int) -> tuple[Given, dict[str, Tensor]]:
    """A backward kernel's input, and the gradients that it should make of it."""
    raw, side, add = on.normal(0), on.normal(1), on.normal(2)
    (gamma, beta), (s_gamma, s_beta), (y_gamma, y_beta) = map(on.scales, (on.before, on.side, on.conv))
    weight = on.weight(on.conv).requires_grad_()
    value = on.images(raw).requires_grad_()  # before the ReLU, where there is one
    if end != WEIGHTS_ONLY:
        value = F.batch_norm(on.images(raw), None, None, gamma, beta, training=True)
    if end == BLOCK_END:
        value = value + on.images(side)
    if end == BLOCK_END_TWO:
        value = value + F.batch_norm(on.images(side), None, None, s_gamma, s_beta, training=True)
    value.retain_grad()
    x = value if end == WEIGHTS_ONLY else value.relu()
    y = F.conv2d(x, weight, padding=1)
    z = F.batch_norm(y, None, None, y_gamma, y_beta, training=True)
    # A gradient with a mean and a share of z, which BatchNorm's backward pass takes out: a kernel must do so, too. It
    # depends on x, or all sums over pixels would cancel, and rounding has no bound as a share of what is left.
    dz = on.flat(on.images(on.normal(3)) + 0.37 * z + 0.3 + F.conv2d(x, on.weight(on.side), padding=1))
    loss = (z * on.images(dz)).sum()
    if end >= BLOCK_END:
        loss = loss + (x * on.images(add)).sum()
    loss.backward()
    made = {"weight": weight.grad}
    if end != WEIGHTS_ONLY:
        made |= {"x": value.grad, "gamma": gamma.grad, "beta": beta.grad}
    if end == BLOCK_END_TWO:
        made |= {"side gamma": s_gamma.grad, "side beta": s_beta.grad}
    want = {name: gradient for name, gradient in made.items() if gradient is not None}
    want["weight"] = want["weight"].permute(2, 3, 1, 0).flatten(0, 1)
    if end != WEIGHTS_ONLY:
        want["x"] = want["x"].permute(0, 2, 3, 1).flatten(0, 2)
    assert y_gamma.grad is not None and y_beta.grad is not None
    kernel_x = raw if end == INNER else on.flat(x)
    return Given(kernel_x, on.flat(y), dz, raw, side, add, y_gamma.grad, y_beta.grad), want


def backward(on: Bench, end: int, given: Given) -> dict[str, Tensor]:
    """The gradients by the engine's kernels."""
    passes = on.passes
    passes.gradients.zero_()
    for conv, raw in ((on.before, given.raw), (on.side, given.side), (on.conv, given.y)):
        on.set_sums(conv, raw, passes.sums, 1)
    for to, gradient in zip(passes._norm_gradient(on.conv), (given.gamma, given.beta), strict=True):
        to.copy_(gradient)
    dx = torch.full_like(given.x, torch.nan)
    if end != WEIGHTS_ONLY:
        add, side = (given.add if end >= BLOCK_END else None), end == BLOCK_END_TWO
        passes._convolve_back(
            on.conv, given.dz, given.y, given.x, dx, end, on.before, given.raw, add, on.side if side else None,
            given.side if side else None,
        )  # fmt: skip
    elif passes._has_cuda_twin(on.conv):  # both as for the stem
        passes._cuda_backward(on.conv, given.dz, given.y, given.x, dx, WEIGHTS_ONLY)
    else:
        passes._weights_kernel(on.conv, given.dz, given.y, given.x, None)
    if passes.on_gpu:
        torch.cuda.synchronize()
    made = {"weight": passes.gradient(on.conv)}
    if end != WEIGHTS_ONLY:
        gamma, beta = passes._norm_gradient(on.before)
        made |= {"x": dx, "gamma": gamma, "beta": beta}
    if end == BLOCK_END_TWO:
        gamma, beta = passes._norm_gradient(on.side)
        made |= {"side gamma": gamma, "side beta": beta}
    return {name: tensor.clone() for name, tensor in made.items()}
