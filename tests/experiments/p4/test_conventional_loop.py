"""experiments.p4.conventional_loop: it does the training code's work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.p4 import augment, cifar10, conventional_loop


def test_the_transform_is_the_training_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both, given the same draws, make the same instance."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    mean, std = torch.tensor(cifar10.MEAN), torch.tensor(cifar10.STD)
    for seed in range(50):
        row = augment.draw_epoch(1, 32, 1, 1, "cutout", seed, "cpu")[0]
        _, top, left, flip, centre_y, centre_x = row[0].tolist()
        draws = iter([torch.tensor([left, top]), torch.tensor(centre_y), torch.tensor(centre_x)])
        monkeypatch.setattr(torch, "randint", lambda *_, draws=draws: next(draws))
        monkeypatch.setattr(torch, "rand", lambda *_, flip=flip: torch.tensor(0.0 if flip else 1.0))
        got = conventional_loop.instance(Image.fromarray(pixels))
        monkeypatch.undo()
        want = augment.transform(torch.from_numpy(pixels)[None], row, augment.HOLE, mean, std)[0]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
