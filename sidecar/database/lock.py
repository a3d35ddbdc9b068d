"""One process per journal: a lock on a file of its own.

A lock on the journal's file itself is lost when anyone in this process closes that file
(https://sqlite.org/howtocorrupt.html, section 2.2).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from sidecar.errors import JournalHeldError, StorageFailedError


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the journal at `path`. Raises `JournalHeldError` when another process does, naming it."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFailedError(f"{path}.lock: {error.strerror}; the journal's folder must exist and be writable") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise JournalHeldError(f"{path} is held by process {holder}; one sidecar per journal") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def refuse_held(path: Path) -> None:
    """Raises `JournalHeldError` when another process has the journal."""
    with held(path):
        pass
