"""The throughput benchmark runs, its peers do the same work, and its ratios are computed window by window."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import conventional, p4_throughput
from experiments import augment, cifar


def test_ratios_pair_windows() -> None:
    assert p4_throughput.ratios([10, 20, 30], [5, 5, 10]) == [2, 4, 3]
    assert p4_throughput.spread([2, 4, 3], "{:.1f}") == "3.0 (2.0–4.0)"


def test_the_table_has_a_line_for_each_m(monkeypatch: pytest.MonkeyPatch) -> None:
    data = cifar.synthetic(seed=0, train=64, test=16)
    monkeypatch.setattr(cifar, "load", lambda data_dir, dataset: data)
    monkeypatch.setattr(p4_throughput, "COPY_BYTES", 1 << 24)
    monkeypatch.setattr(p4_throughput, "ROUNDS", 1)
    monkeypatch.setattr(conventional, "WARM_UP_STEPS", 1)
    lines: list[str] = []
    arguments = ["--M", "1", "--batch-size", "8", "--seconds", "0.01", "--device", "cpu", "--workers", "0"]
    assert p4_throughput.main([*arguments, "--data", "synthetic"], lines.append) == 0
    assert len(lines) == 3
    ours, eager, peer = (float(n.replace(",", "")) for n in re.findall(r"\| ([\d,]+) \(", lines[2])[:3])
    assert min(ours, eager, peer) > 0


def test_bad_input_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert p4_throughput.main(["--M", "0", "--data", "synthetic", "--device", "cpu"], lambda line: None) == 2
    assert "--M must be at least 1" in capsys.readouterr().err


def test_the_conventional_transform_is_the_training_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both, given the same draws, make the same instance."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    mean, std = torch.tensor(cifar.MEAN), torch.tensor(cifar.STD)
    for seed in range(20):
        row = augment.draw_epoch(1, 32, 1, 1, "cutout", seed, "cpu")[0]
        _, top, left, flip, centre_y, centre_x = row[0].tolist()
        draws = iter([torch.tensor([left, top]), torch.tensor(centre_y), torch.tensor(centre_x)])
        monkeypatch.setattr(torch, "randint", lambda *_, draws=draws: next(draws))
        monkeypatch.setattr(torch, "rand", lambda *_, flip=flip: torch.tensor(0.0 if flip else 1.0))
        got = conventional.instance(Image.fromarray(pixels))
        monkeypatch.undo()
        want = augment.transform(torch.from_numpy(pixels)[None], row, augment.HOLE, mean, std)[0]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
