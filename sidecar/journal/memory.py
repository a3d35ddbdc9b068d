"""A journal that lives as long as the process: for a store inside a program, and for tests."""

import time
from collections.abc import Sequence

from sidecar.errors import CompactedError
from sidecar.journal import Entry, Journal, Settled, new_epoch
from sidecar.journal.recent import Recent


class MemoryJournal(Journal):
    """Keeps the newest `max_revisions`, at most about `max_bytes` of documents. An append is settled before it returns."""

    def __init__(self, *, max_revisions: int = 10_000, max_bytes: int = 16 << 20) -> None:
        super().__init__(new_epoch())
        self._kept = Recent(max_entries=max_revisions, max_bytes=max_bytes)

    def append(self, document: bytes, settled: Settled) -> None:
        entry = Entry(self.head + 1, time.time(), document)
        self._kept.add(entry)
        self.oldest = self._kept.oldest or 1
        settled(entry, None)
        self._advance(entry.revision)

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        if after >= self.head:
            return ()
        entries = self._kept.after(after, limit)
        if entries is None:
            raise CompactedError(self.oldest)
        return entries

    async def compact(self, oldest: int) -> None:
        self._kept.drop_before(min(oldest, self.head))
        self.oldest = self._kept.oldest or 1
