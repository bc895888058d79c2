"""Executes chapters' cells for the embedded engine, in a few kernels that take one chapter after the other."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat

from report import kernels, surroundings
from report.chapter import Cell
from report.sources import BookError

PARALLEL = 2  # kernels
CELL_TIMEOUT = 600  # s that a cell may take
TOLD = {"UsageError", "SchemaError", "LedgerError"}  # errors whose message says all that readers need
ASKED = ("DLPERF_RESULTS", "DLPERF_PRICE")  # of the caller: whose results to show, and what a device costs
QUIET = ["--HistoryManager.enabled=False", "--IPKernelApp.log_level=50"]
Parts = list[str | Cell]


def execute(root: Path, build: Path, chapters: dict[str, Parts]) -> dict[str, list[Any]]:
    """For each chapter the outputs of its cells in order. Files that cells write for the book (`report.hop`) go to
    `build`/book. Kernels keep what is imported and read, but no variable of another chapter.

    Raises BookError, which tells of all chapters with a cell that fails or takes too long, and what Ctrl-C raises; then
    no kernel is left.
    """
    return kernels.run(_execute(root, build, chapters))


async def _execute(root: Path, build: Path, chapters: dict[str, Parts]) -> dict[str, list[Any]]:
    cells = {name: [part for part in parts if isinstance(part, Cell)] for name, parts in chapters.items()}
    outputs: dict[str, list[Any]] = {name: [] for name in cells}
    failures: dict[str, BookError] = {}
    waiting = sorted(filter(cells.get, cells), key=lambda name: len(cells[name]))  # the longest is taken first
    environment = _environment(root, build)

    async def work(number: int) -> None:
        """Chapters one after the other, in a new kernel where the last one failed: it may have died of it."""
        while waiting:
            said = build / f"kernel-{number}.log"  # what a kernel itself says, for one that dies
            client = nbclient.NotebookClient(
                nbformat.v4.new_notebook(),
                kernel_name="python3",
                resources={"metadata": {"path": str(root)}},
                extra_arguments=QUIET,
                timeout=CELL_TIMEOUT,
            )
            client.kernel_manager_class = kernels.Kernel
            client.create_kernel_manager().connection_file = str(build / f"kernel-{number}.json")
            name = waiting[-1]
            try:
                with said.open("w") as log:
                    async with client.async_setup_kernel(env=environment, stderr=log):
                        while waiting:
                            name, start = waiting.pop(), time.perf_counter()
                            outputs[name] = await _run(client, name, cells[name])
                            print(f"{time.perf_counter() - start:5.1f} s  {name}")
            except BookError as error:
                failures[name] = error
            except RuntimeError as error:  # nbclient's, where a kernel does not start or dies
                failures[name] = BookError("\n".join(filter(None, [said.read_text().strip(), f"{name}: {error}"])), 1)
                waiting[:] = [other for other in waiting if other != name]

    tasks = [asyncio.create_task(work(number)) for number in range(min(PARALLEL, len(waiting)))]
    try:
        await asyncio.gather(*tasks)
    finally:  # after Ctrl-C, their kernels end
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if failures:
        told = [failures[name] for name in chapters if name in failures]
        raise BookError("\n".join(map(str, told)), 1) from told[0]
    return outputs


def _environment(root: Path, build: Path) -> dict[str, str]:
    """The kernels' variables: none of the user's that would change a page, and what names the reader's results."""
    pandoc = surroundings.run_pandoc(["--version"]).stdout.split()[1]
    own = {"DLPERF_ENGINE": "embedded", "DLPERF_BOOK": str(build / "book"), "DLPERF_PANDOC": pandoc}
    asked = {name: os.environ[name] for name in ASKED if name in os.environ}
    return surroundings.environment(build / "home") | asked | own | {"PYTHONPATH": str(root)}


async def _run(client: nbclient.NotebookClient, name: str, cells: list[Cell]) -> list[Any]:
    """The outputs of a chapter's cells, executed where no earlier chapter's variables are left. Raises BookError."""
    sources = ["%reset -f", *(cell.source for cell in cells)]
    client.nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    for index, cell in enumerate(client.nb.cells):
        line = cells[max(0, index - 1)].line
        try:
            await client.async_execute_cell(cell, index)
        except nbclient.exceptions.CellTimeoutError as error:
            raise BookError(f"{name}:{line}: the cell took more than {CELL_TIMEOUT} s", 1) from error
        except nbclient.exceptions.CellExecutionError as error:
            traceback = re.sub(r"\x1b\[[\d;]*m", "", error.traceback).rstrip()
            inside = re.search(r"Cell In ?\[\d+\], line (\d+)", traceback)
            line += int(inside[1]) - 1 if inside else 0
            what = f"{name}:{line}: the cell failed: {error.ename}: {' '.join(error.evalue.split())}"
            raise BookError(what if error.ename in TOLD else f"{traceback}\n{what}", 1) from error
    return [cell.outputs for cell in client.nb.cells[1:]]
