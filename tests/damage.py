"""The files that a killed sidecar leaves, what may happen to them, and what the next sidecar says of it."""

import os
import shutil
import sqlite3
from contextlib import closing

import pytest
from sidecar_process import on_disk, running, written

from sidecar.database import Database
from sidecar.database.mark import MarkFile, mark_path, read_mark

FIRST, LAST = 10, 20
"""What a process that ended had written, and what the one that was killed had: this is in the write-ahead log alone."""


def one_log(folder):
    """The journal section for a file whose log is moved into it only at the end: without a ballast that is after megabytes."""
    return on_disk(folder) | {"ballast": "0B"}


def put(sidecar, count):
    """So many writes, each with its revision in it: `needle-7.`."""
    head = sidecar.api.get("/v1/state").json["revision"]
    for revision in range(head + 1, head + 1 + count):
        context = {"place": f"needle-{revision}.", "x": "x" * 300}
        assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE", "context_data": context}).status


def crash(folder):
    """Write revisions 1 to 10 and end, then 11 to 20 and die. What was there in between is `older.db`."""
    config = written(folder, journal=one_log(folder))
    with running(config) as sidecar:
        put(sidecar, FIRST - 1)
        assert 0 == sidecar.stop()
    shutil.copyfile(folder / "journal.db", folder / "older.db")
    with running(config) as sidecar:
        put(sidecar, LAST - FIRST)
        sidecar.kill()


def beside(path, suffix):
    return path.with_name(path.name + suffix)


def files(path):
    """The content of every file in the folder, but for the lock, which names the last process."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.suffix != ".lock"}


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


async def found(path, **options):
    """What was found, and the history, as the next sidecar sees them; it ends well."""
    async with Database(path, **options) as database:
        history = await database.read("SELECT revision, appended_at, document FROM journal ORDER BY revision")
        return database.found, history


# --- what happens to them ---


def log_deleted(path):
    beside(path, "-wal").unlink()


def log_cut(path):
    os.truncate(beside(path, "-wal"), beside(path, "-wal").stat().st_size // 2)


def log_emptied(path):
    os.truncate(beside(path, "-wal"), 0)


def log_flipped(path):
    flip(beside(path, "-wal"), beside(path, "-wal").stat().st_size // 2)


def file_missing(path):
    path.unlink()


def file_emptied(path):
    os.truncate(path, 0)


def all_but_the_mark_missing(path):
    path.unlink()
    log_deleted(path)


def all_but_the_log_missing(path):
    path.unlink()
    mark_path(path).unlink()


def byte_flipped(path):
    flip(path, path.read_bytes().index(b"needle-7."))


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path):
    path.write_bytes(b"not a journal, but long enough to be taken for one" * 100)


def older_copy(path):
    shutil.copyfile(path.with_name("older.db"), path)


def sql(*script):
    def run(path):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(";".join(script))

    return run


def another_journal(path):
    sql("UPDATE identity SET epoch = 'another1'")(path)


def mark_of_another_revision(path):
    mark = read_mark(path)
    with closing(MarkFile(path)) as marks:
        marks.write(mark._replace(head=15, chain=bytes(32)))


def mark_missing(path):
    mark_path(path).unlink()


def mark_emptied(path):
    mark_path(path).write_bytes(b"")


def mark_torn(path):
    mark_path(path).write_bytes(mark_path(path).read_bytes()[:40])


def mark_overwritten(path):
    mark_path(path).write_bytes(os.urandom(69))


NO_FILE = "journal.db is empty or missing, and what is beside it says that there was a journal"
ACKNOWLEDGED = "missing, and had been acknowledged"
CHANGED = "not what was written"
LOST = {
    "log_deleted": (log_deleted, "crashed", f"revisions 11 to 20 are {ACKNOWLEDGED}"),
    "log_cut": (log_cut, "crashed", rf"revisions 1\d to 20 are {ACKNOWLEDGED}"),
    "log_emptied": (log_emptied, "crashed", f"revisions 11 to 20 are {ACKNOWLEDGED}"),
    "log_flipped": (log_flipped, "crashed", rf"revisions 1\d to 20 are {ACKNOWLEDGED}"),
    "file_missing": (file_missing, "crashed", NO_FILE),
    "file_emptied": (file_emptied, "crashed", NO_FILE),
    "all_but_the_mark_missing": (all_but_the_mark_missing, "crashed", NO_FILE),
    "all_but_the_log_missing": (all_but_the_log_missing, "crashed", NO_FILE),
    "byte_flipped": (byte_flipped, "ended", f"revision 7 is {CHANGED}"),
    "cut": (cut, "ended", "SQLITE_CORRUPT"),
    "overwritten": (overwritten, "ended", "SQLITE_NOTADB"),
    "older_copy": (older_copy, "ended", f"revisions 11 to 20 are {ACKNOWLEDGED}"),
    "another_journal": (another_journal, "ended", "is of journal [a-z0-9]{8}, up to revision 20, and this is journal another1"),
    "mark_of_another_revision": (mark_of_another_revision, "ended", "revision 15 is not the one that was acknowledged"),
    "row_removed": (sql("DELETE FROM journal WHERE revision = 7"), "ended", "revision 7 is missing"),
    "rows_removed": (sql("DELETE FROM journal WHERE revision BETWEEN 7 AND 9"), "ended", "revisions 7 to 9 are missing"),
    "newest_row_removed": (sql("DELETE FROM journal WHERE revision = 20"), "ended", f"revision 20 is {ACKNOWLEDGED}"),
    "all_rows_removed": (sql("DELETE FROM journal"), "ended", f"revisions 1 to 20 are {ACKNOWLEDGED}"),
    "time_changed": (sql("UPDATE journal SET appended_at = 0 WHERE revision = 3"), "ended", f"revision 3 is {CHANGED}"),
    "identity_removed": (sql("DELETE FROM identity"), "ended", "journal.db has lost its identity"),
    "all_changed": (sql("UPDATE journal SET document = x'00'"), "ended", f"revision 5 is {CHANGED}; and 15 more"),
}
"""What happened; to which files: those of the crash, or the same after a start that ended well; and what is told of it."""
each_loss = pytest.mark.parametrize(("damage", "kind", "told"), LOST.values(), ids=LOST)
