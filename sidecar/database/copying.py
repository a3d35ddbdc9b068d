"""A copy of the journal while it works: page by page between the writes, each row proven by its link.

The copy is consistent: it has all revisions up to a head, subscribers that are not ahead of them, and their answers.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.database import Database, file_bytes
from sidecar.database.chain import link
from sidecar.database.failure import storage_error
from sidecar.database.schema import create, sync
from sidecar.database.space import Space
from sidecar.errors import JournalDamagedError, StorageFailedError

_PAGE_ROWS = 500
_PAGE_BYTES = 4 << 20
_ATTEMPTS = 5

_IDENTITY = """
    SELECT epoch, anchor, base, unclean_starts,
        (SELECT MIN(revision) FROM journal), (SELECT MAX(revision) FROM journal)
    FROM identity
"""
_SET_IDENTITY = "UPDATE identity SET epoch = ?, anchor = ?, base = ?, unclean_starts = ?"
_OLDEST = "SELECT MIN(revision) FROM journal"


class _Table(NamedTuple):
    """A table of the journal: what orders it, what else it has, and what weighs in it."""

    name: str
    key: str
    columns: str
    weight: str

    @property
    def page(self) -> str:
        """The rows after one key and up to another, few enough to be read between two writes; one at least."""
        return f"""
            WITH page AS (
                SELECT place, weight, SUM(weight) OVER (ORDER BY place) AS total
                FROM (
                    SELECT {self.key} AS place, COALESCE(LENGTH({self.weight}), 0) AS weight
                    FROM {self.name} WHERE {self.key} > ? AND {self.key} <= ? ORDER BY {self.key} LIMIT {_PAGE_ROWS}
                )
            )
            SELECT {self.key}, {self.columns} FROM page JOIN {self.name} ON {self.name}.{self.key} = place
            WHERE total <= {_PAGE_BYTES} OR total = weight ORDER BY place
        """  # noqa: S608  (made of constants)

    @property
    def insert(self) -> str:
        values = ", ?" * (self.columns.count(",") + 1)
        return f"INSERT INTO {self.name} ({self.key}, {self.columns}) VALUES (?{values})"  # noqa: S608  (made of constants)


_JOURNAL = _Table("journal", "revision", "appended_at, document, chain", "document")
_SUBSCRIBERS = _Table("subscribers", "rowid", "id, record", "record")
_ANSWERS = _Table("answers", "revision", "key, fingerprint, answered_at, document", "document")
_LAST = (1 << 63) - 1


class Copied(NamedTuple):
    """What a copy has; `oldest` is `head + 1` when it has no revisions."""

    epoch: str
    oldest: int
    head: int


class _OvertakenError(Exception):
    """Revisions that were to be copied next have been compacted."""


async def copy(database: Database, target: Path, space: Space) -> Copied:
    """Copy the journal to a new file, an ordinary journal; begins anew when a compaction overtakes it.

    The file is durable then, its name is not. `space` is what has to stay free around it. Raises a `StorageError`.
    """
    for _ in range(_ATTEMPTS):
        try:
            space.require(sum(file_bytes(database.path).values()))
            with contextlib.closing(_Target(target, space)) as file:
                return await _copy_all(database, file)
        except _OvertakenError:
            os.unlink(target)
        except (sqlite3.Error, OSError) as error:
            raise storage_error(target, error) from error
    raise StorageFailedError(f"{database.path}: its oldest revisions go faster than they are copied; try again later")


async def _copy_all(database: Database, file: "_Target") -> Copied:
    """Subscribers first: so their cursors are not ahead. Answers last: what is not in them any more is among the revisions."""
    await file.create()
    await _copy_table(database, file, _SUBSCRIBERS, _LAST)
    [(epoch, anchor, base, unclean_starts, oldest, newest)] = await database.read(_IDENTITY)
    copied = Copied(epoch, oldest, newest) if newest else Copied(epoch, base + 1, base)
    await _copy_revisions(database, file, copied, anchor)
    await _copy_table(database, file, _ANSWERS, copied.head)
    await file.finish((epoch, anchor, base, unclean_starts))
    return copied


async def _copy_table(database: Database, file: "_Target", table: _Table, last: int) -> None:
    after = 0
    while rows := await database.read(table.page, (after, last)):
        await file.add(table, rows)
        after = rows[-1][0]


async def _copy_revisions(database: Database, file: "_Target", wanted: Copied, before: bytes) -> None:
    after = wanted.oldest - 1
    while after < wanted.head:
        rows = await database.read(_JOURNAL.page, (after, wanted.head))
        if not rows or not await file.add_linked(rows, before):
            raise await _why_broken(database, after)
        after, before = rows[-1][0], rows[-1][-1]


async def _why_broken(database: Database, after: int) -> Exception:
    """What came instead of the next revision: one after a compaction, or one that nobody wrote."""
    [(oldest,)] = await database.read(_OLDEST)
    if oldest > after + 1:
        return _OvertakenError()
    return JournalDamagedError(f"{database.path}: what follows revision {after} is not what was written: stop, and verify it")


class _Target:
    """The file that a journal is copied to, written on a thread of its own, without a sync before the end."""

    def __init__(self, path: Path, space: Space) -> None:
        self._path = path
        self._space = space
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._thread = ThreadPoolExecutor(1, "backup")

    def close(self) -> None:
        """Waits for the thread: for one page, when the copy is given up."""
        self._thread.shutdown()
        self._connection.close()

    async def create(self) -> None:
        await self._run(self._create)

    async def add(self, table: _Table, rows: Sequence[Any]) -> None:
        await self._run(self._insert, table, rows)

    async def add_linked(self, rows: Sequence[Any], before: bytes) -> bool:
        """Add revisions, if each is linked to the one before it."""
        return bool(await self._run(self._insert_linked, rows, before))

    async def finish(self, identity: Sequence[Any]) -> None:
        """Say whose copy it is, and make it durable."""
        await self._run(self._finish, identity)

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _create(self) -> None:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = OFF", "synchronous = OFF"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        create(self._connection)

    def _insert(self, table: _Table, rows: Sequence[Any]) -> None:
        self._space.require(0)
        self._connection.execute("BEGIN")
        self._connection.executemany(table.insert, rows)
        self._connection.execute("COMMIT")

    def _insert_linked(self, rows: Sequence[Any], before: bytes) -> bool:
        for revision, appended_at, document, chain in rows:
            if link(before, revision, appended_at, document) != chain:
                return False
            before = chain
        self._insert(_JOURNAL, rows)
        return True

    def _finish(self, identity: Sequence[Any]) -> None:
        self._connection.execute(_SET_IDENTITY, identity)
        self._connection.close()
        sync(self._path)
