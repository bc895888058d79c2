"""What a good engineer writes today: PyTorch's compiler around the plain step, replayed as one CUDA graph.

Channels-last activations in bf16 by autocast, augmentation on the device, forward and backward pass compiled together
with the loss, PyTorch's fused SGD. All that a step needs lies on the device, so that a step is a replay, as
`FusedEngine`'s is; but every kernel here is the compiler's or cuDNN's choice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.p4.plain_engine import PlainEngine

# The compiler times its own kernels against cuDNN's. The graph is captured here: it holds the optimiser as well.
COMPILER: dict[str, Any] = {"mode": "max-autotune-no-cudagraphs"}
WARM_UP_STEPS = 3  # before the capture: the first compiles and tunes, cuDNN's search ends with it


class CompiledEngine(PlainEngine):
    """`PlainEngine` with a compiled step, on a GPU captured as one CUDA graph; validation and state are inherited."""

    name = "compiled"

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.step_count = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.rate = torch.zeros((), device=self.device)
        for group in self.optimiser.param_groups:
            group.update(lr=self.rate, fused=True)
        torch.compiler.reset()  # engines of other batches count against the compiler's limit of versions
        self.compiled = torch.compile(self._loss, fullgraph=True, dynamic=False, **COMPILER)
        self.graph: torch.cuda.CUDAGraph | None = None
        if self.device.type == "cuda":
            self._capture()

    def _loss(self) -> Tensor:
        """The mean loss of the epoch's next batch; counts the step and its metrics."""
        rows = self.table.index_select(0, self.step_count)[0]
        labels = self.labels[rows[:, 0].long()]
        logits = self._logits(rows, self.images, self.hole)
        loss = F.cross_entropy(logits, labels)
        with torch.no_grad():
            self.metrics.add_(torch.stack([loss * len(labels), (logits.argmax(1) != labels).sum()]))
            self.step_count.add_(1)
        return loss

    def _launch_step(self) -> None:
        self.compiled().backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _capture(self) -> None:
        """Compile and tune by a few steps, record one, put the state back."""
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        self.model.train()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self.step_count.zero_()  # an epoch may be shorter
                self._launch_step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._launch_step()
        torch.cuda.synchronize()
        self.graph = graph
        self.load_state(before)
        self.step_count.zero_()
        self.metrics.zero_()

    def start_epoch(self, table: Tensor, rate: float) -> None:
        """Take an epoch's draws (steps, M·B, 6) and its learning rate."""
        self.table.copy_(table)
        self.rate.fill_(rate)
        self.step_count.zero_()
        self.metrics.zero_()
        self.done = 0
        self.model.train()

    def step(self) -> None:
        """The epoch's next optimiser step."""
        if self.graph is not None:
            self.graph.replay()
        else:
            self._launch_step()
        self.done += 1
