"""What renders the book is the environment's, whatever the user's settings say: tools by their paths, none of the
user's configuration; and which versions they are, for the provenance page."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pypandoc

from experiments.store.files import temporary_folder

# Of the variables of the caller, what programs need to start at all.
KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TEMP", "SYSTEMROOT")
PACKAGES = ("altair", "pandas", "sympy", "nbclient", "ipykernel", "typst", "vl-convert-python")


def environment(home: Path) -> dict[str, str]:
    """The variables of a tool: none that configures it, and an empty folder as its home."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    folders = {name: str(home) for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    return kept | folders | {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONNOUSERSITE": "1"}


def for_quarto() -> dict[str, str]:
    """The caller's variables without those that would give Quarto another profile, Pandoc or Python."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("QUARTO_", "JUPYTER", "IPYTHON", "PYTHON"))}


def pandoc_path() -> Path:
    """The environment's pandoc: that of its wheel, else that of conda. Raises FileNotFoundError."""
    wheels = Path(pypandoc.__file__).parent / "files" / "pandoc"
    found = next((path for path in (wheels, Path(sys.exec_prefix) / "bin" / "pandoc") if path.is_file()), None)
    if found is None:
        raise FileNotFoundError("the environment has no pandoc; install it with: pip install pypandoc-binary")
    return found


def run_pandoc(arguments: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """The environment's pandoc, with none of the user's files, such as a default.csl for citations."""
    with temporary_folder("pandoc") as nothing:
        command = [str(pandoc_path()), f"--data-dir={nothing}", *arguments]
        own = environment(nothing)
        return subprocess.run(command, input=text, capture_output=True, encoding="utf-8", env=own)


def versions() -> str:
    """What renders this book, with versions, in words."""
    found = [f"Python {platform.python_version()}"]
    engine = os.environ.get("DLPERF_ENGINE", "Quarto")
    if engine == "embedded":
        engine = "the embedded engine"
        found.append(f"pandoc {os.environ.get('DLPERF_PANDOC', 'of unknown version')}")
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:  # one that only the other engine needs
            continue
    return f"{engine}, {', '.join(found)}"
