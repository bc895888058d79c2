"""Settings of the environment and of libraries' files: cleared or recorded, and what makes a run another one."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.machine import settings
from experiments.machine.processes import Processes
from experiments.store.files import ROOT
from experiments.store.provenance import run_id


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*settings.recorded(), "HOROVOD_RANK"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("experiments.machine.settings.FILES", ("~/.keras/keras.json", "~/.nccl.conf"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    "name",
    ["HOROVOD_CYCLE_TIME", "TF_XLA_FLAGS", "XLA_FLAGS", "KERAS_BACKEND", "TORCH_CUDNN_V8_API_DISABLED", "NCCL_ALGO",
     "PYTORCH_CUDA_ALLOC_CONF", "TORCHINDUCTOR_MAX_AUTOTUNE", "GLOO_SOCKET_IFNAME", "OMPI_MCA_btl", "OMP_NUM_THREADS",
     "MKL_NUM_THREADS", "OPENBLAS_CORETYPE", "CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE", "LD_PRELOAD", "UCX_TLS",
     "CUBLAS_WORKSPACE_CONFIG", "CUDNN_LOGINFO_DBG", "TRITON_INTERPRET",
     "MALLOC_ARENA_MAX", "ONEDNN_MAX_CPU_ISA", "DNNL_VERBOSE", "ATEN_CPU_CAPABILITY", "CUBLASLT_LOG_LEVEL",
     "TF32_OFF_IS_NO_PREFIX", "TF_CLI_CONFIG_FILE",
     "TF_VAR_region"],
)  # fmt: skip
def test_what_libraries_read_is_recorded_and_makes_another_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run_id("job", {"learners": 2})
    monkeypatch.setenv(name, "7")
    known = not name.startswith(("TF32_", "TF_CLI_", "TF_VAR_"))  # the last two are Terraform's
    assert (settings.recorded() == {name: "7"}) == known
    assert (run_id("job", {"learners": 2}) != plain) == known
    assert settings.clear() == []


@pytest.mark.parametrize(
    "name",
    ["CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL", "TF_CONFIG", "NCCL_DEBUG", "TRITON_CACHE_DIR", "CUDA_HOME",
     "LD_LIBRARY_PATH"],
)  # fmt: skip
def test_place_and_printing_are_recorded_but_make_no_other_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run_id("job", {})
    monkeypatch.setenv(name, "1")
    assert settings.recorded() == {name: "1"} and run_id("job", {}) == plain


@pytest.mark.parametrize(
    "name",
    ["HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_SIZE", "HOROVOD_GLOO_RENDEZVOUS_ADDR", "OMPI_COMM_WORLD_RANK",
     "PMI_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY",
     "OMP_PLACES", "KMP_HW_SUBSET"],
)  # fmt: skip
def test_a_place_in_another_job_and_foreign_pinning_are_cleared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert settings.recorded() == {}
    assert settings.clear() == [name] and settings.clear() == []


def test_files_count_without_their_comments(tmp_path: Path) -> None:
    plain = run_id("job", {})
    (tmp_path / ".nccl.conf").write_text("# nothing set\n\n")
    assert settings.recorded() == {}
    (tmp_path / ".nccl.conf").write_text("# for tests\nNCCL_ALGO=Ring\n")
    assert settings.recorded() == {"~/.nccl.conf": "NCCL_ALGO=Ring"}
    assert run_id("job", {}) != plain
    assert run_id("job", {}, given={}) == plain


SCRIPTS = sorted((ROOT / "experiments").glob("*.py"))
LOADS_OPENMP = {"torch", "tensorflow", "keras", "sklearn", "numba"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_clears_what_pins_before_it_loads_a_library_that_pins(script: Path) -> None:
    """An OpenMP library reads OMP_PROC_BIND once, when it is loaded, and binds the process to one core."""
    roots = []
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            roots += [name.name.partition(".")[0] for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            roots.append(node.module.partition(".")[0])
    own = roots.index("experiments") if "experiments" in roots else len(roots)
    assert not LOADS_OPENMP & set(roots[:own])


def test_pinning_leaves_a_script_all_its_cores() -> None:
    code = "import sys; sys.path.insert(0, '.'); import experiments, torch, os; print(len(os.sched_getaffinity(0)))"
    pins = {"OMP_PROC_BIND": "true", "GOMP_CPU_AFFINITY": "0", "OMP_PLACES": "cores"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | pins, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == len(os.sched_getaffinity(0))


def test_processes_of_a_job_get_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "grpc_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.1:1")
    said: list[str] = []
    with Processes(said.append) as processes:
        processes.start([sys.executable, "-c", "import os; print([k for k in os.environ if 'proxy' in k.lower()])"], {})
        assert processes.wait() is None
    assert said == ["[]"]
