"""tools/prove_move.py: moves that are none are refused, on made-up modules; and all recorded moves are proved again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from experiments.store import ledger
from experiments.store.files import ROOT
from experiments.store.ledger import Change
from tools import prove_move
from tools.prove_move import MoveError, Names, places, prove

OLD, NEW, PART = "experiments/data.py", "experiments/p4/images.py", "experiments/p4/labels.py"
TEXT = '''"""Images."""

import numpy as np
from pathlib import Path
from experiments import resnet
from experiments.cli import UsageError

# Of an image, in pixels.
SIDE = 28
TABLE = Path(__file__).with_name("table.csv")


def load(count: int) -> np.ndarray:
    """So many black images."""
    if count < 0:
        raise UsageError("too few")  # of the user
    return np.zeros((count, SIDE, SIDE))


class Labels:
    """Labels for `load`."""

    side = SIDE

    def all(self, load: int) -> list[int]:
        return [SIDE * resnet.depth(SIDE) for SIDE in range(load)]


def main() -> int:
    print(load(3).sum(), Labels().all(2))
    return 0


if __name__ == "__main__":
    main()
'''


def moved(text: str = TEXT, words: bool = False, known: Names | None = None, **files: str) -> dict[str, list[str]]:
    """Prove that OLD became NEW, or these files."""
    new = {NEW: files["new"], PART: files["part"]} if files else {NEW: text}
    own = places(OLD, TEXT, new, {})
    other = known or Names({}, {"experiments/table.csv": "experiments/p4/table.csv"})
    return prove(OLD, TEXT, new, Names(other.names | own.names, other.files | own.files), words)


def test_a_pure_move() -> None:
    assert moved() == {NEW: []}


def test_imports_may_differ_where_names_mean_the_same() -> None:
    text = TEXT.replace("import numpy as np", "import numpy").replace("np.", "numpy.")
    text = text.replace("from experiments import resnet", "from experiments.resnet import depth")
    text = text.replace("resnet.depth", "depth").replace('"__main__"', '"__test__"')
    assert moved(text) == {NEW: []}


def test_names_that_another_move_renamed() -> None:
    text = TEXT.replace("from experiments import resnet", "from experiments.p4 import nets as resnet")
    with pytest.raises(MoveError, match=r"Labels: .*experiments\.resnet\.depth.*experiments\.p4\.nets\.depth"):
        moved(text)
    files = {"experiments/table.csv": "experiments/p4/table.csv"}
    assert moved(text, known=Names({"experiments.resnet": "experiments.p4.nets"}, files)) == {NEW: []}
    assert moved(text, known=Names({"experiments.resnet.depth": "experiments.p4.nets.depth"}, files)) == {NEW: []}


def test_a_path_beside_the_file_must_lead_to_the_same_file() -> None:
    with pytest.raises(MoveError, match=r"TABLE: .*<experiments/table.csv>.*<experiments/p4/table.csv>"):
        moved(known=Names({}, {}))
    text = TEXT.replace('Path(__file__).with_name("table.csv")', 'Path(__file__).resolve().parents[1] / "table.csv"')
    assert moved(text, known=Names({}, {})) == {NEW: []}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("SIDE = 28", "SIDE = 29", r"SIDE: .*28.*29"),
        ("count < 0", "count < 1", "load: "),
        ("import numpy as np", "import math as np", "load: .*numpy.*math"),
        ("    side = SIDE\n", "    side = 28\n", "Labels: "),
        ("SIDE * resnet", "28 * resnet", "Labels: "),
        ("load: int) ->", "load: int = 1) ->", "Labels: "),
        ("def main() -> int:\n    print(", "def main() -> int:\n    np(", "main: "),
        ('class Labels:\n    """Labels for `load`."""', "class Labels(dict):", "Labels: "),
        ("def main() ->", "def main2() ->", "main: stands in 0 of the new files"),
        (TEXT[TEXT.index("def load") : TEXT.index("class Labels")], "", "load: stands in 0 of the new files"),
    ],
)
def test_what_changed_or_was_dropped_is_refused(before: str, after: str, said: str) -> None:
    assert TEXT.count(before) == 1
    with pytest.raises(MoveError, match=said):
        moved(TEXT.replace(before, after), words=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [("So many black", "Some black"), ("# of the user", "# of the reader"), ("# Of an image", "# Of each image")],
)
def test_docstrings_and_comments_may_differ_only_where_this_is_said(before: str, after: str) -> None:
    text = TEXT.replace(before, after)
    with pytest.raises(MoveError, match="docstrings or comments differ"):
        moved(text)
    assert moved(text, words=True) == {NEW: []}


SPLIT = TEXT.index("class Labels")
PART_TEXT = "from experiments import resnet\nfrom experiments.p4.images import SIDE, load\n\n" + TEXT[SPLIT:]


def test_a_split_into_two() -> None:
    assert moved(new=TEXT[:SPLIT], part=PART_TEXT) == {NEW: [], PART: []}


def test_a_split_that_has_a_definition_twice_or_refers_to_another_one() -> None:
    with pytest.raises(MoveError, match="SIDE stands in 2 of the new files"):
        moved(new=TEXT[:SPLIT], part="SIDE = 28\n" + PART_TEXT)
    with pytest.raises(MoveError, match=r"Labels: .*experiments\.p4\.images\.SIDE.*experiments\.p5\.images\.SIDE"):
        moved(new=TEXT[:SPLIT], part=PART_TEXT.replace("p4", "p5"))


def test_what_a_new_file_has_beside_is_listed() -> None:
    assert moved(TEXT + "\n\nMORE, LESS = 1, 2\nprint(MORE)\n") == {
        NEW: ["LESS, MORE", "print(experiments.p4.images.MORE)"]
    }


def test_renamed_definitions_must_be_stated() -> None:
    text = TEXT.replace("Labels", "Classes").replace("def load", "def read").replace(" load(3)", " read(3)")
    text = text.replace("print(load", "print(read")
    new = {NEW: text}
    given = prove_move.renames("moved; load=experiments.p4.images.read; Labels=experiments.p4.images.Classes", OLD)
    own = places(OLD, TEXT, new, given)
    names = Names(own.names, own.files | {"experiments/table.csv": "experiments/p4/table.csv"})
    assert prove(OLD, TEXT, new, names, words=True) == {NEW: []}
    with pytest.raises(MoveError, match="load: stands in 0 of the new files"):
        moved(text)


def test_other_files_must_be_equal() -> None:
    assert prove("a/kernels.cu", "int x;", {"b/kernels.cu": "int x;"}, Names({}, {})) == {"b/kernels.cu": []}
    for new in ({"b/kernels.cu": "int x; "}, {"b/kernels.cu": "int x;", "b/more.cu": "int x;"}):
        with pytest.raises(MoveError, match="with equal bytes"):
            prove("a/kernels.cu", "int x;", new, Names({}, {}))


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with OLD and a table, and an empty ledger."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "experiments" / "p4").mkdir(parents=True)
    (tmp_path / OLD).write_text(TEXT)
    (tmp_path / "experiments" / "table.csv").write_text("a,b\n")
    commit(tmp_path)
    monkeypatch.setattr("experiments.store.ledger.LEDGER", tmp_path / "ledger.csv")
    ledger.write([])
    return tmp_path


def commit(root: Path) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "a commit"]):
        subprocess.run(["git", *who, *arguments], cwd=root, check=True)


def rename(root: Path, old: str, new: str) -> None:
    (root / old).rename(root / new)


def test_rows_are_written_for_what_is_proved_and_can_be_proved_again(checkout: Path) -> None:
    rename(checkout, OLD, NEW)
    assert prove_move.main([OLD, NEW], checkout) == 2  # its table is elsewhere
    assert ledger.changes() == ()
    table = ["experiments/table.csv", "experiments/p4/table.csv"]
    rename(checkout, *table)
    assert prove_move.main([*table, "--because", "a folder a subject"], checkout) == 0
    assert prove_move.main([OLD, NEW], checkout) == 0
    digests = [ledger.file_hash(checkout / path) for path in (table[1], NEW)]
    assert ledger.changes() == (
        Change(table[0], digests[0], table[1], digests[0], "moved; a folder a subject"),
        Change(OLD, digests[1], NEW, digests[1], "moved"),
    )
    commit(checkout)
    (checkout / NEW).write_text("something else\n")
    read = prove_move.History(checkout)
    for old, rows in prove_move.moves().items():
        prove_move.prove_again(old, rows, read, prove_move.recorded(read))
    ledger.write([ledger.changes()[1]])  # without the table's row the other one proves nothing
    with pytest.raises(MoveError, match="TABLE"):
        prove_move.prove_again((OLD, digests[1]), list(ledger.changes()), read, prove_move.recorded(read))
    with pytest.raises(LookupError, match="is in no commit here"):
        read(NEW, "0" * 64)


def test_more_needs_a_reason_or_another_move(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "experiments" / "more.py").write_text("MORE = 1\n")
    commit(checkout)
    (checkout / OLD).unlink()
    (checkout / "experiments" / "more.py").unlink()
    text = TEXT.replace('Path(__file__).with_name("table.csv")', 'Path(__file__).parents[1] / "table.csv"')
    (checkout / NEW).write_text(f"MORE = 1\n{text}")
    assert prove_move.main([OLD, NEW], checkout) == 2
    assert f"beside what moved there are {NEW}: MORE" in capsys.readouterr().err
    assert prove_move.main([OLD, NEW, "--with-more", "MORE is used by nothing here"], checkout) == 0
    assert prove_move.main(["experiments/more.py", NEW], checkout) == 0
    assert prove_move.main([OLD, NEW], checkout) == 0  # the other row explains it now, and this one is replaced
    assert [change.reason for change in ledger.changes()] == ["moved", "moved"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give the old file and at least one new one"),
        ([OLD, "experiments/gone.py"], "experiments/gone.py: there is no such file"),
        (["experiments/gone.py", OLD], "git show: "),
        ([OLD, OLD], "has not changed since HEAD"),
        ([OLD, OLD, "--rev", "nowhere"], "git show: "),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], said: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prove_move.main(arguments, checkout) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_pruning_keeps_what_stored_runs_need(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.write([Change(OLD, "0" * 64, NEW, "1" * 64, "no run has it")])
    assert prove_move.main(["--prune"], checkout) == 0
    assert ledger.changes() == () and capsys.readouterr().out == "1 rows, of which 0 are needed\n"


# ---- what is committed ---------------------------------------------------------------------------------------------


def test_every_recorded_move_is_proved_again() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    if prove_move.git(ROOT, "rev-parse", "--is-shallow-repository") == b"true\n":
        pytest.skip("a shallow clone lacks the texts of old files")
    read = prove_move.History(ROOT)
    known = prove_move.recorded(read)
    for old, rows in prove_move.moves().items():
        assert len({row.reason for row in rows}) == 1
        prove_move.prove_again(old, rows, read, known)
