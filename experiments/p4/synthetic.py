"""A stand-in for CIFAR-10 that needs no data and is never shown as CIFAR-10."""

from __future__ import annotations

import numpy as np

from experiments.p4.cifar10 import Batch, Cifar

# Directions of the gratings' stripes, as vectors of length 16: 0°, 22.5°, 45°, 67.5°, 90°.
_DIRECTIONS = np.array([(16, 0), (15, 6), (11, 11), (6, 15), (0, 16)])
_PERIODS = np.array([80, 128])  # of the stripes, in sixteenths of a pixel


def synthetic(seed: int = 0, train: int = 5_000, test: int = 1_000) -> Cifar:
    """A deterministic, offline, learnable stand-in of CIFAR-10's form: striped blobs of colour in noise.

    The class, 5·period + direction, shows in the stripes alone; phase, tints, place of the blob and noise are drawn.
    Slanted stripes lean either way, so that a horizontal flip keeps the class. Raw PCG64 words and integer arithmetic
    give the same bytes on every machine and NumPy version.
    """
    bits = np.random.PCG64(seed)

    def draw(*shape: int) -> np.ndarray:
        """Uniform bytes as int32."""
        words = bits.random_raw(-(-int(np.prod(shape)) // 8)).astype("<u8")
        return words.view(np.uint8)[: int(np.prod(shape))].reshape(shape).astype(np.int32)

    def part(count: int) -> Batch:
        labels = np.arange(count) % 10
        labels = labels[np.argsort(bits.random_raw(count), kind="stable")]
        y, x = np.mgrid[:32, :32]
        images = np.empty((count, 32, 32, 3), np.uint8)
        for i, label in enumerate(labels):
            phase, mirrored, cy, cx, *tints = draw(10)
            dx, dy = _DIRECTIONS[label % 5]
            period = _PERIODS[label // 5]
            position = (x * (-dx if mirrored % 2 else dx) + y * dy + phase) % period
            wave = np.abs(2 * position - period) * 64 // period - 32  # a triangle from -32 to 32
            near = np.clip(20 * 20 - (x - 8 - cx // 16) ** 2 - (y - 8 - cy // 16) ** 2, 0, None)  # 0 .. 400
            colour = 64 + np.array(tints[:3]) // 2
            depth = np.array(tints[3:]) - 128
            stripes = (wave * near)[:, :, None] * depth // (400 * 48)
            noise = (draw(32, 32, 3) - 128) // 3
            images[i] = np.clip(colour + stripes + noise, 0, 255)
        return Batch(images, labels.astype(np.int64))

    first, second = part(train), part(test)
    return Cifar("synthetic", first.images, first.labels, second.images, second.labels, f"synthetic, seed {seed}")
