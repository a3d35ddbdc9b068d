"""Backups: the journal as one file, which `fsm-sidecar journal restore` takes; also of a journal that is being written to."""

import contextlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import structlog

from sidecar.database import Database
from sidecar.database.copying import Copied, copy
from sidecar.database.failure import storage_error
from sidecar.database.schema import sync
from sidecar.database.space import Space
from sidecar.errors import BackupRunningError, ConfigError, NoJournalFileError, StorageError, StorageFullError
from sidecar.meters import BackupMetrics

_log = structlog.get_logger("backup")


async def backup(database: Database, file: Path) -> Copied:
    """Copy the journal to a new file: it is there whole, or not at all. Raises a `StorageError`, `ConfigError` for the name."""
    _refuse_name(file)
    clear_leftovers(file)
    temporary = _temporary(file)
    try:
        copied = await copy(database, temporary, Space(file))
        _refuse_name(file)  # somebody may have made it meanwhile
        os.rename(temporary, file)
        sync(file.parent)
    except OSError as error:
        raise storage_error(file, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return copied


def _refuse_name(file: Path) -> None:
    if os.path.lexists(file):
        raise ConfigError([f"{file} is there already, and is not overwritten; name a new file"])
    if not file.parent.is_dir():
        raise ConfigError([f"{file.parent} is not a folder; name a file in one that is there"])


class Made(NamedTuple):
    """A finished backup, to be read once. `name`: what it may be called."""

    file: BinaryIO
    size: int
    name: str


class Backups:
    """Backups of a running sidecar, one at a time; each lives while somebody reads it."""

    def __init__(self, database: Database | None, metrics: BackupMetrics) -> None:
        self._database = database
        self._metrics = metrics
        self._running = False
        self.last_success_at = 0.0
        """When one was read to its end, seconds since the Unix epoch; 0: not yet."""
        if database:
            clear_leftovers(database.path)

    @contextlib.asynccontextmanager
    async def made(self) -> AsyncIterator[Made]:
        """Make a backup beside the journal; it has no name any more when it is handed over, so that nothing is left behind.

        Raises `NoJournalFileError`, `BackupRunningError`, `StorageFullError` when it would take the journal's room.
        """
        if not self._database:
            raise NoJournalFileError("the journal is in memory: there is nothing to back up (journal.backend)")
        if self._running:
            raise BackupRunningError("a backup is being made or read already; try again when it is done")
        self._running = True
        try:
            with self._told():
                made = await self._make(self._database)
                with made.file:
                    yield made
        finally:
            self._running = False

    async def _make(self, database: Database) -> Made:
        temporary = _temporary(database.path)
        started = time.perf_counter()
        try:
            copied = await copy(database, temporary, database.space)
            file = open(temporary, "rb")  # noqa: SIM115, ASYNC230  (closed by `made`; it is in memory, or nearly)
        finally:
            temporary.unlink(missing_ok=True)
        seconds = time.perf_counter() - started
        self._metrics.seconds.observe(seconds)
        return Made(file, os.fstat(file.fileno()).st_size, f"journal-{copied.epoch}-{copied.head}.db")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Count the outcome; one that was not got by whoever asked for it is told in the log as well."""
        outcome, cause = "cut", "whoever asked for it went away"
        try:
            yield
            outcome = "done"
            self.last_success_at = time.time()
        except StorageError as error:
            outcome, cause = ("full" if isinstance(error, StorageFullError) else "failed"), str(error)
            raise
        finally:
            self._metrics.backups.labels(outcome).inc()
            if outcome != "done":
                _log.warning("backup_failed", outcome=outcome, cause=cause)


def clear_leftovers(path: Path) -> None:
    """Remove what a killed process left of its copies of `path`, or to `path`."""
    named = re.compile(re.escape(path.name) + r"\.backup-[0-9a-f]{16}\.part")
    for left in path.parent.iterdir():
        if named.fullmatch(left.name):
            left.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.backup-{secrets.token_hex(8)}.part")
