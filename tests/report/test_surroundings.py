"""Rendering depends on the checkout and the environment alone, not on the user's tools and settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from report import surroundings
from report.engine import render
from tests.small_books import book, text_of


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_pandoc_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "pandoc", "echo pandoc 99.9")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PYPANDOC_PANDOC", str(tmp_path / "pandoc"))
    assert surroundings.pandoc_path() != tmp_path / "pandoc"
    assert "99.9" not in surroundings.run_pandoc(["--version"]).stdout


def test_tools_get_no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_PATH", "PYTHONSTARTUP", "PYTHONPATH", "XDG_DATA_HOME", "LC_ALL", "DLPERF_DATA"):
        monkeypatch.setenv(name, "theirs")
    assert "theirs" not in surroundings.environment(tmp_path).values()


def test_quarto_gets_no_other_profile_or_pandoc(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUARTO_PROFILE", "QUARTO_PANDOC", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("LANG", "kept")
    assert "theirs" not in surroundings.for_quarto().values() and surroundings.for_quarto()["LANG"] == "kept"


def test_a_book_is_the_same_whatever_the_user_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# T\n\nIt is `{python} 'x' if hasattr(__builtins__, 'startup') else 'nothing'`, says [@he2016].\n"
    home = tmp_path / "home"
    startup = home / ".ipython/profile_default/startup/00.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("import builtins; builtins.startup = 1", encoding="utf-8")
    style = home / ".local/share/pandoc/default.csl"
    style.parent.mkdir(parents=True)
    style.write_text("<no style/>", encoding="utf-8")
    kernel = home / ".local/share/jupyter/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text('{"argv": ["false"], "language": "python", "display_name": "theirs"}', encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    small = book(tmp_path, a=text)
    render(small, ["html"])
    page = text_of((small.output / "report/a.html").read_text(encoding="utf-8"))
    assert "It is nothing, says (He 2016)." in page


# Imported by a kernel's Python as it starts: it makes a folder one of the machine's settings, as /etc/ipython is.
PLANT = """
from IPython.core import application
application.SYSTEM_CONFIG_DIRS.append({folder!r})
application.ENV_CONFIG_DIRS.append({folder!r})
"""


def test_settings_of_the_machines_ipython_do_not_apply(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    (folder / "startup").mkdir(parents=True)
    (folder / "startup" / "00.py").write_text("import builtins; builtins.planted = 1", encoding="utf-8")
    for name in ("ipython_config.py", "ipython_kernel_config.py"):
        line = "c.InteractiveShellApp.exec_lines = ['import builtins; builtins.configured = 1']"
        (folder / name).write_text(line, encoding="utf-8")
    applied = "[name for name in ('planted', 'configured') if hasattr(__builtins__, name)]"
    small = book(tmp_path, a=f"# T\n\nIt is `{{python}} {applied}`.\n")
    (small.root / "sitecustomize.py").write_text(PLANT.format(folder=str(folder)), encoding="utf-8")
    render(small, ["html"])
    assert "It is []." in text_of((small.output / "report/a.html").read_text(encoding="utf-8"))


def test_versions_name_the_engine_and_its_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_ENGINE", "embedded")
    monkeypatch.setenv("DLPERF_PANDOC", "3.9")
    assert surroundings.versions().startswith("the embedded engine, Python 3.")
    assert ", pandoc 3.9, altair " in surroundings.versions()
    monkeypatch.setenv("DLPERF_ENGINE", "Quarto 1.10.3")
    assert surroundings.versions().startswith("Quarto 1.10.3, Python") and "pandoc" not in surroundings.versions()
