"""What an all-reduce costs: its time for vectors of 1 KiB to 1 GiB, from which the scaling model's α and β follow.

    python experiments/allreduce.py --backend nccl --learners 2
    python experiments/allreduce.py --backend gloo --learners 2 --gbit 10

starts one process per learner, times all-reduces of float32 by torch.distributed, and writes
results/allreduce/<run-id>.parquet, one row per window, and its log. NCCL's learners have one GPU each, Gloo's have
their own cores. With --gbit, learners alternate between two hosts (experiments/machine/hosts.py) behind links of that
speed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

# Before PyTorch: this package removes variables that would pin threads.
from experiments.cli import Parser, UsageError, check_at_least, check_positive, exit_status, path

# isort: split
import pandas as pd
import torch
import torch.distributed as dist
from tqdm import tqdm

from experiments.machine import supervision
from experiments.machine.cores import core_sets
from experiments.machine.device_names import cpu_name
from experiments.machine.hosts import INTERFACE, Hosts
from experiments.machine.processes import OWN_RANK, Processes
from experiments.scaling.allreduce_learner import ITEM, MOST_LEARNERS, Config, learn
from experiments.store import parquet
from experiments.store.claims import claimed
from experiments.store.files import RESULTS, temporary_folder
from experiments.store.provenance import Code, provenance, timed_id

EXPERIMENT = "allreduce"
LEARNER = "--learner"  # makes this process a learner
GIB = 1 << 30
WINDOW = "window "  # starts a learner's line about a window
LINGER = 1.0  # s until learners are killed; they leave nothing to clean up
ENVIRONMENT = ("NCCL_", "TORCH_NCCL_", "GLOO_")


def arguments() -> Parser:
    """The command line."""
    p = Parser(EXPERIMENT, __doc__)
    p.add_argument("--backend", choices=("nccl", "gloo"), required=True)
    p.add_argument("--learners", type=int, default=2, help="processes that sum their vectors (default 2)")
    p.add_argument("--min-bytes", type=int, default=1 << 10, help="smallest vector, a power of two (default 1 KiB)")
    p.add_argument("--max-bytes", type=int, default=GIB, help="largest vector, a power of two (default 1 GiB)")
    p.add_argument("--windows", type=int, default=5, help="measurements of each size (default 5)")
    p.add_argument("--window-seconds", type=float, default=0.2, help="about how long each lasts (default 0.2)")
    p.add_argument("--threads", type=int, default=1, help="cores of a Gloo learner (default 1)")
    p.add_argument("--oversubscribe", action="store_true", help="let Gloo's learners share cores where there are few")
    p.add_argument("--gbit", type=float, help="Gloo on two hosts, each sending at most so many Gbit/s; needs root")
    p.add_argument("--repeat", type=int, default=1, help="which repetition this is; each is stored (default 1)")
    p.add_argument("--results", type=path, default=RESULTS, help="where results go (default results/)")
    return p


def learner(config: dict[str, Any], rank: int, rendezvous: str) -> int:
    """A learner's process; rank 0 prints a line for each window."""

    def say(message: dict[str, Any]) -> None:
        print(WINDOW + json.dumps(message), flush=True)

    try:
        learn(Config(**config), rank, rendezvous, say)
    except Exception as error:
        text = " ".join(str(error).partition("\nException raised from")[0].split())  # the rest is a C++ stack trace
        lost = "by peer" in text  # another learner has failed
        print(f"{'' if lost else EXPERIMENT + ': '}learner {rank}: {text[:1000] or type(error).__name__}", flush=True)
        os._exit(1)  # destructors may wait for other learners
    return 0


# ---- all learners --------------------------------------------------------------------------------------------------


def configure(a: argparse.Namespace) -> Config:
    """Refuse what can't run. Raises UsageError."""
    if not 2 <= a.learners <= MOST_LEARNERS:
        raise UsageError(f"--learners must be 2 to {MOST_LEARNERS}, not {a.learners}")
    for name in ("min_bytes", "max_bytes"):
        value = getattr(a, name)
        if value < ITEM or value & (value - 1):
            raise UsageError(
                f"--{name.replace('_', '-')} must be a power of two of at least {ITEM} (a float32), not {value}"
            )
    if a.min_bytes > a.max_bytes:
        raise UsageError(f"--min-bytes {a.min_bytes} is more than --max-bytes {a.max_bytes}")
    check_at_least(1, a, "windows", "threads", "repeat")
    check_positive(a, "window_seconds", "gbit")
    if a.backend == "nccl":
        if a.gbit is not None or a.oversubscribe or a.threads != 1:
            raise UsageError("--gbit, --threads and --oversubscribe are for --backend gloo; NCCL's learners have GPUs")
        gpus = torch.cuda.device_count() if dist.is_nccl_available() else 0
        if a.learners > gpus:
            raise UsageError(f"--backend nccl needs a GPU for each learner: {a.learners} of them, PyTorch sees {gpus}")
        room = 0.9 * min(torch.cuda.get_device_properties(i).total_memory for i in range(gpus))
        device = torch.cuda.get_device_name()
    else:
        core_sets(a.learners, a.threads, a.oversubscribe)
        # Gloo's ring keeps a receive buffer beside the vector.
        room = available_memory() / a.learners / 2
        device = cpu_name()
    if a.max_bytes > room:
        raise UsageError(
            f"--max-bytes {a.max_bytes}: {a.learners} learners have room for vectors of {room / GIB:.1f} GiB each; "
            "use a smaller one"
        )
    environment = {name: value for name, value in sorted(os.environ.items()) if name.startswith(ENVIRONMENT)}
    if a.gbit is not None:
        environment["GLOO_SOCKET_IFNAME"] = INTERFACE
    return Config(
        a.backend,
        a.learners,
        1 if a.gbit is None else 2,
        a.gbit,
        a.threads,
        a.oversubscribe,
        a.min_bytes,
        a.max_bytes,
        a.windows,
        a.window_seconds,
        device,
        environment,
        a.repeat,
    )


def available_memory() -> int:
    """Bytes that new processes can have without swapping."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def collect(c: Config, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run the learners to their end; returns rank 0's windows. Raises UsageError, or RunError if one fails."""
    said, log = list[dict[str, Any]](), list[str]()

    def listen(line: str) -> None:
        if not line.startswith(WINDOW):
            log.append(line)
            return
        said.append(json.loads(line.removeprefix(WINDOW)))
        bar.update()
        if said[-1]["window"] == c.windows:
            say(summary(c, said[-c.windows :]))

    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(c.sizes) * c.windows, desc="windows", leave=False, disable=None))
        folder = stack.enter_context(temporary_folder(EXPERIMENT))
        hosts = None if c.gbit is None else stack.enter_context(Hosts(c.hosts, c.gbit, ssh=False))
        processes = stack.enter_context(Processes(listen, LINGER))
        for rank in range(c.learners):
            job = {"config": vars(c), "rank": rank, "rendezvous": f"{folder}/rendezvous"}
            command = supervision.command(__file__, LEARNER, json.dumps(job))
            if hosts:
                command = hosts.command(hosts.names[rank % c.hosts], command)
            processes.start(command, c.environment | {OWN_RANK: str(rank)})
        failed = processes.wait()
    if failed is not None:
        raise supervision.failure(EXPERIMENT, f"learner {failed[0]}", failed[1], log)
    return said


def bus_bandwidth(learners: int, size: Any, seconds: Any) -> Any:
    """Byte/s that each link of a ring carries: every learner sends 2(p−1)/p of ``size`` bytes. Numbers or series."""
    return 2 * (learners - 1) / learners * size / seconds


def summary(c: Config, windows: Sequence[dict[str, Any]]) -> str:
    """A line about the windows of one size."""
    size, iterations = windows[0]["bytes"], windows[0]["iterations"]
    seconds = statistics.median(w["seconds"] for w in windows)
    rate = bus_bandwidth(c.learners, size, seconds)
    return f"{size:>11,} bytes  {1e6 * seconds:12,.1f} µs  bus {rate / 1e9:8.3f} GB/s  {iterations} iterations a window"


def rows(c: Config, said: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The windows as rows of the schema."""
    frame = pd.DataFrame(said).assign(
        backend=c.backend,
        learners=c.learners,
        hosts=c.hosts,
        device_kind="gpu" if c.backend == "nccl" else "cpu",
        gbit=float("nan") if c.gbit is None else c.gbit,
        threads=c.threads,
    )
    return frame.assign(
        algorithm_bandwidth=frame.bytes / frame.seconds,
        bus_bandwidth=bus_bandwidth(c.learners, frame.bytes, frame.seconds),
    )


def run(c: Config, results: Path) -> Path:
    """Measure and write; returns the results file. Raises UsageError and RunError."""
    code = Code.now()
    name, started, log = timed_id(c.slug, vars(c)), datetime.now(UTC), list[str]()

    def say(line: str) -> None:
        log.append(line)
        tqdm.write(line, file=sys.stderr)

    with claimed(parquet.path_of(EXPERIMENT, name, results)):
        say(f"{started:%Y-%m-%dT%H:%M:%SZ} {name} on {c.device}")
        frame = rows(c, collect(c, say))
        origin = provenance(
            EXPERIMENT,
            name,
            vars(c),
            seed=None,
            device=c.device,
            device_count=c.learners if c.backend == "nccl" else 1,
            started=started,
            code=code,
        )
        return parquet.write(frame, origin, log="\n".join(log) + "\n", results=results)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 for a failed run, 2 for bad input, 130 for Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == [LEARNER]:
        return learner(**json.loads(argv[1]))
    a = arguments().parse_args(argv)

    def work() -> int:
        path = run(configure(a), a.results)
        print(path)
        from experiments.store import suspicious  # only now: what it loads is no source of the run

        suspicious.warn([path])
        return 0

    return exit_status("allreduce", work)


if __name__ == "__main__":
    sys.exit(main())
