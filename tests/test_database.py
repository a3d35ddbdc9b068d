"""The database: what is told as durable is on the disk, in the order of the calls, and one process alone has the file."""

# ruff: noqa: SIM300  (the expected value stands on the left)

import asyncio
import contextlib
import sqlite3
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from sidecar.database import MIGRATIONS, Database, file_bytes
from sidecar.errors import JournalDamagedError, JournalHeldError, StorageFailedError, StorageFullError
from sidecar.journal.sqlite import SqliteJournal
from sidecar.metrics import DatabaseMetrics

INSERT = "INSERT INTO journal (revision, appended_at, document) VALUES (?, 0, ?)"
REVISIONS = "SELECT revision FROM journal ORDER BY revision"


class Told:
    """Collects what `done` is told: (name, error), in order."""

    def __init__(self):
        self.answers = []
        self._news = asyncio.Event()

    def __call__(self, name):
        def done(error):
            self.answers.append((name, error))
            self._news.set()

        return done

    async def all(self, count):
        while len(self.answers) < count:
            self._news.clear()
            await self._news.wait()
        return self.answers


@contextlib.contextmanager
def program(source, *arguments):
    """A real process that runs the Python source; killed at the end."""
    command = [sys.executable, "-c", source, *map(str, arguments)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
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


# --- writing and reading ---


async def test_writes_are_told_in_the_order_of_the_calls(database):
    """Each exactly once, and all of them."""
    told = Told()
    for n in range(1, 1001):
        database.write(INSERT, (n, b"x"), told(n))

    assert [(n, None) for n in range(1, 1001)] == await told.all(1000)


async def test_writes_handed_over_at_once_share_commits(tmp_path):
    """One fsync for many; the metrics count every write and every commit."""
    registry = CollectorRegistry()
    told = Told()
    async with Database(tmp_path / "journal.db", DatabaseMetrics(registry)) as database:
        for n in range(1, 257):
            database.write(INSERT, (n, b"x"), told(n))
        await told.all(256)

    assert 256 == registry.get_sample_value("fsm_journal_commit_writes_sum")
    assert registry.get_sample_value("fsm_journal_commit_writes_count") < 64
    assert registry.get_sample_value("fsm_journal_commit_duration_seconds_count") < 64


async def test_a_read_sees_the_writes_handed_over_before_it(database):
    """Whether they were durable when it was asked or not."""
    for n in (1, 2, 3):
        database.write(INSERT, (n, b"x"), lambda error: None)

    assert [(1,), (2,), (3,)] == await database.read(REVISIONS)


async def test_leaving_finishes_what_was_handed_over(tmp_path):
    """And moves the write-ahead log into the file."""
    told = Told()
    async with Database(tmp_path / "journal.db") as database:
        for n in range(1, 501):
            database.write(INSERT, (n, b"x"), told(n))

    assert [(n, None) for n in range(1, 501)] == told.answers
    assert (0, 0) == (database.queue_length, file_bytes(database.path)["wal"])
    async with Database(tmp_path / "journal.db") as database:
        assert [(500,)] == await database.read("SELECT count(*) FROM journal")


async def test_a_write_after_leaving_is_told_an_error(tmp_path):
    """It can never become durable: nobody shall wait for it for ever."""
    async with Database(tmp_path / "journal.db") as database:
        pass

    with pytest.raises(StorageFailedError):
        await asyncio.wait_for(database.execute(INSERT, (1, b"x")), 2)


async def test_a_cancelled_caller_does_not_cancel_its_write(database):
    """It lands, and the writes behind it as well."""
    caller = asyncio.create_task(database.execute(INSERT, (1, b"x")))
    reader = asyncio.create_task(database.read(REVISIONS))
    await asyncio.sleep(0)
    caller.cancel()
    reader.cancel()
    await database.execute(INSERT, (2, b"x"))

    assert [(1,), (2,)] == await database.read(REVISIONS)
    assert caller.cancelled()
    assert reader.cancelled()


# --- the file ---


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("synchronous", 2),
        ("journal_mode", "wal"),
        ("locking_mode", "exclusive"),
        ("wal_autocheckpoint", 0),
        ("mmap_size", 0),
        ("trusted_schema", 0),
    ],
)
async def test_the_connection_is_set_up_for_durability(database, pragma, value):
    """FULL syncs each commit, a checkpoint is only made where its errors are seen, and nobody else gets in."""
    assert [(value,)] == await database.read(f"PRAGMA {pragma}")


async def test_a_commit_is_in_the_write_ahead_log_when_it_is_told(database):
    """WAL is really on: the log grows with each commit."""
    before = file_bytes(database.path)["wal"]
    await database.execute(INSERT, (1, b"x" * 5000))

    assert file_bytes(database.path)["wal"] > before + 5000


async def test_the_write_ahead_log_is_bounded(database):
    """It is moved into the file again and again, however much is written."""
    for n in range(1, 41):
        await database.execute(INSERT, (n, bytes(1 << 20)))

    assert file_bytes(database.path)["wal"] < 8 << 20


async def test_only_the_owner_can_read_the_files(database):
    """They hold what the agent told in confidence."""
    await database.execute(INSERT, (1, b"x"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in database.path.parent.iterdir()}

    assert {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db.lock": 0o600} == modes


async def test_missing_folders_are_made(tmp_path):
    """Closed to others."""
    await opening(tmp_path / "a" / "b" / "journal.db")

    assert (tmp_path / "a" / "b" / "journal.db").exists()
    assert 0o700 == (tmp_path / "a" / "b").stat().st_mode & 0o777


# --- one process has it ---

OPEN = """
import asyncio, pathlib, sys
from sidecar.database import Database
async def main():
    async with Database(pathlib.Path(sys.argv[1])):
        print("open", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_another_sqlite_connection_is_refused(database):
    """A curious shell or a backup tool cannot come between."""
    with sqlite(database.path) as connection, pytest.raises(sqlite3.OperationalError, match="locked"):
        connection.execute("SELECT * FROM journal")


async def test_a_second_database_is_refused_and_told_who_has_it(database, tmp_path):
    """In this process, and in another one; the holder is not disturbed."""
    holder = rf"{database.path} is held by process {subprocess.os.getpid()}"

    with pytest.raises(JournalHeldError, match=holder):
        await opening(database.path)
    with program(OPEN, database.path) as second:
        assert holder in second.communicate()[1]
    await database.execute(INSERT, (1, b"x"))


WORK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
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
import asyncio, pathlib, sys
from sidecar.database import Database
from sidecar.journal.sqlite import SqliteJournal
async def main():
    async with Database(pathlib.Path(sys.argv[1])) as database:
        journal = await SqliteJournal.open(database)
        settled = asyncio.Queue()
        for _ in range(8):
            settled.put_nowait(None)
        while True:
            entry = await settled.get()
            if entry:
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
            journal = await SqliteJournal.open(database)
            kept = [revision for (revision,) in await database.read(REVISIONS)]
        epochs.add(journal.epoch)

        acknowledged = [int(line) for line in told if line.endswith("\n")]
        assert acknowledged == kept[: acknowledged[-1]][-len(acknowledged) :]
        assert list(range(1, journal.head + 1)) == kept
    assert 1 == len(epochs)


# --- what cannot be opened ---


def foreign(path):
    with sqlite(path) as connection:
        connection.execute("CREATE TABLE notes (text)")


def garbage(path):
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)


def newer(path):
    asyncio.run(opening(path))
    with sqlite(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


UNREADABLE = [
    (foreign, "set journal.path to another file"),
    (garbage, "restore it from a backup"),
    (newer, "run the version that"),
]


@pytest.mark.parametrize(("make", "mend"), UNREADABLE)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path, make, mend):
    """The message says what to do, and not a byte of the file has changed."""
    path = tmp_path / "journal.db"
    make(path)
    before = path.read_bytes()

    with pytest.raises(JournalDamagedError, match=mend) as caught:
        asyncio.run(opening(path))
    assert str(path) in str(caught.value)
    assert before == path.read_bytes()


@pytest.mark.parametrize("folder", ["{tmp_path}/taken", "/proc/fsm-sidecar"])
async def test_a_folder_that_cannot_be_written_is_told(tmp_path, folder):
    """With the path and what it must be."""
    (tmp_path / "taken").write_text("a file where a folder should be")

    with pytest.raises(StorageFailedError, match=r"journal\.db.*the journal's folder must exist and be writable"):
        await opening(tmp_path / folder.format(tmp_path=tmp_path) / "journal.db")


# --- when the storage fails ---


async def test_a_failed_write_is_the_last_one(tmp_path):
    """It, what shares its commit, what is queued and whatever comes later get the error: nothing more is acknowledged."""
    registry, told = CollectorRegistry(), Told()
    async with Database(tmp_path / "journal.db", DatabaseMetrics(registry)) as database:
        await database.execute(INSERT, (1, b"x"))
        for n in (2, 1, *range(3, 600)):  # revision 1 is there already
            database.write(INSERT, (n, b"x"), told(n))
        answers = await told.all(599)
        database.write(INSERT, (600, b"x"), told(600))

        assert [2, 1, *range(3, 601)] == [name for name, _ in answers]
        assert {StorageFailedError} == {type(error) for _, error in answers}
        assert answers[0][1] is await database.failed
        with pytest.raises(StorageFailedError, match="UNIQUE"):
            await database.read(REVISIONS)
    assert 1 == registry.get_sample_value("fsm_storage_errors_total", {"kind": "failed"})
    async with Database(tmp_path / "journal.db") as database:
        assert [(1,)] == await database.read(REVISIONS)


async def test_a_full_disk_fails_what_is_queued_and_nothing_after(tmp_path):
    """Nothing of it was applied; small writes work at once, big ones when there is space again."""
    registry, told = CollectorRegistry(), Told()
    async with Database(tmp_path / "journal.db", DatabaseMetrics(registry)) as database:
        await database.execute("PRAGMA max_page_count = 20", ())
        await database.execute(INSERT, (1, b"x"))
        for n in range(2, 600):
            database.write(INSERT, (n, bytes(500_000 if n == 3 else 1)), told(n))
        answers = await told.all(598)

        assert {StorageFullError} == {type(error) for _, error in answers}
        assert not database.failed.done()
        await database.execute(INSERT, (2, b"x"))
        assert [(1,), (2,)] == await database.read(REVISIONS)
        await database.execute("PRAGMA max_page_count = 1000000", ())
        await database.execute(INSERT, (3, bytes(500_000)))
    assert 1 == registry.get_sample_value("fsm_storage_errors_total", {"kind": "full"})
