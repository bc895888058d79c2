"""The kernels that execute chapters: this interpreter's, and gone after Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

T = TypeVar("T")
# IPython has no switch for it: a kernel forgets the folders of the machine's and the environment's settings, such as
# /etc/ipython, before it starts. Those of the user are elsewhere (`surroundings.environment`).
BARE = """
from IPython.core import application
application.SYSTEM_CONFIG_DIRS.clear()
application.ENV_CONFIG_DIRS.clear()
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


class Kernel(AsyncKernelManager):
    """This interpreter, whatever kernel the user's Jupyter has under its name, and whatever settings this machine's
    IPython has."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """How a kernel is started."""
        command = [sys.executable, "-c", BARE, "-f", "{connection_file}"]
        return KernelSpec(argv=command, language="python")


def run(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns. Ctrl-C cancels it, and is raised when it has ended its kernels.

    Its loop is another thread's: in the main one nbclient takes Ctrl-C for itself, ends one kernel, and waits for it.
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    def begin() -> T:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            task = loop.create_task(work)
            begun.set_result((loop, task))
            return loop.run_until_complete(task)

    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(begin)
        try:
            return result.result()
        except BaseException:
            loop, task = begun.result()

            def stop() -> None:
                # What nbclient had under way then fails for want of a kernel, which is nobody's concern any more.
                loop.set_exception_handler(lambda *_: None)
                task.cancel()

            if not task.done():
                loop.call_soon_threadsafe(stop)
            raise
