"""Keeps the journal within its bounds."""

import asyncio
import time
from contextlib import suppress

from sidecar.errors import StorageFullError
from sidecar.journal import Journal

LOOK_SECONDS = 5.0


class Retention:
    """Compacts the journal to its newest `revisions` every few seconds. `stamped_at`: when it last looked (monotonic)."""

    def __init__(self, journal: Journal, *, revisions: int) -> None:
        self.stamped_at = time.monotonic()
        self._journal = journal
        self._revisions = revisions

    async def run(self) -> None:
        """The core task; runs until cancelled."""
        while True:
            self.stamped_at = time.monotonic()
            oldest = self._journal.head - self._revisions + 1
            if oldest > self._journal.oldest:
                with suppress(StorageFullError):  # the writers are told already; we look again
                    await self._journal.compact(oldest)
            await asyncio.sleep(LOOK_SECONDS)
