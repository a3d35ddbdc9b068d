"""What the journal takes of its disk, and what is left there. A disk that hangs delays a scrape a little, and nothing else."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from sidecar.database import Database, file_bytes

PATIENCE_SECONDS = 0.5


class Room(NamedTuple):
    """Bytes: of the journal's files, and left on the disk."""

    files: Mapping[str, int]
    free: int


class Disk:
    """`room` as it was when the disk last answered. One look at a time is under way, however long it takes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._look: asyncio.Future[None] | None = None
        self.room = self._read()

    def _read(self) -> Room:
        return Room(file_bytes(self._database.path), self._database.space.free())

    async def look(self) -> None:
        """Look again, in a thread, and wait for it a little."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().run_in_executor(None, self._renew)
        await asyncio.wait([self._look], timeout=PATIENCE_SECONDS)

    def _renew(self) -> None:
        with suppress(OSError):  # whoever writes there will say so
            self.room = self._read()
