"""The output folder is the user's: of what lies there, a rendering replaces only what a rendering wrote.

A list in the folder, by format, says what that was. The book is made elsewhere and copied in at the end, file by file,
so that the folder may be a mount point, and other files and other formats stay as they are.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from experiments.store.files import write_atomically
from report.sources import BookError

LIST = ".rendered.json"


def _listed(output: Path) -> dict[str, list[str]]:
    """What earlier renderings wrote, by format."""
    try:
        listed = json.loads((output / LIST).read_text(encoding="utf-8"))
        return {kind: [str(name) for name in names] for kind, names in listed.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BookError(f"{output / LIST}: not a rendering's list ({error}); remove this folder's book") from error


def check(output: Path, wanted: Iterable[str] = ()) -> None:
    """Raise BookError where a book can't be put into the folder, which may have to be made.

    `wanted` are files that the book will have, as far as they are known before the work.
    """
    try:
        names = sorted(path.name for path in output.iterdir()) if os.path.lexists(output) else []
        there = [name for name in names if not name.startswith(f".{LIST}.")]  # of a rendering that was killed there
        with tempfile.TemporaryFile(dir=next(folder for folder in (output, *output.parents) if folder.exists())):
            pass
    except OSError as error:
        raise BookError(f"{output}: can't be written to ({error.strerror}); name another output directory") from error
    listed = _listed(output)
    if there and not listed:
        raise BookError(
            f"{output} holds something else than a rendering ({there[0]}); name another output directory, "
            "or move that away"
        )
    own = {name for names in listed.values() for name in names}
    foreign = sorted(name for name in wanted if name not in own and os.path.lexists(output / name))
    if foreign:
        raise BookError(f"{output / foreign[0]} is not a rendering's; move it away, or name another output directory")


def put(made: Path, output: Path, formats: Collection[str], pdf: str) -> None:
    """Copy the formats asked for from `made` into `output`, and remove what earlier renderings of them wrote beside.

    HTML is all but the file `pdf`. Raises BookError before anything is changed.
    """
    files = [path.relative_to(made).as_posix() for path in sorted(made.rglob("*")) if path.is_file()]
    new = {kind: [name for name in files if (name == pdf) == (kind == "pdf")] for kind in formats}
    check(output, [name for names in new.values() for name in names])
    listed = _listed(output)
    before = {name for kind in formats for name in listed.get(kind, [])}
    after = listed | new
    # First of all what will be there, lest a stop in between leaves files that count as the user's.
    write_atomically(output / LIST, json.dumps({k: sorted({*after[k], *listed.get(k, [])}) for k in after}).encode())
    for name in [name for names in new.values() for name in names]:
        write_atomically(output / name, (made / name).read_bytes())
    for name in sorted(before - {name for names in after.values() for name in names}):
        (output / name).unlink(missing_ok=True)
        _remove_empty((output / name).parent, output)
    write_atomically(output / LIST, json.dumps(after, indent=1).encode())


def _remove_empty(folder: Path, output: Path) -> None:
    """Remove a folder inside the output, and those around it, while they are empty."""
    while folder != output and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
