"""Inject faults and count what is lost: kills of scripts, writers and the renderer, flipped bits in results.

    python tools/inject_faults.py            # 100 kills of scripts, 100 of writers, 10 of the renderer, 600 bits
    python tools/inject_faults.py --short    # a tenth of it or less, as `make test-all` does

Exit status 1 where a file is torn, a finished write is lost, something is left behind, or damage reads as good.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

import pandas as pd

from experiments.cli import Parser, exit_status
from experiments.store import checksums, parquet
from experiments.store.files import HOST, RESULTS, ROOT, write_atomically
from tools import script_faults
from tools.script_faults import progress

# Writes generations 0, 1, 2, … of a file and prints each that is whole.
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from experiments.store.files import write_atomically
for k in range(int(sys.argv[3]), 10**9):
    write_atomically(Path(sys.argv[2]), k.to_bytes(8, "big") * 100_000)
    print(k, flush=True)
"""
# Renders a book of one chapter, whose cell waits.
RENDERER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from report.engine import Book, render
render(Book.read(Path(sys.argv[2])), ["html"])
"""
BOOK = "project: {type: book, output-dir: _book}\nbook: {title: T, author: A, chapters: [index.qmd]}\n"
CHAPTER = "# T\n\n```{{python}}\nimport time\nprint('{mark}')\ntime.sleep(0.5)\n```\n"


def kill_writers(folder: Path, kills: int, rng: random.Random) -> Iterator[str]:
    """Kill a writer at random moments; whatever was finished is there, whole, and leftovers go with the next write."""
    path, next_one = folder / "run.parquet", 0
    for _ in progress(kills, "writers"):
        command = [sys.executable, "-c", WRITER, str(ROOT), str(path), str(next_one)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        said = [int(line) for line in [first, *writer.stdout] if line.endswith("\n")]
        writer.wait()
        content = path.read_bytes()
        found = int.from_bytes(content[:8], "big")
        if content != found.to_bytes(8, "big") * 100_000:
            yield f"{path} is torn"
        if found < said[-1]:
            yield f"write {said[-1]} was finished, the file has {found}"
        next_one = found + 1
    write_atomically(path, b"the last")
    if left := sorted(set(os.listdir(folder)) - {path.name}):
        yield f"left behind: {', '.join(left)}"


def kill_renderers(folder: Path, kills: int, rng: random.Random) -> Iterator[str]:
    """Kill the renderer at random moments; the book stays, kernels end, leftovers go with the next render."""
    (folder / "_quarto.yml").write_text(BOOK)
    (folder / "tmp").mkdir()
    command = [sys.executable, "-c", RENDERER, str(ROOT), str(folder)]
    page = folder / "_book" / "index.html"
    for number in progress(kills + 2, "renders"):
        mark = f"fault-{number}"
        (folder / "index.qmd").write_text(CHAPTER.format(mark=mark))
        own = os.environ | {"TMPDIR": str(folder / "tmp")}
        pipe = subprocess.PIPE
        renderer = subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=pipe, text=True)
        if number in (0, kills + 1):  # to the end
            if renderer.communicate()[1] or mark not in page.read_text():
                yield "a render that nobody killed failed"
            continue
        time.sleep(rng.uniform(0.5, 4))
        renderer.kill()
        renderer.communicate()
        if not page.is_file() or "fault-" not in page.read_text():
            yield "the earlier book is gone"
        deadline = time.monotonic() + 15  # ipykernel looks for its parent every second
        while (orphans := list(_with(f"book-{HOST}-{renderer.pid}-"))) and time.monotonic() < deadline:
            time.sleep(0.2)
        if orphans:
            yield f"kernels are left: {orphans}"
    kept = {"_quarto.yml", "index.qmd", "_book", "tmp"}
    if left := sorted({*set(os.listdir(folder)) - kept, *os.listdir(folder / "tmp")}):
        yield f"left behind: {', '.join(left)}"


def _with(mark: str) -> Iterator[int]:
    """Processes that have the mark in their environment."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    yield int(entry.name)
            except OSError:  # it has ended, or is another user's
                continue


def flip_bits(folder: Path, bits: int, rng: random.Random) -> Iterator[str]:
    """Flip a bit in a random results file; reading refuses the file, or reads what it was."""
    shutil.copytree(RESULTS, folder, dirs_exist_ok=True)
    checksums.write_manifest(folder)
    paths = parquet.files(folder)
    refused = 0
    for _ in progress(bits, "bits"):
        path = rng.choice(paths)
        content, (run, rows) = path.read_bytes(), parquet.read_run(path)
        damaged, bit = bytearray(content), rng.randrange(8 * len(content))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        parquet._read_once.cache_clear()  # which goes by a clock whose tick may have room for two writes
        try:
            read = parquet.read_run(path)
        except parquet.SchemaError:
            refused += 1
        else:
            if read[0] != run or not rows.equals(pd.DataFrame(read[1])):
                yield f"bit {bit} of {path.name} reads as another run"
        path.write_bytes(content)
    print(f"{refused} of {bits} flipped bits were refused, the others read as nothing else")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when nothing is lost, 1 else."""
    parser = Parser("inject_faults", __doc__)
    parser.add_argument("--short", action="store_true", help="a tenth of all faults or less")
    parser.add_argument("--only", choices=["scripts", "writers", "renderers", "bits"], help="one kind of fault")
    parser.add_argument("--kills", type=int, default=100, help="of scripts, in the long form (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and bits (default 0)")
    a = parser.parse_args(argv)

    def work() -> int:
        rng, lost = random.Random(a.seed), list[str]()
        scripts = script_faults.SHORT if a.short else script_faults.SCRIPTS
        for what, inject, whole, short in (
            ("killed scripts", functools.partial(script_faults.kill_scripts, scripts=scripts), a.kills, 3),
            ("killed writers", kill_writers, 100, 10),
            ("killed renderers", kill_renderers, 10, 1),
            ("flipped bits", flip_bits, 600, 60),
        ):
            if a.only and a.only not in what:
                continue
            count = short if a.short else whole
            begin = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="faults-") as folder:
                found = list(inject(Path(folder), count, rng))
            took = time.monotonic() - begin
            print(f"{count} {what}: {len(found)} faults, {took:.0f} s", *found, sep="\n  ", flush=True)
            lost += found
        return 1 if lost else 0

    return exit_status("inject_faults", work)


if __name__ == "__main__":
    sys.exit(main())
