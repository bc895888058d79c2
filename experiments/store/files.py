"""Where the project and its results are, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from glob import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


def write_atomically(path: Path, data: bytes) -> None:
    """Write the whole file or leave what was there."""
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write whole files, all or none: temporary files, fsync, and only then renames, fsync of the folders.

    Temporary files have random names, as writers in several containers may share a folder and a process number, and
    are new ones: a link that someone has put there is not followed. An OSError names the file that was to be written.
    """
    temporary: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path)
            name = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.{secrets.token_hex(8)}.tmp")
            with name.open("xb") as f:  # O_CREAT | O_EXCL
                temporary[path] = name
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        for path in files:
            temporary[path].replace(path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        for left in temporary.values():
            left.unlink(missing_ok=True)
    for parent in {path.parent for path in files}:
        folder = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _host() -> str:
    """This boot and namespace of processes, in which alone a process number means anything."""
    with contextlib.suppress(OSError):
        boot, processes = Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
        return hashlib.sha256(f"{boot}{processes}".encode()).hexdigest()[:8]
    return "unknown"


HOST = _host()


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers of this path on this host that were killed; others' stay."""
    for left in abandoned(path.parent.glob(f".{escape(path.name)}.{HOST}.*.*.tmp"), "."):
        left.unlink(missing_ok=True)


def abandoned(found: Iterable[Path], separator: str) -> Iterator[Path]:
    """Those of this host's temporary files and folders whose process is gone: its number follows HOST in the name."""
    for path in found if HOST != "unknown" else ():
        words = path.name.split(separator)
        writer = words[len(words) - words[::-1].index(HOST)]
        if writer.isdecimal() and not _alive(int(writer)):
            yield path


@contextlib.contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """A folder that goes with its `with` block or, where this process is killed, when the next of that name is made."""
    for left in abandoned(Path(tempfile.gettempdir()).glob(f"{escape(name)}-{HOST}-*"), "-"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-{HOST}-{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def check_writable(folder: Path) -> None:
    """Make the folder and try to write there, before long work. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as f:
        f.write(b"x")
