"""A journal that nobody has open, looked at from outside: whatever is found, not a byte of it changes."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sidecar.database.failure import storage_error
from sidecar.database.lock import held
from sidecar.database.mark import mark_path, read_mark
from sidecar.database.recovery import inspect
from sidecar.database.replacing import replacement_path
from sidecar.database.schema import schema_of
from sidecar.errors import ConfigError, ForeignFileError, JournalDamagedError, StorageError, StorageFailedError

_CHAINED_SCHEMA = 2
_LOGS = ("-wal", "-journal")
_FILES = ("", "-wal", ".hwm", ".ballast")


class Report(NamedTuple):
    """What a journal is. `chain`, `mark`, `sqlite`: «ok», or what else can be said of them; None: nobody looked.

    `oldest` is `head + 1` when there are no revisions. `size`: bytes of their documents. `problems`: all that is wrong.
    """

    path: str
    schema: int = 0
    epoch: str | None = None
    oldest: int = 1
    head: int = 0
    revisions: int = 0
    size: int = 0
    unclean_starts: int = 0
    chain: str | None = None
    mark: str | None = None
    sqlite: str | None = None
    problems: Sequence[str] = ()


class Contents(NamedTuple):
    """What else there is: how many subscribers and answers, the newest revision, the sizes of the files."""

    subscribers: int
    answers: int
    newest: bytes | None
    appended_at: float | None
    files: dict[str, int]


def verify(path: Path) -> Report:
    """Check every page by SQLite's own means, every row by its link, and the journal's end by its mark."""
    report, problems = Report(str(path)), []
    with resting(path) as connection:
        try:
            report = _identified(connection, path)
            problems += _complaints(connection)
            report = _counted(connection, report._replace(sqlite="damaged" if problems else "ok"))
            report = _proven(connection, path, report, problems)
        except ForeignFileError:
            raise
        except (sqlite3.DatabaseError, JournalDamagedError) as error:
            problem = _readable(path, error)
            if not isinstance(problem, JournalDamagedError):
                raise problem from error
            problems.append(str(problem).removeprefix(f"{path}: "))
    return report._replace(problems=tuple(problems))


def _complaints(connection: sqlite3.Connection) -> list[str]:
    """What SQLite's own check finds; it gives up where the damage is too bad, with an error."""
    lines = [line for (text,) in connection.execute("PRAGMA integrity_check") for line in text.splitlines()]
    return [] if lines == ["ok"] else [f"SQLite: {line}" for line in lines if not line.startswith("***")]


def info(path: Path) -> tuple[Report, Contents]:
    """The facts, quickly: nothing is proven."""
    with resting(path) as connection:
        try:
            report = _counted(connection, _identified(connection, path))
            return report._replace(mark=_mark(path)), _contents(connection, path, report.schema)
        except sqlite3.DatabaseError as error:
            raise _readable(path, error) from error


@contextlib.contextmanager
def resting(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes nothing, while no sidecar has the journal. Raises `JournalHeldError` when one has.

    What was never locked, such as a backup, is not locked here either: nothing shall lie beside it afterwards.
    """
    refuse_missing(path)
    with contextlib.ExitStack() as stack:
        if os.path.exists(f"{path}.lock"):
            stack.enter_context(held(path))
        yield stack.enter_context(reading(path))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes nothing, for whoever holds the journal. Only a write-ahead log is read with a file beside it."""
    logged = any(_size(path, suffix) for suffix in _LOGS)
    index = Path(f"{path}-shm")
    with contextlib.ExitStack() as stack:
        if logged and not index.exists():
            stack.callback(index.unlink, missing_ok=True)
        mode = "mode=ro" if logged else "mode=ro&immutable=1"
        try:
            connection = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, isolation_level=None, timeout=0)
        except sqlite3.Error as error:
            raise storage_error(path, error) from error
        yield stack.enter_context(contextlib.closing(connection))


def refuse_missing(path: Path) -> None:
    """Raises what it means that there is no journal at `path`."""
    if replacement_path(path).exists():
        raise StorageFailedError(f"{path}: a restore was cut short; the next `run` or `journal restore` finishes it")
    if path.exists():
        return
    if mark_path(path).exists():
        raise JournalDamagedError(f"{path} is missing, and the mark beside it says that there was a journal")
    raise ConfigError([f"{path}: there is no journal; name it with --path FILE, or with --config FILE its sidecar's config"])


def _readable(path: Path, error: Exception) -> StorageError:
    """What an error says about the journal."""
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
        return StorageFailedError(f"{path}: a change was cut short, and the next `run` takes it back; look at it then")
    return storage_error(path, error)


def _identified(connection: sqlite3.Connection, path: Path) -> Report:
    schema = schema_of(connection, path)
    if not schema:
        raise JournalDamagedError(f"{path} is empty: there is no journal in it")
    identity = "epoch, base, unclean_starts" if schema >= _CHAINED_SCHEMA else "epoch, 0, 0"
    row = connection.execute(f"SELECT {identity} FROM identity").fetchone()  # noqa: S608  (one of two constants)
    epoch, base, unclean_starts = row or (None, 0, 0)
    return Report(str(path), schema, epoch, base + 1, base, unclean_starts=unclean_starts)


def _counted(connection: sqlite3.Connection, report: Report) -> Report:
    numbers = "SELECT MIN(revision), MAX(revision), COUNT(*), COALESCE(SUM(LENGTH(document)), 0) FROM journal"
    oldest, head, revisions, size = connection.execute(numbers).fetchone()
    return report._replace(oldest=oldest, head=head, revisions=revisions, size=size) if revisions else report


def _proven(connection: sqlite3.Connection, path: Path, report: Report, problems: list[str]) -> Report:
    if report.schema < _CHAINED_SCHEMA:
        return report._replace(chain=f"none in schema {report.schema}, the next `run` adds it", mark=_mark(path))
    mark = read_mark(path)
    inspection = inspect(connection, mark)
    problems += inspection.problems
    return report._replace(
        chain="broken" if inspection.broken else "ok",
        mark="contradicts" if inspection.gone_back else f"ok, {_mark(path)}" if mark else _mark(path),
    )


def _mark(path: Path) -> str:
    """What the mark says."""
    mark = read_mark(path)
    if mark:
        return f"up to revision {mark.head}{', not closed by its last process' if mark.in_use else ''}"
    return "unreadable" if mark_path(path).exists() else "none"


def _contents(connection: sqlite3.Connection, path: Path, schema: int) -> Contents:
    (subscribers,) = connection.execute("SELECT COUNT(*) FROM subscribers").fetchone()
    answers = 0
    if schema >= _CHAINED_SCHEMA:
        (answers,) = connection.execute("SELECT COUNT(*) FROM answers").fetchone()
    newest = connection.execute("SELECT document, appended_at FROM journal ORDER BY revision DESC LIMIT 1").fetchone()
    files = {f"{path.name}{suffix}": _size(path, suffix) for suffix in _FILES if os.path.exists(f"{path}{suffix}")}
    document, appended_at = newest or (None, None)
    return Contents(subscribers, answers, document, appended_at, files)


def _size(path: Path, suffix: str) -> int:
    try:
        return os.stat(f"{path}{suffix}").st_size
    except FileNotFoundError:
        return 0
