"""Retention: history stays within its bounds, the newest revision always stays, and whoever is passed over is told."""

import asyncio
import contextlib
import itertools
import sqlite3
import subprocess
import sys
import time

import pytest
from sidecar_process import eventually, on_disk, problem_of

from sidecar import AsyncStateStore, FsmSnapshot, FsmState, retention
from sidecar.database import Database, file_bytes
from sidecar.errors import StorageFullError
from sidecar.journal import Request
from sidecar.journal.memory import MemoryJournal
from sidecar.journal.sqlite import SqliteJournal
from sidecar.retention import Clock, Limits, compact, make_room, retain

EVERYTHING = Limits(revisions=10**6, age_seconds=10**6, size=10**9)
START = 1_700_000_000.0


@pytest.fixture
def wall(monkeypatch):
    """The wall clock, which stands still until it is set."""

    class Wall:
        now = START

    monkeypatch.setattr(time, "time", lambda: Wall.now)
    return Wall


def append(journal, *documents):
    """Hand them over, and give a future for the last one."""
    done = asyncio.get_running_loop().create_future()
    for document in documents[:-1]:
        journal.append(document, lambda *_: None)
    journal.append(documents[-1], lambda entry, _: done.set_result(entry))
    return done


async def kept(journal):
    """The revisions that can be read, after what is promised is compared with that."""
    revisions = [entry.revision for entry in await journal.read(journal.oldest - 1, 10_000)]
    assert list(range(journal.oldest, journal.head + 1)) == revisions
    return revisions


# --- the bounds ---


@pytest.mark.parametrize(
    ("limits", "oldest"),
    [
        (EVERYTHING, 1),
        (EVERYTHING._replace(revisions=10), 11),
        (EVERYTHING._replace(size=700), 14),
        (EVERYTHING._replace(age_seconds=45), 16),
        (Limits(revisions=10, age_seconds=45, size=700), 16),
        (Limits(revisions=10, age_seconds=65, size=700), 14),
        (Limits(revisions=10, age_seconds=95, size=1200), 11),
        (Limits(revisions=1, age_seconds=0, size=0), 20),
        (EVERYTHING._replace(size=0), 20),
        (EVERYTHING._replace(age_seconds=0), 20),
    ],
)
async def test_what_is_beyond_any_bound_goes(journal, wall, limits, oldest):
    """By number, age and bytes, each alone and the strictest of them together; the newest revision is never among it."""
    for n in range(20):  # 100 bytes each, one every ten seconds
        wall.now = START + 10 * n
        await append(journal, b"x" * 100)
    await compact(journal, limits, wall.now + 1)

    assert list(range(oldest, 21)) == await kept(journal)
    assert 100 * (21 - oldest) == journal.size


async def test_much_goes_at_once(journal):
    """More than fits into one step, and the sizes are right afterwards."""
    await append(journal, *(b"%d" % n for n in range(3000)))
    await compact(journal, EVERYTHING._replace(revisions=7), 0)

    assert (list(range(2994, 3001)), 7 * 4) == (await kept(journal), journal.size)


async def test_an_empty_journal_stays_empty(journal):
    """There is nothing to forget."""
    await compact(journal, Limits(1, 0, 0), time.time() + 10**9)
    assert (0, 1, 0) == (journal.head, journal.oldest, journal.size)


@pytest.mark.parametrize("years", [-10, 10])
async def test_a_clock_that_is_set_ages_nothing(journal, wall, years):
    """Neither what was written before, nor what is written since."""
    clock, limits = Clock(), EVERYTHING._replace(age_seconds=3600)
    await append(journal, b"before", b"before")
    wall.now += years * 365 * 86400
    await append(journal, b"since")
    await compact(journal, limits, clock())
    assert [1, 2, 3] == await kept(journal)

    await journal.compact(3)  # what was written since is the oldest now, and shields itself
    await append(journal, b"since")
    await compact(journal, limits, clock())
    assert [3, 4] == await kept(journal)


def test_age_goes_on_while_nobody_writes(wall, monkeypatch):
    """The clock counts evenly, whatever else is set."""
    since = itertools.count(100.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(since))
    clock = Clock()
    wall.now += 5
    assert (START + 1, START + 2) == (clock(), clock())


# --- while it runs ---


@contextlib.asynccontextmanager
async def retained(store, limits, **options):
    """The store, with retention at work."""
    task = asyncio.create_task(retain(store, limits, **options))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def nearly_all_gone(journal):
    """Wait until no more is kept than the bounds of these tests and their slack allow."""
    async with asyncio.timeout(10):
        while journal.head - journal.oldest >= 60:  # noqa: ASYNC110  (nobody tells when the oldest go)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("limits", [EVERYTHING._replace(revisions=50), EVERYTHING._replace(size=1_000_000)])
async def test_a_journal_that_is_written_for_ever_stays_small(tmp_path, monkeypatch, limits):
    """Pages of what went are used again: of 80 MB that were written the files never have a third."""
    monkeypatch.setattr(retention, "LOOK_SECONDS", 0.02)
    async with Database(tmp_path / "journal.db") as database:
        store = AsyncStateStore(journal=SqliteJournal(database))
        async with retained(store, limits, database=database):
            for _ in range(40):
                writes = (store.set(FsmSnapshot(0, FsmState.IDLE, context_data={"x": "x" * 20_000})) for _ in range(100))
                await asyncio.gather(*writes)
                await nearly_all_gone(store.journal)
                assert sum(file_bytes(database.path).values()) < 26 << 20


async def test_a_journal_in_memory_stays_small():
    """Also one that keeps much by itself."""
    store = AsyncStateStore(journal=MemoryJournal(max_revisions=10**6, max_bytes=10**9))
    async with retained(store, EVERYTHING._replace(revisions=50)):
        for _ in range(50):
            for _ in range(100):
                await store.set(FsmSnapshot(0, FsmState.IDLE))
            await asyncio.sleep(0)
        await nearly_all_gone(store.journal)
    assert 5000 == store.journal.head


async def test_writers_do_not_keep_retention_waiting(database):
    """It gets on while they hammer."""
    store = AsyncStateStore(journal=SqliteJournal(database))
    rounds = itertools.count()

    async def hammer():
        while store.journal.oldest < 2000:
            await store.set(FsmSnapshot(0, FsmState.IDLE))
            assert next(rounds) < 50_000, "retention is starved"

    async with retained(store, EVERYTHING._replace(revisions=100), database=database):
        await asyncio.gather(*(hammer() for _ in range(64)))


# --- what survives ---


async def test_a_compacted_journal_verifies_at_the_next_start(tmp_path):
    """The chain goes on from where the oldest revision kept was linked."""
    for step in (5, 700, 701, 1500):
        async with Database(tmp_path / "journal.db") as database:
            journal = SqliteJournal(database)
            await append(journal, *(b"%d" % n for n in range(500)))
            await journal.compact(step)
            head = journal.head
        async with Database(tmp_path / "journal.db") as database:
            assert (step, head) == (database.found.oldest, database.found.head)


COMPACTS = """
import asyncio, pathlib, sys
from sidecar.database import Database
from sidecar.journal.sqlite import SqliteJournal

async def main():
    async with Database(pathlib.Path(sys.argv[1])) as database:
        journal = SqliteJournal(database)
        while True:
            for _ in range(300):
                journal.append(bytes(2000), lambda entry, error: None)
            await database.read("SELECT 1")
            await asyncio.gather(journal.compact(journal.head - 20), database.read("SELECT 1"))
            print(journal.oldest, journal.head, flush=True)

asyncio.run(main())
"""


async def newest(path):
    """The newest revision of a journal that opens, once all that are kept were read."""
    async with Database(path) as database:
        return (await kept(SqliteJournal(database)))[-1]


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 8])
def test_a_kill_in_the_middle_of_it_leaves_a_journal_that_verifies(tmp_path, lines):
    """All of a step is there, or nothing of it; what was kept before is kept."""
    path = tmp_path / "journal.db"
    with subprocess.Popen([sys.executable, "-c", COMPACTS, path], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(lines):
            _, head = map(int, process.stdout.readline().split())
        time.sleep(0.002 * lines)  # into the next one, anywhere in it
        process.kill()
    assert head <= asyncio.run(newest(path))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


async def test_what_found_no_room_to_go_is_kept(database):
    """Answers that are kept for a retry have to be copied first: without room for that nothing is lost, nor forgotten."""
    journal = SqliteJournal(database)
    for n in range(20):
        journal.append(bytes(50_000), lambda *_: None, Request(f"{n}", b"print"))
    await append(journal, b"head")
    (pages,) = (await database.read("PRAGMA page_count"))[0]
    await database.execute(f"PRAGMA max_page_count = {pages}", ())
    with pytest.raises(StorageFullError):
        await journal.compact(21)
    assert (list(range(1, 22)), 20 * 50_000 + 4) == (await kept(journal), journal.size)

    await database.execute("PRAGMA max_page_count = 1000000", ())
    await journal.compact(21)
    assert ([21], 4) == (await kept(journal), journal.size)
    assert [bytes(50_000)] * 20 == [(await journal.answer(n)).document for n in range(1, 21)]


# --- seen from outside ---


async def test_room_that_comes_back_meanwhile_costs_no_history(tmp_path, monkeypatch):
    """Somebody else had filled the disk, and clears it in the very moment in which the oldest revisions were to go."""
    async with Database(tmp_path / "journal.db", reserve_bytes=64 << 10) as database:
        store = AsyncStateStore(journal=SqliteJournal(database))
        for version in range(20):
            await store.set(FsmSnapshot(version, FsmState.IDLE))
        space, give_up = database.space, store.give_up_answers
        monkeypatch.setattr(space, "free", lambda: 0)
        with pytest.raises(StorageFullError):
            await store.set(FsmSnapshot(20, FsmState.IDLE))

        async def cleared_meanwhile(before):
            monkeypatch.setattr(space, "free", lambda: 1 << 30)
            await give_up(before)

        monkeypatch.setattr(store, "give_up_answers", cleared_meanwhile)
        await make_room(store, database)

        assert 1 == store.journal.oldest
        assert 20 == (await store.set(FsmSnapshot(20, FsmState.IDLE))).version


def put(sidecar, count=1):
    for _ in range(count):
        assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE"}).status


def small(tmp_path):
    """A journal on disk that keeps ten revisions, and the deliveries that fit it."""
    return {"journal": on_disk(tmp_path) | {"retention": {"revisions": 10}}, "webhooks": {"max_lag": 10}}


def oldest(sidecar):
    return sidecar.api.get("/v1/history?limit=1").json["oldest"]


def test_history_is_read_page_by_page_over_all_that_is_kept(start, tmp_path):
    """From the oldest kept, by default; below that 410, which tells where to begin again."""
    sidecar = start(**small(tmp_path))
    put(sidecar, 50)
    eventually(lambda: oldest(sidecar) == 42)
    after, seen = None, []
    while entries := sidecar.api.get(f"/v1/history?limit=4{f'&after={after}' if after else ''}").json["entries"]:
        seen += [entry["revision"] for entry in entries]
        after = seen[-1]

    assert list(range(42, 52)) == seen
    assert 42 == problem_of(sidecar.api.get("/v1/history?after=40"), 410, "compacted")["oldest"]
    assert 200 == sidecar.api.get("/v1/history?after=41").status


def test_the_age_of_the_config_is_kept(start, tmp_path):
    """The head stays, however old."""
    sidecar = start(journal=on_disk(tmp_path) | {"retention": {"age": "1ms"}})
    put(sidecar, 20)
    eventually(lambda: oldest(sidecar) == 21)
    assert 21 == sidecar.api.get("/v1/state").json["revision"]


def test_the_bytes_of_the_config_are_kept(start, tmp_path):
    """They are those of the documents, and a metric."""
    journal = on_disk(tmp_path) | {"retention": {"bytes": "64KiB"}}
    sidecar = start(journal=journal, writes={"max_body": "16KiB"})
    for _ in range(30):
        assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE", "reason": "x" * 4000}).status

    def size():
        lines = sidecar.ops.get("/metrics").body.decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("fsm_journal_documents_bytes "))

    eventually(lambda: size() <= 64 << 10)
    assert size() > 50_000


def test_a_subscriber_that_was_passed_by_is_told(start, hook, tmp_path):
    """It gets the newest state, what it had last, and how many are missing between; and they are counted."""
    sidecar = start(**small(tmp_path))
    sidecar.api.put("/v1/subscribers/slow", {"url": hook.url})
    cursor = hook.wait_for(1)[0].data["revision"]
    hook.answers(503)
    put(sidecar, 40)
    eventually(lambda: oldest(sidecar) > cursor + 1)
    hook.answers(200)
    sidecar.api.post("/v1/subscribers/slow/resume")
    told = hook.wait_for_revision(41).data

    assert (cursor, 41 - cursor - 1) == (told["previous_revision"], told["skipped"])
    counted = f'fsm_webhook_revisions_skipped_total{{reason="compacted"}} {told["skipped"]:.1f}'
    eventually(lambda: counted in sidecar.ops.get("/metrics").body.decode())
