"""What becomes visible, when and to whom: in-process readers, writes on their way to the disk, appends that fail."""

import asyncio

import pytest
from held_journal import HeldJournal

from sidecar import (
    AsyncStateStore,
    FsmSnapshot,
    FsmState,
    StateVersionError,
    SubscriberLimitError,
)
from sidecar.audience import Audience
from sidecar.conflicts import Expectation
from sidecar.document import decode_document
from sidecar.errors import StorageFullError


def snap(version, state=FsmState.IDLE, **fields):
    return FsmSnapshot(version, state, **fields)


def drain(queue):
    """The versions that wait in the queue."""
    return [queue.get_nowait().version for _ in range(queue.qsize())]


@pytest.fixture
def store():
    return AsyncStateStore()


@pytest.fixture
def held():
    """A store whose writes become durable only when the test says so."""
    return AsyncStateStore(journal=HeldJournal())


async def turn():
    """One turn of the event loop: every task that was just made or answered has run up to where it waits."""
    await asyncio.sleep(0)


async def start(*writes):
    """The writes as tasks, each run up to where it waits."""
    tasks = [asyncio.create_task(write) for write in writes]
    await turn()
    return tasks


# --- in-process readers ---


async def test_a_reader_gets_the_current_snapshot_then_each_new_one(store):
    """In order; in an empty store there is nothing to begin with."""
    early = await store.subscribe("early")
    await store.set(snap(1))
    late = await store.subscribe("late")
    await store.set(snap(2))
    await store.set(snap(2))

    assert ([1, 2, 3], [1, 2, 3]) == (drain(early), drain(late))


async def test_a_slow_reader_keeps_the_newest_and_its_loss_is_counted():
    """The oldest waiting snapshot makes room; a write never waits for a reader."""
    store = AsyncStateStore(queue_size=4)
    slow, slower = await store.subscribe("slow"), await store.subscribe("slower", max_queue_size=1)
    for version in range(10):
        await store.set(snap(version))

    assert ([6, 7, 8, 9], [9]) == (drain(slow), drain(slower))
    assert 6 + 9 == (await store.get_metrics())["notifications_failed"]


async def test_at_the_limit_a_reader_is_refused_until_a_place_is_free(store):
    """The error carries the limit."""
    store = AsyncStateStore(max_subscribers=2)
    first, _ = await store.subscribe("a"), await store.subscribe("b")
    with pytest.raises(SubscriberLimitError, match="all 2 ") as caught:
        await store.subscribe("c")

    assert 2 == caught.value.limit
    assert await store.unsubscribe(first)
    await store.subscribe("c")
    assert ["b", "c"] == (await store.get_subscriber_info())["subscriber_ids"]


async def test_unsubscribe_ends_a_subscription_once(store):
    """True if there was one; the queue gets nothing more."""
    queue = await store.subscribe()

    assert [True, False] == [await store.unsubscribe(queue) for _ in range(2)]
    assert not await store.unsubscribe(asyncio.Queue())
    await store.set(snap(1))
    assert queue.empty()
    assert 0 == (await store.get_metrics())["subscriber_count"]


async def test_get_subscriber_info_tells_who_listens():
    """With exactly the ancestor's keys; the same id may come twice."""
    store = AsyncStateStore(None, 5, 3)
    for name in ("ui", "ui"):
        await store.subscribe(name)
    await store.subscribe()

    assert {
        "total_subscribers": 3,
        "subscriber_ids": ["ui", "ui", "unknown"],
        "max_subscribers": 5,
        "queue_size": 3,
    } == await store.get_subscriber_info()


async def test_cleanup_forgets_all_readers(store):
    """Their places are free again."""
    queues = [await store.subscribe(str(n)) for n in range(5)]
    await store.cleanup()
    await store.set(snap(1))

    assert 0 == (await store.get_subscriber_info())["total_subscribers"]
    assert all(queue.empty() for queue in queues)


async def test_readers_share_the_places_with_other_listeners():
    """An audience that was given is the one that counts, also while it is empty."""
    audience = Audience(2)
    store = AsyncStateStore(audience=audience)
    await store.subscribe("reader")
    audience.join("webhook").active = False

    with pytest.raises(SubscriberLimitError):
        await store.subscribe("another")
    numbers = await store.get_metrics()
    assert (2, 1, 2) == (numbers["subscriber_count"], numbers["active_subscribers"], numbers["max_subscribers"])


# --- nothing is visible before it is durable ---


async def test_nothing_is_visible_before_it_is_durable(held):
    """Not to get, to readers, to metrics or to the writer; then to all of them, in order."""
    reader = await held.subscribe()
    writers = await start(held.set(snap(1)), held.set(snap(5)))

    assert await held.get() is None
    numbers = await held.get_metrics()
    assert (0, -1) == (numbers["total_sets"], numbers["current_version"])
    assert ([], [False, False]) == (drain(reader), [writer.done() for writer in writers])
    held.journal.settle()
    await turn()
    assert (1, [1], [True, False]) == ((await held.get()).version, drain(reader), [writer.done() for writer in writers])
    held.journal.settle()
    assert [1, 5] == [stored.version for stored in await asyncio.gather(*writers)]
    assert (5, [5]) == ((await held.get()).version, drain(reader))


async def test_writes_are_decided_on_top_of_those_in_flight(held):
    """Nobody waits for the disk to learn which version comes next."""
    writers = await start(*(held.set(snap(0)) for _ in range(4)), held.transition(FsmState.ACTIVE, "go"))
    while held.journal.waiting:
        held.journal.settle()
    *stored, moved = await asyncio.gather(*writers)

    assert [0, 1, 2, 3] == [snapshot.version for snapshot in stored]
    assert (4, 5, FsmState.IDLE) == (moved.snapshot.version, moved.entry.revision, moved.snapshot.prev_state)


async def test_a_loser_is_answered_only_when_the_winner_is_durable(held):
    """It is told the winner's version: a crash must not be able to take that back."""
    winner, loser = await start(held.set(snap(1, FsmState.ACTIVE), expected=-1), held.set(snap(1), expected=-1))

    assert (1, False, []) == (len(held.journal.waiting), loser.done(), held.conflicts.newest_first())
    held.journal.settle()
    await winner
    with pytest.raises(StateVersionError) as caught:
        await loser
    assert (1, "ACTIVE") == (caught.value.current.version, caught.value.current.state)


async def test_a_forecast_is_told_only_when_what_it_follows_is_durable(held):
    """Granted or refused: it tells of the state before it. When that one fails, nobody knows what would come."""
    first, granted, refused = await start(
        held.set(snap(5)),
        held.forecast(lambda tail: held.moved(tail, FsmState.ACTIVE, "go", "planner")),
        held.forecast(lambda tail: held.moved(tail, FsmState.ACTIVE, "go", "planner"), Expectation(version=4)),
    )
    assert (1, False, False) == (len(held.journal.waiting), granted.done(), refused.done())
    held.journal.settle()
    assert 6 == decode_document(await granted).version
    with pytest.raises(StateVersionError) as caught:
        await refused
    assert (5, 0, 1) == (caught.value.current.version, held.conflicts.version_conflicts, held.journal.head)
    await first

    failing, forecast = await start(held.set(snap(9)), held.forecast(lambda tail: tail))
    held.journal.fail(StorageFullError("the disk is full"))
    for each in (failing, forecast):
        with pytest.raises(StorageFullError):
            await each


async def test_a_cancelled_callers_write_still_lands(held):
    """Who hangs up does not take back what was handed over, and harms nobody behind."""
    quitter, stayer = await start(held.set(snap(1)), held.set(snap(2)))
    quitter.cancel()
    await turn()
    held.journal.settle()
    held.journal.settle()

    assert 2 == (await stayer).version
    assert quitter.cancelled()
    assert (2, 2) == ((await held.get()).version, (await held.get_metrics())["total_sets"])


async def test_a_failed_append_takes_everything_behind_it_along(held):
    """Those decided on top of it and those who lost to it hear the same error; then it goes on where it was durable."""
    [first] = await start(held.set(snap(3)))
    held.journal.settle()
    await first
    failing = await start(held.set(snap(8)), held.set(snap(9)), held.set(snap(1), expected=3))
    held.journal.fail(StorageFullError("the disk is full"))
    answers = await asyncio.gather(*failing, return_exceptions=True)

    assert [StorageFullError] * 3 == [type(answer) for answer in answers]
    assert (3, 0) == ((await held.get()).version, (await held.get_metrics())["version_conflicts"])
    [following] = await start(held.transition(FsmState.ACTIVE, "go"))
    held.journal.settle()
    assert (4, 2) == ((await following).snapshot.version, (await following).entry.revision)


async def test_a_failed_first_append_leaves_the_store_empty(held):
    """It can be created again."""
    [failing] = await start(held.set(snap(8), expected=-1))
    held.journal.fail(StorageFullError("the disk is full"))
    with pytest.raises(StorageFullError):
        await failing
    [following] = await start(held.set(snap(0), expected=-1))
    held.journal.settle()

    assert 0 == (await following).version


async def test_whoever_initialises_finds_a_state_afterwards(held):
    """Of two at once one writes it, and both wait until it is there."""

    async def initialise():
        await held.initialize_if_empty()
        return await held.get()

    both = await start(initialise(), initialise())

    assert [False, False] == [one.done() for one in both]
    held.journal.settle()
    first, second = await asyncio.gather(*both)
    assert first is second
    assert (1, 0) == (held.journal.head, held.conflicts.version_conflicts)
