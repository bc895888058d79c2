"""The wheel, installed outside the checkout into an environment of its own, has all that the project reads."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
import textwrap
import tomllib
import venv
from pathlib import Path

import pytest

from experiments.store.files import ROOT

PACKAGES = ("derivations", "experiments", "report")

# Runs where nothing of the checkout can be imported.
CHECK = """
    import importlib, importlib.metadata, pkgutil, sys
    from pathlib import Path
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires("dlperf"):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": "report"}):
            assert importlib.metadata.version(requirement.name) in requirement.specifier, line

    import derivations, experiments, report
    from experiments.machine import allocation
    from experiments.p4 import cuda_kernels
    from experiments.scaling import prices, published
    from experiments.store import ledger, parquet, schemas
    from report import engine

    for package in (derivations, experiments, report):
        assert Path(package.__file__).is_relative_to(sys.prefix), package.__file__
    for package in (derivations, report):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    assert parquet.read("p4_cutout").columns.tolist()[: len(schemas.SCHEMAS["p4_cutout"])] == [
        field.name for field in schemas.SCHEMAS["p4_cutout"]
    ]
    assert ledger.changes() and allocation.windows()
    assert len(prices.load()) and len(published.load())
    assert "conv_forward" in cuda_kernels.SOURCE.read_text()
    assert "nine_taps" in "".join(path.read_text() for path in cuda_kernels.HEADERS)
    shipped = "numbering.lua formats.lua widths.lua page.html scroll.html book.css style.css book.typ"
    for name in shipped.split():
        assert list(Path(report.__file__).parent.rglob(name)), name
    print("all there")
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_has_all_that_is_read(tmp_path: Path) -> None:
    source, wheels, environment = tmp_path / "source", tmp_path / "wheels", tmp_path / "environment"
    source.mkdir()
    for package in PACKAGES:  # a copy, as a build leaves files behind
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source, cwd=tmp_path)
    (wheel,) = wheels.glob("*.whl")

    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    # The packages that the wheel needs come from here; a path in a .pth file is added without the .pth files in it, so
    # that an editable installation of the checkout stays out.
    here = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip())
    (here / "others.pth").write_text("\n".join(site.getsitepackages()))
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert run(python, "-I", "-c", textwrap.dedent(CHECK), cwd=tmp_path) == "all there\n"


def test_all_data_files_of_the_packages_are_package_data() -> None:
    """What lies in the packages beside Python is in the wheel, or is known not to be read at run time."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    carried = {pattern.removeprefix("*") for pattern in settings["package-data"]["*"]}
    listed = run("git", "ls-files", *PACKAGES, cwd=ROOT).split() if (ROOT / ".git").exists() else []
    suffixes = {Path(name).suffix for name in listed} - {".py"}
    assert suffixes - carried <= {".qmd", ".scss", ".slurm", ".svg", ".yaml"}
