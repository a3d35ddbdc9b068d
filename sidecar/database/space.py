"""Room on the disk: writes stop before it is full, and a ballast is thrown out when it is full all the same.

A database on a full disk cannot even delete: that, too, is written first. The reserve leaves room for it; the ballast, a file
of zeros, gives it back when somebody else has used up the reserve. On a small disk both are at most an eighth of it.
"""

import contextlib
import os
import time
from pathlib import Path

from sidecar.errors import StorageFullError
from sidecar.units import Bytes

_LOOK_SECONDS = 0.1
_LOOK_BYTES = 1 << 20
_SHARES = 8


class Space:
    """The room beside the journal at `path`. For the writer thread, but for `free`, `attainable` and `require`."""

    def __init__(self, path: Path, *, reserve_bytes: int = 0, ballast_bytes: int = 0) -> None:
        self._folder = path.parent
        self._ballast = path.with_name(f"{path.name}.ballast")
        self.reserve_bytes = reserve_bytes
        self.ballast_bytes = ballast_bytes
        self._looked_at = 0.0
        self._written = 0
        self._refused = 0

    def prepare(self) -> None:
        """Look how large the disk is, and take the ballast aboard. Once, first of all."""
        disk = os.statvfs(self._folder)
        share = disk.f_blocks * disk.f_frsize // _SHARES
        self.reserve_bytes, self.ballast_bytes = min(self.reserve_bytes, share), min(self.ballast_bytes, share)
        self.load_ballast()

    def free(self) -> int:
        """Bytes that this process may still use there."""
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize

    @property
    def low(self) -> bool:
        """Whether the last write that was refused would be refused again."""
        return not self.attainable(0)

    def attainable(self, size: int) -> bool:
        """Whether there would be room for that write if so many bytes were given up."""
        return not self.reserve_bytes or self.free() + size >= self.reserve_bytes + self._refused

    def due(self, size: int) -> bool:
        """Whether to look before so many bytes are written: every tenth of a second, or when much was written since."""
        self._written += size
        often = min(_LOOK_BYTES, self.reserve_bytes // 4 or _LOOK_BYTES)
        return self._written >= often or time.monotonic() >= self._looked_at + _LOOK_SECONDS

    def lacks(self, size: int) -> bool:
        """Whether so many bytes more would use up the reserve."""
        return bool(self.reserve_bytes) and self.free() < self.reserve_bytes + size

    def check(self, size: int) -> None:
        """Raises `StorageFullError` when it `lacks` that much; then the next look is due at once."""
        if self.lacks(size):
            self._refused = size + self.reserve_bytes // 4  # and some more, or the next one is refused as well
            raise StorageFullError(
                f"{self._folder} has {Bytes(self.free())} left, of which journal.min_free keeps {Bytes(self.reserve_bytes)}:"
                " free some space, or give the journal a larger volume"
            )
        self._looked_at, self._written = time.monotonic(), 0
        if not self.lacks(2 * self.ballast_bytes):
            self.load_ballast()

    def require(self, size: int) -> None:
        """Raises `StorageFullError` when a copy of so many bytes would use up the reserve. Callable from anywhere."""
        if self.free() < self.reserve_bytes + size:
            raise StorageFullError(
                f"{self._folder} has {Bytes(self.free())} left, and a copy needs {Bytes(size)} there"
                f" while {Bytes(self.reserve_bytes)} have to stay free"
            )

    def load_ballast(self) -> None:
        """Take the ballast aboard, where there is room for it."""
        if self.ballast_bytes and not self._ballast.exists():
            with contextlib.suppress(OSError):  # then there is none; the reserve is the first line
                _allocate(self._ballast, self.ballast_bytes)

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
