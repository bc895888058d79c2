"""What several test modules share."""

import importlib.util
import os
import signal

# Triton decides when a kernel is defined whether it is interpreted, so before any module imports it. Set to 0, tests
# that are marked gpu run, and those of the interpreted kernels can't.
os.environ.setdefault("TRITON_INTERPRET", "1")

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from tests.measured_runs import measured
from tests.p4_runs import first_epoch, small, whole
from tests.stored_run import fixed_commit

__all__ = ["first_epoch", "fixed_commit", "measured", "small", "whole"]


# These start processes that have cores of their own, or measure time.
MACHINE = (
    *("machine/", "p1/", "measure_plan/test_job_runs.py", "p2/test_worker.py", "p4/test_split_engine.py"),
    *("test_allreduce.py", "test_measure.py", "test_p1_horovod.py", "test_p2_input.py", "test_p2_strategy.py"),
    *("test_p4_all.py", "test_p4_split.py", "test_p4_throughput.py"),
)
# Begun first, in this order, so that no worker is left with one of them at the end.
LONGEST = (
    *(
        "report/test_pages.py",
        "report/test_engine.py",
        "report/test_engine_failures.py",
        "p4/test_fused_engine.py",
        "p4/test_compiled_engine.py",
    ),
    *("report/test_labels.py", "p4/test_checkpoint.py", "test_p4_cutout.py", "figures/test_strategy.py"),
    *("tools/test_prove_move.py", "store/test_parquet.py", "store/test_evidence.py", "test_p4_kernels.py"),
)


def of_machine(nodeid: str) -> bool:
    return nodeid.removeprefix("tests/experiments/").startswith(MACHINE)


def place(nodeid: str) -> int:
    """When a test's file begins."""
    file = nodeid.partition("::")[0]
    found = [number for number, name in enumerate(LONGEST) if file.endswith(name)]
    return -1 if of_machine(nodeid) else min(found, default=len(LONGEST))


class Files(LoadScopeScheduling):
    """A file's tests share fixtures, so one of pytest-xdist's workers runs them. Another runs all of MACHINE's."""

    def _split_scope(self, nodeid: str) -> str:
        return "machine" if of_machine(nodeid) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Files:
    """How tests are dealt out to workers: in the order of collection, not by the number of tests in a file."""
    config.option.loadscopereorder = False
    return Files(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first. Tests of Horovod need its build."""
    items.sort(key=lambda item: place(item.nodeid))
    for item in items:
        if item.get_closest_marker("horovod") and importlib.util.find_spec("horovod") is None:
            item.add_marker(pytest.mark.skip(reason="needs: make horovod"))


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_arrives() -> None:
    """A shell that starts the tests in the background makes them ignore SIGINT, and so what they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads in their last bits, and small networks are faster on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPUs, data and a cluster."""
    for name in [name for name in os.environ if name.startswith(("TF_CONFIG", "DLPERF_DATA", "SLURM_", "CUDA_VIS"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("experiments.machine.nvidia.gpus", lambda: [])
