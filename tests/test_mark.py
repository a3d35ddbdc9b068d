"""The high-water mark: it follows the journal closely, never leads it, and is believed only when it is whole."""

import asyncio

import pytest

from sidecar.database import Database
from sidecar.database.mark import Mark, MarkFile, mark_path, read_mark
from sidecar.errors import StorageFailedError
from sidecar.journal.sqlite import SqliteJournal

MARK = Mark("k3f9ab2c", 2**40 + 17, bytes(range(32)), in_use=True)


@pytest.fixture
def marked(tmp_path):
    """A journal's path with a mark beside it."""
    marks = MarkFile(tmp_path / "journal.db")
    marks.write(MARK)
    marks.close()
    return tmp_path / "journal.db"


async def append(journal, document=b"{}"):
    """Append, and give the error, if any, once it is settled."""
    settled = asyncio.get_running_loop().create_future()
    journal.append(document, lambda entry, error: settled.set_result(error))
    return await settled


@pytest.mark.parametrize("in_use", [True, False])
def test_a_mark_is_read_as_it_was_written(tmp_path, in_use):
    """The last of them: it is written over the one before."""
    marks = MarkFile(tmp_path / "journal.db")
    for mark in (MARK, MARK._replace(head=3), MARK._replace(head=4, in_use=in_use)):
        marks.write(mark)
        marks.sync()
    marks.close()

    assert MARK._replace(head=4, in_use=in_use) == read_mark(tmp_path / "journal.db")


def test_no_mark_is_no_mark(tmp_path):
    """And looking for one makes none."""
    assert read_mark(tmp_path / "journal.db") is None
    assert [] == list(tmp_path.iterdir())


def test_a_torn_mark_is_not_believed(marked):
    """Cut anywhere, or the rest of it from another write or from nowhere."""
    whole = mark_path(marked).read_bytes()
    other = bytes(byte ^ 255 for byte in whole)
    for cut in range(len(whole)):
        for rest in (b"", bytes(len(whole) - cut), other[cut:]):
            mark_path(marked).write_bytes(whole[:cut] + rest)
            assert read_mark(marked) is None, (cut, rest)
    mark_path(marked).write_bytes(whole + b"\0")
    assert read_mark(marked) is None


def test_a_flipped_bit_is_not_believed(marked):
    """Any bit of it."""
    whole = mark_path(marked).read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        mark_path(marked).write_bytes(flipped)
        assert read_mark(marked) is None, bit


async def test_the_mark_is_there_before_the_acknowledgement(tmp_path):
    """Whoever was told a revision finds it in the mark, with its link: a crash at any later time is noticed."""
    path = tmp_path / "journal.db"
    async with Database(path) as database:
        journal = SqliteJournal(database)
        assert Mark(journal.epoch, 0, bytes(32)) == read_mark(path)
        for revision in range(1, 50):
            assert await append(journal) is None
            [(chain,)] = await database.read("SELECT chain FROM journal WHERE revision = ?", (revision,))
            assert Mark(journal.epoch, revision, chain, in_use=True) == read_mark(path)
    assert Mark(journal.epoch, 49, chain, in_use=False) == read_mark(path)


async def test_a_failed_write_leaves_the_mark(tmp_path):
    """It never leads: what was not durable would be missed at the next start."""
    path = tmp_path / "journal.db"
    async with Database(path) as database:
        journal = SqliteJournal(database)
        await append(journal)
        await database.execute("CREATE TRIGGER refuse BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'no'); END", ())
        before = read_mark(path)
        assert isinstance(await append(journal), StorageFailedError)
        assert before == read_mark(path)
        assert (1, True) == (before.head, before.in_use)


async def test_what_is_not_of_the_journal_moves_no_mark(tmp_path):
    """A subscriber's cursor, compaction: the head stays where it is."""
    path = tmp_path / "journal.db"
    async with Database(path) as database:
        journal = SqliteJournal(database)
        for _ in range(5):
            await append(journal)
        before = read_mark(path)
        await database.execute("INSERT INTO subscribers (id, record) VALUES (?, ?)", ("console", b"{}"))
        await journal.compact(5)

        assert before == read_mark(path)
    assert before._replace(in_use=False) == read_mark(path)
