"""Settings in the host's environment and configuration files that affect a run: cleared, or recorded with it.

One list for every script. Variables are cleared if they would give a process a place in another job, or pin its threads
elsewhere than the project does; importing `experiments` clears the latter before any library reads them. The processes
of a job use no proxy between them. Every other setting that Horovod, TensorFlow, XLA, Keras, PyTorch, Triton, NCCL,
Gloo, MPI, OpenMP, MKL, OpenBLAS, oneDNN, CUDA or the allocator reads is recorded; those that can change a number are
part of the run's identity.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

READ = re.compile(
    r"(?!TF_(CLI|VAR)_|TF_(LOG|LOG_PATH|INPUT|WORKSPACE|DATA_DIR|PLUGIN_CACHE_DIR)$)"  # Terraform's
    r"(HOROVOD|TF|XLA|KERAS|TORCH|TORCHINDUCTOR|TORCHDYNAMO|PYTORCH|ATEN|TRITON|NCCL|GLOO|GRPC|OMPI|PMIX|PRTE|MPICH|I_MPI"
    r"|UCX|OMP|GOMP|KMP|MKL|OPENBLAS|GOTO|BLIS|NUMEXPR|ONEDNN|DNNL|TBB|CUDA|CUDNN|CUBLAS|CUBLASLT|NVIDIA|MALLOC|TCMALLOC"
    r"|MIMALLOC|JEMALLOC)_|(LD_PRELOAD|LD_LIBRARY_PATH|GLIBC_TUNABLES|MALLOC_CONF)$"
)
PINS = re.compile(r"(OMP_PROC_BIND|OMP_PLACES|GOMP_CPU_AFFINITY|KMP_AFFINITY|KMP_HW_SUBSET|KMP_TOPOLOGY_METHOD)$")
CLEARED = re.compile(
    r"HOROVOD_(RANK|SIZE|LOCAL_RANK|LOCAL_SIZE|CROSS_RANK|CROSS_SIZE|HOSTNAME|CONTROLLER|CPU_OPERATIONS|GLOO_\w+|ELASTIC)$"
    r"|OMPI_COMM_WORLD_\w+$|PMIX?_(RANK|SIZE|FD|ID)$|(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT)$"
    rf"|{PINS.pattern}"
)
PROXY = re.compile(r"(grpc|https?|all)_proxy$", re.IGNORECASE)
# Recorded, but not part of the identity: where a job runs, and what it prints or keeps on disk.
NO_NUMBERS = re.compile(
    r"(CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|NVIDIA_VISIBLE_DEVICES|NVIDIA_DRIVER_CAPABILITIES|NVIDIA_REQUIRE_\w+"
    r"|NVIDIA_PRODUCT_NAME|(CUDA|CUDNN|NCCL)_(HOME|PATH|ROOT|VERSION)|NV_\w+|\w+_VERSION|TF_CONFIG"
    r"|LD_LIBRARY_PATH|TF_CPP_\w+|\w+_CACHE_(DIR|PATH|MAXSIZE)|HOROVOD_(LOG_\w+|TIMELINE)|NCCL_DEBUG\w*|OMPI_ALLOW_\w+)$"
)
FILES = (
    "~/.keras/keras.json",
    "~/.nccl.conf",
    "/etc/nccl.conf",
    "~/.openmpi/mca-params.conf",
    "/etc/openmpi/openmpi-mca-params.conf",
    "~/.pmix/mca-params.conf",
    "~/.config/ucx/ucx.conf",
    "/etc/ucx/ucx.conf",
)


def clear(which: re.Pattern[str] = CLEARED) -> list[str]:
    """Remove variables from this process's environment; returns their names, so that the user can be told."""
    names = sorted(name for name in os.environ if which.match(name))
    for name in names:
        del os.environ[name]
    return names


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without proxies: gRPC would use one even to reach this machine's own processes."""
    return {name: value for name, value in environment.items() if not PROXY.match(name)}


def recorded() -> dict[str, str]:
    """Variables that are set, by name, and files that are not empty, by path and without comments."""
    found = {name: value for name, value in os.environ.items() if READ.match(name) and not CLEARED.match(name)}
    for name in FILES:
        path = Path(name).expanduser()
        try:
            lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        except OSError:  # a library can't read it either
            continue
        said = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if said:
            found[name] = "\n".join(said)
    return dict(sorted(found.items()))


def identity(settings: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings that can change a number."""
    return {name: value for name, value in settings.items() if not NO_NUMBERS.match(name)}
