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

from report.chapter import BookError, Cell

PARALLEL = 2  # kernels
QUIET = ["--HistoryManager.enabled=False", "--IPKernelApp.log_level=40"]
Parts = list[str | Cell]


async def execute(root: Path, build: Path, chapters: dict[str, Parts]) -> dict[str, list[Any]]:
    """For each chapter the outputs of its cells in order. Files that cells write for the book (`report.hop`) go to
    `build`/book. Kernels keep what is imported and read, but no variable of another chapter.

    Once a chapter has failed none is begun. Raises BookError, of failed chapters that of the first in the book.
    """
    cells = {name: [part for part in parts if isinstance(part, Cell)] for name, parts in chapters.items()}
    outputs: dict[str, list[Any]] = {name: [] for name in cells}
    failures: dict[str, BookError] = {}
    waiting = sorted(filter(cells.get, cells), key=lambda name: len(cells[name]))  # the longest is taken first

    async def work() -> None:
        client = nbclient.NotebookClient(
            nbformat.v4.new_notebook(),
            kernel_name="python3",
            resources={"metadata": {"path": str(root)}},
            extra_arguments=QUIET,
        )
        async with client.async_setup_kernel(env=_environment(root, build)):
            while waiting and not failures:
                name, start = waiting.pop(), time.perf_counter()
                try:
                    outputs[name] = await _run(client, name, cells[name])
                except BookError as error:
                    failures[name] = error
                print(f"{time.perf_counter() - start:5.1f} s  {name}")

    try:
        await asyncio.gather(*(work() for _ in range(min(PARALLEL, len(waiting)))))
    except RuntimeError as error:  # nbclient's, where a kernel does not start
        raise BookError(f"no kernel: {error}", 1) from error
    for name in chapters:
        if name in failures:
            raise failures[name]
    return outputs


def _environment(root: Path, build: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return os.environ | {"DLPERF_ENGINE": "embedded", "DLPERF_BOOK": str(build / "book"), "PYTHONPATH": path}


async def _run(client: nbclient.NotebookClient, name: str, cells: list[Cell]) -> list[Any]:
    """The outputs of a chapter's cells, executed where no earlier chapter's variables are left. Raises BookError."""
    sources = ["%reset -f", *(cell.source for cell in cells)]
    client.nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    for index, cell in enumerate(client.nb.cells):
        try:
            await client.async_execute_cell(cell, index)
        except nbclient.exceptions.CellExecutionError as error:
            traceback = re.sub(r"\x1b\[[\d;]*m", "", error.traceback).rstrip()
            inside = re.search(r"Cell In ?\[\d+\], line (\d+)", traceback)
            line = cells[index - 1].line + (int(inside[1]) - 1 if inside else 0)
            raise BookError(f"{traceback}\n{name}:{line}: the cell failed: {error.ename}", 1) from error
        except RuntimeError as error:  # nbclient's, where the kernel dies
            raise BookError(f"{name}: {error}", 1) from error
    return [cell.outputs for cell in client.nb.cells[1:]]
