"""A whole training step of a CIFAR ResNet as a few fused Triton kernels, replayed as one CUDA graph.

ResNet-44 on 32×32 images is bound by memory traffic for large batches and by kernel launches for small ones, so
the step reads and writes each tensor as rarely as BatchNorm's global statistics allow:

- a convolution stores its raw output and, in its epilogue, sums what BatchNorm needs; normalisation and ReLU are
  applied by the next kernel while it loads, so normalised activations between two convolutions never exist in
  memory;
- backward, one kernel forms BatchNorm's input gradient while loading, makes the gradients of the convolution's input
  and of its weights from the same loaded tile, applies the ReLU mask and sums what the BatchNorm before it needs;
- pooling, classifier, loss and their gradients are one kernel, the optimiser another.

Activations are NHWC in bf16 or fp32; sums, weights and gradients of weights are fp32. Everything that a step needs
lies on the device, so a step is a replay. Sums use fp32 atomics: two runs agree to rounding, not bit for bit.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from experiments.p4 import triton_backward
from experiments.p4.augment import untouched
from experiments.p4.fused_passes import Passes
from experiments.p4.resnet import ResNet

BN_MOMENTUM = 0.1


class FusedEngine(Passes):
    """Trains and evaluates a `ResNet` on one device through fused kernels; the same interface as `PlainEngine`.

    images, test_images: (n, S, S, 3) uint8; labels: (n,) int64; all on `device`. `instances`·`batch_size` images
    make a step. Raises ValueError for a network whose last block has a projection shortcut (depth 8).
    """

    name = "fused"

    def __init__(
        self,
        model: ResNet,
        images: Tensor,
        labels: Tensor,
        test_images: Tensor,
        test_labels: Tensor,
        *,
        batch: int,
        steps: int,
        hole: int,
        mean: Tensor,
        std: Tensor,
        dtype: torch.dtype,
        weight_decay: float,
        momentum: float,
    ) -> None:
        data = (images, labels, test_images, test_labels)
        super().__init__(model, *data, batch=batch, hole=hole, mean=mean, std=std, dtype=dtype)
        self.weight_decay, self.momentum = weight_decay, momentum
        self.table = torch.zeros(steps, batch, 6, dtype=torch.int32, device=self.device)
        self.step_count = torch.zeros(1, dtype=torch.int32, device=self.device)
        self.rate = torch.zeros(1, device=self.device)
        self.metrics_buffer = torch.zeros(2, device=self.device)
        self.test_table = untouched(len(test_images), self.device)
        self.zero = torch.zeros(1, dtype=torch.int32, device=self.device)
        self.test_metrics = torch.zeros(2, device=self.device)
        self.step_graph: torch.cuda.CUDAGraph | None = None
        self.test_graph: torch.cuda.CUDAGraph | None = None
        if self.on_gpu:
            self._capture()

    def _launch_gradients(self) -> None:
        h = self._forward(self.train_net, self.sums, self.table, self.step_count, train=True)
        self._head_kernel(self.train_net, self.sums, h, self.metrics_buffer, train=True)
        self._backward()

    def _launch_step(self) -> None:
        self._launch_gradients()
        size = self.parameters.numel()
        triton_backward.optimise[(triton.cdiv(size, 1024),)](
            self.parameters, self.gradients, self.momenta, self.weights, self.packed, size, self.pack_order,
            self.rate, size, self.bias_at, DECAY=self.weight_decay, MOMENTUM=self.momentum, ELEMENTS=1024,
            **self._rejoin(),
        )  # fmt: skip
        triton_backward.finish[(triton.cdiv(self.channels, 128),)](
            self.sums, self.counts, self.running, self.step_count, self.channels, MOMENTUM=BN_MOMENTUM, CHANNELS=128,
            **self._start(),
        )  # fmt: skip

    def _launch_test(self) -> None:
        self.test_metrics.zero_()
        self.test_sums[0].copy_(self.running[0])
        torch.addcmul(self.running[1], self.running[0], self.running[0], out=self.test_sums[1])
        h = self._forward(self.test_net, self.test_sums, self.test_table, self.zero, train=False)
        self._head_kernel(self.test_net, self.test_sums, h, self.test_metrics, train=False)

    def _capture(self) -> None:
        """Compile the kernels by one run of everything, put the state back, record both graphs."""
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._launch_step()
            self._launch_test()
        torch.cuda.current_stream().wait_stream(stream)
        self.step_graph, self.test_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.step_graph):
            self._launch_step()
        with torch.cuda.graph(self.test_graph):
            self._launch_test()
        torch.cuda.synchronize()
        self.load_state(before)
        self.metrics_buffer.zero_()
        self.step_count.zero_()

    def start_epoch(self, table: Tensor, rate: float) -> None:
        """Take an epoch's draws (steps, M·B, 6) and its learning rate."""
        self.table.copy_(table)
        self.step_count.zero_()
        self.rate.fill_(rate)
        self.metrics_buffer.zero_()

    def step(self) -> None:
        """The epoch's next optimiser step."""
        if self.step_graph is not None:
            self.step_graph.replay()
        else:
            self._launch_step()

    def train_metrics(self) -> tuple[float, float]:
        """Mean loss (nat) and error (fraction) over the images since the epoch's start."""
        images = max(1, int(self.step_count.item())) * self.batch
        loss, errors = self.metrics_buffer.tolist()
        return loss / images, errors / images

    def evaluate(self) -> tuple[float, float]:
        """Mean loss (nat) and error (fraction) on the untouched test images, by running statistics."""
        if self.test_graph is not None:
            self.test_graph.replay()
        else:
            self._launch_test()
        loss, errors = self.test_metrics.tolist()
        return loss / len(self.test_images), errors / len(self.test_images)

    def state(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold at an epoch's end."""
        return {"parameters": self.parameters, "momenta": self.momenta, "running": self.running}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`. Raises ValueError when it is another network's."""
        for name, tensor in self.state().items():
            if name not in state or state[name].shape != tensor.shape:
                raise ValueError(f"the state's '{name}' does not fit this network")
            tensor.copy_(state[name])
        self._cast()
        self.gradients.zero_()
        self.sums.zero_()
