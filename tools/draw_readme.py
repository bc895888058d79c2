"""Draw README's picture, Problem 1's speed-up on the committed machines, as the report draws it.

    python tools/draw_readme.py    # or: make readme

The picture carries a digest of the rows that it shows, by which a test notices that it is older than they.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import json
from typing import Any

from experiments.cli import Parser, UsageError, exit_status
from experiments.store import checksums
from experiments.store.files import ROOT, write_atomically
from report import show, vega
from report.answers import Missing
from report.figures import horovod, horovod_runs

PICTURE = ROOT / "report" / "speedup.svg"


def specification() -> dict[str, Any]:
    """The figure's Vega-Lite specification. Raises UsageError without runs to show."""
    show.setup()
    figure = horovod.fig_p1_scaling(horovod_runs.load())
    if isinstance(figure, Missing):
        raise UsageError(f"no runs to show; make some: {figure.command}")
    return show.specification(figure)


def digest(spec: dict[str, Any]) -> str:
    """SHA-256 of the rows that a figure shows, whatever their order and the figure's look."""
    rows = sorted(json.dumps(row, sort_keys=True) for rows in spec["datasets"].values() for row in rows)
    return checksums.of_bytes("\n".join(rows).encode())


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when the picture is drawn."""
    Parser("draw_readme", __doc__).parse_args(argv)

    def work() -> int:
        spec = specification()
        note = f"<!-- rows: sha256 {digest(spec)} -->\n"
        write_atomically(PICTURE, f"{vega.svg(spec)}\n{note}".encode())
        print(PICTURE)
        return 0

    return exit_status("draw_readme", work)


if __name__ == "__main__":
    sys.exit(main())
