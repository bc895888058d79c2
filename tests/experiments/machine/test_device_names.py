"""What devices are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.machine.device_names import short_name
from experiments.store.files import ROOT

# Says what a process sees of this machine's GPUs: their names, or why there is none.
ASKED = """
from experiments.cli import UsageError
from experiments.machine.device_names import no_gpu, visible_gpus
try:
    print(*[gpu.name for gpu in visible_gpus().values()] or [no_gpu()], sep=", ")
except UsageError as error:
    print(error)
"""
SLOW, FAST = "GPU-5a1e0000-0000-0000-0000-000000000000", "GPU-fa570000-0000-0000-0000-000000000000"
MIXED = f"GPU 0: Tesla K80 (UUID: {SLOW})\nGPU 1: NVIDIA H200 (UUID: {FAST})\n"


def seen(folder: Path, listed: str, status: int = 0, **environment: str) -> str:
    """What a process of its own says whose driver, an nvidia-smi first on its PATH, lists these GPUs."""
    driver = folder / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\nprintf '%s' '{listed}'\nexit {status}\n")
    driver.chmod(0o755)
    own = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    own |= {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", ASKED], env=own, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1", "NVIDIA H200"),
        ("0", "Tesla K80"),
        ("1,0", "NVIDIA H200, Tesla K80"),
        (FAST, "NVIDIA H200"),
        ("GPU-fa57", "NVIDIA H200"),
        ("1,-1,0", "NVIDIA H200"),
        ("-1", "CUDA_VISIBLE_DEVICES='-1' hides this machine's 2 GPUs; unset it, or use --device cpu"),
        ("7", "CUDA_VISIBLE_DEVICES='7' hides this machine's 2 GPUs; unset it, or use --device cpu"),
        ("1,1", "CUDA_VISIBLE_DEVICES=1,1 names GPU 1 twice; name each once"),
        (f"1,{FAST}", f"CUDA_VISIBLE_DEVICES=1,{FAST} names GPU 1 twice; name each once"),
    ],
)
def test_a_process_on_a_machine_of_two_models(tmp_path: Path, visible: str, names: str) -> None:
    """Numbers in the driver's order, which CUDA follows with CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    found = seen(tmp_path, MIXED, CUDA_VISIBLE_DEVICES=visible, CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert found == f"{names}\n"


def test_a_number_names_no_gpu_where_cuda_orders_two_models_by_speed(tmp_path: Path) -> None:
    assert "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID" in seen(tmp_path, MIXED, CUDA_VISIBLE_DEVICES="1")
    assert seen(tmp_path, MIXED, CUDA_VISIBLE_DEVICES=FAST) == "NVIDIA H200\n"


def test_a_broken_driver_is_told_as_such(tmp_path: Path) -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch"
    told = f"the NVIDIA driver lists no GPUs ({said}); repair it, or use --device cpu\n"
    assert seen(tmp_path, f"{said}\n", 18) == told
    assert seen(tmp_path, "No devices were found\n", 6) == "this machine has no NVIDIA GPU; use --device cpu\n"


def test_short_names_of_devices() -> None:
    assert short_name("Intel(R) Xeon(R) Processor") == "Intel Xeon"
    assert short_name("NVIDIA H100 80GB HBM3") == "NVIDIA H100"
    assert short_name("AMD EPYC") == "AMD EPYC"
    assert short_name("Intel(R) Xeon(R) CPU E5-2680 v3 @ 2.50GHz") == "Intel Xeon CPU E5-2680 v3 @ 2.50GHz"


def test_a_name_is_never_code() -> None:
    """Wide twins have no meaning in Markdown, HTML or Typst."""
    assert short_name("a<b>*c*\n`d` [@e]") == "a＜b＞＊c＊ ｀d｀ ［＠e］"
