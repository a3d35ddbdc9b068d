"""The hash chain: whatever is changed, exchanged or taken out of the journal's rows, the rows concerned are named."""

import asyncio
import contextlib
import hashlib
import sqlite3
import struct

import pytest

from sidecar.database import Database
from sidecar.database.chain import START, link, relink, walk
from sidecar.journal.sqlite import SqliteJournal

ROWS = 20


async def append(journal, *documents):
    """Append them at once, and wait until they are durable."""
    settled = asyncio.Queue()
    for document in documents:
        journal.append(document, lambda entry, error: settled.put_nowait(error))
    assert {None} == {await settled.get() for _ in documents}


@pytest.fixture
async def file(tmp_path):
    """A journal of twenty rows, nobody having it open."""
    async with Database(tmp_path / "journal.db") as database:
        await append(SqliteJournal(database), *(b'{"n": %d}' % n for n in range(1, ROWS + 1)))
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as connection:
        yield connection


def broken(file):
    """The revisions whose link is not what their content says."""
    (anchor,) = file.execute("SELECT anchor FROM identity").fetchone()
    return [row.revision for row in walk(file, anchor) if not row.whole]


def test_a_link_is_what_the_documentation_says(file):
    """SHA-256 over the link before, the revision as a big-endian u64, the time as a double, and the document."""
    before = START
    for revision, at, document, chain in file.execute("SELECT revision, appended_at, document, chain FROM journal"):
        assert chain == link(before, revision, at, document)
        before = hashlib.sha256(before + struct.pack(">Q", revision) + struct.pack(">d", at) + document).digest()
        assert chain == before


def test_what_was_written_is_whole(file):
    """All rows, oldest first, with their sizes."""
    rows = list(walk(file, START))

    assert list(range(1, ROWS + 1)) == [row.revision for row in rows]
    assert [] == broken(file)
    assert [len(b'{"n": %d}' % n) for n in range(1, ROWS + 1)] == [row.length for row in rows]


CHANGES = {
    "a document": ("UPDATE journal SET document = CAST('{\"n\": 70}' AS BLOB) WHERE revision = 7", [7]),
    "one bit of a time": ("UPDATE journal SET appended_at = appended_at + 0.000001 WHERE revision = 7", [7]),
    "a link": ("UPDATE journal SET chain = zeroblob(32) WHERE revision = 7", [7, 8]),
    "two rows exchanged": (
        "UPDATE journal SET revision = -7 WHERE revision = 7; UPDATE journal SET revision = 7 WHERE revision = 8;"
        "UPDATE journal SET revision = 8 WHERE revision = -7",
        [7, 8, 9],
    ),
    "another number": ("UPDATE journal SET revision = 21 WHERE revision = 20", [21]),
    "a row taken out": ("DELETE FROM journal WHERE revision = 7", [8]),
    "the first row taken out": ("DELETE FROM journal WHERE revision = 1", [2]),
    "another start": ("UPDATE identity SET anchor = randomblob(32)", [1]),
}


@pytest.mark.parametrize(("script", "found"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_found_where_it_is(file, script, found):
    """In the row, and where a link is gone also in the row behind it; all others can still be trusted."""
    file.executescript(script)

    assert found == broken(file)


def test_a_new_chain_is_whole(file):
    """After a loss that was accepted, every row that is left is linked again."""
    file.execute("DELETE FROM journal WHERE revision IN (1, 7, 8)")
    file.execute("UPDATE identity SET anchor = randomblob(32)")
    relink(file, *file.execute("SELECT anchor FROM identity").fetchone())

    assert [] == broken(file)


async def test_a_compacted_journal_is_whole(tmp_path):
    """What is forgotten leaves its last link behind, from which the chain goes on; also across reopenings."""
    links = []
    for round_ in range(3):
        async with Database(tmp_path / "journal.db") as database:
            journal = SqliteJournal(database)
            await append(journal, *(b"%d" % n for n in range(700)))
            await journal.compact(700 * round_ + 650)
            [(anchor,)] = await database.read("SELECT anchor FROM identity")
            [(oldest,)] = await database.read("SELECT chain FROM journal ORDER BY revision LIMIT 1")
            [entry] = await journal.read(journal.oldest - 1, 1)
        links.append(oldest == link(anchor, entry.revision, entry.appended_at, entry.document))

    assert [True] * 3 == links
