"""The layout's rules: scripts on top and not imported, one name a module, no circle of imports, no file too long."""

from __future__ import annotations

import ast
import itertools
import re
from graphlib import TopologicalSorter
from pathlib import Path

from experiments.store.files import ROOT

PACKAGES = ("derivations", "experiments", "tools")
MODULES = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"}
LONGEST = 350  # lines


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """The project's modules that one imports, at its top level or later."""
    known, found = {dotted(module) for module in MODULES}, set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found & known


def is_script(path: Path) -> bool:
    return '\nif __name__ == "__main__":' in path.read_text()


def test_no_module_imports_a_script() -> None:
    scripts = {dotted(path) for path in MODULES if is_script(path) and path.parent.name != "derivations"}
    assert {f"{dotted(path)}: {name}" for path in MODULES for name in imported(path) & scripts} == set()


def test_the_top_level_has_the_scripts_and_what_they_share() -> None:
    top = {path for path in MODULES if path.parent == ROOT / "experiments"}
    assert {path.stem for path in top if not is_script(path)} == {"cli"}
    assert not [folder for folder in (ROOT / "experiments").rglob("horovod") if folder.is_dir()]  # would hide Horovod


def test_scripts_look_for_the_project_before_they_import_it() -> None:
    """Else the one that is installed would be taken."""
    for path in (path for path in MODULES if is_script(path) and path.parent.name != "derivations"):
        text = path.read_text()
        first = re.search(r"^(from|import) (derivations|experiments|report|tools)\b", text, re.MULTILINE)
        assert first is None or "sys.path.insert(0" in text[: first.start()], path


def test_modules_have_names_of_their_own() -> None:
    names = sorted(path.stem for path in MODULES)
    assert [name for name, after in itertools.pairwise(names) if name == after] == []


def test_there_is_no_circle_of_imports() -> None:
    TopologicalSorter({dotted(path): imported(path) for path in MODULES}).prepare()  # raises CycleError


def test_no_file_is_too_long() -> None:
    kernels = {path for package in PACKAGES for path in (ROOT / package).rglob("*.cu*")}
    lines = {dotted(path): len(path.read_text().splitlines()) for path in MODULES | kernels}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_derivations_are_sympy_alone() -> None:
    for path in (ROOT / "derivations").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"numpy", "pandas", "scipy", "torch", "experiments"}
