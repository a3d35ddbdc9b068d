"""Room on the disk: writes stop before it is full, and a ballast is thrown out when it is full all the same.

A database on a full disk cannot even delete: that, too, is written first. The reserve leaves room for it; the ballast, a file
of zeros, gives it back when somebody else has used up the reserve.
"""

import contextlib
import os
import time
from pathlib import Path

from sidecar.errors import StorageFullError
from sidecar.units import Bytes

_LOOK_SECONDS = 0.1
_LOOK_BYTES = 1 << 20


class Space:
    """The room beside the journal at `path`. For the writer thread, but for `free`."""

    def __init__(self, path: Path, *, reserve_bytes: int = 0, ballast_bytes: int = 0) -> None:
        self._folder = path.parent
        self._ballast = path.with_name(f"{path.name}.ballast")
        self._reserve_bytes = reserve_bytes
        self._ballast_bytes = ballast_bytes
        self._looked_at = 0.0
        self._written = 0

    def free(self) -> int:
        """Bytes that this process may still use there."""
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize

    @property
    def low(self) -> bool:
        """Whether less is free than the reserve."""
        return self.free() < self._reserve_bytes

    def check(self, written: int) -> None:
        """Raises `StorageFullError` when the room is low. Looks every tenth of a second, or after a megabyte `written`."""
        self._written += written
        now = time.monotonic()
        if self._written < _LOOK_BYTES and now < self._looked_at + _LOOK_SECONDS:
            return
        free = self.free()
        if free < self._reserve_bytes:
            raise StorageFullError(
                f"{self._folder} has {Bytes(free)} left, and journal.min_free is {Bytes(self._reserve_bytes)}:"
                " free some space, or give the journal a larger volume"
            )
        self._looked_at, self._written = now, 0
        if free > self._reserve_bytes + 2 * self._ballast_bytes:
            self.load_ballast()

    def load_ballast(self) -> None:
        """Take the ballast aboard, where there is room for it."""
        if self._ballast_bytes and not self._ballast.exists():
            with contextlib.suppress(OSError):  # then there is none; the reserve is the first line
                _allocate(self._ballast, self._ballast_bytes)

    def drop_ballast(self) -> None:
        """Throw the ballast out: the disk is full."""
        self._ballast.unlink(missing_ok=True)
        self._looked_at = 0.0


def _allocate(path: Path, size: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
