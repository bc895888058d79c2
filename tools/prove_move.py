"""Proves that a source was only moved, and writes so into the ledger (experiments/store/same_numbers.csv).

    python tools/prove_move.py experiments/a.py experiments/p4/b.py experiments/p4/c.py    one file became two
    python tools/prove_move.py experiments/a.py experiments/a.py --because "imports follow"
    python tools/prove_move.py --prune                                 deletes rows that no stored run needs any more

The old file is that of a git revision, the new ones are those of the working tree. Every definition of the old file
must stand in exactly one of the new files and mean the same there. Imports may differ, and a module's own docstring;
other docstrings and comments only with --words; names only where another row or --rename says so. Anything more in the
new files is refused unless another row says where it came from, or --with-more why it changes no number. Files that are
not Python must be equal. The tests prove every such row again.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments.cli import Parser, UsageError, exit_status
from experiments.store import ledger, parquet
from experiments.store.files import ROOT
from experiments.store.ledger import Change
from tools.definitions import Definition, definitions, latest, module_name, names_of

# New names of modules that no run records, so that the ledger has no rows for them. New names map to themselves.
WENT = {
    "experiments.allocation": "experiments.machine.allocation",
    "experiments.ledger": "experiments.store.ledger",
    "experiments.resnet50": "experiments.p1.torch_resnet50",
    "experiments.schemas": "experiments.store.schemas",
    "experiments.settings": "experiments.machine.settings",
    "experiments.store": "experiments.store.parquet",
    "experiments.usage": "experiments.cli",
}
PARTS_OF_STORE = {
    "machine.device_names": ["cpu_name", "short_name"],
    "store.files": ["ROOT", "RESULTS", "check_writable", "write_atomically"],
    "store.provenance": [
        "Code",
        "Provenance",
        "library_versions",
        "loaded_sources",
        "provenance",
        "run_id",
        "timed_id",
    ],
}
for part, names in PARTS_OF_STORE.items():
    WENT |= {f"experiments.store.{name}": f"experiments.{part}.{name}" for name in names}
    WENT |= {f"experiments.{part}.{name}": f"experiments.{part}.{name}" for name in names}
WENT |= {f"experiments.store.{part}": f"experiments.store.{part}" for part in ("epochs", "files", "ledger", "schemas")}
MOVED = "moved"  # how the reasons of proved rows start
WORDS, MORE = "docstrings or comments differ", "with more: "


class MoveError(UsageError):
    """The new files are not the old one, moved; the message says where they differ."""


class Names(NamedTuple):
    """Dotted names and paths of files, with their present ones."""

    names: dict[str, str]
    files: dict[str, str]


def places(old: str, old_text: str, new: Mapping[str, str], given: Mapping[str, str]) -> Names:
    """Where each name of an old module, and its file, went; `given` renames come first. `new` are texts by path.

    Raises MoveError for a name that could have gone to several of the new files.
    """
    module, found, files = module_name(old), dict(given), dict[str, str]()
    if len(new) == 1:  # of a file that was split, only names can be followed
        files[old] = next(iter(new))
        if old.endswith(".py"):
            found.setdefault(module, module_name(*new))
    kept = {path: set(names_of(text)) for path, text in new.items() if old.endswith(".py")}
    for name in names_of(old_text) if kept else []:
        target = given.get(f"{module}.{name}", name)
        if "." in target:
            continue
        there = [path for path in kept if target in kept[path]]
        if len(there) > 1:
            raise MoveError(f"{old}: {name} stands in {len(there)} of the new files")
        found |= {f"{module}.{name}": f"{module_name(path)}.{target}" for path in there}
    return Names({a: b for a, b in found.items() if a != b}, {a: b for a, b in files.items() if a != b})


def difference(before: Definition, after: Definition) -> str:
    """The first lines in which two definitions differ."""
    lines = difflib.unified_diff(before.code.splitlines(), after.code.splitlines(), lineterm="", n=0)
    shown = [line.strip() for line in lines if not line.startswith(("---", "+++", "@@"))]
    return " | ".join(shown[:4])


def prove(old: str, old_text: str, new: Mapping[str, str], names: Names, words: bool = False) -> dict[str, list[str]]:
    """What each of the new files has beside the old file's definitions. Raises MoveError where these differ.

    `names` are other moves' and `places` of this one; with `words`, docstrings and comments may differ.
    """
    if not old.endswith(".py"):
        if list(new.values()) != [old_text]:
            raise MoveError(f"{old}: a file that is not Python must be one file again, with equal bytes")
        return {path: [] for path in new}
    # Both sides in the names of now: files that either imports may have moved since.
    left = {path: definitions(path, text, names.names, names.files) for path, text in new.items()}
    wrong = []
    for before in definitions(old, old_text, names.names, names.files):
        wanted = {latest(f"{module_name(old)}.{name}", names.names) for name in before.names}

        def same(path: str, after: Definition, before: Definition = before, wanted: set[str] = wanted) -> bool:
            bound = {latest(f"{module_name(path)}.{name}", names.names) for name in after.names}
            return bound == wanted if wanted else not bound and before.code == after.code

        matches = [(path, after) for path in left for after in left[path] if same(path, after)]
        if len(matches) != 1:
            wrong.append(f"{before.title}: stands in {len(matches)} of the new files")
            continue
        path, after = matches[0]
        left[path].remove(after)
        if before.code != after.code:
            wrong.append(f"{before.title}: {difference(before, after)}")
        elif before.words != after.words and not words:
            wrong.append(f"{before.title}: docstrings or comments differ; if they may, say so with --words")
    if wrong:
        raise MoveError(f"{old} is not what it was: " + "; ".join(wrong))
    return {path: [d.title for d in left[path]] for path in left}


def renames(reason: str, old: str) -> dict[str, str]:
    """The renames that a reason states, as dotted names; a plain name is one of the old file's own."""
    found = {}
    for part in reason.split("; "):
        if stated := re.fullmatch(r"([\w.]+)=([\w.]+)", part):
            before, after = stated.groups()
            found[before if "." in before else f"{module_name(old)}.{before}"] = after
    return found


Read = Callable[[str, str], str]  # the text of a file, by its path and SHA-256


def moves() -> dict[tuple[str, str], list[Change]]:
    """The rows that claim a move, by what was moved."""
    found: dict[tuple[str, str], list[Change]] = {}
    for change in ledger.changes():
        if change.reason.startswith(MOVED):
            found.setdefault((change.source, change.before), []).append(change)
    return found


def recorded(read: Read, outdated: bool = False) -> Names:
    """What all recorded moves say of names and files. Raises LookupError for a text that is gone, or leaves out rows
    that are `outdated`."""
    names, files = dict(WENT), dict[str, str]()
    for (old, before), rows in moves().items():
        try:
            new = {row.becomes: read(row.becomes, row.after) for row in rows}
            known = places(old, read(old, before), new, renames(rows[0].reason, old))
        except LookupError:
            if not outdated:
                raise
            continue
        names |= known.names
        files |= known.files
    return Names(names, files)


def unexplained(beside: Mapping[str, list[str]], new: Mapping[str, str], old: tuple[str, str], read: Read) -> list[str]:
    """Definitions beside the old ones that no other recorded move brought into the same new files (path, SHA-256)."""
    brought = set()
    for other, rows in moves().items():
        for row in rows if other != old else []:
            if new.get(row.becomes) == row.after:
                brought |= {f"{row.becomes}: {name}" for name in names_of(read(*other))}
    found = {f"{path}: {title}" for path, titles in beside.items() for title in titles}
    return sorted(found - brought)


def prove_again(old: tuple[str, str], rows: list[Change], read: Read, known: Names) -> None:
    """Prove the move of a file (path, SHA-256) that rows of the ledger claim. Raises MoveError, LookupError."""
    text, reason = read(*old), rows[0].reason
    new = {row.becomes: read(row.becomes, row.after) for row in rows}
    own = places(old[0], text, new, renames(reason, old[0]))
    names = Names(known.names | own.names, known.files | own.files)
    beside = prove(old[0], text, new, names, WORDS in reason)
    more = unexplained(beside, {row.becomes: row.after for row in rows}, old, read)
    if more and MORE not in reason:
        raise MoveError(f"{old[0]}: beside what moved there are {', '.join(more)}")


# ---- git -----------------------------------------------------------------------------------------------------------


def git(root: Path, *arguments: str, given: bytes = b"") -> bytes:
    """What git prints. Raises UsageError with git's own words."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, input=given)
    if done.returncode:
        raise UsageError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def versions(root: Path, path: str) -> list[bytes]:
    """What a file held in each commit that changed it."""
    commits = git(root, "log", "--full-history", "--format=%H", "--", path).decode().split()
    rest = git(root, "cat-file", "--batch", given="".join(f"{commit}:{path}\n" for commit in commits).encode())
    found = []
    while rest:  # a line that ends with the file's size, the file, and a line's end; or a line for a commit without it
        head, _, rest = rest.partition(b"\n")
        if not head.endswith(b" missing"):
            size = int(head.split()[-1])
            found.append(rest[:size])
            rest = rest[size + 1 :]
    return found


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class History:
    """The texts that files had in any commit up to now, and have in the working tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.texts: dict[str, dict[str, str]] = {}

    def __call__(self, path: str, wanted: str) -> str:
        """The text of a file with this hash. Raises LookupError when no commit has it."""
        if path not in self.texts:
            here = self.root / path
            found = [*versions(self.root, path), *([here.read_bytes()] if here.is_file() else [])]
            self.texts[path] = {digest(content): content.decode() for content in found}
        if wanted not in self.texts[path]:
            raise LookupError(f"{path} with SHA-256 {wanted} is in no commit here")
        return self.texts[path][wanted]


# ---- command line --------------------------------------------------------------------------------------------------


def needed_now(root: Path) -> list[Change]:
    """The ledger's rows that stored runs need."""
    recorded_sources = {pair for run in parquet.runs(root / "results") for pair in run.provenance.sources.items()}
    return ledger.needed(recorded_sources, root)


def record(old: str, new: Iterable[str], rev: str, reason: str, root: Path) -> list[Change]:
    """Prove a move and add its rows to the ledger, in the place of rows from the same text. Raises UsageError."""
    before = git(root, "show", f"{rev}:{old}")
    contents = {}
    for path in new:
        if not (root / path).is_file():
            raise UsageError(f"{path}: there is no such file in the working tree")
        contents[path] = (root / path).read_bytes()
    start = (old, digest(before))
    rows = [Change(*start, path, digest(content), reason) for path, content in contents.items()]
    if start in {(row.becomes, row.after) for row in rows}:
        raise UsageError(f"{old}: has not changed since {rev}")
    read = History(root)
    others = [change for change in ledger.changes() if (change.source, change.before) != start]
    prove_again(start, rows, read, recorded(read, outdated=True))
    ledger.write([*others, *rows])
    return rows


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; 0 when done, 2 for a move that is none."""
    p = Parser("prove_move", __doc__)
    p.add_argument("files", nargs="*", metavar="FILE", help="the old file, then the new ones; from the project root")
    p.add_argument("--rev", default="HEAD", help="the git revision that has the old file (default HEAD)")
    p.add_argument("--because", default="", metavar="TEXT", help="for the row: why it was moved")
    p.add_argument(
        "--rename", action="append", default=[], metavar="A=B", help="a name of the old file, or a dotted one"
    )
    p.add_argument("--words", action="store_true", help="docstrings and comments may differ")
    p.add_argument("--with-more", metavar="TEXT", help="what the new files have beside, and why it changes no number")
    p.add_argument("--prune", action="store_true", help="delete rows that no stored run needs any more")
    a = p.parse_args(argv)

    def work() -> int:
        if a.prune:
            kept = needed_now(root)
            print(f"{len(ledger.changes())} rows, of which {len(kept)} are needed")
            ledger.write(kept)
            return 0
        if len(a.files) < 2:
            raise UsageError("give the old file and at least one new one, or --prune")
        parts = [MOVED, a.because, *a.rename, WORDS if a.words else "", MORE + a.with_more if a.with_more else ""]
        reason = "; ".join(part for part in parts if part)
        for row in record(a.files[0], a.files[1:], a.rev, reason, root):
            print(f"{row.source} -> {row.becomes}: {row.reason}")
        return 0

    return exit_status("prove_move", work, "the ledger is as it was", "the ledger is as it was")


if __name__ == "__main__":
    sys.exit(main())
