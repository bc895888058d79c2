"""Build Horovod against the TensorFlow and PyTorch of this Python, install it, and check it with two learners.

    python tools/build_horovod.py        # `make horovod` does this in the project's own environment

Horovod 0.28.1 is the newest on the Python index, as source only. It is built unchanged, by a compiler wrapper
(tools/horovod-cxx) that bridges the years since. A wheel fits only the frameworks that it was built for, so it is kept
under ~/.cache/dlperf by their versions, and building again takes seconds. With nvcc, NCCL and a CUDA build of PyTorch
it all-reduces on GPUs through NCCL, else on CPUs through Gloo. Takes about 5 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

VERSION = "0.28.1"
TOOLS = Path(__file__).resolve().parent
COMPILER = TOOLS / "horovod-cxx"
# What Horovod's build needs beside a framework: module, then the package that has it.
NEEDED = {"cmake": "cmake==3.31.*", "setuptools": "setuptools", "wheel": "wheel", "packaging": "packaging"}
NEEDED |= {"cffi": "cffi", "cloudpickle": "cloudpickle", "psutil": "psutil", "yaml": "pyyaml"}
INCLUDES = [Path("/usr/include"), Path("/usr/local/include"), Path("/usr/local/cuda/include")]
LIBRARIES = [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib/aarch64-linux-gnu"), Path("/usr/local/lib")]
LIBRARIES += [Path("/usr/lib64"), Path("/usr/local/cuda/lib64")]


class BuildError(RuntimeError):
    """Horovod can't be built or installed; the message is one line that says why and what to do."""


def frameworks(wanted: list[str]) -> dict[str, str]:
    """Installed frameworks and their versions. Raises BuildError if there is none."""
    packages = {"tensorflow": ["tensorflow", "tensorflow-cpu"], "torch": ["torch"]}
    found = {}
    for name in wanted:
        for package in packages[name] if importlib.util.find_spec(name) else []:
            try:
                found[name] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
    if not found:
        raise BuildError(f"neither of {', '.join(wanted)} is installed; install tensorflow-cpu or torch first")
    return found


def nccl() -> dict[str, str]:
    """Settings that build with NCCL; empty where nvcc, NCCL's header or library, or PyTorch's CUDA is missing."""
    include = next((folder for folder in INCLUDES if (folder / "nccl.h").exists()), None)
    library = next((folder for folder in LIBRARIES if list(folder.glob("libnccl*"))), None)
    if not shutil.which("nvcc") or include is None or library is None or importlib.util.find_spec("torch") is None:
        return {}
    import torch

    if torch.version.cuda is None or not torch.cuda.is_available():
        return {}
    capabilities = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return {
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_NCCL_INCLUDE": str(include),
        "HOROVOD_NCCL_LIB": str(library),
        "HOROVOD_BUILD_CUDA_CC_LIST": ",".join(sorted(f"{major}{minor}" for major, minor in capabilities)),
    }


def cache_folder(versions: dict[str, str], gpu: dict[str, str]) -> Path:
    """Where the wheel for these versions is kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlperf"
    recipe = hashlib.sha256(COMPILER.read_bytes() + repr(sorted(gpu.items())).encode()).hexdigest()[:8]
    parts = [f"{name}{version}" for name, version in sorted(versions.items())]
    parts += [f"python{sysconfig.get_python_version()}", platform.machine(), "nccl" if gpu else "gloo", recipe]
    return root / "-".join([f"horovod-{VERSION}", *parts])


def build(folder: Path, source: str, versions: dict[str, str], gpu: dict[str, str]) -> Path:
    """Build the wheel and keep it in `folder`, which appears whole or not at all. Raises BuildError."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise BuildError(f"the build needs {', '.join(missing)}; install them with pip")
    if shutil.which("g++") is None:
        raise BuildError("the build needs a C++ compiler; on Debian or Ubuntu: apt-get install g++")
    settings = {
        "CXX": str(COMPILER),
        "HOROVOD_CXX_STANDARD": "20" if "tensorflow" in versions else "17",
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
        "MAKEFLAGS": f"-j{len(os.sched_getaffinity(0))}",
        "HOROVOD_WITH_TENSORFLOW" if "tensorflow" in versions else "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITH_PYTORCH" if "torch" in versions else "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_MPI": "1",
        "HOROVOD_CPU_OPERATIONS": "GLOO",
        **gpu,
    }
    # The environment's own cmake comes first: CMake 4 refuses Horovod's files.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    names = " and ".join(f"{name} {version}" for name, version in versions.items())
    print(f"building Horovod {VERSION} for {names}, with {'NCCL' if gpu else 'Gloo'} (log: {log})", flush=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, log.open("w") as out:
        pip = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
        done = subprocess.run(
            [*pip, "--wheel-dir", scratch, source], env=os.environ | settings | {"PATH": path}, stdout=out, stderr=out
        )
        if done.returncode:
            raise BuildError(f"Horovod's build failed: {cause(log.read_text(errors='replace'))} (all of it: {log})")
        shutil.rmtree(folder, ignore_errors=True)
        Path(scratch).replace(folder)
        Path(scratch).mkdir()  # for its own removal
    print(f"built in {time.perf_counter() - start:.0f} s", flush=True)
    return wheel_in(folder)


def cause(log: str) -> str:
    """The line of a build's log that says why it failed.

    That is the first error of a compiler or of CMake; else a command that a shell could not run; else make's first
    failed target, since a compiler killed for lack of memory says nothing itself. Warnings of pip and setuptools, which
    mention errors too, don't count.
    """
    lines = [line.strip() for line in log.splitlines() if "subprocess-exited-with-error" not in line]
    compiler, shell = r"(^|: )(fatal )?error: |^CMake Error", r": (not found|No such file or directory|Killed)$"
    for pattern in (compiler, shell, r"^g?make.*\*\*\*"):
        if found := next((line for line in lines if re.search(pattern, line)), None):
            return found
    return "the log doesn't say why"


def wheel_in(folder: Path) -> Path:
    """The wheel kept in a folder. Raises BuildError if there is none."""
    wheels = sorted(folder.glob("horovod-*.whl"))
    if not wheels:
        raise BuildError(f"{folder} holds no wheel; remove it and try again")
    return wheels[0]


def install(wheel: Path, target: str | None) -> None:
    """Install the wheel. Raises BuildError."""
    where = ["--target", target, "--upgrade"] if target else ["--force-reinstall"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *where]
    if subprocess.run([*pip, str(wheel)]).returncode:
        raise BuildError(f"pip could not install {wheel}, see above; remove {wheel.parent} to build again")


def check(versions: dict[str, str], target: str | None) -> None:
    """Two learners of each framework all-reduce and train. Raises BuildError."""
    path = os.pathsep.join(filter(None, [target, os.environ.get("PYTHONPATH")]))
    launch = [sys.executable, "-m", "horovod.runner.launch", "--gloo", "-np", "2", "-H", "localhost:2"]
    for name in versions:
        done = subprocess.run(
            [*launch, sys.executable, str(TOOLS / "check_horovod.py"), name],
            env=os.environ | ({"PYTHONPATH": path} if path else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        passed = [line for line in done.stdout.splitlines() if "correct" in line]
        if done.returncode or len(passed) != 2:
            print(done.stdout, file=sys.stderr)
            raise BuildError(f"two learners of {name} failed the check above")
        print("\n".join(sorted(line.rpartition(">:")[2] for line in passed)), flush=True)


def main() -> int:
    """0 when Horovod is installed and passed its check, 1 otherwise."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--frameworks", nargs="+", choices=["tensorflow", "torch"], default=["tensorflow", "torch"])
    p.add_argument(
        "--source", default=f"horovod=={VERSION}", help="what pip builds: a version, or a file of the source"
    )
    p.add_argument("--target", help="install into this folder, for PYTHONPATH, rather than into the environment")
    p.add_argument("--gloo", action="store_true", help="build for CPUs also where NCCL is there")
    a = p.parse_args()
    try:
        versions = frameworks(a.frameworks)
        gpu = {} if a.gloo else nccl()
        try:
            folder = cache_folder(versions, gpu)
            wheel = wheel_in(folder) if folder.exists() else build(folder, a.source, versions, gpu)
        except BuildError as error:
            if not gpu:
                raise
            print(f"with NCCL: {error}; trying with Gloo, for CPUs", file=sys.stderr, flush=True)
            folder = cache_folder(versions, {})
            wheel = wheel_in(folder) if folder.exists() else build(folder, a.source, versions, {})
        install(wheel, a.target)
        check(versions, a.target)
    except (BuildError, OSError) as error:
        print(f"build_horovod: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
