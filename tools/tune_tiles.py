"""Time each fused kernel with each tile on this GPU, to find the entries of `fused_passes.TILES`.

    python tools/tune_tiles.py --M 1 8 32

Kernels are first compiled in parallel processes, then timed one at a time, each as the median of graph replays.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import torch
import triton

from experiments.cli import Parser
from experiments.p4 import augment, fused_passes
from experiments.p4.activations import INNER
from experiments.p4.fused_engine import FusedEngine
from experiments.p4.resnet import seeded

TILE_PIXELS = {
    "forward": (64, 128, 256), "backward": (32, 64, 128), "weights": (32, 64, 128),
    "downsample": (32, 64, 128), "downsample back": (16, 32, 64),
}  # fmt: skip
KERNELS = list(fused_passes.TILES)
WARPS = (4, 8)
PER_PROCESSOR = (1, 2, 4, 8)


def engine(batch: int, steps: int = 4, dtype: torch.dtype = torch.bfloat16, depth: int = 44) -> FusedEngine:
    """An engine on random images: timing does not depend on their content."""
    generator = torch.Generator("cuda").manual_seed(0)
    images = torch.randint(0, 256, (4096, 32, 32, 3), dtype=torch.uint8, device="cuda", generator=generator)
    labels = torch.randint(0, 10, (4096,), device="cuda", generator=generator)
    made = FusedEngine(
        seeded(depth, 0), images, labels, images[:1000], labels[:1000], batch=batch, steps=steps, hole=16,
        mean=torch.full((3,), 0.5, device="cuda"), std=torch.full((3,), 0.25, device="cuda"), dtype=dtype,
        weight_decay=1e-4, momentum=0.9,
    )  # fmt: skip
    table = augment.draw_epoch(steps * batch, 32, batch, 1, "cutout", 0, "cuda") % 4096
    made.start_epoch(table, 0.01)
    return made


def launcher(made: FusedEngine, kind: str, width: int) -> Callable[[], None]:
    """A call that launches a representative kernel: of a stage's first block, or of the first that keeps its shape."""
    starts = kind.startswith("downsample")
    i = next(i for i, (c1, _, s) in enumerate(made.layers.blocks) if c1.c_out == width and (s is not None) == starts)
    (conv1, conv2, projection), act = made.layers.blocks[i], made.train_net[5][i]
    assert act.dz is not None and act.dz1 is not None
    dz, dz1 = act.dz, act.dz1
    if projection is not None:
        before, previous, side = made.layers.blocks[i - 1][1], made.train_net[5][i - 1], act.shortcut
        assert side is not None
        if kind == "downsample":
            return lambda: made._downsample(conv1, projection, previous.out, act.y1, side, made.batch, made.sums)
        return lambda: made._downsample_back(conv1, projection, act, before, previous)
    if kind == "forward":
        return lambda: made._convolve(conv2, act.y1, act.y2, made.batch, made.sums, conv1)
    if kind == "backward":
        return lambda: made._input_kernel(conv2, dz, act.y2, act.y1, dz1, INNER, conv1, act.y1)
    return lambda: made._weights_kernel(conv2, dz, act.y2, act.y1, conv1)


def configurations(kind: str) -> list[tuple[int, int]]:
    return list(itertools.product(TILE_PIXELS[kind], WARPS))


def compile_all(kind: str, width: int) -> None:
    """Fill Triton's cache for one kernel: each configuration launched once."""
    made = engine(64)
    for tile, warps in configurations(kind):
        fused_passes.TILES[kind, width] = (tile, warps, 1)
        launcher(made, kind, width)()
    torch.cuda.synchronize()


def main() -> None:
    p = Parser("tune_tiles", __doc__)
    p.add_argument("--M", type=int, nargs="+", default=[1, 8, 32])
    p.add_argument("--only", metavar="KIND", choices=list(TILE_PIXELS), help="one kind of kernel, e.g. downsample")
    p.add_argument("--compile", nargs=2, metavar=("KIND", "WIDTH"), help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.compile:
        compile_all(a.compile[0], int(a.compile[1]))
        return
    a.kernels = [one for one in KERNELS if a.only in (None, one[0])]
    engine(64)  # compile the step's kernels once, before processes race for them
    jobs = [subprocess.Popen([sys.executable, __file__, "--compile", kind, str(width)]) for kind, width in a.kernels]
    if any([job.wait() for job in jobs]):
        sys.exit("tune_tiles: a kernel did not compile; see above")
    for m in a.M:
        made = engine(64 * m)
        for kind, width in a.kernels:
            usual, found = fused_passes.TILES[kind, width], []
            for (tile, warps), per in itertools.product(configurations(kind), PER_PROCESSOR):
                fused_passes.TILES[kind, width] = (tile, warps, per)
                launch = launcher(made, kind, width)
                found.append((1e3 * triton.testing.do_bench_cudagraph(launch, rep=4), (tile, warps, per)))
            fused_passes.TILES[kind, width] = usual
            best = "  ".join(f"{us:.1f} {t}" for us, t in sorted(found)[:4])
            used = dict((t, us) for us, t in found).get(usual)
            print(f"M={m:2d} {kind:15s} {width:2d}: {best}   in use: {usual} {used or float('nan'):.1f} µs", flush=True)


if __name__ == "__main__":
    main()
