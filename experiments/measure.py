"""Measure this machine: the homework's jobs that it can do, one after the other, into a folder of results.

    python experiments/measure.py --dry-run                # the plan: jobs, times, and what is left out and why
    python experiments/measure.py                          # run it; again with the same folder: what is missing
    python experiments/measure.py --problems 1,2 --budget 30m --repeats 3 --device gpu --results DIR
    make report RESULTS=my-results                         # the document with this machine's runs in it

Each job is the very command that the plan shows. The times are estimates from a short probe, corrected as jobs end.
With --budget the jobs are chosen that answer most parts in that time, one repetition of everything before the second;
no job is started that would not end in it, and time that is left in the end goes to more of them. Ctrl-C ends the job
that runs and keeps those that are finished. The folder remembers the allocation, so that what is added to it later, in
the same boot, is compared with what is there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments import cli
from experiments.cli import UsageError, exit_status
from experiments.machine import settings, supervision
from experiments.measure_plan import budget, job_runs, survey
from experiments.measure_plan.homework_jobs import Job, LeftOut, plan
from experiments.store.files import ROOT, check_writable
from experiments.store.provenance import Code

EXPERIMENT = "measure"
FOLDER = ROOT / "my-results"
UNITS = {"s": 1, "m": 60, "h": 3600}
DEFAULT = {"cpu": 8 * 60.0, "gpu": 30 * 60.0}  # seconds: a laptop ends within ten minutes


def duration(text: str) -> float:
    """Seconds of 90s, 30m or 2h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is no time such as 90s, 30m or 2h")
    return float(found[1]) * UNITS[found[2]]


def arguments() -> cli.Parser:
    """The command line."""
    p = cli.Parser(EXPERIMENT, __doc__)
    p.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    p.add_argument("--problems", type=cli.listed("1", "2", "4"), default=["1", "2", "4"], metavar="N,…")
    p.add_argument("--budget", type=duration, metavar="TIME", help="90s, 30m, 2h (default 30m on GPUs, 8m on cores)")
    p.add_argument("--device", choices=["cpu", "gpu"], help="what a learner is (default: a GPU where there is one)")
    p.add_argument("--repeats", type=int, default=3, help="repetitions of a job at most (default 3)")
    p.add_argument("--results", type=cli.path, default=FOLDER, help="folder for results (default my-results)")
    p.add_argument("--probe", choices=["cpu", "gpu"], help=argparse.SUPPRESS)  # measure this machine's speed
    return p


def show(jobs: list[Job], out: list[LeftOut], results: Path) -> None:
    """Print the plan."""
    for problem in sorted({job.problem for job in jobs} | {one.problem for one in out}):
        print(f"\nProblem {problem}")
        for job in (job for job in jobs if job.problem == problem):
            print(f"  {budget.span(job.seconds):>7}  {job.command(results)}")
        for one in (one for one in out if one.problem == problem):
            print(f"  left out: {one.what}: {one.why}")
    total = budget.span(sum(job.seconds for job in jobs))
    print(f"\n{len(jobs)} jobs, about {total}; results in {results}", flush=True)


def measure(a: argparse.Namespace) -> int:
    """Plan, and run the plan; 1 where a job failed. Raises UsageError."""
    cli.check_at_least(1, a, "repeats")
    settings.clear()
    results = a.results.resolve()
    results = results.relative_to(ROOT) if results.is_relative_to(ROOT) else results
    machine = survey.survey(a.device, supervision.command(__file__, "--probe"))
    print(machine.text())
    jobs, out = plan(machine, [int(problem) for problem in a.problems])
    limit = a.budget or DEFAULT[machine.device]
    chosen, beyond = budget.choose(jobs, a.repeats, limit)
    show(chosen, out + beyond, results)
    if not chosen:
        raise UsageError("this machine can run none of these jobs; the plan says what to install")
    if a.dry_run:
        return 0
    Code.now()  # refuses early where the commit is unknown
    check_writable(ROOT / results)
    job_runs.join_go(ROOT / results)
    if line := job_runs.others(ROOT / results):
        print(line, file=sys.stderr)
    failed, unstarted = job_runs.run_all(chosen, ROOT / results, limit, jobs, a.repeats)
    for job in unstarted:
        print(f"not started, --budget is spent: {job.command(results)}")
    for job, reason in failed:
        print(f"failed: {job.what}: {reason}\n  repeat: {job.command(results)}")
    print(f"see them: make report RESULTS={results}")
    return 1 if failed else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 where a job failed, 2 for bad input, 130 for Ctrl-C."""
    a = arguments().parse_args(argv)
    if a.probe:
        print(json.dumps(asdict(survey.probe(a.probe))))
        return 0
    again = "finished jobs are kept; the same command goes on"
    return exit_status(EXPERIMENT, lambda: measure(a), again)


if __name__ == "__main__":
    sys.exit(main())
