"""The database: what is told as durable is on the disk, in the order of the calls, and one process alone has the file."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from sidecar.database import Database, file_bytes
from sidecar.database.schema import APPLICATION_ID, MIGRATIONS
from sidecar.errors import JournalDamagedError, JournalHeldError, StorageFailedError, StorageFullError
from sidecar.journal.sqlite import SqliteJournal
from sidecar.meters import DatabaseMetrics

# Rows of the database's other table: those of the journal hang on each other, and are checked when it is opened.
INSERT = "INSERT INTO subscribers (id, record) VALUES (?, ?)"
ROWS = "SELECT CAST(id AS INTEGER) AS n FROM subscribers ORDER BY n"
REVISIONS = "SELECT revision FROM journal ORDER BY revision"


class Told(asyncio.Queue):
    """Collects what `done` is told: (name, error), in order."""

    def __call__(self, name):
        return lambda error: self.put_nowait((name, error))

    async def all(self, count):
        async with asyncio.timeout(20):  # rather red than for ever
            return [await self.get() for _ in range(count)]


PROLOGUE = """
import asyncio, contextlib, pathlib, sqlite3, sys
from sidecar.database import Database
from sidecar.errors import JournalDamagedError
from sidecar.journal.sqlite import SqliteJournal
path = pathlib.Path(sys.argv[1])
"""


@contextlib.contextmanager
def program(source, path):
    """A real process that runs the Python source; killed at the end."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", PROLOGUE + source, path], text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def sqlite(path):
    """The file, opened by somebody else."""
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        yield connection


async def opening(path):
    async with Database(path):
        pass


async def test_writes_are_told_in_the_order_of_the_calls(database):
    """Each exactly once, and all of them."""
    told = Told()
    for n in range(1, 1001):
        database.write(INSERT, (n, b"x"), told(n))

    assert [(n, None) for n in range(1, 1001)] == await told.all(1000)


async def test_writes_handed_over_at_once_share_commits(tmp_path):
    """One fsync for many; the metrics count every write and every commit."""
    registry, told = CollectorRegistry(), Told()
    async with Database(tmp_path / "journal.db", DatabaseMetrics(registry)) as database:
        for n in range(256):
            database.write(INSERT, (n, b"x"), told(n))
        await told.all(256)

    assert 256 == registry.get_sample_value("fsm_journal_commit_writes_sum")
    assert registry.get_sample_value("fsm_journal_commit_writes_count") < 64


async def test_leaving_finishes_what_was_handed_over(tmp_path):
    """And moves the write-ahead log into the file."""
    told = Told()
    async with Database(tmp_path / "journal.db") as database:
        for n in range(1, 501):
            database.write(INSERT, (n, b"x"), told(n))

    assert [(n, None) for n in range(1, 501)] == [told.get_nowait() for _ in range(500)]
    assert (0, 0) == (database.queue_length, file_bytes(database.path)["wal"])


async def test_a_write_while_leaving_or_later_is_answered(tmp_path):
    """It is durable or told an error: nobody shall wait for it for ever."""
    writes, database = [], await Database(tmp_path / "journal.db").__aenter__()
    leaving = asyncio.create_task(database.__aexit__(None, None, None))
    while not leaving.done():
        writes.append(asyncio.create_task(database.execute(INSERT, (len(writes) + 1, b"x"))))
        await asyncio.wait({leaving, writes[-1]}, return_when=asyncio.FIRST_COMPLETED)
    writes.append(database.execute(INSERT, (len(writes) + 1, b"late")))
    async with asyncio.timeout(2):
        answers = await asyncio.gather(*writes, return_exceptions=True)

    assert StorageFailedError is type(answers[-1])
    async with Database(tmp_path / "journal.db") as database:
        assert [(n,) for n, answer in enumerate(answers, 1) if answer is None] == await database.read(ROWS)


async def test_a_cancelled_caller_does_not_cancel_its_write(database):
    """It lands, and the writes behind it as well."""
    caller = asyncio.create_task(database.execute(INSERT, (1, b"x")))
    reader = asyncio.create_task(database.read(ROWS))
    await asyncio.sleep(0)
    caller.cancel()
    reader.cancel()
    await database.execute(INSERT, (2, b"x"))

    assert [(1,), (2,)] == await database.read(ROWS)
    assert (True, True) == (caller.cancelled(), reader.cancelled())


# --- the file ---


SETTINGS = {"synchronous": 2, "journal_mode": "wal", "locking_mode": "exclusive", "wal_autocheckpoint": 0, "mmap_size": 0}


@pytest.mark.parametrize(("pragma", "value"), list(SETTINGS.items()))
async def test_the_connection_is_set_up_for_durability(database, pragma, value):
    """FULL syncs each commit, a checkpoint is only made where its errors are seen, and nobody else gets in."""
    assert [(value,)] == await database.read(f"PRAGMA {pragma}")


async def test_the_write_ahead_log_is_bounded(database):
    """It is moved into the file again and again, however much is written."""
    for n in range(1, 129):
        await database.execute(INSERT, (n, bytes(1 << 20)))

    assert file_bytes(database.path)["wal"] < 40 << 20


async def test_only_the_owner_can_read_the_files(tmp_path):
    """They hold what the agent told in confidence."""
    async with Database(tmp_path / "journal.db") as database:
        await database.execute(INSERT, (1, b"x"))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

    assert {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db.hwm": 0o600, "journal.db.lock": 0o600} == modes


async def test_a_missing_folder_is_told_and_not_made(tmp_path):
    """It may be a volume that is not mounted: a new journal there would look like a healthy new agent."""
    with pytest.raises(StorageFailedError, match="folder must exist"):
        await opening(tmp_path / "missing" / "journal.db")

    assert [] == list(tmp_path.iterdir())


# --- one process has it ---

OPEN = """
async def main():
    async with Database(path):
        print("open", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_another_sqlite_connection_is_refused(database):
    """A curious shell or a backup tool cannot come between."""
    with sqlite(database.path) as connection, pytest.raises(sqlite3.OperationalError, match="locked"):
        connection.execute("SELECT * FROM journal")


async def test_a_second_database_is_refused_and_told_who_has_it(database):
    """In this process, and in another one; the holder is not disturbed."""
    holder = rf"{database.path} is held by process {os.getpid()}"

    with pytest.raises(JournalHeldError, match=holder):
        await opening(database.path)
    with program(OPEN, database.path) as second:
        assert holder in second.communicate()[1]
    await database.execute(INSERT, (1, b"x"))


WORK = """
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("working", flush=True)
sys.stdin.read()
"""


async def test_a_file_that_another_program_works_on_is_refused(tmp_path):
    """One sidecar per journal, and nothing else; once the other one is gone, it opens."""
    path = tmp_path / "journal.db"
    await opening(path)

    with program(WORK, path) as other:
        assert "working\n" == other.stdout.readline()
        with pytest.raises(JournalHeldError, match="open in another program"):
            await opening(path)
    await opening(path)


async def test_kill_9_of_the_holder_frees_the_file(tmp_path):
    """A crash leaves nothing behind that somebody has to clean up."""
    path = tmp_path / "journal.db"
    with program(OPEN, path) as holder:
        assert "open\n" == holder.stdout.readline()
        with pytest.raises(JournalHeldError, match=f"process {holder.pid}"):
            await opening(path)
        holder.kill()
        holder.wait()

    await opening(path)


APPEND = """
async def main():
    async with Database(path) as database:
        journal = SqliteJournal(database)
        settled = asyncio.Queue()
        for _ in range(8):
            settled.put_nowait(None)
        while True:
            if entry := await settled.get():
                print(entry.revision, flush=True)
            journal.append(b"x" * 300, lambda entry, error: settled.put_nowait(entry))
asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    """Killed in the midst of writing, again and again: every revision that was told is there, without holes."""
    path, epochs = tmp_path / "journal.db", set()
    for _ in range(5):
        with program(APPEND, path) as writer:
            told = [writer.stdout.readline() for _ in range(100)]
            writer.kill()
            told += writer.stdout.readlines()
        async with Database(path) as database:
            journal = SqliteJournal(database)
            kept = [revision for (revision,) in await database.read(REVISIONS)]
        epochs.add(journal.epoch)

        acknowledged = [int(line) for line in told if line.endswith("\n")]
        assert acknowledged == kept[: acknowledged[-1]][-len(acknowledged) :]
        assert list(range(1, journal.head + 1)) == kept
    assert 1 == len(epochs)


# --- what cannot be opened ---


GARBAGE = b"not a database, but long enough to be taken for one" * 100
NEWER = f"PRAGMA journal_mode = WAL; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {len(MIGRATIONS) + 1}"
UNREADABLE = {
    "garbage": (None, "SQLITE_NOTADB.*restore a backup"),
    "foreign": ("CREATE TABLE notes (text)", "set journal.path to another file"),
    "newer": (NEWER, "run the version that wrote it"),
}


@pytest.mark.parametrize(("script", "mend"), UNREADABLE.values(), ids=UNREADABLE)
async def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path, script, mend):
    """The message says what to do, and not a byte of the file has changed."""
    path = tmp_path / "journal.db"
    path.write_bytes(b"" if script else GARBAGE)
    with sqlite(path) as connection:
        connection.executescript(script or "")
    before = path.read_bytes()

    with pytest.raises(JournalDamagedError, match=mend) as caught:
        await opening(path)
    assert str(path) in str(caught.value)
    assert before == path.read_bytes()


RETRY = """
for _ in range(200):
    with contextlib.suppress(JournalDamagedError):
        asyncio.run(Database(path).__aenter__())
"""


async def test_a_failed_opening_is_over_when_it_is_told(tmp_path):
    """Its thread says nothing more, so that the event loop can end with the error."""
    (tmp_path / "journal.db").write_bytes(GARBAGE)
    with program(RETRY, tmp_path / "journal.db") as process:
        _, complaints = process.communicate()

    assert "" == complaints


@pytest.mark.parametrize("folder", ["{tmp_path}/taken", "/proc/fsm-sidecar"])
async def test_a_folder_that_cannot_be_written_is_told(tmp_path, folder):
    """With the path and what it must be."""
    (tmp_path / "taken").write_text("a file where a folder should be")

    with pytest.raises(StorageFailedError, match=r"journal\.db.*the journal's folder must exist and be writable"):
        await opening(tmp_path / folder.format(tmp_path=tmp_path) / "journal.db")


# --- when the storage fails ---


async def test_a_failed_write_is_the_last_one(tmp_path):
    """It, what is queued behind it and whatever comes later get the error: nothing more is acknowledged."""
    registry, told = CollectorRegistry(), Told()
    async with Database(tmp_path / "journal.db", DatabaseMetrics(registry)) as database:
        await database.execute(INSERT, (1, b"x"))
        for n in (2, 1, *range(3, 600)):  # row 1 is there already
            database.write(INSERT, (n, b"x"), told(n))
        (_, shared), *answers = await told.all(599)
        database.write(INSERT, (600, b"x"), told(600))
        answers += await told.all(1)

        assert [1, *range(3, 601)] == [name for name, _ in answers]
        assert {database.failed.result()} == {error for _, error in answers}
        with pytest.raises(StorageFailedError, match="UNIQUE"):
            await database.read(ROWS)
    assert 1 == registry.get_sample_value("fsm_storage_errors_total", {"kind": "failed"})
    async with Database(tmp_path / "journal.db") as database:
        assert [(1,)] + [(2,)] * (shared is None) == await database.read(ROWS)


async def test_a_full_disk_fails_what_is_queued_and_nothing_after(tmp_path):
    """Nothing of it was applied; small writes work at once, big ones when there is space again."""
    registry, told = CollectorRegistry(), Told()
    async with Database(tmp_path / "journal.db", DatabaseMetrics(registry)) as database:
        await database.execute("PRAGMA max_page_count = 20", ())
        for n in range(1, 600):
            database.write(INSERT, (n, bytes(500_000 if n == 50 else 1)), told(n))
            database.write("UPDATE identity SET epoch = ?" if n % 3 else "DELETE FROM answers WHERE key = ?", ("x",), told(0))
        answers = await told.all(2 * 599)
        durable = [(n,) for n, error in answers if n and error is None]
        failed = [error for _, error in answers if error]

        assert {StorageFullError} == set(map(type, failed))
        assert failed == [error for _, error in answers[-len(failed) :]]
        assert not database.failed.done()
        assert durable == await database.read(ROWS)
        await database.execute(INSERT, (len(durable) + 1, b"x"))
        await database.execute("PRAGMA max_page_count = 1000000", ())
        await database.execute(INSERT, (1000, bytes(500_000)))
    assert 1 == registry.get_sample_value("fsm_storage_errors_total", {"kind": "full"})


async def test_reading_goes_on_when_the_disk_is_full(tmp_path):
    """A read that waits behind a write that does not fit is answered: only writes need space."""
    async with Database(tmp_path / "journal.db") as database:
        await database.execute(INSERT, (1, b"x"))
        await database.execute("PRAGMA max_page_count = 20", ())
        refused = asyncio.get_running_loop().create_future()
        database.write(INSERT, (2, bytes(500_000)), refused.set_result)
        reading = asyncio.create_task(database.read(ROWS))

        assert isinstance(await refused, StorageFullError)
        assert [(1,)] == await reading
        assert isinstance(database.last_error, StorageFullError)
        await database.execute(INSERT, (2, b"x"))
        assert database.last_error is None
