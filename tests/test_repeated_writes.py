"""Writes that come twice, at the store: a repetition gets the first answer again, for a while, and is not applied again."""

import asyncio
import contextlib
import sqlite3
import time

import pytest

from sidecar import AsyncStateStore, FsmSnapshot, FsmState, IllegalTransitionError, Machine, StateVersionError
from sidecar.conflicts import Expectation
from sidecar.database import Database
from sidecar.document import document_of
from sidecar.errors import KeyReusedError, OverloadedError, StorageFullError
from sidecar.idempotency import Requests
from sidecar.journal import Request
from sidecar.journal.sqlite import SqliteJournal
from sidecar.retention import Limits, retain

TTL = 600.0
LADDER = Machine.from_names(["BOOTING", "IDLE", "ACTIVE"], {"BOOTING": ["IDLE"], "IDLE": ["ACTIVE"], "ACTIVE": []})


class Clock:
    """Stands still until a test moves it."""

    now = 5.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(journal, clock):
    """A store in front of each kind of journal, whose keys age by the clock."""
    return remembering(journal, clock)


def remembering(journal, clock, limit=100, **options):
    return AsyncStateStore(journal=journal, requests=Requests(ttl_seconds=TTL, limit=limit, clock=clock), **options)


@contextlib.asynccontextmanager
async def restarted(path, clock, **options):
    """A store that has taken up what is in the file."""
    async with Database(path) as database:
        store = remembering(SqliteJournal(database), clock, **options)
        await store.recover()
        yield store


def go(store, key, *expected, body="go", to=FsmState.IDLE):
    """A write with a key. `body` stands for all that it says."""
    return store.transition(to, body, *expected, request=Request(key, body.encode()))


async def revisions(store, *keys):
    """Which revision answers each key now. One that is not known is written."""
    return [(await go(store, key)).entry.revision for key in keys]


def answers_in(path):
    """How many answers the closed file holds."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM answers").fetchone()[0]


# --- once ---


async def test_a_repeated_write_gets_the_first_answer_and_is_applied_once(store):
    """The same revision, byte for byte, also when others have written since. Only the second one is a replay."""
    first = await go(store, "k")
    await go(store, "other", body="away", to=FsmState.ACTIVE)
    again = await go(store, "k")

    assert (first.entry, first.snapshot) == (again.entry, again.snapshot)
    assert (False, True) == (first.replayed, again.replayed)
    assert (2, 1, 2) == (store.journal.head, store.replays, len(store.requests))
    assert FsmState.ACTIVE == (await store.get()).state


async def test_a_write_without_a_key_is_a_new_one_each_time(store):
    """Nothing is remembered of it."""
    for _ in range(2):
        await store.transition(FsmState.IDLE, "go")

    assert (2, 0, 0) == (store.journal.head, store.replays, len(store.requests))


async def test_the_key_is_looked_at_before_the_version(store):
    """A repetition that its own success has made stale is no conflict; a new write that expects the same is one."""
    unwritten = Expectation(version=-1)
    first = await go(store, "k", unwritten)
    again = await go(store, "k", unwritten)

    assert (first.entry, 0) == (again.entry, store.conflicts.version_conflicts)
    with pytest.raises(StateVersionError):
        await go(store, "new", unwritten)


async def test_a_key_that_is_used_for_another_write_is_refused(store):
    """Nothing is applied, and the first answer stays."""
    first = await go(store, "k")
    with pytest.raises(KeyReusedError):
        await go(store, "k", body="something else")

    assert (1, 0) == (store.journal.head, store.replays)
    assert first.entry == (await go(store, "k")).entry


async def test_of_20_equal_writes_at_once_one_is_applied(store):
    """All are told the same; the later ones wait for the disk as the first does."""
    answers = await asyncio.gather(*(go(store, "k") for _ in range(20)))

    assert [answers[0].entry] * 20 == [answer.entry for answer in answers]
    assert [False] + [True] * 19 == [answer.replayed for answer in answers]
    assert (1, 19) == (store.journal.head, store.replays)


async def test_the_first_caller_may_leave_before_its_answer(tmp_path, clock):
    """Its write is not cancelled with it, and the repetition is told of it."""
    async with restarted(tmp_path / "journal.db", clock) as store:
        first = asyncio.create_task(go(store, "k"))
        await asyncio.sleep(0)  # it has handed its write over
        first.cancel()
        again = await go(store, "k")

        assert (True, 1, 1) == (again.replayed, again.entry.revision, store.journal.head)


async def test_a_compacted_revision_still_answers(store):
    """The answer outlives its place in the history."""
    first = await go(store, "k")
    for _ in range(3):
        await store.transition(FsmState.ACTIVE, "on")
    await store.journal.compact(4)

    assert 4 == store.journal.oldest
    assert first.entry == (await go(store, "k")).entry
    assert 4 == store.journal.head


# --- what is not remembered ---


async def test_a_lost_write_is_decided_anew(store):
    """After a conflict the same key may be tried again, against the version of then."""
    await store.transition(FsmState.IDLE, "first")
    for _ in range(2):
        with pytest.raises(StateVersionError):
            await go(store, "k", Expectation(version=7))

    assert (2, 0, 0) == (store.conflicts.version_conflicts, store.replays, len(store.requests))
    assert not (await go(store, "k", Expectation(version=0))).replayed


async def test_an_illegal_transition_is_decided_anew(journal, clock):
    """It is legal, once the agent is where it may be made."""
    store, (booting, idle, active) = remembering(journal, clock, machine=LADDER), LADDER.states
    await store.transition(booting, "start")
    with pytest.raises(IllegalTransitionError):
        await go(store, "k", to=active)
    await store.transition(idle, "up")

    assert (False, 3) == ((stored := await go(store, "k", to=active)).replayed, stored.entry.revision)


async def test_a_write_that_found_no_room_is_not_remembered(database, clock):
    """Nor are its duplicates, who fail with it. With room again, the same write is applied."""
    store = remembering(SqliteJournal(database), clock)
    large = document_of(FsmSnapshot(0, FsmState.IDLE, context_data={"log": "x" * 500_000}))
    await database.execute("PRAGMA max_page_count = 20", ())

    def write():
        return store.write(lambda tail: large, request=Request("k", b"large"))

    failed = await asyncio.gather(write(), write(), return_exceptions=True)
    assert ([StorageFullError] * 2, 0) == ([type(error) for error in failed], len(store.requests))
    await database.execute("PRAGMA max_page_count = 100000", ())

    assert (False, 1) == ((stored := await write()).replayed, stored.entry.revision)
    assert await store.journal.answered(9) == [(1, Request("k", b"large"), stored.entry.appended_at)]


async def test_a_write_that_had_to_wait_too_long_is_not_remembered(database, clock):
    """Refused while too many wait; a duplicate of one that waits already is not refused, for it needs no place."""
    store = remembering(SqliteJournal(database), clock, max_queue=1)
    first, refused, again = await asyncio.gather(go(store, "k"), go(store, "late"), go(store, "k"), return_exceptions=True)

    assert isinstance(refused, OverloadedError)
    assert (first.entry, True) == (again.entry, again.replayed)
    assert (False, 2) == ((stored := await go(store, "late")).replayed, stored.entry.revision)


# --- for a while ---


async def test_after_its_time_a_key_is_new(store, clock):
    """To the second. Repetitions do not prolong it; then it may also say something else."""
    await go(store, "k")
    clock.now += TTL - 1
    assert (await go(store, "k")).replayed
    clock.now += 1
    stored = await go(store, "k", body="something else")

    assert (False, 2, 1) == (stored.replayed, stored.entry.revision, len(store.requests))


async def test_the_oldest_key_makes_room_for_the_newest(journal, clock):
    """Beyond the limit; that is counted. The others stay."""
    store = remembering(journal, clock, limit=3)
    await revisions(store, "a", "b", "c", "d")

    assert (3, 1) == (len(store.requests), store.requests.forgotten_early)
    assert [2, 3, 4] == await revisions(store, "b", "c", "d")
    assert [5] == await revisions(store, "a")


async def test_a_key_whose_write_is_under_way_is_not_forgotten(database, clock):
    """It would be applied twice: rather there are more keys than the limit for a moment."""
    store = remembering(SqliteJournal(database), clock, limit=2)
    answers = await asyncio.gather(*(go(store, key) for key in "abcdabcd"))

    assert [1, 2, 3, 4] * 2 == [answer.entry.revision for answer in answers]


async def test_forgotten_answers_leave_the_journal(store, clock):
    """And no others."""
    await revisions(store, "a", "b")
    clock.now += TTL / 2
    await revisions(store, "c")
    clock.now += TTL / 2
    await store.forget_answers()

    assert [(3, "c")] == [(answer.revision, answer.request.key) for answer in await store.journal.answered(9)]
    assert [3] == await revisions(store, "c")


async def test_retention_forgets_answers_by_itself(store, clock):
    """Nobody has to write for it."""
    await revisions(store, "a")
    clock.now += TTL
    keeper = asyncio.create_task(retain(store, Limits(100, 3600.0, 1 << 20)))
    try:
        async with asyncio.timeout(10):
            while await store.journal.answered(9):  # noqa: ASYNC110  (what is in the file tells nobody)
                await asyncio.sleep(0.01)
    finally:
        keeper.cancel()
    assert 0 == len(store.requests)


async def test_forgotten_answers_leave_the_file(tmp_path, clock):
    """Those whose time is over, and those for which there was no room."""
    path = tmp_path / "journal.db"
    async with restarted(path, clock, limit=3) as store:
        await revisions(store, *"abcde")
        await store.forget_answers()
    assert 3 == answers_in(path)
    async with restarted(path, clock, limit=3) as store:
        clock.now += TTL
        await store.forget_answers()
    assert 0 == answers_in(path)


# --- over a restart ---


async def test_a_restarted_store_gives_the_first_answer(tmp_path, clock):
    """The same entry, also of a compacted revision; another write with the key is refused as before."""
    path = tmp_path / "journal.db"
    async with restarted(path, clock) as store:
        first, second = await go(store, "a"), await go(store, "b")
        await store.transition(FsmState.ACTIVE, "on")
        await store.journal.compact(2)
    async with restarted(path, clock) as store:
        answers = await go(store, "a"), await go(store, "b")
        with pytest.raises(KeyReusedError):
            await go(store, "a", body="something else")

        assert [first.entry, second.entry] == [answer.entry for answer in answers]
        assert (3, 2) == (store.journal.head, store.replays)


async def test_a_restart_takes_up_no_more_keys_than_the_limit(tmp_path, clock):
    """The newest; and what it did not take up leaves the file with the first one that is forgotten."""
    path = tmp_path / "journal.db"
    async with restarted(path, clock) as store:
        await revisions(store, *"abcde")
    async with restarted(path, clock, limit=2) as store:
        assert 2 == len(store.requests)
        assert [4, 5] == await revisions(store, "d", "e")
        assert [6] == await revisions(store, "a")
        await store.forget_answers()
    assert 2 == answers_in(path)


async def test_a_key_used_anew_is_as_young_as_its_newest_write_after_a_restart(tmp_path, clock):
    """Even when its older answer had not left the file: it is neither the first to go nor takes others with it."""
    path = tmp_path / "journal.db"
    async with restarted(path, clock, limit=2) as store:
        await revisions(store, "a", "b", "c", "a")  # the first answer of a is forgotten, and still in the file
    async with restarted(path, clock, limit=4) as store:
        assert [4, 3, 2] == await revisions(store, "a", "c", "b")
        await revisions(store, "d", "e")  # b, now the oldest, has to go
        await store.forget_answers()

        assert [4, 3] == await revisions(store, "a", "c")


@pytest.mark.parametrize(("passed", "known"), [(TTL - 60, True), (TTL + 60, False)], ids=["in time", "too late"])
async def test_keys_age_while_nobody_runs(tmp_path, clock, monkeypatch, passed, known):
    """By the wall clock, which is all there is."""
    path = tmp_path / "journal.db"
    async with restarted(path, clock) as store:
        await go(store, "k")
    started = time.time() + passed
    monkeypatch.setattr(time, "time", lambda: started)
    async with restarted(path, clock) as store:
        assert known == (await go(store, "k")).replayed


async def test_a_key_lives_on_for_what_is_left_of_its_time(tmp_path, clock, monkeypatch):
    """Not for another whole one."""
    path = tmp_path / "journal.db"
    async with restarted(path, clock) as store:
        await go(store, "k")
    started = time.time() + TTL - 60
    monkeypatch.setattr(time, "time", lambda: started)
    async with restarted(path, clock) as store:
        clock.now += 61
        assert not (await go(store, "k")).replayed


@pytest.mark.parametrize("years", [-1, 1])
async def test_a_wall_clock_that_is_wrong_by_years_keeps_no_key_for_ever(tmp_path, clock, monkeypatch, years):
    """After one more time at most it is forgotten, and leaves the file."""
    path = tmp_path / "journal.db"
    async with restarted(path, clock) as store:
        await go(store, "k")
    wrong = time.time() + years * 365 * 86400
    monkeypatch.setattr(time, "time", lambda: wrong)
    async with restarted(path, clock) as store:
        clock.now += TTL
        await store.forget_answers()
        assert 0 == len(store.requests)
    assert 0 == answers_in(path)


async def test_a_clock_set_back_brings_no_forgotten_key_back(tmp_path, clock, monkeypatch):
    """What was forgotten is gone, whatever the time is said to be."""
    path = tmp_path / "journal.db"
    async with restarted(path, clock) as store:
        await go(store, "k")
        clock.now += TTL
        await store.forget_answers()
    before = time.time() - 2 * TTL
    monkeypatch.setattr(time, "time", lambda: before)
    async with restarted(path, clock) as store:
        assert not (await go(store, "k")).replayed
