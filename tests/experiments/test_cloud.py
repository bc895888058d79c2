"""Job files for clouds and clusters: their own loader takes them, and they call Problem 1's script as it allows."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.store.files import ROOT

CLOUD = ROOT / "experiments" / "cloud"
SKY, SLURM = CLOUD / "p1_horovod.yaml", CLOUD / "p1_horovod.slurm"
SKY_LOADER = """
import json, sys, sky
task = sky.Task.from_yaml(sys.argv[1])
accelerators = [resources.accelerators for resources in task.resources]
print(json.dumps([task.name, task.num_nodes, accelerators, task.run]))
"""


@pytest.fixture(scope="module")
def sky() -> dict[str, Any]:
    return yaml.safe_load(SKY.read_text())


@pytest.fixture
def called(tmp_path: Path) -> Path:
    """A stand-in for Python that writes its arguments, one a line, to the file `called` beside it."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/called"\n')
    python.chmod(0o755)
    return tmp_path / "called"


def environment_with(called: Path, **environment: str) -> dict[str, str]:
    return {"PATH": f"{called.parent}:{os.environ['PATH']}", "PYTHON": str(called.parent / "python"), **environment}


def run_on_sky(sky: dict[str, Any], called: Path, rank: int) -> list[str] | None:
    """The arguments of Python on that node, as SkyPilot would run it there; None if it isn't called."""
    given = {name: text for name, text in sky["envs"].items() if name != "PYTHON"}
    environment = environment_with(
        called,
        SKYPILOT_NODE_RANK=str(rank),
        SKYPILOT_NODE_IPS="10.0.0.4\n10.0.0.5",
        SKYPILOT_NUM_GPUS_PER_NODE="8",
        **given,
    )
    subprocess.run(["bash", "-ec", sky["run"]], env=environment, check=True)
    return called.read_text().splitlines() if called.exists() else None


def run_on_slurm(called: Path, **more: str) -> list[str]:
    scontrol = called.parent / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[1-2]" ] && printf "node1\\nnode2\\n"\n')
    scontrol.chmod(0o755)
    environment = environment_with(
        called,
        SLURM_SUBMIT_DIR=str(ROOT),
        SLURM_JOB_NODELIST="node[1-2]",
        SLURM_NTASKS_PER_NODE="8",
        SLURM_NTASKS="16",
        **more,
    )
    subprocess.run(["bash", str(SLURM)], env=environment, check=True)
    return called.read_text().splitlines()


def value(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


@pytest.mark.skipif(importlib.util.find_spec("sky") is None, reason="needs: pip install skypilot")
def test_skypilots_loader_takes_the_job(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SKY_LOADER, str(SKY)],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    name, nodes, accelerators, run = json.loads(done.stdout.splitlines()[-1])
    assert (name, nodes) == ("p1-horovod", 2)
    assert accelerators and all(list(choice.values()) == [8] for choice in accelerators)
    assert run == yaml.safe_load(SKY.read_text())["run"]


def test_on_skypilot_the_first_node_launches_all_learners(sky: dict[str, Any], called: Path) -> None:
    argv = run_on_sky(sky, called, rank=0)
    assert argv is not None and argv[0] == "experiments/p1_horovod.py"
    assert value(argv, "-H") == "10.0.0.4:8,10.0.0.5:8"
    assert int(value(argv, "--learners")) == 16
    assert {int(gpus.split(":")[1]) * sky["num_nodes"] for gpus in sky["resources"]["accelerators"]} == {16}


def test_on_skypilot_other_nodes_wait(sky: dict[str, Any], called: Path) -> None:
    assert run_on_sky(sky, called, rank=1) is None


def test_on_slurm_all_tasks_are_learners(called: Path) -> None:
    argv = run_on_slurm(called)
    assert argv[0] == "experiments/p1_horovod.py"
    assert value(argv, "-H") == "node1:8,node2:8"
    assert int(value(argv, "--learners")) == 16
    assert value(run_on_slurm(called, LEARNERS="8"), "--learners") == "8"


def test_slurm_gets_a_task_a_gpu() -> None:
    words = (line.removeprefix("#SBATCH --") for line in SLURM.read_text().splitlines() if line.startswith("#SBATCH"))
    options = dict(word.partition("=")[::2] for word in words)
    assert options["ntasks-per-node"] == options["gpus-per-node"] == "8" and options["nodes"] == "2"


@pytest.mark.parametrize("where", ["sky", "slurm"])
def test_the_script_takes_these_options(where: str, sky: dict[str, Any], called: Path) -> None:
    p1_horovod = pytest.importorskip("experiments.p1_horovod")
    argv = run_on_sky(sky, called, rank=0) if where == "sky" else run_on_slurm(called)
    assert argv is not None
    parsed = p1_horovod.arguments().parse_args(argv[1:])  # exits at an option that it doesn't know
    assert parsed.learners == [16]
