"""One SQLite file, one connection, one writer thread.

Writes are committed in groups: whatever is waiting when the thread is free becomes one transaction and one fsync, and the
event loop is woken once for the whole group. The thread never waits for a timer to gather more.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain as chained
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from sidecar.database.failure import storage_error
from sidecar.database.lock import held
from sidecar.database.mark import Mark
from sidecar.database.recovery import Found, Opened, opened
from sidecar.database.space import Space
from sidecar.errors import StorageError, StorageFailedError, StorageFullError
from sidecar.meters import DatabaseMetrics

_BATCH = 256
_CHECKPOINT_BYTES = 4 << 20
_LEAST_CHECKPOINT_BYTES = 256 << 10
_LONGEST_LOG = 16 << 20
_PAGE_BYTES = 4 << 10
_COMMIT_BYTES = 2 * _PAGE_BYTES  # what a small commit adds to the write-ahead log: a page or two

Done = Callable[[StorageError | None], None]
Statement = tuple[str, Sequence[Any]]
"""SQL and its parameters."""


class _Write:
    __slots__ = ("done", "frees", "mark", "statements")

    def __init__(self, statements: Sequence[Statement], done: Done, mark: Mark | None, frees: bool) -> None:
        self.statements = statements
        self.done = done
        self.mark = mark
        self.frees = frees


class _Read:
    __slots__ = ("answer", "parameters", "sql")

    def __init__(self, sql: str, parameters: Sequence[Any], answer: "asyncio.Future[list[Any]]") -> None:
        self.sql = sql
        self.parameters = parameters
        self.answer = answer


class Database:
    """The file at `path`, created when it is missing. Use it as `async with`; all methods are called on the event loop.

    `reserve_bytes` stay free on its disk; `ballast_bytes` is thrown out when it is full all the same. Entering raises
    `JournalHeldError` when another process has the file, `JournalDamagedError` when something of it is lost (unless that is
    accepted) or it is not ours, and `StorageFailedError` when it cannot be opened. Then `found` says what is there. After any
    storage error other than «full» nothing more is written: `failed` has the cause, and every call gets it.
    """

    def __init__(
        self,
        path: Path,
        metrics: DatabaseMetrics | None = None,
        *,
        reserve_bytes: int = 0,
        ballast_bytes: int = 0,
        accept_data_loss: bool = False,
    ) -> None:
        self.path = path
        self.space = Space(path, reserve_bytes=reserve_bytes, ballast_bytes=ballast_bytes)
        self.found: Found
        self.shortage = asyncio.Event()
        """Set when a write found no room."""
        self._accept_data_loss = accept_data_loss
        self._metrics = metrics or DatabaseMetrics()
        self._jobs: deque[_Write | _Read] = deque()
        self._idle = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._resume: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closing = False
        self._logged = 0
        self._marked: Mark | None = None
        self._last_error: StorageError | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self.failed: asyncio.Future[StorageError] = self._loop.create_future()
        threading.Thread(target=self._run, name="database", daemon=True).start()
        try:
            await self._opened
        except StorageError:
            await self._closed  # the thread needs the loop until its last word
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish what was handed over, move the write-ahead log into the file, and release it."""
        self._closing = True
        self._wake.put(None)
        await self._closed

    @property
    def queue_length(self) -> int:
        """Writes and reads waiting for the thread."""
        return len(self._jobs)

    @property
    def last_error(self) -> StorageError | None:
        """Why the last transaction failed; None when it did not."""
        return self._last_error

    def write(
        self, sql: str, parameters: Sequence[Any], done: Done, *also: Statement, mark: Mark | None = None, frees: bool = False
    ) -> None:
        """Run a statement, and those that go with it, in the next transaction.

        `done` is told once that is durable, in the order of the calls. When a transaction fails, `done` of everything
        handed over so far gets the error. `mark` says how far the journal is then. What `frees` space is done first, and
        also where the room is low.
        """
        if error := self._refusal():
            done(error)
        else:
            self._hand_over(_Write(((sql, parameters), *also), done, mark, frees))

    async def execute(self, sql: str, parameters: Sequence[Any], *also: Statement, frees: bool = False) -> None:
        """As `write`, and wait until it is durable."""
        durable: asyncio.Future[None] = self._loop.create_future()
        self.write(sql, parameters, lambda error: _resolve(durable, error), *also, frees=frees)
        await durable

    async def probe(self) -> None:
        """Write something small that changes nothing: whether there is room again. Raises `StorageError`."""
        await self.execute("UPDATE identity SET base = base", ())

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query, after the writes handed over before it. Ask for few: writers wait meanwhile."""
        if error := self._refusal():
            raise error
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        self._hand_over(_Read(sql, parameters, answer))
        return await answer

    def _refusal(self) -> StorageError | None:
        if self.failed.done():
            return self.failed.result()
        return StorageFailedError(f"{self.path} is closed") if self._closed.done() else None

    def _hand_over(self, job: _Write | _Read) -> None:
        self._jobs.append(job)
        if self._idle:
            self._idle = False
            self._wake.put(None)

    # --- told by the thread, on the event loop ---

    def _settle_all(self, writes: Sequence[_Write]) -> None:
        self._last_error = None  # there is room again, if there was none
        self._settle(writes)

    def _settle(self, writes: Sequence[_Write]) -> None:
        for write in writes:
            write.done(None)

    def _answer(self, read: _Read, rows: list[Any]) -> None:
        if not read.answer.done():
            read.answer.set_result(rows)

    def _fail(self, batch: Sequence[_Write | _Read], error: StorageError) -> None:
        """Every write handed over so far fails with the batch: it was decided on top of it. Then go on, or never again."""
        self._last_error = error
        going_on: list[_Write | _Read] = []
        refused = [*batch, *self._jobs]
        if isinstance(error, StorageFullError):
            self.shortage.set()  # reading goes on, and making room, unless that is what found none
            going_on = [job for job in batch if isinstance(job, _Read)]
            going_on += [job for job in self._jobs if isinstance(job, _Read) or job.frees]
            refused = [job for job in batch if isinstance(job, _Write)]
            refused += [job for job in self._jobs if isinstance(job, _Write) and not job.frees]
        elif not self.failed.done():
            self.failed.set_result(error)
        self._jobs.clear()
        self._jobs.extend(going_on)
        _refuse(refused, error)
        self._resume.put(None)

    # --- the writer thread ---

    def _run(self) -> None:
        try:
            with held(self.path), opened(self.path, accept_data_loss=self._accept_data_loss) as journal:
                self.space.prepare()
                self._tell(self._start, journal.found)
                self._work(journal)
        except Exception as error:  # the thread's last word: whatever it was, nothing is written after it
            self._tell(self._report, storage_error(self.path, error))
        finally:
            self._tell(self._end)

    def _start(self, found: Found) -> None:
        self.found = found
        _resolve(self._opened, None)

    def _end(self) -> None:
        """The thread is gone: what came too late for it gets an answer as well."""
        self._closed.set_result(None)
        _refuse(self._jobs, StorageFailedError(f"{self.path} is closed"))
        self._jobs.clear()

    def _report(self, error: StorageError) -> None:
        if self._opened.done():
            self._fail((), error)
        else:
            _resolve(self._opened, error)

    def _work(self, journal: Opened) -> None:
        self._marked = Mark(journal.found.epoch, journal.found.head, journal.found.chain)
        while batch := self._next_batch():
            try:
                self._serve(journal, batch)
            except Exception as error:
                self._give_up(journal, batch, error)
        with self._or_later():
            self._checkpoint(journal, "TRUNCATE")
        journal.marks.write(self._marked._replace(in_use=False))
        journal.marks.sync()

    def _serve(self, journal: Opened, batch: list[_Write | _Read]) -> None:
        """Commit what frees space, then the other writes together, then answer the reads. What is done leaves the batch."""
        freeing, writes, reads = _sorted(batch)
        if freeing:
            self._commit(journal, freeing)
            self._tell(self._settle, freeing)
            batch[:] = [*writes, *reads]
            self._give_pages_back(journal)
        while writes:
            fitting = self._commit_fitting(journal, writes)
            self._tell(self._settle_all, writes[:fitting])
            del writes[:fitting]
            batch[:] = [*writes, *reads]
        for read in reads:
            self._tell(self._answer, read, journal.connection.execute(read.sql, read.parameters).fetchall())
            batch.pop(0)
        self._checkpoint_when_due(journal)

    def _next_batch(self) -> list[_Write | _Read]:
        """What is waiting, at most a batch; waits for something to do. Empty: closing, and all is done."""
        jobs = self._jobs
        while not jobs:
            if self._closing:
                return []
            self._idle = True
            if not jobs:  # nothing came between the two looks, or a wake-up is on its way
                self._wake.get()
        self._idle = False
        return [jobs.popleft() for _ in range(min(len(jobs), _BATCH))]

    def _commit(self, journal: Opened, writes: Sequence[_Write]) -> None:
        """One transaction; a single statement is one by itself. Then the mark follows."""
        started = time.perf_counter()
        execute = journal.connection.execute
        statements = list(_merged(writes))
        size = _COMMIT_BYTES + sum(len(value) for _, parameters in statements for value in parameters if type(value) is bytes)
        if not writes[0].frees:
            self._find_room(journal, size)
        if len(statements) > 1:
            execute("BEGIN IMMEDIATE")
        for sql, parameters in statements:
            execute(sql, parameters)
        if len(statements) > 1:
            execute("COMMIT")
        self._follow_with_mark(journal, writes)
        self._metrics.commit_seconds.observe(time.perf_counter() - started)
        self._metrics.commit_writes.observe(len(writes))
        self._logged += size

    def _commit_fitting(self, journal: Opened, writes: list[_Write]) -> int:
        """Commit the writes together, or as many as there is room for; returns how many. Raises where not one fits."""
        count = len(writes)
        while True:
            try:
                self._commit(journal, writes[:count])
            except StorageFullError:  # before anything was written
                if count == 1:
                    raise
                count //= 2
            else:
                return count

    def _find_room(self, journal: Opened, size: int) -> None:
        """Leave the reserve untouched, also when what is in the log gets its place in the file; that can be now."""
        if not self.space.due(size):
            return
        if self._logged and self.space.lacks(size + self._logged):
            self._checkpoint(journal, "TRUNCATE")
        self.space.check(size)

    def _follow_with_mark(self, journal: Opened, writes: Sequence[_Write]) -> None:
        newest = next((write.mark for write in reversed(writes) if write.mark), None)
        if newest:
            self._marked = newest
            journal.marks.write(newest)

    def _give_up(self, journal: Opened, batch: Sequence[_Write | _Read], error: Exception) -> None:
        """A full disk is told, and the thread goes on once all that hung on the batch has failed. The rest is final."""
        cause = storage_error(self.path, error)
        full = isinstance(cause, StorageFullError)
        if full:
            self._make_room(journal, nothing_left=error is not cause)
        self._metrics.errors.labels("full" if full else "failed").inc()
        self._tell(self._fail, batch, cause)
        self._resume.get()
        if not full:
            raise cause

    def _make_room(self, journal: Opened, *, nothing_left: bool) -> None:
        """What is in the write-ahead log may have its place in the file already; then the log is cut."""
        if nothing_left:
            self.space.drop_ballast()
        with self._or_later():
            if journal.connection.in_transaction:
                journal.connection.execute("ROLLBACK")
            self._checkpoint(journal, "TRUNCATE")
            self._give_pages_back(journal)

    @contextlib.contextmanager
    def _or_later(self) -> Iterator[None]:
        """What may wait until there is room."""
        try:
            yield
        except sqlite3.Error as error:
            if not isinstance(storage_error(self.path, error), StorageFullError):
                raise

    def _give_pages_back(self, journal: Opened) -> None:
        """Where room is low, what the file does not need goes back to the disk: step by step, as that is written first.

        Without room for a step SQLite leaves it undone, and does not say so (measured).
        """
        execute, pages = journal.connection.execute, self._checkpoint_bytes // _PAGE_BYTES
        before = 0
        while self.space.low:
            (unused,) = execute("PRAGMA freelist_count").fetchone()
            if unused in (0, before):
                return
            execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            self._checkpoint(journal, "TRUNCATE")
            before = unused

    @property
    def _checkpoint_bytes(self) -> int:
        """A full log can be moved into the file with what the ballast gives back, unless that is very little."""
        half = self.space.ballast_bytes // 2
        return min(_CHECKPOINT_BYTES, max(half, _LEAST_CHECKPOINT_BYTES)) if half else _CHECKPOINT_BYTES

    def _checkpoint_when_due(self, journal: Opened) -> None:
        """After so many bytes the log keeps its size, and is overwritten: half the cost of growing. A long one is cut."""
        if self._logged > self._checkpoint_bytes:
            self._checkpoint(journal, "TRUNCATE" if _size(self.path, "-wal") > _LONGEST_LOG else "PASSIVE")

    def _checkpoint(self, journal: Opened, mode: str) -> None:
        with self._metrics.checkpoint_seconds.time():
            journal.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            journal.marks.sync()
        self._logged = 0

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(callback, *arguments)


def _sorted(batch: Iterable[_Write | _Read]) -> tuple[list[_Write], list[_Write], list[_Read]]:
    """What frees space, what else is to be written, and what is to be read; each in its order."""
    freeing: list[_Write] = []
    writes: list[_Write] = []
    reads: list[_Read] = []
    for job in batch:
        if isinstance(job, _Read):
            reads.append(job)
        else:
            (freeing if job.frees else writes).append(job)
    return freeing, writes, reads


def _merged(writes: Sequence[_Write]) -> Iterator[Statement]:
    """The writes' statements. Neighbours that insert one row each become one: a step costs a wait for the interpreter lock."""
    statements = chained.from_iterable(write.statements for write in writes)
    for sql, group in groupby(statements, key=itemgetter(0)):
        rows = [parameters for _, parameters in group]
        if sql.endswith("?)"):
            yield _for_rows(sql, len(rows)), list(chained.from_iterable(rows))
        else:
            yield from ((sql, row) for row in rows)


@cache
def _for_rows(sql: str, count: int) -> str:
    """The `INSERT … VALUES (?, …)` for so many rows; they are never more than a batch."""
    head, values, row = sql.rpartition("VALUES ")
    return head + values + ", ".join([row] * count)


def file_bytes(path: Path) -> dict[str, int]:
    """Sizes of the journal's files: `db` and `wal`, 0 where there is none."""
    return {"db": _size(path, ""), "wal": _size(path, "-wal")}


def _size(path: Path, suffix: str) -> int:
    try:
        return os.stat(f"{path}{suffix}").st_size
    except FileNotFoundError:
        return 0


def _refuse(jobs: Iterable[_Write | _Read], error: StorageError) -> None:
    for job in jobs:
        if isinstance(job, _Write):
            job.done(error)
        elif not job.answer.done():
            job.answer.set_exception(error)


def _resolve(future: "asyncio.Future[None]", error: StorageError | None) -> None:
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)
