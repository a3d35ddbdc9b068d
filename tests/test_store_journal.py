"""The store in front of real journals: races, a disk that is full or fails, a restart."""

import asyncio

import pytest

from sidecar import AsyncStateStore, FsmSnapshot, FsmState, InvalidSnapshotError, Machine, StateVersionError
from sidecar.database import Database
from sidecar.errors import StorageFailedError, StorageFullError
from sidecar.journal.sqlite import SqliteJournal


def snap(version, state=FsmState.IDLE, **fields):
    return FsmSnapshot(version, state, **fields)


# --- races ---


@pytest.mark.parametrize("how", [lambda v: {"expected": v}, lambda v: {"enforce_version": True}], ids=["expected", "enforced"])
async def test_of_64_writers_with_one_expectation_exactly_one_wins(journal, how):
    """Round after round; every loser is told the winner's version, and no revision is spent on it."""
    store = AsyncStateStore(journal=journal)
    for version in range(-1, 49):
        writes = (store.set(snap(version + 1, reason=str(n)), **how(version)) for n in range(64))
        answers = await asyncio.gather(*writes, return_exceptions=True)
        losses = [answer for answer in answers if isinstance(answer, StateVersionError)]

        assert 63 == len(losses)
        assert {version + 1} == {loss.current.version for loss in losses}
        [winner] = set(answers) - set(losses)
        assert winner is await store.get()
    assert (50, 50 * 63) == (journal.head, store.conflicts.version_conflicts)


async def test_concurrent_writers_without_expectation_all_land(journal):
    """Versions strictly increase, revisions have no holes, and the journal holds what the writers were told."""
    store = AsyncStateStore(journal=journal)
    stored = await asyncio.gather(*(store.transition(FsmState.IDLE, str(n)) for n in range(500)))

    assert list(range(500)) == [one.snapshot.version for one in stored]
    assert [one.entry for one in stored] == [entry for n in range(500) for entry in await journal.read(n, 1)]


async def test_a_read_after_an_answer_sees_that_write_or_a_later_one(journal):
    """Whoever was told version n never reads an older one."""
    store = AsyncStateStore(journal=journal)

    async def write_and_read():
        for _ in range(50):
            told = await store.set(snap(0))
            assert told.version <= (await store.get()).version

    await asyncio.gather(*(write_and_read() for _ in range(8)))


# --- a real disk ---


async def test_a_full_disk_costs_only_the_writes_it_has_no_room_for(database):
    """The next small write takes the next version and revision."""
    store = AsyncStateStore(journal=SqliteJournal(database))
    await store.set(snap(7))
    await database.execute("PRAGMA max_page_count = 20", ())
    answers = await asyncio.gather(
        store.set(snap(8, context_data={"log": "x" * 500_000})), store.set(snap(9)), return_exceptions=True
    )

    assert [StorageFullError] * 2 == [type(answer) for answer in answers]
    assert 7 == (await store.get()).version
    stored = await store.transition(FsmState.ACTIVE, "go")
    assert (8, 2) == (stored.snapshot.version, stored.entry.revision)


async def test_after_a_storage_error_nothing_is_acknowledged(database):
    """The state that was durable can still be read."""
    store = AsyncStateStore(journal=SqliteJournal(database))
    await store.set(snap(7))
    with pytest.raises(StorageFailedError):
        await database.execute("INSERT INTO nowhere VALUES (1)", ())

    for _ in range(2):
        with pytest.raises(StorageFailedError):
            await store.set(snap(8))
    assert (7, 1) == ((await store.get()).version, store.journal.head)


# --- a restart ---


async def restarted(path, **options):
    """What a store finds in the file: (current, version and revision of the next write)."""
    async with Database(path) as database:
        store = AsyncStateStore(journal=SqliteJournal(database), **options)
        await store.recover()
        found = store.current
        following = await store.transition(FsmState.SHUTDOWN, "bye")
        return found, (following.snapshot.version, following.entry.revision)


async def written(path, *snapshots):
    async with Database(path) as database:
        store = AsyncStateStore(journal=SqliteJournal(database))
        for snapshot in snapshots:
            await store.set(snapshot)
        return store.current


@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
@pytest.mark.parametrize("count", [1, 60, 300])
async def test_a_restarted_store_has_the_last_state(tmp_path, count, size):
    """The very last one, however many and however large they were; versions and revisions go on behind it."""
    last = await written(tmp_path / "journal.db", *(snap(2 * n, context_data={"log": "x" * size}) for n in range(count)))
    found, following = await restarted(tmp_path / "journal.db")

    assert last.snapshot.version == found.snapshot.version
    assert (last.snapshot, last.entry) == (found.snapshot, found.entry)
    assert (2 * count - 1, count + 1) == following


async def test_a_restart_is_not_a_write(tmp_path):
    """Nothing is counted; the state is as old as it was."""
    async with Database(tmp_path / "journal.db") as database:
        store = AsyncStateStore(journal=SqliteJournal(database))
        for state in (FsmState.BOOTING, FsmState.ACTIVE, FsmState.ACTIVE):
            await store.set(snap(0, state))
        before = store.state_entered_ts, (await store.get_metrics())["last_update_ts"]
    async with Database(tmp_path / "journal.db") as database:
        store = AsyncStateStore(journal=SqliteJournal(database))
        await store.recover()
        numbers = await store.get_metrics()

    assert before == (store.state_entered_ts, numbers["last_update_ts"])
    assert (0, {}) == (numbers["total_sets"], store.transitions)


@pytest.mark.parametrize(("stayed", "size"), [(1, 0), (700, 10), (40, 200_000)])
async def test_a_restart_knows_since_when_the_state_is_what_it_is(tmp_path, stayed, size):
    """However often it was written since, and however large: a stay that is too long does not begin anew."""
    async with Database(tmp_path / "journal.db") as database:
        store = AsyncStateStore(journal=SqliteJournal(database))
        await store.set(snap(0, FsmState.IDLE))
        await store.set(snap(0, FsmState.ACTIVE))
        entered = store.state_entered_ts
        for _ in range(stayed):
            await store.set(snap(0, FsmState.ACTIVE, context_data={"log": "x" * size}))
    async with Database(tmp_path / "journal.db") as database:
        store = AsyncStateStore(journal=SqliteJournal(database))
        await store.recover()

    assert entered == store.state_entered_ts


async def test_recovering_an_empty_journal_leaves_the_store_empty(journal):
    """Until somebody writes."""
    store = AsyncStateStore(journal=journal)
    await store.recover()

    assert await store.get() is None


async def test_a_state_that_the_machine_lost_is_told_at_the_start(tmp_path):
    """Better no start than a guess."""
    await written(tmp_path / "journal.db", snap(1))

    with pytest.raises(InvalidSnapshotError, match="OPEN, SHUT"):
        await restarted(tmp_path / "journal.db", machine=Machine.from_names(["OPEN", "SHUT"]))
