"""The durable journal: a table of the database's file, its newest part also in memory for those who follow it."""

import time
from collections.abc import Sequence
from functools import partial

from sidecar.database import Database, Statement
from sidecar.database.chain import link
from sidecar.database.mark import Mark
from sidecar.errors import CompactedError, StorageError
from sidecar.journal import Answered, Entry, Journal, Noted, Request, Settled, Weight
from sidecar.journal.recent import Recent

_APPEND = "INSERT INTO journal (revision, appended_at, document, chain) VALUES (?, ?, ?, ?)"
_REMEMBER = "INSERT INTO answers (revision, key, fingerprint, answered_at) VALUES (?, ?, ?, ?)"
_ANSWERED = "SELECT revision, key, fingerprint, answered_at FROM answers ORDER BY revision DESC LIMIT ?"
_ANSWER_OF = """
    SELECT revision, answered_at, COALESCE(answers.document, journal.document)
    FROM answers LEFT JOIN journal USING (revision) WHERE revision = ?
"""
_FORGET = "DELETE FROM answers WHERE revision < ?"
_NOTE = "INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)"
_NOTED = "SELECT value FROM notes WHERE name = ?"
_PAGE_BYTES = 4 << 20
_PAGE = f"""
    WITH page AS (
        SELECT revision, SUM(LENGTH(document)) OVER (ORDER BY revision) AS total
        FROM (SELECT revision, document FROM journal WHERE revision > ?1 ORDER BY revision LIMIT ?2)
    )
    SELECT revision, appended_at, document FROM page JOIN journal USING (revision)
    WHERE total <= {_PAGE_BYTES} OR total = LENGTH(document)
    ORDER BY revision
"""  # noqa: S608  (a constant; keeps a page of large documents within bounds, and never empty)
_WEIGHTS = "SELECT revision, appended_at, LENGTH(document) FROM journal ORDER BY revision LIMIT ?"
_BYTES_BEFORE = "SELECT COALESCE(SUM(LENGTH(document)), 0) FROM journal WHERE revision < ?"
_ANCHOR = """
    UPDATE identity
    SET anchor = COALESCE((SELECT chain FROM journal WHERE revision < ? ORDER BY revision DESC LIMIT 1), anchor)
"""
_KEEP_ANSWERS = """
    UPDATE answers SET document = (SELECT document FROM journal WHERE journal.revision = answers.revision)
    WHERE revision < ? AND document IS NULL
"""
_DELETE = "DELETE FROM journal WHERE revision < ?"
_COMPACT_ROWS = 500


class SqliteJournal(Journal):
    """The journal in `database`, from `SqliteJournal(database)`."""

    def __init__(self, database: Database) -> None:
        found = database.found
        super().__init__(found.epoch, head=found.head, oldest=found.oldest)
        self._size = found.size
        self._database = database
        self._tail, self._tail_chain = found.head, found.chain
        self._chain = found.chain
        self._recent = Recent(max_entries=2048, max_bytes=8 << 20)

    @property
    def size(self) -> int:
        return self._size

    def append(self, document: bytes, settled: Settled, request: Request | None = None) -> None:
        entry = Entry(self._tail + 1, time.time(), document)
        chain = link(self._tail_chain, entry.revision, entry.appended_at, document)
        self._tail, self._tail_chain = entry.revision, chain
        self._database.write(
            _APPEND,
            (entry.revision, entry.appended_at, document, chain),
            partial(self._settle, entry, chain, settled),
            *_answer(entry, request),
            mark=Mark(self.epoch, entry.revision, chain),
        )

    def _settle(self, entry: Entry, chain: bytes, settled: Settled, error: StorageError | None) -> None:
        if error:
            self._tail, self._tail_chain = self.head, self._chain
            settled(entry, error)
        else:
            self._chain = chain
            self._size += len(entry.document)
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

    async def weigh(self, limit: int) -> Sequence[Weight]:
        return [Weight(*row) for row in await self._database.read(_WEIGHTS, (limit,))]

    async def compact(self, oldest: int) -> None:
        oldest = min(oldest, self.head)
        while self.oldest < oldest:
            kept, step = self.oldest, min(self.oldest + _COMPACT_ROWS, oldest)
            self.oldest = step  # first, so that nobody is promised a revision that is about to go
            self._recent.drop_before(step)
            try:
                [(size,)] = await self._database.read(_BYTES_BEFORE, (step,))
                await self._database.execute(_ANCHOR, (step,), (_KEEP_ANSWERS, (step,)), (_DELETE, (step,)), frees=True)
            except StorageError:
                self.oldest = kept  # there was no room even for that
                raise
            self._size -= size

    async def answered(self, limit: int) -> Sequence[Answered]:
        rows = await self._database.read(_ANSWERED, (limit,))
        return [Answered(revision, Request(key, fingerprint), at) for revision, key, fingerprint, at in reversed(rows)]

    async def answer(self, revision: int) -> Entry | None:
        rows = await self._database.read(_ANSWER_OF, (revision,))
        return Entry(*rows[0]) if rows else None

    async def forget_answers(self, before: int) -> None:
        await self._database.execute(_FORGET, (before,), frees=True)

    def note(self, name: str, value: bytes, noted: Noted) -> None:
        self._database.write(_NOTE, (name, value), noted)

    async def noted(self, name: str) -> bytes | None:
        rows = await self._database.read(_NOTED, (name,))
        return bytes(rows[0][0]) if rows else None


def _answer(entry: Entry, request: Request | None) -> tuple[Statement, ...]:
    if request is None:
        return ()
    return ((_REMEMBER, (entry.revision, request.key, request.fingerprint, entry.appended_at)),)
