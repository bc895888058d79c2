"""Problem 4.1: images before and after cutout (DeVries & Taylor 2017, §3), by the training's own code.

    python experiments/p4_images.py --data-dir ~/data

writes two test images before and after several cutout draws to results/p4_images/, and the share of an image that
many draws masked to results/p4_masked_area/.
"""

from __future__ import annotations

import io
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

# Before PyTorch: this package removes variables that would pin threads.
from experiments.cli import Parser, UsageError, exit_status, path

# isort: split
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from experiments.machine.device_names import cpu_name
from experiments.p4 import augment, cifar10, datasets
from experiments.store import parquet
from experiments.store.files import RESULTS, check_writable
from experiments.store.provenance import Code, provenance, run_id

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = torch.tensor(cifar10.MEAN), torch.tensor(cifar10.STD)
STEPS, INSTANCES = 50, 4000  # 200,000 draws of a hole, in pieces that fit a small memory


def png(image: np.ndarray) -> bytes:
    """An (S, S, 3) uint8 image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def shares(images: Tensor, rows: Tensor) -> Tensor:
    """Masked share of each instance, (k,): cutout writes exact zeros, which no normalised pixel is."""
    return (augment.transform(images, rows, augment.HOLE, MEAN, STD) == 0).all(dim=1).float().mean(dim=(1, 2))


def draw(data: cifar10.Cifar, indices: list[int], draws: int, seed: int) -> pd.DataFrame:
    """Rows of `p4_images`: test images as they are (draw 0) and after each of `draws` cutouts, without crop and flip.

    The hole is shown in the mean colour, which is what zero stands for after normalising.
    """
    images = torch.from_numpy(np.ascontiguousarray(data.test_images[indices]))
    side = images.shape[1]
    rows = augment.draw_epoch(len(indices), side, len(indices), draws, "none", seed, "cpu")[0]
    out = augment.transform(images, rows, augment.HOLE, MEAN, STD).permute(0, 2, 3, 1)
    pixels = (out * STD + MEAN).mul(255).round().clamp(0, 255).to(torch.uint8).numpy()
    table: list[dict[str, Any]] = []
    for k, index in enumerate(indices):
        common = {"dataset": data.name, "index": index, "label": CLASSES[int(data.test_labels[index])]}
        original = {"draw": 0, "centre_y": None, "centre_x": None, "masked_share": 0.0, "png": png(images[k].numpy())}
        table.append(common | original)
        mine = [i for i, row in enumerate(rows.tolist()) if row[augment.INDEX] == k]
        for number, i in enumerate(mine, start=1):
            hole = {"centre_y": int(rows[i, augment.CENTRE_Y]), "centre_x": int(rows[i, augment.CENTRE_X])}
            share = float(shares(images, rows[i : i + 1]))
            table.append(common | hole | {"draw": number, "masked_share": share, "png": png(pixels[i])})
    frame = pd.DataFrame(table)
    return frame.astype({"centre_y": "Int64", "centre_x": "Int64"})


def measure(side: int, seed: int, steps: int, instances: int) -> pd.DataFrame:
    """The row of `p4_masked_area`: mean and standard error of the masked share, with the training's own draws."""
    blank = torch.full((1, side, side, 3), 255, dtype=torch.uint8)
    table = augment.draw_epoch(steps * instances, side, instances, 1, "cutout", seed, "cpu")
    table[..., augment.INDEX] = 0
    found = torch.cat([shares(blank, rows) for rows in table]).double()
    return pd.DataFrame(
        [
            {
                "length": augment.HOLE,
                "side": side,
                "draws": len(found),
                "mean_share": float(found.mean()),
                "standard_error": float(found.std()) / math.sqrt(len(found)),
            }
        ]
    )


def arguments() -> Parser:
    """The command line."""
    p = Parser("p4_images", __doc__)
    p.add_argument("--images", type=int, nargs="+", default=[6, 16], help="which test images (default 6 and 16)")
    p.add_argument("--draws", type=int, default=4, help="cutouts of each image (default 4)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--data", choices=("cifar10", "synthetic"), default="cifar10")
    p.add_argument("--data-dir", type=path, help="folder with CIFAR-10 (default: the variable DLPERF_DATA)")
    p.add_argument("--results", type=path, default=RESULTS, help="where results go (default results/)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 2 for bad input."""
    a = arguments().parse_args(argv)

    def work() -> int:
        started = datetime.now(UTC)
        code = Code.now()
        check_writable(a.results)
        data = datasets.load(a.data_dir, a.data)
        last = len(data.test_images) - 1
        if len(set(a.images)) < len(a.images) or not all(0 <= i <= last for i in a.images):
            raise UsageError(f"--images needs different numbers from 0 to {last}, not {' '.join(map(str, a.images))}")
        if a.draws < 1 or a.seed < 0:
            raise UsageError(f"--draws must be at least 1 and --seed at least 0, not {a.draws} and {a.seed}")
        side = data.test_images.shape[1]
        shown = {"dataset": data.name, "images": a.images, "draws": a.draws, "seed": a.seed}
        area = {"length": augment.HOLE, "side": side, "draws": STEPS * INSTANCES, "seed": a.seed}
        for experiment, slug, config, frame in (
            ("p4_images", f"{data.name}-s{a.seed}", shown, draw(data, a.images, a.draws, a.seed)),
            ("p4_masked_area", f"L{augment.HOLE}-s{a.seed}", area, measure(side, a.seed, STEPS, INSTANCES)),
        ):
            origin = provenance(
                experiment,
                run_id(slug, config),
                config,
                seed=a.seed,
                device=cpu_name(),
                started=started,
                code=code,
            )
            print(parquet.write(frame, origin, results=a.results))
        return 0

    return exit_status("p4_images", work)


if __name__ == "__main__":
    sys.exit(main())
