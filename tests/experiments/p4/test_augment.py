"""Augmentation: the table of draws, and its vectorised application against a pixel-by-pixel one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from derivations import cutout
from experiments.p4 import augment

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])


def images(n: int = 20, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)


def slowly(image: np.ndarray, row: list[int], hole: int) -> np.ndarray:
    """One instance as the papers describe it: pad, crop, flip, normalise, cut out."""
    _, top, left, flip, centre_y, centre_x = row
    size = len(image)
    padded = np.zeros((size + 8, size + 8, 3))
    padded[4:-4, 4:-4] = image
    out = padded[top : top + size, left : left + size]
    out = out[:, ::-1] if flip else out
    out = (out / 255 - MEAN.numpy()) / STD.numpy()
    for y in range(size):
        for x in range(size):
            if hole and -hole // 2 <= y - centre_y < hole // 2 and -hole // 2 <= x - centre_x < hole // 2:
                out[y, x] = 0
    return out


@pytest.mark.parametrize("kind", augment.KINDS)
def test_transform_does_what_the_papers_describe(kind: str) -> None:
    data = images()
    table = augment.draw_epoch(20, 32, 5, 2, kind, seed=3, device="cpu")
    hole = augment.hole_side(kind)
    got = augment.transform(data, table[1], hole, MEAN, STD).permute(0, 2, 3, 1).numpy()
    want = np.stack([slowly(data[row[0]].numpy(), row.tolist(), hole) for row in table[1]])
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_no_augmentation_draws_a_new_order_alone() -> None:
    rows = augment.draw_epoch(20, 32, 20, 1, "none", seed=3, device="cpu")[0]
    in_order = rows[rows[:, augment.INDEX].argsort()]
    data = images()
    got = augment.transform(data, in_order, augment.hole_side("none"), torch.zeros(3), torch.ones(3))
    torch.testing.assert_close(got.permute(0, 2, 3, 1) * 255, data.float())
    assert not torch.equal(rows, in_order)


def test_only_cutout_has_a_hole() -> None:
    assert {kind: augment.hole_side(kind) for kind in augment.KINDS} == {"none": 0, "basic": 0, "cutout": 16}


def test_an_epoch_shows_each_sample_of_its_full_batches_m_times() -> None:
    table = augment.draw_epoch(samples=23, size=32, batch_size=5, instances=3, kind="cutout", seed=1, device="cpu")
    assert table.shape == (4, 15, 6)  # 23 // 5 steps of 3·5 instances
    index = table[..., augment.INDEX]
    counts = torch.bincount(index.flatten(), minlength=23)
    assert sorted(counts.tolist()) == [0] * 3 + [3] * 20  # three samples are left over
    for step in index.view(4, 3, 5):
        assert (step == step[0]).all()  # the instances of a batch are of the same samples


def test_draws_cover_their_ranges_and_nothing_else() -> None:
    table = augment.draw_epoch(2000, 32, 50, 2, "cutout", seed=0, device="cpu")
    for column, last in ((augment.TOP, 8), (augment.LEFT, 8), (augment.FLIP, 1), (augment.CENTRE_Y, 31)):
        assert table[..., column].unique().tolist() == list(range(last + 1))
    assert not torch.equal(table[..., augment.TOP], table[..., augment.LEFT])


def test_instances_of_a_sample_differ() -> None:
    table = augment.draw_epoch(640, 32, 64, 2, "basic", seed=0, device="cpu").view(10, 2, 64, 6)
    same = (table[:, 0, :, 1:4] == table[:, 1, :, 1:4]).all(-1).float().mean()
    assert same < 0.03  # by chance 1 in 9·9·2


def test_an_epoch_follows_from_its_seed_alone() -> None:
    def draw(seed: int) -> torch.Tensor:
        return augment.draw_epoch(100, 32, 10, 2, "cutout", seed, "cpu")

    first = draw(augment.epoch_seed(0, 1))
    torch.rand(5)  # the global generator plays no part
    assert torch.equal(first, draw(augment.epoch_seed(0, 1)))
    seeds = {augment.epoch_seed(seed, epoch) for seed in range(5) for epoch in range(100)}
    assert len(seeds) == 500
    assert not torch.equal(first, draw(augment.epoch_seed(0, 2)))
    assert not torch.equal(first, draw(augment.epoch_seed(1, 1)))


def test_untouched_leaves_every_image_as_it_is_and_in_order() -> None:
    data = images(7)
    got = augment.transform(data, augment.untouched(7, "cpu")[0], 0, torch.zeros(3), torch.ones(3))
    torch.testing.assert_close(got.permute(0, 2, 3, 1) * 255, data.float())


def test_the_mean_masked_share_is_the_derived_one() -> None:
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    rows = augment.draw_epoch(20_000, 32, 20_000, 1, "cutout", seed=0, device="cpu")[0]
    rows[:, augment.INDEX] = 0
    rows[:, [augment.TOP, augment.LEFT]] = 4  # no black border
    masked = (augment.transform(white, rows, 16, MEAN, STD)[:, 0] == 0).double().mean((1, 2))
    error = masked.std() / len(masked) ** 0.5
    assert abs(masked.mean() - float(cutout.masked_share(16, 32))) < 4 * error
