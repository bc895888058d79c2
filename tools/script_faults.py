"""Kills of the scripts that write results, at random moments: what is torn, lost, or left behind of each."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from tqdm import tqdm

from experiments.store import parquet
from experiments.store.files import ROOT

MARK = "DLPERF_FAULTS"  # an environment variable by which all that a script has started is found
PATIENCE = 30.0  # s that what a killed script has started may take to end
TIMES = ["train_seconds", "val_seconds", "wall_seconds", "setup_seconds", "started", "ended"]  # differ between runs
# Problem 4's scripts on few images, with shallow networks, eager, and a checkpoint after every epoch.
SMALL = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
import torch
from experiments.p4 import compiled_engine, conventional_loop, datasets, each_m
from experiments.p4.resnet import seeded
from experiments.p4.synthetic import synthetic
small = synthetic(seed=0, train=96, test=40)
datasets.load = lambda place, name: small
conventional_loop.resnet44, each_m.DEPTH, compiled_engine.COMPILER = lambda: seeded(14, 0), 14, {"disable": True}
torch.set_num_threads(1)
script = importlib.import_module(f"experiments.{sys.argv[2]}")
script.CHECKPOINT_SECONDS = 0
sys.exit(script.main(sys.argv[3:]))
"""


class Script(NamedTuple):
    """A script, its smallest job, and what must be installed for it."""

    name: str
    words: str
    needs: tuple[str, ...] = ()
    small: bool = False  # one of Problem 4's, on few images
    root: bool = False
    ends: tuple[int, ...] = (0,)  # exit statuses of a run that came to its end


P1 = "--learners 2 --framework torch --model tiny --image-size 32 --batch-size 4 --epochs 2 --steps-per-epoch 3"
SUMS = "--backend gloo --learners 2 --oversubscribe --windows 2 --window-seconds 0.05 --max-bytes 16384"
P2 = "--network tiny --data synthetic --base 16 --learners 2 --oversubscribe --epochs 2"
P4 = "--data synthetic --depth 14 --batch-size 16 --device cpu"
SCRIPTS = [
    Script("p4_cutout", f"{P4} --epochs 6 --resume", small=True),
    Script("allreduce", SUMS),
    Script("p4_images", "--data synthetic --images 0 --draws 1", small=True),
    Script("allreduce", f"{SUMS} --gbit 1", root=True),
    Script("p1_horovod", f"{P1} --warm-up 1 --oversubscribe", ("horovod",)),
    Script("p2_strategy", P2, ("tensorflow",)),
    Script("p2_input", "--network tiny --data synthetic --steps 2 --windows 1 --write", ("tensorflow",), ends=(0, 1)),
    Script("p3_crosscheck", "--max-layers 1 --kernels 3"),
    Script("p4_split", f"{P4} --M 2 --learners 2 --epochs 1 --batch-size 2500"),
    Script("p4_throughput", "--data synthetic --M 2 --batch-size 8 --windows 2 --turns 1 --seconds 0.04 --device cpu "
           "--workers 0 --write", small=True),
    Script("scaling_fit", "--draws 100"),
    Script("scaling_ahead", "--learners 8"),
    Script("measure", "--problems 1 --device cpu --repeats 1 --budget 90s"),
]  # fmt: skip
SHORT = SCRIPTS[:2]


def usable(scripts: list[Script]) -> list[Script]:
    """Those that this machine can run."""
    here = [one for one in scripts if all(importlib.util.find_spec(name) for name in one.needs)]
    return [one for one in here if os.geteuid() == 0 or not one.root]


class Place:
    """A folder in which a script runs, with results and temporary files of its own."""

    def __init__(self, script: Script, folder: Path) -> None:
        self.script, self.results, self.temporary = script, folder / "results", folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.said = folder / "said"  # a file, since a pipe would stay open in whatever runs on
        if script.name == "scaling_ahead":  # which predicts from measured runs
            shutil.copytree(ROOT / "results" / "p1_horovod", self.results / "p1_horovod")
            shutil.copytree(ROOT / "results" / "p2_strategy", self.results / "p2_strategy")
        self.mark = f"{os.getpid()}-{folder.name}-"

    def start(self) -> subprocess.Popen[bytes]:
        """The script, in a session of its own; what it says goes to a file."""
        name = self.script.name
        start = ["-c", SMALL, str(ROOT), name] if self.script.small else [f"experiments/{name}.py"]
        own = {MARK: self.mark, "TMPDIR": str(self.temporary), "DLPERF_COMMIT": "0" * 40, "DLPERF_ALLOCATION": "faults"}
        own["TORCHINDUCTOR_CACHE_DIR"] = str(self.temporary.parent / "cache")  # PyTorch's, which is to stay
        command = [sys.executable, *start, *shlex.split(self.script.words), "--results", str(self.results)]
        with open(self.said, "wb") as said:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | own,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )

    def finish(self) -> str | None:
        """Run the script to its end; what was wrong with that."""
        status = self.start().wait()
        self.end_orphans()
        if status not in self.script.ends:
            return f"{self.script.name} ended with {status}: {self.said.read_text().strip().splitlines()[-1:]}"
        return None

    def kill(self, after: float) -> str:
        """Kill the script after so many seconds, and wait for what it has started; what it has said."""
        process = self.start()
        try:
            process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.end_orphans()
        return self.said.read_text()

    left_running = False

    def end_orphans(self) -> None:
        """Wait for what the script has started, emulated hosts among it; what runs on is killed, and remembered."""
        if self.all_ended():
            return
        self.left_running = True
        for orphan in self.orphans():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(orphan, signal.SIGKILL)
        self.all_ended()

    def all_ended(self) -> bool:
        """Whether what the script has started ends within some time."""
        deadline = time.monotonic() + PATIENCE
        looks = 0  # that found none: two, as a process that becomes another program has no environment for a moment
        while looks < 2 and time.monotonic() < deadline:
            looks = 0 if any(self.orphans()) else looks + 1
            time.sleep(0.05)
        return looks == 2

    def orphans(self) -> Iterator[int]:
        """Processes that the script has started."""
        wanted = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if wanted in (entry / "environ").read_bytes() and b"Z" not in state(entry):
                        yield int(entry.name)
                except OSError:  # it has ended, or is another user's
                    continue

    def torn(self) -> Iterator[str]:
        """Results that can't be read."""
        for path in parquet.files(self.results):
            try:
                parquet.read_run(path)
            except parquet.SchemaError as error:
                yield f"{self.script.name}: torn: {error}"

    def leftovers(self) -> Iterator[str]:
        """What is there beside results once a run has come to its end."""
        kept = {".parquet", ".log", ".json", ""}
        files = [path for path in self.results.rglob("*") if path.is_file()]
        for path in [*(one for one in files if one.suffix not in kept), *self.temporary.iterdir()]:
            yield f"{self.script.name}: left behind: {path.name}"


def state(entry: Path) -> bytes:
    """A process's state: Z has ended, and waits for its parent."""
    return (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]


def progress(steps: int | list[Script], what: str) -> Iterable[Any]:
    """The steps, with a bar on a terminal."""
    return tqdm(range(steps) if isinstance(steps, int) else steps, desc=what, leave=False, disable=None)


def kill_scripts(folder: Path, kills: int, rng: random.Random, scripts: list[Script] = SCRIPTS) -> Iterator[str]:
    """Kill each script in turn; nothing is torn or lost, nothing runs on, and the next whole run leaves no trace."""
    known, seconds = list[tuple[Place, Place]](), dict[str, float]()
    for number, script in enumerate(progress(usable(scripts), "whole runs")):
        whole, killed = (Place(script, folder / f"{number}-{kind}") for kind in ("whole", "killed"))
        begin = time.monotonic()
        if problem := whole.finish():
            yield problem
        seconds[killed.mark] = time.monotonic() - begin
        known.append((whole, killed))
    last = dict.fromkeys(seconds, 0)
    for number in progress(kills, "kills"):
        whole, killed = known[number % len(known)]
        said = killed.kill(rng.uniform(0.1, 1) * seconds[killed.mark])
        yield from killed.torn()
        if killed.script.name == "p4_cutout":
            began = re.search(r"from epoch (\d+)", said)
            if began and int(began[1]) < last[killed.mark]:
                yield f"epoch {last[killed.mark]} had begun, --resume went on from epoch {began[1]}"
            last[killed.mark] = max([last[killed.mark], *map(int, re.findall(r"^epoch +(\d+)", said, re.MULTILINE))])
            if parquet.files(killed.results):
                yield from same(whole, killed)
                shutil.rmtree(killed.results)
                last[killed.mark] = 0
    for whole, killed in known:
        if problem := killed.finish():
            yield problem
        if whole.left_running or killed.left_running:
            yield f"{killed.script.name}: processes ran on for {PATIENCE:.0f} s"
        yield from killed.torn()
        yield from killed.leftovers()
        if killed.script.name == "p4_cutout":
            yield from same(whole, killed)


def same(whole: Place, killed: Place) -> Iterator[str]:
    """Whether a run that was killed and resumed has the numbers of one that wasn't, bit for bit."""
    one, other = (parquet.read("p4_cutout", place.results).drop(columns=TIMES) for place in (whole, killed))
    try:
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    except AssertionError as error:
        yield f"p4_cutout: a resumed run has other numbers: {' '.join(str(error).split())}"
