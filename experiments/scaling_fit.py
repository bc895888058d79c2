"""Fit the step-time model of derivations/scaling.py to throughputs, and predict points that the fit has not seen.

    python experiments/scaling_fit.py                       published series, and measured ones of Problems 1 and 2
    python experiments/scaling_fit.py --references my.csv   any series in the same form

A learner that computes b images in a step spends on each of them

    τ(p, b) = c + o/b + s·k(p)/b        seconds,        and p learners do p/τ images a second.

c, o and s ≥ 0 are fitted: computation, overhead and exposed communication. Throughputs can't distinguish hidden
communication from fast communication, so s is the exposed part. How communication grows, k(p), depends on the cost that
dominates it: a ring's bandwidth, a ring's latency or a tree (`derivations.scaling.growth`). A few points don't reveal
which, so all three are fitted. The first predicts: fitted to even fewer points, it came nearest to the largest fitted
ones. The errors of all three forms and of their mean are stored ("choice"). The interval is a bootstrap over both noise
and forms, each form weighted by how well it explains the fitted points.

The points of up to 4 learners are fitted; a series' largest point is always predicted. A series of 1 and N learners
alone borrows its exposed communication from one on the same machine in another precision. Nothing is fitted for GPUs
whose all-reduce was timed by itself (experiments/allreduce.py): that time and one GPU's step predict those of several.
"""

from __future__ import annotations

import hashlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import pandas as pd

from experiments.cli import Parser, UsageError, exit_status, path
from experiments.scaling import projection, published
from experiments.scaling.fit import LEVEL
from experiments.scaling.predictions import EXPERIMENT, by_link, predictions
from experiments.scaling.series import measured
from experiments.store import parquet
from experiments.store.files import RESULTS, check_writable
from experiments.store.provenance import Code


def run(path: Path, level: float, draws: int, seed: int, results: Path) -> Path:
    """Fit, predict and write; a fit of the same name replaces that of earlier inputs.

    Raises UsageError for bad input, store.SchemaError for bad results.
    """
    if not 0 < level < 1 or draws < 100:
        raise UsageError("--level must lie between 0 and 1, and --draws be at least 100")
    code = Code.now()
    check_writable(results)
    started = datetime.now(UTC)
    frame = published.load(path)
    extra, runs = measured(results)
    linked, link_runs = by_link(results)
    frame_rows = pd.DataFrame(predictions(frame, extra, level, draws, seed) + linked)
    if frame_rows.empty:
        raise UsageError(f"{path}: nothing can be predicted; a series needs 1 learner and two larger numbers of them")
    settings = {"references": path.name, "level": level, "draws": draws, "seed": seed}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config: dict[str, Any] = settings | {"references_sha256": digest, "measured_runs": sorted({*runs, *link_runs})}
    shown = ["series", "method", "role", *projection.SHOWN, "error"]
    written = projection.write(EXPERIMENT, path.stem, frame_rows, shown, config, started, code, results)
    for old in set(written.parent.glob("*.parquet")) - {written}:
        earlier = parquet.run(old).provenance.config
        if {key: earlier.get(key) for key in settings} == settings:
            # The same fit of earlier inputs: readers would take both for one result.
            old.unlink()
            old.with_suffix(".log").unlink(missing_ok=True)
    return written


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 2 for bad input."""
    parser = Parser("scaling_fit", (__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--references", type=path, default=published.SOURCE, metavar="CSV", help="published series to fit"
    )
    parser.add_argument("--level", type=float, default=LEVEL, help="coverage of the intervals (default %(default)s)")
    parser.add_argument("--draws", type=int, default=2000, help="bootstrap draws (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=path, default=RESULTS, help="folder of the results store")
    a = parser.parse_args(argv)

    def work() -> int:
        print(run(a.references, a.level, a.draws, a.seed, a.results))
        return 0

    return exit_status("scaling_fit", work, "earlier results are as they were")


if __name__ == "__main__":
    sys.exit(main())
