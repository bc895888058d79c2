"""Whatever a script is given that it can't use, it exits with 2 and one line, and loses nothing."""

from __future__ import annotations

import importlib
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from experiments.machine import allocation
from experiments.measure_plan import job_runs, survey
from experiments.p4 import datasets
from experiments.store.files import ROOT
from report import __main__ as report_command
from report import yours
from tests.bad_files import BOOKS, CHECKPOINTS, FILES, RESULTS, Bad
from tests.bad_flags import FLAGS, GIVEN
from tests.measure_machines import LAPTOP
from tests.p4_runs import SMALL, files

pytestmark = pytest.mark.usefixtures("bare_machine", "fixed_commit", "poor")


@pytest.fixture
def poor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop on which Horovod is built, with few synthetic images."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("experiments.p1.horovod_launch.check_horovod", lambda framework: None)
    monkeypatch.setattr(survey, "survey", lambda device, probe: LAPTOP)
    monkeypatch.setattr(job_runs, "run_all", lambda *_: pytest.fail("too late"))
    monkeypatch.setenv(allocation.TOKEN, "")  # which scripts set, for what they start; it is put back afterwards
    monkeypatch.delenv(allocation.TOKEN)
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda place, name: SMALL if name == "synthetic" else load(place, name))


def refusal(module: str, words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused, without the script's name; what is there stays as it is."""
    capsys.readouterr()  # what making the case said
    before, name = files(here), report_command.__name__ if module == "report.__main__" else module
    argv = shlex.split(f"{GIVEN.get(module, '')} {words}".replace("{here}", str(here)))
    try:
        status = importlib.import_module(name).main(argv)
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr().err
    assert status == 2, said
    assert said.count("\n") == 1, said
    assert files(here) == before
    return said


def script(module: str) -> str:
    return "report" if module == "report.__main__" else module.rpartition(".")[2]


@pytest.mark.parametrize(("module", "words", "line"), [(m, *case) for m, cases in FLAGS.items() for case in cases])
def test_flags(module: str, words: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(module, words, tmp_path, capsys)
    assert said.startswith(f"{script(module)}: ") and line.replace("{here}", str(tmp_path)) in said


@pytest.mark.parametrize("bad", FILES, ids=lambda bad: f"{bad.module}-{bad.what}")
def test_files(
    bad: Bad,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if bad in RESULTS:
        monkeypatch.setenv(yours.FOLDERS, str(tmp_path / "results"))
    if bad in BOOKS:
        monkeypatch.setattr(report_command, "__file__", str(tmp_path / "report" / "__main__.py"))
    if bad in CHECKPOINTS:
        (tmp_path / "checkpoints").mkdir()
        shutil.copy(request.getfixturevalue("first_epoch"), tmp_path / "checkpoints")
    bad.make(tmp_path)
    assert bad.line in refusal(bad.module, bad.words, tmp_path, capsys)


def test_every_script_has_a_line() -> None:
    found = [path for folder in ("experiments", "tools") for path in (ROOT / folder).glob("*.py")]
    scripts = [path for path in found if "def main(" in path.read_text()]
    alone = {"tools.build_horovod", "tools.check_horovod", "tools.tune_tiles"}  # build, are started by it, need a GPU
    named = {f"{p.parent.name}.{p.stem}" for p in scripts} - alone
    assert named | {"report.__main__"} == set(FLAGS)
