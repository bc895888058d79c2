"""environment.yml (conda) and constraints.txt (CI's lock) agree with pyproject.toml."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from experiments.store.files import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text())

# Where conda-forge calls a package something else.
CONDA_NAMES = {
    "playwright": "playwright-python",
    "pypandoc-binary": "pypandoc",
    "quarto-cli": "quarto",
    "torch": "pytorch",
    "typst": "typst-py",
}
# What conda needs beside pypandoc, whose conda package has no pandoc inside.
PIP_ONLY = {"axe-playwright-python"}  # which conda-forge lacks
CONDA_ONLY = {"pandoc": ">=3.6", "pip": ""}
# TensorFlow's package depends on the machine, so pyproject.toml leaves it to the Makefile.
CONDA_ONLY |= {"tensorflow": ">=2.18"}


def required() -> dict[str, Requirement]:
    """Everything that pyproject.toml asks for, all extras together, by normalised name."""
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    found: dict[str, Requirement] = {}
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            continue
        assert found.setdefault(name, requirement).specifier == requirement.specifier, f"two bounds for {name}"
    return found


def conda() -> dict[str, Requirement]:
    """The conda dependencies by name; their simple form, name>=version, reads as pip's does."""
    found = [Requirement(line) for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
    assert len({requirement.name for requirement in found}) == len(found), "a package is named twice"
    return {requirement.name: requirement for requirement in found}


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_conda_has_the_same_packages_with_the_same_bounds() -> None:
    needed = {name: requirement for name, requirement in required().items() if name not in PIP_ONLY}
    expected = {CONDA_NAMES.get(name, name): str(requirement.specifier) for name, requirement in needed.items()}
    expected |= CONDA_ONLY | {"python": PROJECT["requires-python"]}
    assert {name: str(requirement.specifier) for name, requirement in conda().items()} == expected


def test_renamed_packages_are_in_use() -> None:
    assert set(CONDA_NAMES) <= set(required())


def test_conda_takes_everything_from_conda_forge_and_the_project_from_here() -> None:
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]
    (pip,) = [line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict)]
    assert pip == ["-e .", *(str(required()[name]) for name in sorted(PIP_ONLY))]


@pytest.mark.parametrize("version", ["2.6.0+cu124", "2.13.0+cpu", "2.13.0", "2.14.1+cu130"])
def test_cpu_and_cuda_builds_of_torch_are_admitted(version: str) -> None:
    assert required()["torch"].specifier.contains(version)
    assert conda()["pytorch"].specifier.contains(version)


def test_rendering_needs_no_deep_learning_framework() -> None:
    light = {Requirement(line).name for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["report"]]}
    assert not light & {"torch", "tensorflow", "keras", "fvcore", "jax"}


def test_the_lock_pins_every_requirement_within_its_bounds() -> None:
    locked = pins()
    for name, requirement in required().items():
        (pin,) = locked[name].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{name}: {pin} against {requirement.specifier}"


def test_the_lock_is_exact_and_holds_no_cuda_packages() -> None:
    for name, requirement in pins().items():
        (pin,) = requirement.specifier
        assert pin.operator == "==" and Version(pin.version).local is None
        assert requirement.url is None and requirement.marker is None
        assert not name.startswith(("nvidia", "cuda", "tensorflow", "dlperf", "horovod")) or name == "tensorflow-cpu"


def test_make_horovod_looks_again_at_what_is_installed(tmp_path: Path) -> None:
    """Errors advise it where Horovod is there, but for other versions."""
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", "distributed.installed", "horovod.installed"):
        (tmp_path / name).touch()

    def planned(target: str) -> str:
        argv = ["make", "-n", target, f"VENV={tmp_path}"]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "tools/build_horovod.py" in planned("horovod")
    assert "tools/build_horovod.py" not in planned(f"{tmp_path}/horovod.installed")
    (tmp_path / "horovod.installed").unlink()
    assert "tools/build_horovod.py" in planned(f"{tmp_path}/horovod.installed")
