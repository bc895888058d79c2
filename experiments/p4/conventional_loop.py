"""The conventional CIFAR-10 training loop, as a peer to compare throughput with.

What Hoffer et al. (2020)'s published code does, written plainly: worker processes of a DataLoader transform every
sample on the CPU with PIL, M times over, and one ResNet-44 trains on the stacked batch of M·B images in eager fp32
(PyTorch's defaults, which let cuDNN's convolutions use TF32).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from experiments.p4 import cifar10
from experiments.p4.resnet import resnet44

PAD, HOLE = 4, 16  # pixels
WINDOWS = 5
WARM_UP_STEPS = 10

_MEAN = torch.tensor(cifar10.MEAN).view(3, 1, 1)
_STD = torch.tensor(cifar10.STD).view(3, 1, 1)


def instance(image: Image.Image) -> Tensor:
    """One random instance of a 32×32 image: crop of the padded image, flip, normalise, cutout; (3, 32, 32) float32."""
    width, height = image.size
    left, top = torch.randint(0, 2 * PAD + 1, (2,)).tolist()
    image = ImageOps.expand(image, PAD).crop((left, top, left + width, top + height))
    if torch.rand(()) < 0.5:
        image = ImageOps.mirror(image)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
    pixels = (pixels - _MEAN) / _STD
    y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
    pixels[:, max(0, y - HOLE // 2) : y + HOLE // 2, max(0, x - HOLE // 2) : x + HOLE // 2] = 0
    return pixels


class Instances(Dataset[tuple[Tensor, int]]):
    """Item i is M random instances of training image i, (M, 3, 32, 32) float32, and its label."""

    def __init__(self, data: cifar10.Cifar, M: int) -> None:
        self.images, self.labels, self.M = data.train_images, data.train_labels, M

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[i])
        return torch.stack([instance(image) for _ in range(self.M)]), int(self.labels[i])


def images_per_second(
    data: cifar10.Cifar, M: int, batch_size: int, device: str, seconds: float, workers: int, windows: int = WINDOWS
) -> list[float]:
    """Augmented images (M per sample) trained on per second, for each window of `seconds`/`windows` after warm-up.

    A window ends with the first step that fills it, and with the device idle.
    """
    target = torch.device(device)
    model = resnet44().to(target)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        Instances(data, M),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=target.type == "cuda",
        persistent_workers=workers > 0,
    )

    def epochs() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    batches = epochs()

    def step() -> None:
        images, labels = next(batches)
        images = images.to(target, non_blocking=True).flatten(0, 1)
        labels = labels.to(target, non_blocking=True).repeat_interleave(M)
        loss = F.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def now() -> float:
        if target.type == "cuda":
            torch.cuda.synchronize(target)
        return time.perf_counter()

    # Each worker has up to two batches ready by the time of the first step; the windows must see the steady state.
    for _ in range(WARM_UP_STEPS + 2 * workers):
        step()
    rates = []
    for _ in range(windows):
        start, steps = now(), 0
        while not steps or time.perf_counter() - start < seconds / windows:
            step()
            steps += 1
        rates.append(steps * M * batch_size / (now() - start))
    return rates
