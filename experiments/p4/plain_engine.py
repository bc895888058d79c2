"""The training step in plain PyTorch: the same interface as `FusedEngine`, for CPUs and as the reference on GPUs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.p4.augment import transform, untouched
from experiments.p4.resnet import ResNet, parameter_groups

TEST_BATCH = 1000


class PlainEngine:
    """Trains and evaluates a `ResNet` by autograd; see `FusedEngine` for the arguments.

    bf16 is PyTorch's autocast: weights, BatchNorm's statistics and the optimiser stay in fp32.
    """

    name = "plain"

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
        self.device, self.dtype, self.hole, self.mean, self.std = images.device, dtype, hole, mean, std
        self.images, self.labels = images, labels
        self.test_images, self.test_labels = test_images, test_labels
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.SGD(parameter_groups(self.model, weight_decay), lr=0.0, momentum=momentum)
        for p in self.model.parameters():
            self.optimiser.state[p]["momentum_buffer"] = torch.zeros_like(p)
        self.table = torch.zeros(steps, batch, 6, dtype=torch.int32, device=self.device)
        self.metrics = torch.zeros(2, device=self.device)
        self.done = 0

    def start_epoch(self, table: Tensor, rate: float) -> None:
        """Take an epoch's draws (steps, M·B, 6) and its learning rate."""
        self.table, self.done = table, 0
        self.metrics.zero_()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.model.train()

    def _logits(self, rows: Tensor, images: Tensor, hole: int) -> Tensor:
        x = transform(images, rows, hole, self.mean, self.std)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out: Tensor = self.model(x)
        return out.float()

    def step(self) -> None:
        """The epoch's next optimiser step."""
        rows = self.table[self.done]
        labels = self.labels[rows[:, 0].long()]
        logits = self._logits(rows, self.images, self.hole)
        loss = F.cross_entropy(logits, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.done += 1
        self.metrics += torch.stack([loss.detach() * len(labels), (logits.argmax(1) != labels).sum()])

    def train_metrics(self) -> tuple[float, float]:
        """Mean loss (nat) and error (fraction) over the images since the epoch's start."""
        loss, errors = (self.metrics / (max(1, self.done) * self.table.shape[1])).tolist()
        return loss, errors

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Mean loss (nat) and error (fraction) on the untouched test images, by running statistics."""
        self.model.eval()
        loss = errors = 0.0
        for rows in untouched(len(self.test_images), self.device)[0].split(TEST_BATCH):
            labels = self.test_labels[rows[:, 0].long()]
            logits = self._logits(rows, self.test_images, 0)
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            errors += (logits.argmax(1) != labels).sum().item()
        return loss / len(self.test_images), errors / len(self.test_images)

    def state(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold at an epoch's end."""
        momenta = {
            f"momentum.{name}": self.optimiser.state[p]["momentum_buffer"] for name, p in self.model.named_parameters()
        }
        return {**self.model.state_dict(), **momenta}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`. Raises ValueError when it is another network's."""
        for name, tensor in self.state().items():
            if name not in state or state[name].shape != tensor.shape:
                raise ValueError(f"the state's '{name}' does not fit this network")
            tensor.copy_(state[name])
