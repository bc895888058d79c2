"""One network's batch split over several GPUs: each learner has a part of the instances, gradients are averaged.

The learners' process group must be there before an engine is made. All draw the same epoch and take their own part of
it, so that together they train on what one learner would. With synchronised BatchNorm the statistics are those of the
whole batch, forwards and backwards, and the weights are one learner's too but for rounding; with local BatchNorm each
learner normalises by its own part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from experiments.p4.activations import Activations
from experiments.p4.fused_engine import FusedEngine
from experiments.p4.packing import Conv
from experiments.p4.plain_engine import PlainEngine


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over all learners, by one all-reduce."""
    tensors = list(tensors)
    joined = torch.cat([tensor.reshape(-1) for tensor in tensors]) if len(tensors) > 1 else tensors[0]
    if dist.get_backend() == "nccl":
        dist.all_reduce(joined, dist.ReduceOp.AVG)
    else:
        dist.all_reduce(joined)
        joined /= dist.get_world_size()
    if len(tensors) > 1:
        for tensor, mean in zip(tensors, joined.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))


def part(table: Tensor) -> Tensor:
    """This learner's rows of an epoch's draws (steps, M·B, 6): its share of the instances, (steps, M·B / learners, 6).

    An instance's rows, one for each sample, follow each other, so every learner has all samples.
    """
    return table.chunk(dist.get_world_size(), dim=1)[dist.get_rank()].contiguous()


class PlainSplit(PlainEngine):
    """`PlainEngine` for one of several learners, with local BatchNorm."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.optimiser.register_step_pre_hook(
            lambda *_: average(p.grad for p in self.model.parameters() if p.grad is not None)
        )

    def start_epoch(self, table: Tensor, rate: float) -> None:
        """Take this learner's part of an epoch's draws (steps, M·B, 6), and the learning rate."""
        super().start_epoch(part(table), rate)


class FusedSplit(FusedEngine):
    """`FusedEngine` for one of several learners, with local BatchNorm; the all-reduce belongs to the step's graph."""

    MAY_START_EARLY = False  # NCCL's kernels run on a stream of their own, and a kernel cannot wait early for a stream

    def start_epoch(self, table: Tensor, rate: float) -> None:
        """Take this learner's part of an epoch's draws (steps, M·B, 6), and the learning rate."""
        super().start_epoch(part(table), rate)

    def _launch_gradients(self) -> None:
        super()._launch_gradients()
        self._rejoin()
        average([self.gradients])


class SynchronisedSplit(FusedSplit):
    """`FusedSplit` with BatchNorm over the whole batch: an all-reduce for each BatchNorm, forwards and backwards.

    Sums are replaced by their means over learners and counts stay a learner's own, so that their ratios are those of
    the whole batch. Only Bessel's correction of the running variance keeps to a learner's count n: it is n/(n−1).
    """

    def _convolve(self, conv: Conv, x: Tensor, y: Tensor, images: int, sums: Tensor, *more: Any, **named: Any) -> None:
        super()._convolve(conv, x, y, images, sums, *more, **named)
        if sums is self.sums:
            average(self._norm(conv, sums)[:2])

    def _downsample(
        self, conv: Conv, projection: Conv, x: Tensor, y: Tensor, s: Tensor, images: int, sums: Tensor
    ) -> None:
        super()._downsample(conv, projection, x, y, s, images, sums)
        if sums is self.sums:
            average(total for norm in (conv, projection) for total in self._norm(norm, sums)[:2])

    def _head_kernel(self, net: tuple, sums: Tensor, h: Tensor, metrics: Tensor, train: bool) -> None:
        super()._head_kernel(net, sums, h, metrics, train)
        if train:
            average(self._norm_gradient(self.layers.blocks[-1][1]))

    def _convolve_back(
        self, conv: Conv, dz: Tensor, y: Tensor, x: Tensor, dx: Tensor, end: int, before: Conv, x_raw: Tensor,
        add: Tensor | None = None, side: Conv | None = None, s_raw: Tensor | None = None,
    ) -> None:  # fmt: skip
        super()._convolve_back(conv, dz, y, x, dx, end, before, x_raw, add, side, s_raw)
        # The kernel has summed up the gradients of the BatchNorms in front of it.
        norms = [before] if side is None else [before, side]
        average(gradient for norm in norms for gradient in self._norm_gradient(norm))

    def _downsample_back(
        self, conv: Conv, projection: Conv, act: Activations, before: Conv, previous: Activations
    ) -> None:
        super()._downsample_back(conv, projection, act, before, previous)
        average(self._norm_gradient(before))
