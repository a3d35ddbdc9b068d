"""Keeps the journal within its bounds."""

import asyncio

from sidecar.errors import StorageFullError
from sidecar.journal import Journal

FULL_SECONDS = 1.0
"""How long to wait when the disk is full: the writers are told already."""


async def retain(journal: Journal, *, revisions: int) -> None:
    """Compact the journal to its newest `revisions` whenever there are a tenth more. A core task; runs until cancelled."""
    surplus = max(1, revisions // 10)
    while True:
        await journal.beyond(journal.oldest + revisions + surplus - 2)
        try:
            await journal.compact(journal.head - revisions + 1)
        except StorageFullError:
            await asyncio.sleep(FULL_SECONDS)
