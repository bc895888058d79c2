"""Two runs of one configuration at once: the second refuses, naming the first.

A run claims its results file by a lock file beside it, which names its machine, process and start. The claim is the
lock that the process holds on it, not the file: the kernel drops the lock with the process, so a killed run is no
obstacle on this machine, in whichever container it was. What a run on another machine left is one until somebody
removes it, as nothing here can tell whether that run is alive.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from experiments.cli import UsageError
from experiments.machine.allocation import BOOT
from experiments.store.files import check_writable

_held: set[Path] = set()  # results files that this process has claimed


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Claim a results file for the block; inside another such block of this process it is claimed already.

    Makes the folder. Raises UsageError, which names who has claimed it, and OSError where the folder can't be written.
    """
    path = path.absolute()
    if path in _held:
        yield
        return
    check_writable(path.parent)
    lock = lock_of(path)
    descriptor = _locked(lock)
    try:
        holder, own = _holder(descriptor), _this_process()
        if holder and holder["boot"] != own["boot"] and holder["machine"] != own["machine"]:
            raise UsageError(f"{_told(lock, holder)}; where that has ended, remove {lock}")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(own).encode(), 0)
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def lock_of(path: Path) -> Path:
    """The lock file of a results file."""
    return path.with_name(f".{path.name}.lock")


def _locked(lock: Path) -> int:
    """The descriptor of the lock file, locked. A file system without locks leaves it at what the file says."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise UsageError(f"{_told(lock, holder)}; wait for it, or end it") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                os.close(descriptor)
                raise
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its holder has just removed it


def _this_process() -> dict[str, str]:
    boot = BOOT.read_text().strip() if BOOT.exists() else ""
    started = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return {"machine": platform.node(), "boot": boot, "process": str(os.getpid()), "started": started}


def _holder(descriptor: int) -> dict[str, str]:
    """What the lock file says of its holder; nothing where it is new, or damaged."""
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
        return said if isinstance(said, dict) and said.keys() == _this_process().keys() else {}
    except ValueError:
        return {}


def _told(lock: Path, holder: dict[str, str]) -> str:
    run = lock.name.removeprefix(".").removesuffix(".parquet.lock")
    who = "process {process} on {machine} since {started}".format(**holder) if holder else "another process"
    return f"{run} is being made by {who}"
