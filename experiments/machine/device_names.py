"""What this machine's processor and GPUs are called."""

from __future__ import annotations

import functools
import platform
import re
import shutil
import subprocess
from pathlib import Path


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


# What Markdown, HTML or Typst might take for their own; no processor or GPU has it in its name.
_ACTIVE = re.compile(r"[^\w .,()/+@-]|_|@(?! )")


def _inert(found: re.Match[str]) -> str:
    """The wide twin of an ASCII character, which looks like it and has no meaning; a space for others."""
    return chr(ord(found[0]) + 0xFEE0) if "!" <= found[0] <= "~" else " "


def short_name(device: str) -> str:
    """A device's name for tables, sentences and charts, where it is never code: `Intel(R) Xeon(R) Processor` is an
    Intel Xeon."""
    device = _ACTIVE.sub(_inert, device)
    return device.replace("(R)", "").removesuffix(" Processor").removesuffix(" 80GB HBM3")


@functools.cache
def physical_gpus() -> tuple[str, ...]:
    """The UUIDs of all GPUs of this machine, whatever CUDA_VISIBLE_DEVICES says; none without a driver.

    Asked once a process: a sweep names its allocation several times a job, and the driver can take a second to answer.
    """
    if shutil.which("nvidia-smi") is None:
        return ()
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return tuple(re.findall(r"UUID: (GPU-[0-9a-f-]+)", listed.stdout))


def device_name(kind: str) -> str:
    """The name of this machine's processor, or of its first GPU."""
    if kind == "cpu":
        return cpu_name()
    names = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return names.stdout.splitlines()[0].strip()
