"""The names of this machine's processor and GPUs."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from experiments.cli import UsageError


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


# Characters with a meaning in Markdown, HTML or Typst; no name of a processor or GPU has them.
_ACTIVE = re.compile(r"[^\w .,()/+@-]|_|@(?! )")


def _inert(found: re.Match[str]) -> str:
    """The wide twin of an ASCII character, which looks like it and has no meaning; a space for others."""
    return chr(ord(found[0]) + 0xFEE0) if "!" <= found[0] <= "~" else " "


def short_name(device: str) -> str:
    """A device's name for tables, sentences and charts, where it is never code: `Intel(R) Xeon(R) Processor` is an
    Intel Xeon."""
    device = _ACTIVE.sub(_inert, device)
    return device.replace("(R)", "").removesuffix(" Processor").removesuffix(" 80GB HBM3")


class Gpu(NamedTuple):
    """A GPU as the driver lists it, in the order of their numbers."""

    uuid: str
    name: str


class Driver(NamedTuple):
    """The answer of NVIDIA's driver: all GPUs of this machine, or why it can't list them."""

    gpus: tuple[Gpu, ...] = ()
    failure: str = ""


@functools.cache
def driver() -> Driver:
    """All GPUs of this machine, whatever CUDA_VISIBLE_DEVICES says; none without a driver.

    Asked once a process: a sweep names its allocation several times a job, and the driver can take a second to answer.
    """
    if shutil.which("nvidia-smi") is None:
        return Driver()
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    except OSError as error:
        return Driver(failure=str(error))
    found = re.findall(r"^GPU \d+: (.*?) *\(UUID: (GPU-[0-9a-f-]+)\)", listed.stdout, re.MULTILINE)
    said = (listed.stderr + listed.stdout).strip().splitlines()
    failed = listed.returncode and not any(line.startswith("No devices") for line in said)
    return Driver(tuple(Gpu(uuid, name) for name, uuid in found), (said or ["it gives no reason"])[0] if failed else "")


def physical_gpus() -> tuple[str, ...]:
    """The UUIDs of all GPUs of this machine."""
    return tuple(gpu.uuid for gpu in driver().gpus)


def _number(name: str) -> int | None:
    """The number of the GPU that a part of CUDA_VISIBLE_DEVICES names; None if there is none."""
    uuids = physical_gpus()
    if name.isascii() and name.isdecimal():
        return int(name) if int(name) < len(uuids) else None
    found = [i for i, uuid in enumerate(uuids) if len(name) > len("GPU-") and uuid.startswith(name)]
    return found[0] if len(found) == 1 else None


def visible_gpus() -> dict[str, Gpu]:
    """The GPUs that CUDA shows a process, by what CUDA_VISIBLE_DEVICES calls them, or by number.

    CUDA ignores what follows a name that it doesn't know, such as -1. Raises UsageError where a GPU is named twice, or
    by number on a machine of several models, which CUDA would number by their speed.
    """
    gpus, given = driver().gpus, os.environ.get("CUDA_VISIBLE_DEVICES")
    found: dict[str, Gpu] = {}
    for name in map(str, range(len(gpus))) if given is None else map(str.strip, given.split(",")):
        number = _number(name)
        if number is None:
            break
        if gpus[number] in found.values():
            raise UsageError(f"CUDA_VISIBLE_DEVICES={given} names GPU {number} twice; name each once")
        found[name] = gpus[number]
    by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if len({gpu.name for gpu in gpus}) > 1 and not by_bus and any(name.isdecimal() for name in found):
        raise UsageError(
            "this machine has GPUs of several models, which CUDA numbers by their speed; "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID in CUDA_VISIBLE_DEVICES"
        )
    return found


def device_name(kind: str) -> str:
    """The name of this machine's processor, or of the first GPU that a process sees. Raises UsageError without one."""
    if kind == "cpu":
        return cpu_name()
    seen = visible_gpus()
    if not seen:
        raise UsageError(no_gpu())
    return next(iter(seen.values())).name


def no_gpu() -> str:
    """Why a process sees no GPU, and what to do."""
    gpus, failure = driver()
    if failure:
        return f"the NVIDIA driver lists no GPUs ({failure}); repair it, or use --device cpu"
    if gpus:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}"
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides this machine's {count}; unset it, or use --device cpu"
    return "this machine has no NVIDIA GPU; use --device cpu"
