"""Executes chapters' cells for the embedded engine, in a few kernels that take one chapter after the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat

from report.chapter import BookError, Cell

PARALLEL = 2  # kernels
CELL_TIMEOUT = 600  # s that a cell may take
TOLD = {"UsageError", "SchemaError", "LedgerError"}  # errors whose message says all that readers need
QUIET = ["--HistoryManager.enabled=False", "--IPKernelApp.log_level=50"]
Parts = list[str | Cell]


def execute(root: Path, build: Path, chapters: dict[str, Parts]) -> dict[str, list[Any]]:
    """For each chapter the outputs of its cells in order. Files that cells write for the book (`report.hop`) go to
    `build`/book. Kernels keep what is imported and read, but no variable of another chapter.

    Once a chapter has failed none is begun. Raises BookError, of failed chapters that of the first in the book, for a
    cell that fails or takes too long, and KeyboardInterrupt after SIGINT and SIGTERM; then no kernel is left.
    """
    try:
        return asyncio.run(_execute(root, build, chapters))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def _cancelled_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM cancel the task. nbclient's own handlers, which make its depths fail, are kept out."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, task.cancel)
    methods = ("add_signal_handler", "remove_signal_handler")
    for method in methods:
        setattr(loop, method, lambda *_: None)
    try:
        yield
    finally:
        for method in methods:
            delattr(loop, method)
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def _execute(root: Path, build: Path, chapters: dict[str, Parts]) -> dict[str, list[Any]]:
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
            timeout=CELL_TIMEOUT,
        )
        async with client.async_setup_kernel(env=_environment(root, build)):
            while waiting and not failures:
                name, start = waiting.pop(), time.perf_counter()
                try:
                    outputs[name] = await _run(client, name, cells[name])
                except BookError as error:
                    failures[name] = error
                print(f"{time.perf_counter() - start:5.1f} s  {name}")

    with _cancelled_by_signals():
        tasks = [asyncio.create_task(work()) for _ in range(min(PARALLEL, len(waiting)))]
        try:
            await asyncio.gather(*tasks)
        except RuntimeError as error:  # nbclient's, where a kernel does not start
            raise BookError(f"no kernel: {error}", 1) from error
        finally:  # after a signal, their kernels end
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
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
        except RuntimeError as error:  # nbclient's, where the kernel dies
            raise BookError(f"{name}: {error}", 1) from error
    return [cell.outputs for cell in client.nb.cells[1:]]
