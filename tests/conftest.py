"""What several test modules share."""

import os
import signal

# Triton decides when a kernel is defined whether it is interpreted, so before any module imports it. Set to 0, tests
# that are marked gpu run, and those of the interpreted kernels can't.
os.environ.setdefault("TRITON_INTERPRET", "1")

from collections.abc import Iterator

import pytest
import torch

from tests.measured_runs import measured
from tests.p4_runs import first_epoch, small, whole
from tests.stored_run import fixed_commit

__all__ = ["first_epoch", "fixed_commit", "measured", "small", "whole"]


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
