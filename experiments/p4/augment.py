"""Data augmentation per instance: crop and flip (He et al. 2015, §4.2), then cutout (DeVries & Taylor 2017, §3).

Batch augmentation (Hoffer et al. 2020, §2) transforms each of the B samples of a batch M times. All random
choices of an epoch are drawn at once on the device, from a generator seeded by (seed, epoch) alone, so a run
that resumes at an epoch's start sees the very numbers that an uninterrupted run sees.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

PAD = 4
HOLE = 16  # side of cutout's square on CIFAR-10 (DeVries & Taylor 2017, §4.1)
KINDS = ("none", "basic", "cutout")
# Columns of an epoch's table of draws, one row an instance.
INDEX, TOP, LEFT, FLIP, CENTRE_Y, CENTRE_X = range(6)


def epoch_seed(seed: int, epoch: int) -> int:
    """A 63-bit seed for an epoch's generator; nearby seeds and epochs give unrelated streams."""
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_epoch(
    samples: int, size: int, batch_size: int, instances: int, kind: str, seed: int, device: torch.device | str
) -> Tensor:
    """Draw an epoch's random choices: (steps, M·B, 6) int32, columns as named above.

    Row m·B + b of a step is instance m of the batch's sample b; `samples // batch_size` full batches are drawn
    without replacement, as Hoffer et al.'s loader drops the rest. `size` is the image side in pixels.
    """
    generator = torch.Generator(device).manual_seed(seed)
    steps = samples // batch_size

    def uniform(high: int) -> Tensor:
        shape = (steps, instances * batch_size)
        return torch.randint(high, shape, generator=generator, device=device, dtype=torch.int32)

    order = torch.randperm(samples, generator=generator, device=device)[: steps * batch_size]
    index = order.int().view(steps, 1, batch_size).expand(steps, instances, batch_size).reshape(steps, -1)
    moves = [uniform(2 * PAD + 1), uniform(2 * PAD + 1), uniform(2)]
    centres = [uniform(size), uniform(size)]
    if kind == "none":
        moves = [torch.full_like(moves[0], PAD), torch.full_like(moves[1], PAD), torch.zeros_like(moves[2])]
    return torch.stack([index, *moves, *centres], dim=-1)


def untouched(samples: int, device: torch.device | str) -> Tensor:
    """The table (1, samples, 6) that leaves every image as it is, in order: for validation."""
    table = torch.zeros(1, samples, 6, dtype=torch.int32, device=device)
    table[0, :, INDEX] = torch.arange(samples, device=device)
    table[0, :, [TOP, LEFT]] = PAD
    return table


def hole_side(kind: str) -> int:
    """Side of the cutout square in pixels, 0 for none."""
    return HOLE if kind == "cutout" else 0


def transform(images: Tensor, rows: Tensor, hole: int, mean: Tensor, std: Tensor) -> Tensor:
    """Apply one step's draws: images (n, S, S, 3) uint8, rows (k, 6) → (k, 3, S, S) float32, channels last.

    Order as in Hoffer et al.'s code: zero-padded crop, flip, normalise, then a zero-filled square whose centre may
    be any pixel, clipped at the border. `mean` and `std` are per channel, in units of the full range.
    """
    size = images.shape[1]
    pixel = torch.arange(size, device=images.device)
    index, top, left, flip, centre_y, centre_x = rows.long().unbind(-1)
    y = pixel + top[:, None] - PAD
    x = torch.where(flip[:, None].bool(), size - 1 - pixel, pixel) + left[:, None] - PAD
    inside = ((y >= 0) & (y < size))[:, :, None] & ((x >= 0) & (x < size))[:, None, :]
    out = images[index[:, None, None], y.clamp(0, size - 1)[:, :, None], x.clamp(0, size - 1)[:, None, :]]
    out = (out * inside[..., None]).float().div_(255).sub_(mean).div_(std)
    if hole:
        in_y = (pixel >= centre_y[:, None] - hole // 2) & (pixel < centre_y[:, None] + hole // 2)
        in_x = (pixel >= centre_x[:, None] - hole // 2) & (pixel < centre_x[:, None] + hole // 2)
        out = out.masked_fill_((in_y[:, :, None] & in_x[:, None, :])[..., None], 0)
    return out.permute(0, 3, 1, 2)
