"""The journal's contract: one suite, kept by every backend; then what only the durable one promises."""

import asyncio
import gc
import time

import pytest

from sidecar.database import Database
from sidecar.errors import CompactedError
from sidecar.journal.memory import MemoryJournal
from sidecar.journal.sqlite import SqliteJournal


async def append(journal, *documents):
    """Hand over the documents at once, and give their entries once all are settled."""
    settled = asyncio.Queue()
    for document in documents:
        journal.append(document, lambda entry, error: settled.put_nowait((entry, error)))
    answers = [await settled.get() for _ in documents]
    assert all(error is None for _, error in answers)
    return [entry for entry, _ in answers]


def numbered(count):
    return [b"%d" % n for n in range(1, count + 1)]


def revisions(entries):
    return [entry.revision for entry in entries]


async def turn():
    """One turn of the event loop: a task that was just made has run up to where it waits."""
    await asyncio.sleep(0)


# --- appending ---


async def test_an_empty_journal_has_no_head(journal):
    """Head 0, and the oldest kept revision would be the next one."""
    assert (0, 1) == (journal.head, journal.oldest)
    assert [] == list(await journal.read(0, 10))


async def test_appends_are_settled_in_order_under_revisions_without_holes(journal):
    """1, 2, 3 …, each with its own document, however many are handed over at once."""
    first = await append(journal, *numbered(600))
    second = await append(journal, b"last")

    assert list(range(1, 602)) == revisions(first + second)
    assert [*numbered(600), b"last"] == [entry.document for entry in first + second]
    assert (601, 1) == (journal.head, journal.oldest)


async def test_an_entry_knows_when_it_was_appended(journal):
    """In seconds since the Unix epoch."""
    before = time.time()
    [entry] = await append(journal, b"x")

    assert before <= entry.appended_at <= time.time()


async def test_the_head_moves_once_an_append_is_settled(journal):
    """Whoever is told of a revision sees a head that has not passed it; then it can be read."""
    seen, told = [], asyncio.Event()
    for document in numbered(3):
        journal.append(document, lambda entry, _: (seen.append((entry.revision, journal.head)), told.set()))
        await told.wait()
        told.clear()

    assert [(1, 0), (2, 1), (3, 2)] == seen
    assert [1, 2, 3] == revisions(await journal.read(0, 10))


# --- reading ---


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [
        (0, 100, [1, 2, 3, 4, 5]),
        (0, 5, [1, 2, 3, 4, 5]),
        (0, 2, [1, 2]),
        (2, 2, [3, 4]),
        (3, 2, [4, 5]),
        (4, 2, [5]),
        (4, 0, []),
        (0, 0, []),
        (5, 2, []),
        (99, 2, []),
    ],
)
async def test_a_page_starts_after_a_revision_and_ends_at_its_limit(journal, after, limit, expected):
    """Oldest first; at the head and beyond there is nothing."""
    await append(journal, *numbered(5))

    assert expected == revisions(await journal.read(after, limit))


async def test_pages_join_without_gap_or_repetition(journal):
    """Reading on from the last revision of each page gives every entry once, as it was appended."""
    appended = await append(journal, *numbered(100))
    joined = []
    while page := await journal.read(len(joined), 7):
        joined += page

    assert appended == joined


# --- following ---


async def test_follow_gives_what_is_there_already(journal):
    """Without waiting, as `read`."""
    await append(journal, *numbered(3))

    assert [2, 3] == revisions(await journal.follow(1, 10))
    assert [2] == revisions(await journal.follow(1, 1))


async def test_followers_wait_and_all_wake(journal):
    """Nobody is answered before there is something to read, and then nobody is forgotten."""
    await append(journal, b"1")
    followers = [asyncio.create_task(journal.follow(1, 10)) for _ in range(100)]
    await turn()

    assert not any(follower.done() for follower in followers)
    await append(journal, b"2")
    assert [[2]] * 100 == [revisions(page) for page in await asyncio.gather(*followers)]


async def test_a_follower_far_ahead_waits_for_its_revision(journal):
    """Revisions that it has already do not answer it."""
    follower = asyncio.create_task(journal.follow(2, 10))
    await append(journal, b"1")
    await append(journal, b"2")
    await turn()

    assert not follower.done()
    await append(journal, b"3")
    assert [3] == revisions(await follower)


async def test_a_follower_that_reads_on_misses_nothing(journal):
    """Page after page, while writers append."""
    documents = numbered(300)

    async def follow():
        seen = []
        while len(seen) < len(documents):
            seen += await journal.follow(len(seen), 9)
        return seen

    seen, appended = await asyncio.gather(follow(), append(journal, *documents))

    assert appended == seen


async def test_beyond_waits_until_the_head_is_past_a_revision(journal):
    """For those who want to know, not to read."""
    waiting = asyncio.create_task(journal.beyond(1))
    await append(journal, b"1")
    await turn()

    assert not waiting.done()
    await append(journal, b"2")
    await waiting
    assert 2 == journal.head


async def test_a_cancelled_follower_leaves_nothing_behind(journal):
    """However many give up while nothing is written: no future of theirs stays, and the others still wake."""

    loop = asyncio.get_running_loop()

    def futures():
        gc.collect()
        return sum(isinstance(thing, asyncio.Future) and thing.get_loop() is loop for thing in gc.get_objects())

    survivor = asyncio.create_task(journal.follow(0, 10))
    await turn()
    before = futures()
    quitters = [asyncio.create_task(journal.follow(0, 10)) for _ in range(100)]
    await turn()
    for quitter in quitters:
        quitter.cancel()
    await asyncio.gather(*quitters, return_exceptions=True)
    quitters.clear()
    del quitter
    await turn()

    assert before == futures()
    await append(journal, b"1")
    assert [1] == revisions(await survivor)


# --- compacting ---


async def test_compacting_forgets_the_revisions_before(journal):
    """What is kept is read as before; asking for what is gone names the oldest that is left."""
    appended = await append(journal, *numbered(1200))
    await journal.compact(1100)

    assert (1200, 1100) == (journal.head, journal.oldest)
    assert appended[1099:] == list(await journal.read(1099, 1000))
    for after in (0, 1098):
        with pytest.raises(CompactedError) as caught:
            await journal.read(after, 10)
        assert 1100 == caught.value.oldest


async def test_a_follower_of_compacted_revisions_is_told(journal):
    """A gap is an error, never silence."""
    await append(journal, *numbered(5))
    await journal.compact(4)

    with pytest.raises(CompactedError):
        await journal.follow(1, 10)


@pytest.mark.parametrize("oldest", [5, 6, 1000])
async def test_the_head_is_always_kept(journal, oldest):
    """Compacting beyond it leaves the current state, and revisions go on from there."""
    await append(journal, *numbered(5))
    await journal.compact(oldest)

    assert [5] == revisions(await journal.read(4, 10))
    assert (5, 5) == (journal.head, journal.oldest)
    assert [6] == revisions(await append(journal, b"6"))


@pytest.mark.parametrize("oldest", [-1, 0, 1, 3])
async def test_compacting_less_than_before_does_nothing(journal, oldest):
    """Also in an empty journal."""
    await journal.compact(oldest)
    await append(journal, *numbered(5))
    await journal.compact(3)
    await journal.compact(oldest)

    assert 3 == journal.oldest
    assert [3, 4, 5] == revisions(await journal.read(2, 10))


# --- the journal's identity ---


async def test_every_new_journal_has_an_epoch_of_its_own(journal):
    """Eight letters and digits that nobody mistakes for each other; it stays while the journal lives."""
    epoch = journal.epoch
    await append(journal, b"1")

    assert epoch == journal.epoch
    assert 8 == len(epoch)
    assert not set(epoch) - set("abcdefghijkmnpqrstuvwxyz23456789")
    assert 100 == len({MemoryJournal().epoch for _ in range(100)})


# --- memory only ---


@pytest.mark.parametrize("bounds", [{"max_revisions": 3}, {"max_bytes": 30}])
async def test_a_journal_in_memory_is_bounded(bounds):
    """In revisions and in bytes; the newest one is kept, whatever its size."""
    journal = MemoryJournal(**bounds)
    await append(journal, *[b"x" * 10] * 5)

    assert [3, 4, 5] == revisions(await journal.read(2, 10))
    with pytest.raises(CompactedError) as caught:
        await journal.read(1, 10)
    assert 3 == caught.value.oldest == journal.oldest
    assert [6] == revisions(await append(journal, b"x" * 100))
    assert [6] == revisions(await journal.read(5, 10))


# --- on disk only ---


async def test_everything_survives_a_reopening(tmp_path):
    """The same epoch, revisions, times and documents; new revisions go on behind them."""
    async with Database(tmp_path / "journal.db") as database:
        journal = SqliteJournal(database)
        appended = await append(journal, *numbered(20))
        await journal.compact(5)
        epoch = journal.epoch
    async with Database(tmp_path / "journal.db") as database:
        journal = SqliteJournal(database)

        assert (epoch, 20, 5) == (journal.epoch, journal.head, journal.oldest)
        assert appended[4:] == await journal.read(4, 100)
        assert [21] == revisions(await append(journal, b"21"))
        with pytest.raises(CompactedError):
            await journal.read(3, 100)


async def test_another_file_has_another_epoch(database, tmp_path):
    """So that a version from a lost journal never matches."""
    first = SqliteJournal(database)
    async with Database(tmp_path / "other.db") as other:
        assert first.epoch != (SqliteJournal(other)).epoch


async def test_what_memory_no_longer_holds_is_read_from_disk(database):
    """A follower that is far behind gets the same entries, and joins the newest ones without a seam."""
    journal = SqliteJournal(database)
    appended = await append(journal, *numbered(3000))
    joined = []
    while page := await journal.read(len(joined), 500):
        joined += page

    assert appended == joined


async def test_a_page_of_huge_documents_is_bounded_in_bytes(tmp_path):
    """A few MiB at most, but always one entry, so that a reader gets on."""
    sizes = [1 << 20, 1 << 20, 3 << 20, 6 << 20, 1 << 20]
    async with Database(tmp_path / "journal.db") as database:
        await append(SqliteJournal(database), *map(bytes, sizes))
    async with Database(tmp_path / "journal.db") as database:
        journal = SqliteJournal(database)
        pages, seen = [], 0
        while page := await journal.read(seen, 100):
            pages.append(revisions(page))
            seen = page[-1].revision

    assert [[1, 2], [3], [4], [5]] == pages
