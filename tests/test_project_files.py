"""CITATION.cff, pre-commit's hooks and the CI workflow agree with the project."""

from __future__ import annotations

import tomllib

import yaml

from experiments.store.files import ROOT


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    book = yaml.safe_load((ROOT / "_quarto.yml").read_text())["book"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert (citation["title"], citation["authors"]) == (book["title"], [{"name": book["author"]}])


def test_the_workflow_runs_what_ci_runs_and_quarto_on_whole_clones() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert {".ci/run", "make report ARGS='--engine quarto'"} <= {step.get("run") for step in steps}
    (tests,) = (job for job in jobs.values() if {"run": ".ci/run"} in job["steps"])
    depths = [s["with"]["fetch-depth"] for s in tests["steps"] if s.get("uses", "").startswith("actions/checkout@")]
    assert depths == [0]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_hooks_are_the_makefiles_checks() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    checks = (ROOT / "Makefile").read_text()
    assert [hook["entry"].split()[0] for hook in hooks] == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]
    assert all(f"$(BIN)/{tool}" in checks for tool in ("ruff check", "ruff format", "mypy"))
