"""A lock that lives as long as its holder: the kernel drops it when the process ends, by whatever signal."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def _posix() -> Any:
    try:
        import fcntl
    except ImportError:
        return None
    return fcntl


_FCNTL = _posix()
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


@dataclass(frozen=True)
class Hold:
    """What became of the wish for a lock.

    Attributes
    ----------
    granted : bool
        Nobody else is known to hold it.
    certain : bool
        And nobody else can: False where the file system has no locks.
    """

    granted: bool
    certain: bool


@contextmanager
def locked(path: Path) -> Iterator[Hold]:
    """Try to hold the lock file `path`, without waiting; the file is removed at the end.

    There is no stale lock to detect: `flock` belongs to the open file, and the kernel closes that. Where the file
    system cannot lock, everyone is granted the hold and `certain` is False.
    """
    handle = _open(path)
    if handle is None:
        yield Hold(granted=True, certain=False)
        return
    granted = _try(handle, path)
    try:
        yield Hold(granted=granted is not False, certain=granted is True)
    finally:
        if granted:
            # While it is still held, so that no other holder loses its file.
            with suppress(OSError):
                path.unlink()
        os.close(handle)


def _open(path: Path) -> int | None:
    if _FCNTL is None:
        return None
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:  # a full disk says so where the result is written
        return None


def _try(handle: int, path: Path) -> Any:
    """Return True: held; False: another holds it; None: this file system has no locks."""
    try:
        _FCNTL.flock(handle, _FCNTL.LOCK_EX | _FCNTL.LOCK_NB)
    except OSError as error:
        return False if error.errno in _BUSY else None
    # The holder before may have removed the file between `open` and `flock`: then this lock is on no name.
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
