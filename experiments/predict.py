"""Predict the speed and cost of more learners from runs measured here. A projection: it stores nothing.

    python experiments/predict.py --from my-results --learners 8
    python experiments/predict.py --from my-results --learners 2,4,8,16 --link 100gbit --price 2.5

The step of several learners is one learner's step plus an all-reduce: the folder's own, measured in the same
allocation, or that of a network of speed --link. The homework's job is Problem 2's: ten epochs of 60,000 images. Lines
below the table give the method's error where the larger jobs were run.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments import cli
from experiments.cli import UsageError, exit_status
from experiments.machine.device_names import short_name
from experiments.measure_plan.budget import span
from experiments.scaling import outlook, published
from experiments.store.files import RESULTS

EXPERIMENT = "predict"


def gbit(text: str) -> float:
    """Gbit/s of 100gbit."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)gbit", text.lower())
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"'{text}' is no speed such as 25gbit or 100gbit")
    return float(found[1])


def arguments() -> cli.Parser:
    """The command line."""
    p = cli.Parser(EXPERIMENT, __doc__)
    p.add_argument("--from", dest="folder", type=cli.path, default=RESULTS, help="folder of results (default results/)")
    p.add_argument("--learners", type=cli.listed(), default=[2, 4, 8, 16], metavar="N,…", help="default 2,4,8,16")
    p.add_argument("--link", type=gbit, metavar="SPEED", help="100gbit: a network (default: the measured all-reduce)")
    p.add_argument("--price", type=float, metavar="USD", help="of an hour of one learner's device")
    return p


def table(found: list[outlook.Projected]) -> list[str]:
    """The projection, a line for each number of learners."""
    lines = [f"{'learners':>8}  {'images/s':>28}  {'efficiency':>10}  {'time':>7}  {'cost':>9}  {'measured':>9}"]
    for p in found:
        number = f"{p.rate:,.0f}" if p.rate >= 100 else f"{p.rate:.1f}"
        within = f"({p.low:,.0f}–{p.high:,.0f})" if p.rate >= 100 else f"({p.low:.1f}–{p.high:.1f})"
        cost = "–" if p.cost is None else f"${p.cost:,.2f}"
        seen = "–" if p.measured is None else f"{p.measured:,.0f}" if p.measured >= 100 else f"{p.measured:.1f}"
        rates = f"{number} {within}"
        time = span(3600 * p.hours)
        lines.append(f"{p.learners:8d}  {rates:>28}  {p.efficiency:10.1%}  {time:>7}  {cost:>9}  {seen:>9}")
    return lines


def predict(a: argparse.Namespace) -> int:
    """Print the projection. Raises UsageError for bad input, or a folder without what it needs."""
    cli.check_at_least(1, a, "learners")
    cli.check_positive(a, "price")
    if not a.folder.is_dir():
        raise UsageError(f"--from {a.folder}: there is no such folder")
    own = outlook.series(a.folder)
    link = outlook.given_link(a.link) if a.link else outlook.measured_link(a.folder, own.allocation)
    if link is None:
        raise UsageError(
            f"{a.folder} has no all-reduce of the allocation of these runs; give --link 100gbit, or run "
            "python experiments/measure.py --problems 1"
        )
    committed = outlook.on_committed(RESULTS)
    found = outlook.project(own, link, a.learners, outlook.most_promised(committed), a.price)
    print(f"PROJECTION from one learner: {own.name}, {own.batch:g} images a step, on {short_name(own.device)}")
    print(f"all-reduce: {link.source}; time and cost: ten epochs of 60,000 images, on as many devices\n")
    print("\n".join(table(found)))
    print("\npredicted against measured, by the same method:")
    for line in outlook.errors_text(committed, outlook.on_published(published.load()), found):
        print(f"  {line}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 2 for bad input."""
    a = arguments().parse_args(argv)
    return exit_status(EXPERIMENT, lambda: predict(a), "nothing was written", "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
