"""Runs the chapters' cells for the embedded engine, in kernels of their own."""

import asyncio
import contextlib
import dataclasses
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat

CELL_TIMEOUT = 600  # s that a cell may take
TOLD = {"UsageError", "SchemaError", "LedgerError"}  # errors whose message says all that readers need
PARALLEL = 2  # chapters executed, and files written, at a time


class BookError(Exception):
    """The book can't be rendered; `code` is the exit status: 2 for a wrong source, 1 for a failing cell."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


@dataclasses.dataclass
class Cell:
    """A code cell or an inline expression; `line` is the chapter's line on which the code starts."""

    line: int
    source: str
    options: dict[str, Any]
    inline: bool = False


def execute(root: Path, build: Path, chapters: dict[str, list[Cell]]) -> list[list[Any]]:
    """Run each chapter's cells in a kernel of its own; for each chapter, the outputs of its cells in order.

    Files that cells write for the book (`report.hop`) go to `build`/book. Raises BookError for a cell that fails or
    takes too long, and KeyboardInterrupt after SIGINT and SIGTERM; then no kernel is left.
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


async def _execute(root: Path, build: Path, chapters: dict[str, list[Cell]]) -> list[list[Any]]:
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"DLPERF_ENGINE": "embedded", "DLPERF_BOOK": str(build / "book"), "PYTHONPATH": path}
    limit = asyncio.Semaphore(PARALLEL)

    async def run(name: str) -> list[Any]:
        cells = chapters[name]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(part.source) for part in cells])
        quiet = ["--HistoryManager.enabled=False", "--IPKernelApp.log_level=50"]
        where = {"metadata": {"path": str(root)}}
        begun: list[int] = []
        client = nbclient.NotebookClient(
            notebook, kernel_name="python3", resources=where, extra_arguments=quiet, timeout=CELL_TIMEOUT,
            on_cell_start=lambda cell, cell_index: begun.append(cell_index),
        )  # fmt: skip
        async with limit:
            try:
                if cells:
                    await client.async_execute(env=environment)
            except nbclient.exceptions.CellTimeoutError as error:
                line = cells[begun[-1]].line
                raise BookError(f"{name}:{line}: the cell took more than {CELL_TIMEOUT} s", 1) from error
            except nbclient.exceptions.CellExecutionError as error:
                failed = begun[-1]
                traceback = re.sub(r"\x1b\[[\d;]*m", "", error.traceback).rstrip()
                inside = re.search(r"Cell In ?\[\d+\], line (\d+)", traceback)
                line = cells[failed].line + (int(inside[1]) - 1 if inside else 0)
                what = f"{name}:{line}: the cell failed: {error.ename}: {' '.join(error.evalue.split())}"
                raise BookError(what if error.ename in TOLD else f"{traceback}\n{what}", 1) from error
            except RuntimeError as error:  # nbclient's, where a kernel does not start or dies
                raise BookError(f"{name}: {error}", 1) from error
        return [c.outputs for c in notebook.cells]

    # A failing chapter doesn't stop the others: their kernels end in order, and the first failure is told.
    with _cancelled_by_signals():
        tasks = [asyncio.create_task(run(name)) for name in chapters]
        try:
            await asyncio.wait(tasks)
        finally:  # after a signal, their kernels end
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result() for task in tasks]
