"""The whole document without any committed results, and with a reader's few."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.store import parquet
from experiments.store.files import ROOT
from report.engine import Book
from report.yours import FOLDERS
from tests.stored_run import COMMIT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as someone has it who deleted results/."""
    root = tmp_path_factory.mktemp("bare") / "project"
    for name in ("report", "derivations", "experiments"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_quarto.yml", "index.qmd", "references.bib"):
        shutil.copy(ROOT / name, root)
    return root


def render(root: Path, **environment: str) -> str:
    """Render the pages; the text of the one about the reader's machine."""
    own = {name: value for name, value in os.environ.items() if name != FOLDERS} | {"DLPERF_COMMIT": COMMIT}
    command = [sys.executable, "-m", "report", "--engine", "embedded", "--to", "html"]
    done = subprocess.run(command, cwd=root, env=own | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    chapters = Book.read(root).chapters
    assert all((root / "_book" / name).with_suffix(".html").is_file() for name in chapters)
    page = (root / "_book" / "report" / "this-machine.html").read_text(encoding="utf-8")
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).replace("\u00a0", " ").split())


def test_without_committed_results_the_chapters_say_what_makes_them(bare: Path) -> None:
    assert "This page is for your own measurements." in render(bare)
    for name, command in (
        ("p1-horovod", "python experiments/p1_horovod.py"),
        ("p2-strategy", "python experiments/p2_strategy.py"),
        ("p4-batch-augmentation", "python experiments/p4_cutout.py"),
        ("scaling-model", "python experiments/scaling_fit.py"),
    ):
        assert command in (bare / "_book" / "report" / f"{name}.html").read_text(encoding="utf-8")


def test_with_a_readers_few_runs_alone_the_page_has_their_answers(bare: Path, tmp_path: Path) -> None:
    """Of the committed runs those of one and two cores without an all-reduce's curve, as if they were a reader's."""
    mine = tmp_path / "mine"
    for run in parquet.runs():
        config = run.provenance.config
        wanted = run.provenance.experiment == "p1_horovod" and run.provenance.device == run.provenance.host_cpu
        if wanted and config["learners"] <= 2 and config.get("hosts", 1) == 1:
            target = mine / "p1_horovod"
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(run.path, target)
    text = render(bare, **{FOLDERS: str(mine)})
    assert re.search(r"Yours: 2 × .* core", text)
    assert re.search(r"On two CPU cores Horovod trains 1\.\d\d times as many images per second as on one", text)
    assert "Not measured here: python experiments/p2_strategy.py" in text
    assert "Not measured here: python experiments/p4_cutout.py --M 8" in text
