"""The durable journal: a table of the database's file, its newest part also in memory for those who follow it."""

import time
from collections.abc import Sequence
from functools import partial

from sidecar.database import Database
from sidecar.errors import CompactedError, StorageError
from sidecar.journal import Entry, Journal, Settled, new_epoch
from sidecar.journal.recent import Recent

_APPEND = "INSERT INTO journal (revision, appended_at, document) VALUES (?, ?, ?)"
_PAGE_BYTES = 4 << 20
_PAGE = f"""
    WITH page AS (
        SELECT revision, SUM(LENGTH(document)) OVER (ORDER BY revision) AS total
        FROM (SELECT revision, document FROM journal WHERE revision > ?1 ORDER BY revision LIMIT ?2)
    )
    SELECT revision, appended_at, document FROM page JOIN journal USING (revision)
    WHERE total <= {_PAGE_BYTES} OR revision = ?1 + 1
    ORDER BY revision
"""  # noqa: S608  (a constant; keeps a page of large documents within bounds)
_COMPACT_ROWS = 500


class SqliteJournal(Journal):
    """The journal in `database`, from `await SqliteJournal.open(database)`."""

    def __init__(self, database: Database, epoch: str, *, head: int, oldest: int) -> None:
        super().__init__(epoch, head=head, oldest=oldest)
        self._database = database
        self._tail = head
        self._recent = Recent(max_entries=2048, max_bytes=8 << 20)

    @classmethod
    async def open(cls, database: Database) -> "SqliteJournal":
        """The journal as the last process left it; a new one, with a new epoch, in an empty file."""
        identity = await database.read("SELECT epoch FROM identity")
        epoch: str = identity[0][0] if identity else new_epoch()
        if not identity:
            await database.execute("INSERT INTO identity (epoch) VALUES (?)", (epoch,))
        [(oldest, head)] = await database.read("SELECT coalesce(min(revision), 1), coalesce(max(revision), 0) FROM journal")
        return cls(database, epoch, head=head, oldest=oldest)

    def append(self, document: bytes, settled: Settled) -> None:
        entry = Entry(self._tail + 1, time.time(), document)
        self._tail = entry.revision
        self._database.write(_APPEND, (entry.revision, entry.appended_at, document), partial(self._settle, entry, settled))

    def _settle(self, entry: Entry, settled: Settled, error: StorageError | None) -> None:
        if error:
            self._tail = self.head
            settled(entry, error)
        else:
            self._recent.add(entry)
            settled(entry, None)
            self._advance(entry.revision)

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        if after >= self.head:
            return ()
        if after + 1 < self.oldest:
            raise CompactedError(self.oldest)
        recent = self._recent.after(after, limit)
        if recent is not None:
            return recent
        rows = await self._database.read(_PAGE, (after, limit))
        if after + 1 < self.oldest:  # compacted while we waited
            raise CompactedError(self.oldest)
        return [Entry(*row) for row in rows]

    async def compact(self, oldest: int) -> None:
        oldest = min(oldest, self.head)
        while self.oldest < oldest:
            step = min(self.oldest + _COMPACT_ROWS, oldest)
            self.oldest = step  # first, so that nobody is promised a revision that is about to go
            self._recent.drop_before(step)
            await self._database.execute("DELETE FROM journal WHERE revision < ?", (step,))
