"""The file: how it is opened for durability, and how an older one is brought up to date."""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from sidecar.database import chain
from sidecar.epoch import new_epoch
from sidecar.errors import ForeignFileError, JournalDamagedError, StorageFailedError

APPLICATION_ID = 0x46534D31
"""«FSM1»: marks the file as ours (https://sqlite.org/pragma.html#pragma_application_id)."""

CACHED_STATEMENTS = 512

PRAGMAS = (
    ("locking_mode", "EXCLUSIVE", "exclusive"),  # before WAL: no shared memory file, and nobody else gets in
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),  # NORMAL loses acknowledged writes when the power fails
    ("wal_autocheckpoint", "0", 0),  # an automatic checkpoint swallows fsync errors
    ("mmap_size", "0", 0),  # an I/O error shall be an error, not a SIGBUS
    ("temp_store", "MEMORY", 2),
    ("cell_size_check", "ON", 1),
    ("secure_delete", "OFF", 0),  # Debian's SQLite writes every page that is freed: too much for a full disk
    ("trusted_schema", "OFF", 0),
)
"""Name, value, and what reading it back must give."""

_INCREMENTAL = 2

Step = Callable[[sqlite3.Connection], None]


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("CREATE TABLE identity (epoch TEXT NOT NULL) STRICT")
    connection.execute(
        "CREATE TABLE journal (revision INTEGER PRIMARY KEY, appended_at REAL NOT NULL, document BLOB NOT NULL) STRICT"
    )
    connection.execute("CREATE TABLE subscribers (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT")


def _prove(connection: sqlite3.Connection) -> None:
    """The hash chain, with what it starts from; revisions that went before; and the answers that are kept for a retry."""
    connection.execute("ALTER TABLE journal ADD COLUMN chain BLOB NOT NULL DEFAULT x''")
    for column in (f"anchor BLOB NOT NULL DEFAULT x'{chain.START.hex()}'", "base INTEGER NOT NULL DEFAULT 0"):
        connection.execute(f"ALTER TABLE identity ADD COLUMN {column}")
    connection.execute("ALTER TABLE identity ADD COLUMN unclean_starts INTEGER NOT NULL DEFAULT 0")
    connection.execute(
        "CREATE TABLE answers (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, fingerprint BLOB NOT NULL,"
        " answered_at REAL NOT NULL, document BLOB) STRICT"
    )
    if not connection.execute("SELECT 1 FROM identity").fetchone():
        connection.execute("INSERT INTO identity (epoch) VALUES (?)", (new_epoch(),))
    chain.relink(connection, chain.START)


def _note(connection: sqlite3.Connection) -> None:
    """What has to be remembered beside the revisions. A copy does without: its epoch ends when it is put in place."""
    connection.execute("CREATE TABLE notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT")


MIGRATIONS: tuple[Step, ...] = (_create, _prove, _note)
"""Step n takes a file from schema n to n + 1, in one transaction. A released step never changes."""


def connect(path: Path, *, marked: bool) -> sqlite3.Connection:
    """The connection, set up and migrated. `marked`: there was a journal here before, so that an empty file is a lost one.

    An empty file is not even opened where a log lies beside it: SQLite would delete the log, with all that is in it. And SQLite
    ignores a failed fsync of the folder (measured), so that one is ours.
    """
    if not _size(path) and (marked or _size(Path(f"{path}-wal"))):
        raise JournalDamagedError(f"{path} is empty or missing, and what is beside it says that there was a journal")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with contextlib.ExitStack() as stack:
        connection = sqlite3.connect(path, isolation_level=None, timeout=0, cached_statements=CACHED_STATEMENTS)
        stack.callback(connection.close)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first look, or it is not for this one
        schema = schema_of(connection, path)
        if marked and not schema:
            raise JournalDamagedError(f"{path} is empty, and the mark beside it says that there was a journal")
        _configure(connection, path)
        _migrate(connection, schema)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # what a crash left behind
        sync(path.parent)
        stack.pop_all()
    return connection


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def create(connection: sqlite3.Connection) -> None:
    """An empty journal in a new file."""
    connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
    _migrate(connection, 0)


def sync(path: Path) -> None:
    """Make a file's content durable, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def schema_of(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema, 0 for a new one. Looked at before anything is changed: the file may be somebody else's."""
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (schema or application or tables):
        raise ForeignFileError(f"{path} is not a journal of fsm-sidecar; set journal.path to another file")
    if schema > len(MIGRATIONS):
        raise ForeignFileError(
            f"{path} has schema {schema}, and this version knows up to {len(MIGRATIONS)}: run the version that wrote it"
        )
    return int(schema)


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    _give_back_pages(connection)
    for pragma, value, expected in PRAGMAS:
        connection.execute(f"PRAGMA {pragma} = {value}").fetchall()
        (actual,) = connection.execute(f"PRAGMA {pragma}").fetchone()
        if actual != expected:
            raise StorageFailedError(
                f"{path}: PRAGMA {pragma} is {actual!r}, not {expected!r}: this file system cannot keep a journal"
            )


def _give_back_pages(connection: sqlite3.Connection) -> None:
    """Let pages that are not needed go back to the disk. An older file is written anew for that, once, if there is room."""
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode != _INCREMENTAL:
        connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        try:
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_FULL":  # full: it works without, and the next start tries again
                raise


def _migrate(connection: sqlite3.Connection, schema: int) -> None:
    for number, step in enumerate(MIGRATIONS[schema:], start=schema + 1):
        connection.execute("BEGIN IMMEDIATE")
        step(connection)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
