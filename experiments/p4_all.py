"""Problem 4's trainings, one on each GPU at a time: those that the document needs and the folder of results lacks.

    python experiments/p4_all.py --dry-run           # which, as far as the results so far decide it
    python experiments/p4_all.py                     # run them; again with the same folder: what is missing
    python experiments/p4_all.py --parts shortest    # of M = 1, 4, 8 and 32, the shortest schedule that reaches 94 %

Each is the very command that it shows, in a process of its own. All belong to one allocation. What is stored for this
GPU model by the sources as they are isn't run again. Ctrl-C, and --minutes, end all of them with a checkpoint, from
which the same command goes on.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments import cli
from experiments.cli import exit_status

# isort: split
from tqdm import tqdm

from experiments.machine import allocation, child_script, nvidia
from experiments.p4 import datasets, wanted
from experiments.p4.training import Config, device_name, resolved
from experiments.p4.wanted import BATCH, DEPTH, Training
from experiments.store import parquet
from experiments.store.files import RESULTS, ROOT, check_writable
from experiments.store.provenance import Code, run_id

EXPERIMENT, SCRIPT = "p4_all", "experiments/p4_cutout.py"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def arguments() -> cli.Parser:
    """The command line."""
    p = cli.Parser(EXPERIMENT, __doc__)
    parts = cli.listed(*wanted.PARTS)
    p.add_argument("--parts", type=parts, default=list(wanted.PARTS), metavar="NAME,…", help=", ".join(wanted.PARTS))
    p.add_argument("--seeds", type=int, default=3, help="of each training (default 3)")
    p.add_argument("--minutes", type=float, help="start nothing after this long, and end what runs, with checkpoints")
    p.add_argument("--dry-run", action="store_true", help="print what would run, run nothing")
    p.add_argument("--device", default="auto", help="auto | cpu | cuda (default auto)")
    p.add_argument("--data", choices=("cifar10", "synthetic"), default="cifar10")
    p.add_argument("--data-dir", type=cli.path, help="folder with CIFAR-10 (default: the variable DLPERF_DATA)")
    p.add_argument("--results", type=cli.path, default=RESULTS, help="where results go (default results/)")
    return p


class StoppedError(Exception):
    """The other lanes end as well."""


class Lanes:
    """Trainings side by side, each lane on a device of its own, until none is left or the time is over."""

    def __init__(self, parts: list[str], seeds: int, base: Config, results: Path, data_dir: Path | None) -> None:
        self._parts, self._seeds, self._base = parts, seeds, base
        self._results, self._data_dir = results, data_dir
        self._running, self._over = set[Training](), set[Training]()  # over: failed, or stopped with a checkpoint
        self._doing = dict[str, str]()  # by device: what it trains, and how far it is
        self._bar = tqdm(bar_format="{desc}", leave=False, disable=None)
        self._change, self._stop = threading.Condition(), threading.Event()
        self._ends, self._error = math.inf, list[Exception]()
        self.failed = list[tuple[Training, str]]()

    def config(self, one: Training) -> Config:
        """What p4_cutout.py makes of a training's options here."""
        return replace(self._base, **one._asdict())

    def lowest(self) -> dict[Training, float]:
        """The lowest error (%) of each training that is stored for this device by today's sources."""
        device, found = device_name(self._base), {}
        for path in parquet.files(self._results, "p4_cutout"):
            run, rows = parquet.read_run(path)
            origin = run.provenance
            one = Training(**{name: origin.config[name] for name in Training._fields})
            if origin.device == device and parquet.finished(path, vars(self.config(one))):
                found[one] = 100 * float(rows.val_error.min())
        return found

    def missing(self) -> list[Training]:
        """What the results lack, of what they decide so far."""
        return wanted.wanted(self._parts, self._seeds, self.lowest())

    def command(self, one: Training, *more: str) -> list[str]:
        """The words of a training's command after `python`, with --resume where it has a checkpoint."""
        c = self.config(one)
        folder = ROOT if self._results == RESULTS else self._results
        resume = ["--resume"] if (folder / "checkpoints" / f"{run_id(c.slug, vars(c))}.ckpt").exists() else []
        words = [SCRIPT, *one.words(), "--device", c.device, "--data", c.dataset, *resume, *more]
        words += ["--data-dir", str(self._data_dir)] if self._data_dir else []
        return [*words, "--results", str(self._results)]

    def run(self, devices: list[str], minutes: float | None) -> None:
        """Run all that is wanted, a lane on each device (GPUs as CUDA_VISIBLE_DEVICES names them).

        What goes wrong in a lane, other than a training that fails, ends all and is raised.
        """
        self._ends = math.inf if minutes is None else time.monotonic() + 60 * minutes
        lanes = [threading.Thread(target=self._lane, args=(device,)) for device in devices]
        try:
            for lane in lanes:
                lane.start()
            while any(lane.is_alive() for lane in lanes):
                time.sleep(0.1)  # a join would keep signals waiting
        finally:
            self._stop.set()
            with self._change:
                self._change.notify_all()
            for lane in lanes:
                lane.join()
            self._bar.close()
        if self._error:
            raise self._error[0]

    def _lane(self, device: str) -> None:
        try:
            self._trainings(device)
        except StoppedError:
            pass
        except Exception as error:
            self._error.append(error)
            self._stop.set()

    def _trainings(self, device: str) -> None:
        while (one := self._next()) is not None:
            start = time.monotonic()
            left = [] if math.isinf(self._ends) else ["--minutes", f"{max(self._ends - start, 0.1) / 60:.4f}"]
            own = {VISIBLE: device} if self._base.device == "cuda" else {}
            self._say(f"{device}: {shlex.join(one.words())}")
            reason = child_script.run(self.command(one, *left), partial(self._listen, device, one), own)
            with self._change:
                self._running.remove(one)
                lowest = self.lowest().get(one)
                if lowest is None:
                    self._over.add(one)
                if reason is not None:
                    self.failed.append((one, reason))
                self._change.notify_all()
            self._show(device, "")
            end = f"lowest error {lowest:.2f} %" if lowest is not None else "stopped with a checkpoint"
            self._say(f"{device}: {shlex.join(one.words())}: {reason or end}, {time.monotonic() - start:.0f} s")

    def _next(self) -> Training | None:
        """The next training, marked as running; waits where those that run may want another one. None at the end."""
        with self._change:
            while not self._stop.is_set() and time.monotonic() < self._ends:
                one = next((one for one in self.missing() if one not in self._running | self._over), None)
                if one is not None:
                    self._running.add(one)
                    return one
                if not self._running:
                    return None
                self._change.wait(5.0)  # till one ends, or the time is over
        return None

    def _listen(self, device: str, one: Training, done: str) -> None:
        if self._stop.is_set():
            raise StoppedError
        self._show(device, f"{device}: M = {one.M}{done}")

    def _show(self, device: str, doing: str) -> None:
        with self._change:
            self._doing[device] = doing
            self._bar.set_description_str(" | ".join(text for _, text in sorted(self._doing.items()) if text))

    def _say(self, line: str) -> None:
        tqdm.write(f"{EXPERIMENT}: {line}", file=sys.stderr)
        sys.stderr.flush()


def work(a: argparse.Namespace) -> int:
    """Run the trainings; 1 where one failed. Raises UsageError."""
    cli.check_at_least(1, a, "seeds")
    cli.check_positive(a, "minutes")
    base = resolved(Config(a.data, "cutout", 1, BATCH, wanted.CAP, "authors", "auto", "auto", DEPTH, a.device, 0))
    lanes = Lanes(a.parts, a.seeds, base, a.results.resolve(), a.data_dir)
    if a.dry_run:
        for one in (found := lanes.missing()):
            print(shlex.join(["python", *lanes.command(one)]))
        print(f"{len(found)} trainings; what the search for the shortest schedule asks for next depends on them")
        return 0
    datasets.load(a.data_dir, a.data)  # refuses early where there is none, or no commit, or no room
    Code.now()
    check_writable(a.results)
    allocation.token()
    lanes.run(nvidia.gpus() if base.device == "cuda" else ["cpu"], a.minutes)
    for one, reason in lanes.failed:
        print(f"failed: {reason}\n  repeat: {shlex.join(['python', *lanes.command(one)])}")
    print(f"{len(lanes.lowest())} trainings are stored in {a.results}; {len(lanes.missing())} still wanted")
    return 1 if lanes.failed else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 where a training failed, 2 for bad input, 130 for Ctrl-C."""
    a = arguments().parse_args(argv)
    return exit_status(EXPERIMENT, lambda: work(a), "finished trainings are kept; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
