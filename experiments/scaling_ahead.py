"""Predict images/s of more GPUs from those measured: at numbers of learners that have not been run yet.

    python experiments/scaling_ahead.py --learners 4,8

The step-time model of derivations/scaling.py is fitted to Problems 1 and 2's GPUs in results/. Weak and strong scaling
of a setting, from one allocation, are fitted together: an image's computation, a step's overhead and the all-reduce's
exposed part are the same in both. Run this and commit its results before the larger job runs: the job then tests a
prediction that could not know the outcome. A series needs one GPU and one larger number of them.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import pandas as pd

from experiments import cli
from experiments.cli import Parser, UsageError, exit_status, path
from experiments.scaling import projection
from experiments.scaling.ahead import ahead, measured_gpus
from experiments.store.files import RESULTS
from experiments.store.provenance import Code

EXPERIMENT = "scaling_ahead"


def run(numbers: list[int], seed: int, results: Path) -> Path:
    """Predict and write. Raises UsageError for bad input, store.SchemaError for bad results."""
    code, started = Code.now(), datetime.now(UTC)
    points, runs = measured_gpus(results)
    rows = pd.DataFrame(ahead(points, numbers, seed=seed))
    if rows.empty or not (rows.role == "projected").any():
        raise UsageError(f"{results} has no series of 1 GPU and another number of them below {max(numbers)}")
    config: dict[str, Any] = {"learners": numbers, "seed": seed, "measured_runs": runs}
    label = "ahead-" + "-".join(map(str, numbers))
    shown = ["series", "role", *projection.SHOWN]
    return projection.write(EXPERIMENT, label, rows, shown, config, started, code, results)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 2 for bad input."""
    parser = Parser(EXPERIMENT, (__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--learners", type=cli.listed(), default=[4, 8], metavar="N,…", help="numbers of GPUs (default 4,8)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=path, default=RESULTS, help="folder of the results store")
    a = parser.parse_args(argv)

    def work() -> int:
        cli.check_at_least(1, a, "learners")
        print(run(a.learners, a.seed, a.results))
        return 0

    return exit_status(EXPERIMENT, work, "earlier results are as they were")


if __name__ == "__main__":
    sys.exit(main())
