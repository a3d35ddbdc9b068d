"""Opening: is everything there that was acknowledged, and is it what was written? If not, the journal is refused.

Whoever accepts the loss gets a journal that goes on, under a new epoch: what survived stays, and the newest surviving state is
stated again, as a revision beyond all that were lost. So no revision is given out twice, and every subscriber is told of a gap.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sidecar.database import chain
from sidecar.database.failure import storage_error
from sidecar.database.mark import Mark, MarkFile, mark_path, read_mark
from sidecar.database.replacing import finish_replacing, set_aside
from sidecar.database.schema import connect, sync
from sidecar.epoch import new_epoch
from sidecar.errors import ForeignFileError, JournalDamagedError

MENDS = (
    "restore a backup with `fsm-sidecar journal restore FILE`, or give up what is lost with"
    " `fsm-sidecar run --accept-data-loss`: a new epoch begins, and subscribers are told of a gap"
)
_NAMED = 5


class Found(NamedTuple):
    """The journal as it was found. `size`: bytes of its documents. `given_up`: what is lost, where that was accepted.

    `unmarked`: there was no mark, so that nobody can say whether the end is missing.
    """

    epoch: str
    head: int
    oldest: int
    chain: bytes
    size: int
    unclean_starts: int
    given_up: Sequence[str] = ()
    unmarked: bool = False


class Opened(NamedTuple):
    """An open journal: its connection, its mark, and what was found."""

    connection: sqlite3.Connection
    marks: MarkFile
    found: Found


@contextlib.contextmanager
def opened(path: Path, *, accept_data_loss: bool) -> Iterator[Opened]:
    """Open the journal, created when it is missing. Raises a `StorageError`, `JournalDamagedError` where something is lost."""
    try:
        finish_replacing(path)
        connection, found = _open(path, read_mark(path), accept_data_loss)
    except (sqlite3.Error, OSError) as error:
        raise storage_error(path, error) from error
    with contextlib.closing(connection), contextlib.closing(MarkFile(path)) as marks:
        marks.write(Mark(found.epoch, found.head, found.chain))
        marks.sync()
        sync(path.parent)
        yield Opened(connection, marks, found)


def _open(path: Path, mark: Mark | None, accept_data_loss: bool) -> tuple[sqlite3.Connection, Found]:
    unclean = mark.in_use if mark else _log_left(path)
    try:
        return _open_checked(path, mark, accept_data_loss, unclean, marked=mark_path(path).exists())
    except (sqlite3.DatabaseError, JournalDamagedError) as error:
        cause = storage_error(path, error)
        if isinstance(cause, ForeignFileError) or not isinstance(cause, JournalDamagedError):
            raise
        if not accept_data_loss:
            raise JournalDamagedError(f"{cause}; {MENDS}") from error
        set_aside(path, "damaged", time.time(), ("", "-wal", "-journal"))
        connection, found = _open_checked(path, mark, accept_data_loss, unclean, marked=False)
        return connection, found._replace(given_up=(str(cause), *found.given_up))


def _open_checked(
    path: Path, mark: Mark | None, accept_data_loss: bool, unclean: bool, *, marked: bool
) -> tuple[sqlite3.Connection, Found]:
    with contextlib.ExitStack() as stack:
        connection = connect(path, marked=marked)
        stack.callback(connection.close)
        inspection = inspect(connection, mark)
        found = inspection.found
        if inspection.problems:
            if not accept_data_loss:
                raise JournalDamagedError(f"{path}: {'; '.join(_shortened(inspection.problems))}")
            _give_up(connection, inspection, mark)
            found = inspect(connection, None).found._replace(given_up=_shortened(inspection.problems))
        if unclean:
            connection.execute("UPDATE identity SET unclean_starts = unclean_starts + 1")
            found = found._replace(unclean_starts=found.unclean_starts + 1)
        stack.pop_all()
    return connection, found._replace(unmarked=found.head > 0 and not mark)


class Inspection(NamedTuple):
    """The journal as it was found, what is wrong with its rows and with its end, and the rows that are not what was written."""

    found: Found
    broken: Sequence[str]
    gone_back: Sequence[str]
    damaged: Sequence[int]

    @property
    def problems(self) -> Sequence[str]:
        """All that is wrong."""
        return (*self.broken, *self.gone_back)


def inspect(connection: sqlite3.Connection, mark: Mark | None) -> Inspection:
    """Check every row, and that the journal is as far as its mark."""
    identity = connection.execute("SELECT epoch, anchor, base, unclean_starts FROM identity").fetchone()
    if not identity:
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
        raise JournalDamagedError(f"{path} has lost its identity")
    epoch, anchor, base, unclean_starts = identity
    head, newest, oldest, size = base, anchor, base + 1, 0
    problems, damaged, passed = [], [], None
    for row in chain.walk(connection, anchor):
        if head == base:
            oldest = row.revision
        elif row.revision > head + 1 and not row.whole:
            problems.append(f"{_revisions(head + 1, row.revision - 1)} missing")
        if not row.whole and not (head > base and row.revision > head + 1):
            problems.append(f"{_revisions(row.revision, row.revision)} not what was written")
            damaged.append(row.revision)
        if mark and row.revision == mark.head:
            passed = row.chain
        head, newest, size = row.revision, row.chain, size + row.length
    found = Found(epoch, head, oldest, newest, size, unclean_starts)
    return Inspection(found, problems, tuple(_against_mark(found, mark, passed)), damaged)


def _against_mark(found: Found, mark: Mark | None, passed: bytes | None) -> Iterator[str]:
    """Whether the journal has gone back, or another way, since the mark was set."""
    if not mark:
        return
    if mark.epoch != found.epoch:
        yield f"the mark beside it is of journal {mark.epoch}, up to revision {mark.head}, and this is journal {found.epoch}"
    elif mark.head > found.head:
        yield f"{_revisions(found.head + 1, mark.head)} missing, and had been acknowledged"
    elif passed is not None and passed != mark.chain:
        yield f"{_revisions(mark.head, mark.head)} not the one that was acknowledged"


def _revisions(first: int, last: int) -> str:
    return f"revision {first} is" if first == last else f"revisions {first} to {last} are"


def _shortened(problems: Sequence[str]) -> Sequence[str]:
    more = len(problems) - _NAMED
    return (*problems[:_NAMED], f"and {more} more") if more > 0 else tuple(problems)


def _give_up(connection: sqlite3.Connection, inspection: Inspection, mark: Mark | None) -> None:
    """Go on from what survived: see the module's first lines. One transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("DELETE FROM journal WHERE revision = ?", [(revision,) for revision in inspection.damaged])
    connection.execute("DELETE FROM answers")
    (anchor,) = connection.execute("SELECT anchor FROM identity").fetchone()
    chain.relink(connection, anchor)
    begin_epoch(connection, beyond=max(inspection.found.head, mark.head if mark else 0))
    connection.execute("COMMIT")


def begin_epoch(connection: sqlite3.Connection, *, beyond: int) -> str:
    """Give the journal a new epoch, and state its newest state again as the revision after `beyond`: returns the epoch.

    Also after the last one that a subscriber has acknowledged: it would wait for it for ever.
    """
    epoch = new_epoch()
    cursors = "SELECT COALESCE(MAX(json_extract(CAST(record AS TEXT), '$.cursor')), 0) FROM subscribers"
    beyond = max(beyond, *connection.execute(cursors).fetchone())
    newest = connection.execute("SELECT document, chain FROM journal ORDER BY revision DESC LIMIT 1").fetchone()
    connection.execute("UPDATE identity SET epoch = ?, base = ?", (epoch, 0 if newest else beyond))
    if newest:
        (document, before), revision, now = newest, beyond + 1, time.time()
        restated = "INSERT INTO journal (revision, appended_at, document, chain) VALUES (?, ?, ?, ?)"
        connection.execute(restated, (revision, now, document, chain.link(before, revision, now, document)))
    return epoch


def _log_left(path: Path) -> bool:
    """Whether a write-ahead log was left behind, which a clean end does not."""
    try:
        return os.stat(f"{path}-wal").st_size > 0
    except FileNotFoundError:
        return False
