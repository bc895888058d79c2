"""Check the stored runs: schema, hashes, provenance, ledger, plausibility, and logs against rows.

    python tools/verify_results.py              # or: make verify
    python tools/verify_results.py --manifest   # list all files' hashes anew, after new runs; or: make manifest

Exit status 1 names each run that fails. Suspicious ones are named as well, and fail nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments.cli import Parser, exit_status
from experiments.store import checksums, evidence, suspicious
from experiments.store.files import RESULTS


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when all is well, 1 when a run fails, 2 for bad input."""
    parser = Parser("verify_results", __doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="which results (default results/)")
    parser.add_argument("--manifest", action="store_true", help=f"write {checksums.MANIFEST} and check nothing")
    a = parser.parse_args(argv)

    def work() -> int:
        if a.manifest:
            print(f"{checksums.write_manifest(a.results)} files listed in {a.results / checksums.MANIFEST}")
            return 0
        verdict = evidence.verify(a.results)
        for run, check, what in verdict.problems:
            print(f"{run}: {check}: {what}")
        for check in evidence.CHECKS:
            failed = len({run for run, of, _ in verdict.problems if of == check})
            print(f"{check:13} {verdict.checked[check]:4} of {verdict.runs} runs checked, {failed} failed")
        for experiment, flag in verdict.suspicious:
            print(f"suspicious: {experiment}/{flag.run}: {suspicious.told(flag)}")
        for note in verdict.notes:
            print(f"note: {note}")
        return 1 if verdict.problems else 0

    return exit_status("verify_results", work)


if __name__ == "__main__":
    sys.exit(main())
