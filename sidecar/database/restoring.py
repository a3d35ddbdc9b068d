"""A backup in place of a journal: proven first, put in place by one rename, and never mistaken for what it replaces.

It gets a new epoch, so that no ETag of the old journal matches. Its newest state is stated again, as a revision beyond all that
the old journal is known to have had: so no revision is given out twice, and subscribers are told at the next start of the
state that holds now, and of the gap.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

from sidecar.database.at_rest import reading, resting, verify
from sidecar.database.failure import storage_error
from sidecar.database.lock import held
from sidecar.database.mark import Mark, read_mark
from sidecar.database.recovery import Found, begin_epoch, inspect, opened
from sidecar.database.replacing import finish_replacing, give_up_replacing, prepared_path, replace
from sidecar.database.schema import APPLICATION_ID, connect, schema_of, sync
from sidecar.database.space import Space
from sidecar.errors import ConfigError, JournalDamagedError


class Restored(NamedTuple):
    """The journal as it is now, what the backup had, how far the old journal is known to have got, and where it is kept."""

    now: Found
    backup: Found
    known_head: int
    kept: list[Path]


def restore(path: Path, backup: Path) -> Restored:
    """Put the backup in place of the journal at `path`, whose files are kept under another name.

    Raises a `StorageError` when it is held, `JournalDamagedError` when the backup is not whole; then nothing has changed.
    """
    if path.exists() and backup.exists() and path.samefile(backup):
        raise ConfigError([f"{backup} is the journal itself; name a backup of it"])
    with held(path):
        finish_replacing(path)
        known_head = _known_head(path)
        try:
            found = _prepare(path, backup, known_head)
            kept = replace(path)
        except (sqlite3.Error, OSError) as error:
            raise storage_error(path, error) from error
        finally:
            give_up_replacing(path)
        return Restored(_closed(path), found, known_head, kept)


def _known_head(path: Path) -> int:
    """The newest revision that anybody may have been told of, by the mark and by what is left of the journal."""
    mark = read_mark(path)
    head = mark.head if mark else 0
    if not path.exists():
        return head
    with contextlib.suppress(sqlite3.Error), reading(path) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            schema_of(connection, path)  # raises for a file of somebody else, which is not ours to move away
        (newest,) = connection.execute("SELECT MAX(revision) FROM journal").fetchone()
        head = max(head, newest or 0)
    return head


def _prepare(path: Path, backup: Path, known_head: int) -> Found:
    """Make the new journal, under a name of its own. Returns what the backup has."""
    problems = verify(backup).problems
    if problems:
        raise JournalDamagedError(f"{backup}: {problems[0]}; nothing was changed: restore another backup")
    Space(path).require(backup.stat().st_size)
    prepared = prepared_path(path)
    _copy(backup, prepared)
    with contextlib.closing(connect(prepared, marked=False)) as connection:
        inspection = inspect(connection, None)
        if inspection.problems:
            raise JournalDamagedError(f"the copy of {backup} is not what was read: check the disk of {path.parent}")
        connection.execute("BEGIN IMMEDIATE")
        begin_epoch(connection, beyond=max(inspection.found.head, known_head))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    sync(prepared)
    return inspection.found


def _copy(backup: Path, prepared: Path) -> None:
    os.close(os.open(prepared, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with resting(backup) as source, contextlib.closing(sqlite3.connect(prepared)) as target:
        source.backup(target)


def _closed(path: Path) -> Found:
    """Open the journal once where it is now, and leave a mark beside it as a clean end does."""
    with opened(path, accept_data_loss=False) as journal:
        found = journal.found
        journal.marks.write(Mark(found.epoch, found.head, found.chain, in_use=False))
        journal.marks.sync()
    return found
