"""Backups: a whole and proven journal in one file, taken while others write to it, and never half of one."""

import asyncio
import contextlib
import sqlite3
import threading

import pytest

from sidecar.backup import Backups, backup
from sidecar.database import Database
from sidecar.database.at_rest import verify
from sidecar.errors import (
    BackupRunningError,
    ConfigError,
    JournalDamagedError,
    NoJournalFileError,
    StorageFailedError,
    StorageFullError,
)
from sidecar.journal import Request
from sidecar.journal.sqlite import SqliteJournal
from sidecar.meters import BackupMetrics

SUBSCRIBE = "INSERT INTO subscribers (id, record) VALUES (?, ?)"
PAGE_BYTES = 4 << 20


class Watched(Database):
    """A database that tells of every read: how many bytes it was, on which thread; and can do something after one."""

    def __init__(self, path):
        super().__init__(path)
        self.read_bytes, self.after_page = [], None

    async def read(self, sql, parameters=()):
        rows = await super().read(sql, parameters)
        self.read_bytes.append(sum(len(value) for row in rows for value in row if isinstance(value, bytes)))
        if self.after_page and "appended_at, document, chain" in sql:  # only a copy asks for all of it
            await self.after_page(rows)
        return rows


async def append(journal, document=b"{}", request=None):
    """One revision, durable."""
    settled = asyncio.get_running_loop().create_future()
    journal.append(document, lambda entry, error: settled.set_result(error), request)
    assert await settled is None


async def filled(database, count, document=b"{}"):
    """A journal with so many revisions."""
    journal = SqliteJournal(database)
    for _ in range(count - 1):
        journal.append(document, lambda entry, error: None)
    await append(journal, document)
    return journal


def rows(path, sql):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def beside(path):
    """What lies in the folder, the journal's own files apart."""
    return sorted(each.name for each in path.parent.iterdir() if not each.name.startswith("journal.db"))


async def test_a_backup_has_everything(tmp_path):
    """Revisions, identity, subscribers in their order, answers: row by row what the journal has; and it is proven."""
    async with Database(tmp_path / "journal.db") as database:
        journal = await filled(database, 1200)
        for number in range(600):
            await database.execute(SUBSCRIBE, (f"s{600 - number}", b"record"))
        await append(journal, b'{"last":1}', Request("key", b"print"))
        await journal.compact(101)
        await backup(database, tmp_path / "b.db")

    for table in ("journal ORDER BY revision", "identity", "subscribers ORDER BY rowid", "answers"):
        sql = f"SELECT * FROM {table}"  # noqa: S608
        assert rows(tmp_path / "journal.db", sql) == rows(tmp_path / "b.db", sql)
    report = verify(tmp_path / "b.db")
    assert ((), 101, 1201, 1101) == (report.problems, report.oldest, report.head, report.revisions)
    async with Database(tmp_path / "b.db") as copy:
        assert (journal.epoch, 1201) == (copy.found.epoch, copy.found.head)
        assert [(2,)] == await copy.read("PRAGMA auto_vacuum")


async def test_a_backup_is_one_file_for_its_owner(tmp_path):
    """Mode 0600, and nothing beside it: no log, no mark, no lock, no ballast."""
    async with Database(tmp_path / "journal.db") as database:
        await filled(database, 3)
        await backup(database, tmp_path / "b.db")

    assert ["b.db"] == beside(tmp_path / "b.db")
    assert 0o600 == (tmp_path / "b.db").stat().st_mode & 0o777


async def test_an_empty_journal_can_be_backed_up(tmp_path):
    """It has an identity all the same."""
    async with Database(tmp_path / "journal.db") as database:
        copied = await backup(database, tmp_path / "b.db")

    report = verify(tmp_path / "b.db")
    assert ((), 1, 0, copied.epoch) == (report.problems, report.oldest, report.head, report.epoch)


async def test_writes_go_on_meanwhile(tmp_path):
    """None of them fails; the backup has all that was durable before it began, and those after it up to one of them."""
    async with Database(tmp_path / "journal.db") as database:
        journal = await filled(database, 3000, b"x" * 2000)
        taken = asyncio.create_task(backup(database, tmp_path / "b.db"))
        while not taken.done():
            await append(journal, b"meanwhile")
        head = journal.head

    report = verify(tmp_path / "b.db")
    assert () == report.problems
    assert 3000 <= report.head <= head
    assert 3010 < head  # they did go on


async def test_large_revisions_are_read_few_at_a_time(tmp_path):
    """At most 4 MiB between two writes, but never less than one revision."""
    async with Watched(tmp_path / "journal.db") as database:
        journal = await filled(database, 11, bytes(1_000_000))
        await append(journal, bytes(6 << 20))
        await backup(database, tmp_path / "b.db")

    assert () == verify(tmp_path / "b.db").problems
    assert sorted(database.read_bytes)[-1] < (6 << 20) + 100
    assert sorted(database.read_bytes)[-2] <= PAGE_BYTES + 100 * 32


async def test_a_compaction_that_overtakes_is_survived(tmp_path):
    """The copy begins anew; an answer whose revision has gone is in it."""
    async with Watched(tmp_path / "journal.db") as database:
        journal = SqliteJournal(database)
        await append(journal, b'{"answered":1}', Request("key", b"print"))
        for _ in range(1999):
            await append(journal)

        async def compact(page):
            database.after_page = None
            await journal.compact(1500)

        database.after_page = compact
        copied = await backup(database, tmp_path / "b.db")

    report = verify(tmp_path / "b.db")
    assert (1500, 2000) == (copied.oldest, copied.head)
    assert ((), 1500, 501) == (report.problems, report.oldest, report.revisions)
    assert [(1, b'{"answered":1}')] == rows(tmp_path / "b.db", "SELECT revision, document FROM answers")


async def test_a_copy_that_never_catches_up_ends(tmp_path):
    """With an error that says so, and nothing left behind."""
    async with Watched(tmp_path / "journal.db") as database:
        journal = await filled(database, 600)

        async def race(page):
            for _ in range(600):
                journal.append(b"{}", lambda entry, error: None)
            await append(journal)
            await journal.compact(journal.head - 550)

        database.after_page = race
        with pytest.raises(StorageFailedError, match="faster than they are copied"):
            await backup(database, tmp_path / "b.db")

    assert [] == beside(tmp_path / "b.db")


@pytest.mark.parametrize(
    "damage",
    ["UPDATE journal SET document = x'00' WHERE revision = 700", "DELETE FROM journal WHERE revision >= 700"],
    ids=["changed", "lost"],
)
async def test_damage_is_not_copied(tmp_path, damage):
    """A running journal that is not what was written gives no backup."""
    async with Database(tmp_path / "journal.db") as database:
        await filled(database, 1000)

        async def spoil():
            with contextlib.suppress(StorageFailedError):
                await database.execute(damage, ())

        if damage.startswith("UPDATE"):
            await spoil()
            with pytest.raises(JournalDamagedError, match="not what was written"):
                await backup(database, tmp_path / "b.db")
        else:  # the head is what it is when the copy begins, so that it must go meanwhile
            spoiled = Spoiled(database, spoil)
            with pytest.raises(JournalDamagedError, match="not what was written"):
                await backup(spoiled, tmp_path / "b.db")

    assert [] == beside(tmp_path / "b.db")


class Spoiled:
    """The database, with something done to it once the copy knows its head."""

    def __init__(self, database, spoil):
        self.path = database.path
        self._database, self._spoil = database, spoil

    async def read(self, sql, parameters=()):
        answer = await self._database.read(sql, parameters)
        if "FROM identity" in sql:
            await self._spoil()
        return answer


async def test_nothing_is_overwritten(tmp_path):
    """Neither a file nor a link; a missing folder is told, too."""
    (tmp_path / "b.db").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    async with Database(tmp_path / "journal.db") as database:
        for name, told in (("b.db", "is there already"), ("link", "is there already"), ("missing/b.db", "is not a folder")):
            with pytest.raises(ConfigError, match=told):
                await backup(database, tmp_path / name)

    assert "mine" == (tmp_path / "b.db").read_text()


async def test_a_copy_that_is_given_up_leaves_nothing(tmp_path):
    """Cancelled in the middle: no file, no thread; the journal goes on."""
    async with Watched(tmp_path / "journal.db") as database:
        journal = await filled(database, 2000)
        begun = asyncio.Event()

        async def tell(page):
            begun.set()
            await asyncio.Event().wait()

        database.after_page = tell
        taken = asyncio.create_task(backup(database, tmp_path / "b.db"))
        await begun.wait()
        taken.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taken
        await append(journal)

    assert [] == beside(tmp_path / "b.db")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("backup")]


# --- of a running sidecar ---


def metrics_of(backups):
    return {outcome: backups._metrics.backups.labels(outcome)._value.get() for outcome in ("done", "cut", "full", "failed")}


async def test_a_running_sidecar_makes_one_at_a_time(tmp_path):
    """A second one is refused while the first is read; then it can be made. It has no name meanwhile."""
    async with Database(tmp_path / "journal.db") as database:
        await filled(database, 10)
        backups = Backups(database, BackupMetrics())
        async with backups.made() as made:
            assert made.size == len(made.file.read())
            assert [] == list(tmp_path.glob("*.part"))
            with pytest.raises(BackupRunningError):
                await backups.made().__aenter__()
        async with backups.made():
            pass

    assert {"done": 2, "cut": 0, "full": 0, "failed": 0} == metrics_of(backups)


async def test_a_backup_does_not_take_the_journals_room(tmp_path):
    """Refused as full when the reserve would be used up; nothing is left behind."""
    async with Database(tmp_path / "journal.db") as database:
        await filled(database, 100, bytes(10_000))
        backups = Backups(database, BackupMetrics())
        database.space.reserve_bytes = database.space.free() - 500_000
        with pytest.raises(StorageFullError, match="have to stay free"):
            await backups.made().__aenter__()

    assert {"done": 0, "cut": 0, "full": 1, "failed": 0} == metrics_of(backups)
    assert [] == list(tmp_path.glob("*.part"))


async def test_a_backup_gives_way_when_room_gets_low(tmp_path):
    """Somebody else fills the disk meanwhile: the copy goes, the journal stays."""
    async with Watched(tmp_path / "journal.db") as database:
        journal = await filled(database, 1000)

        async def fill(page):
            database.space.reserve_bytes = 1 << 60

        database.after_page = fill
        with pytest.raises(StorageFullError):
            await Backups(database, BackupMetrics()).made().__aenter__()
        database.space.reserve_bytes = 0
        await append(journal)

    assert [] == list(tmp_path.glob("*.part"))


async def test_there_is_no_backup_of_a_journal_in_memory():
    """It has no file, and says so."""
    with pytest.raises(NoJournalFileError, match="in memory"):
        await Backups(None, BackupMetrics()).made().__aenter__()


async def test_what_a_killed_process_left_is_removed(tmp_path):
    """And nothing that somebody else may have named so."""
    names = ["journal.db.backup-0123456789abcdef.part", "journal.db.backup-monday", "other.db.backup-0123456789abcdef.part"]
    for name in names:
        (tmp_path / name).write_text("x")
    async with Database(tmp_path / "journal.db") as database:
        Backups(database, BackupMetrics())

    assert names[1:] == sorted(path.name for path in tmp_path.iterdir() if "backup" in path.name)
