"""One SQLite file, one connection, one writer thread.

Writes are committed in groups: whatever is waiting when the thread is free becomes one transaction and one fsync, and the
event loop is woken once for the whole group. The thread never waits for a timer to gather more.
"""

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from sidecar.errors import JournalDamagedError, JournalHeldError, StorageError, StorageFailedError, StorageFullError
from sidecar.metrics import DatabaseMetrics

APPLICATION_ID = 0x46534D31
"""«FSM1»: marks the file as ours (https://sqlite.org/pragma.html#pragma_application_id)."""

MIGRATIONS = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE identity (epoch TEXT NOT NULL) STRICT",
        "CREATE TABLE journal (revision INTEGER PRIMARY KEY, appended_at REAL NOT NULL, document BLOB NOT NULL) STRICT",
        "CREATE TABLE subscribers (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT",
    ),
)
"""Step n takes a file from schema n to n + 1, in one transaction. A released step never changes."""

_PRAGMAS = (
    ("locking_mode", "EXCLUSIVE", "exclusive"),  # before WAL: no shared memory file, and nobody else gets in
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),  # NORMAL loses acknowledged writes when the power fails
    ("wal_autocheckpoint", "0", 0),  # an automatic checkpoint swallows fsync errors
    ("mmap_size", "0", 0),  # an I/O error shall be an error, not a SIGBUS
    ("temp_store", "MEMORY", 2),
    ("trusted_schema", "OFF", 0),
)

_BATCH = 256
_CHECKPOINT_BYTES = 4 << 20
_LONGEST_LOG = 16 << 20
_COMMIT_BYTES = 8 << 10  # what a small commit adds to the write-ahead log: a page or two

Done = Callable[[StorageError | None], None]


class _Write:
    __slots__ = ("done", "parameters", "sql")

    def __init__(self, sql: str, parameters: Sequence[Any], done: Done) -> None:
        self.sql = sql
        self.parameters = parameters
        self.done = done


class _Read:
    __slots__ = ("answer", "parameters", "sql")

    def __init__(self, sql: str, parameters: Sequence[Any], answer: "asyncio.Future[list[Any]]") -> None:
        self.sql = sql
        self.parameters = parameters
        self.answer = answer


class Database:
    """The file at `path`, created when it is missing. Use it as `async with`; all methods are called on the event loop.

    Entering raises `JournalHeldError` when another process has the file, `JournalDamagedError` when it is not ours or is
    newer than this version, and `StorageFailedError` when it cannot be opened. After any storage error other than
    «full» nothing more is written: `failed` has the cause, and every call gets it.
    """

    def __init__(self, path: Path, metrics: DatabaseMetrics | None = None) -> None:
        self.path = path
        self._metrics = metrics or DatabaseMetrics()
        self._jobs: deque[_Write | _Read] = deque()
        self._idle = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._resume: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closing = False
        self._logged = 0
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

    def write(self, sql: str, parameters: Sequence[Any], done: Done) -> None:
        """Run one statement in the next transaction; `done` is told once that is durable, in the order of the calls.

        When a transaction fails, `done` of everything handed over so far gets the error.
        """
        if error := self._refusal():
            done(error)
        else:
            self._hand_over(_Write(sql, parameters, done))

    async def execute(self, sql: str, parameters: Sequence[Any]) -> None:
        """As `write`, and wait until it is durable."""
        durable: asyncio.Future[None] = self._loop.create_future()
        self.write(sql, parameters, lambda error: _resolve(durable, error))
        await durable

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

    def _settle(self, writes: Sequence[_Write]) -> None:
        self._last_error = None
        for write in writes:
            write.done(None)

    def _answer(self, read: _Read, rows: list[Any]) -> None:
        if not read.answer.done():
            read.answer.set_result(rows)

    def _fail(self, batch: Sequence[_Write | _Read], error: StorageError) -> None:
        """Every write handed over so far fails with the batch: it was decided on top of it. Then go on, or never again."""
        self._last_error = error
        waiting = [*batch, *self._jobs]
        self._jobs.clear()
        if isinstance(error, StorageFullError):  # reading goes on
            self._jobs.extend(job for job in waiting if isinstance(job, _Read))
            waiting = [job for job in waiting if isinstance(job, _Write)]
        elif not self.failed.done():
            self.failed.set_result(error)
        _refuse(waiting, error)
        self._resume.put(None)

    # --- the writer thread ---

    def _run(self) -> None:
        try:
            with _held(self.path), contextlib.closing(_open(self.path)) as connection:
                self._tell(_resolve, self._opened, None)
                self._work(connection)
        except Exception as error:  # the thread's last word: whatever it was, nothing is written after it
            self._tell(self._report, _storage_error(self.path, error))
        finally:
            self._tell(self._end)

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

    def _work(self, connection: sqlite3.Connection) -> None:
        while batch := self._next_batch():
            try:
                self._serve(connection, batch)
            except Exception as error:
                self._give_up(connection, batch, error)
        self._checkpoint(connection, "TRUNCATE")

    def _serve(self, connection: sqlite3.Connection, batch: list[_Write | _Read]) -> None:
        """Commit the batch's writes together, then answer its reads. What is done leaves the batch."""
        writes = [job for job in batch if isinstance(job, _Write)]
        if writes:
            self._commit(connection, writes)
            self._tell(self._settle, writes)
            batch[:] = [job for job in batch if isinstance(job, _Read)]
        while batch:
            read = batch[0]
            self._tell(self._answer, read, connection.execute(read.sql, read.parameters).fetchall())
            batch.pop(0)
        self._checkpoint_when_due(connection)

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

    def _commit(self, connection: sqlite3.Connection, writes: Sequence[_Write]) -> None:
        """One transaction; a single statement is one by itself."""
        started = time.perf_counter()
        statements = list(_statements(writes))
        if len(statements) > 1:
            connection.execute("BEGIN IMMEDIATE")
        for sql, parameters in statements:
            connection.execute(sql, parameters)
            self._logged += sum(len(value) for value in parameters if type(value) is bytes)
        if len(statements) > 1:
            connection.execute("COMMIT")
        self._metrics.commit_seconds.observe(time.perf_counter() - started)
        self._metrics.commit_writes.observe(len(writes))
        self._logged += _COMMIT_BYTES

    def _give_up(self, connection: sqlite3.Connection, batch: Sequence[_Write | _Read], error: Exception) -> None:
        """A full disk is told, and the thread goes on once all that hung on the batch has failed. The rest is final."""
        cause = _storage_error(self.path, error)
        full = isinstance(cause, StorageFullError)
        if full:
            self._make_room(connection)
        self._metrics.errors.labels("full" if full else "failed").inc()
        self._tell(self._fail, batch, cause)
        self._resume.get()
        if not full:
            raise cause

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """What is in the write-ahead log may have its place in the file already; then the log is cut."""
        with contextlib.suppress(sqlite3.Error):  # the disk is full, which is told anyway
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._checkpoint(connection, "TRUNCATE")

    def _checkpoint_when_due(self, connection: sqlite3.Connection) -> None:
        """After so many bytes the log keeps its size, and is overwritten: half the cost of growing. A long one is cut."""
        if self._logged > _CHECKPOINT_BYTES:
            self._checkpoint(connection, "TRUNCATE" if _size(self.path, "-wal") > _LONGEST_LOG else "PASSIVE")

    def _checkpoint(self, connection: sqlite3.Connection, mode: str) -> None:
        with self._metrics.checkpoint_seconds.time():
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        self._logged = 0

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(callback, *arguments)


def _statements(writes: Sequence[_Write]) -> Iterator[tuple[str, Sequence[Any]]]:
    """The writes' statements. Neighbours that insert one row each become one: a step costs a wait for the interpreter lock."""
    for sql, group in groupby(writes, key=attrgetter("sql")):
        rows = [write.parameters for write in group]
        if sql.endswith("?)"):
            yield _for_rows(sql, len(rows)), list(chain.from_iterable(rows))
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


def _storage_error(path: Path, error: Exception) -> StorageError:
    """What an error of the database means, by its name; what is not known is a failure."""
    if isinstance(error, StorageError):
        return error
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if name == "SQLITE_FULL":
        return StorageFullError(f"{path}: {name}: {error}")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return JournalDamagedError(f"{path}: {name}: {error}; restore it from a backup")
    if name.startswith("SQLITE_BUSY"):
        return JournalHeldError(f"{path} is open in another program; one sidecar per journal, and nothing else")
    return StorageFailedError(f"{path}: {name}: {error}")


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the lock file beside the journal: a lock on the file itself is lost when anyone in this process closes it."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFailedError(f"{path}.lock: {error.strerror}; the journal's folder must exist and be writable") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise JournalHeldError(f"{path} is held by process {holder}; one sidecar per journal") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def refuse_held(path: Path) -> None:
    """Raises `JournalHeldError` when another process has the file."""
    with _held(path):
        pass


def _open(path: Path) -> sqlite3.Connection:
    """The connection, set up and migrated. SQLite ignores a failed fsync of the folder, so that one is ours."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with contextlib.ExitStack() as stack:
            connection = sqlite3.connect(path, isolation_level=None, timeout=0, cached_statements=_BATCH + 16)
            stack.callback(connection.close)
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first look, or it is not for this one
            schema = _schema_of(connection, path)
            _configure(connection, path)
            _migrate(connection, schema)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # what a crash left behind
            _sync_folder(path.parent)
            stack.pop_all()
    except (sqlite3.Error, OSError) as error:
        raise _storage_error(path, error) from error
    return connection


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    for pragma, value, expected in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma} = {value}").fetchall()
        (actual,) = connection.execute(f"PRAGMA {pragma}").fetchone()
        if actual != expected:
            raise StorageFailedError(
                f"{path}: PRAGMA {pragma} is {actual!r}, not {expected!r}: this file system cannot keep a journal"
            )


def _schema_of(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema, 0 for a new one. Looked at before anything is changed: the file may be somebody else's."""
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (schema or application or tables):
        raise JournalDamagedError(f"{path} is not a journal of fsm-sidecar; set journal.path to another file")
    if schema > len(MIGRATIONS):
        raise JournalDamagedError(
            f"{path} has schema {schema}, and this version knows up to {len(MIGRATIONS)}: run the version that wrote it"
        )
    return int(schema)


def _migrate(connection: sqlite3.Connection, schema: int) -> None:
    for step, statements in enumerate(MIGRATIONS[schema:], start=schema + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {step}")
        connection.execute("COMMIT")
