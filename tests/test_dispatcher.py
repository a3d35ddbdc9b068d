"""The dispatcher: nobody waits for a sick subscriber, changes take effect at once, ping, drain, and its own end."""

import asyncio
import gc

import pytest
from msgspec.structs import replace
from receiver import NEVER_SECONDS, PATIENCE_SECONDS, QUICK, Receiver, Sender, answer, busy, hang, held

from sidecar.dispatch.delivery import Delivery, Lane, Places
from sidecar.dispatch.feed import Jump
from sidecar.dispatch.subscriber import Reason, Status
from sidecar.dispatch.webhook import Attempt, Outcome
from sidecar.errors import StorageFailedError, StorageFullError, UnknownSubscriberError

EAGER = replace(QUICK, evict_failures=1, evict_seconds=0.0)
"""Evicts at the first failure."""


@pytest.fixture
async def send(opened, tmp_path):
    """Opens a sender on one file, with its settings."""
    return lambda **settings: opened(Sender(tmp_path / "journal.db", **settings))


@pytest.fixture
async def sender(send):
    """A sender that fails fast and never evicts."""
    return await send()


# --- nobody waits for anybody else ---


async def test_a_write_never_waits_for_a_hung_receiver(sender, opened):
    """All writes are answered while the first delivery still hangs."""
    receiver = await opened(Receiver(hang))
    await sender.write()
    await sender.register("console", receiver.url)
    await receiver.arrived(1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(sender.write(10) for _ in range(10)))

    assert 101 == sender.journal.head
    assert (1, 1) == (len(receiver.requests), receiver.at_once)


async def test_hung_receivers_do_not_delay_a_healthy_one(sender, opened):
    """It gets every revision while they hang."""
    hung, healthy = await opened(Receiver(hang)), await opened(Receiver())
    await sender.write()
    for n in range(20):
        await sender.register(f"hung{n}", hung.url)
    await hung.arrived(20)
    await sender.register("healthy", healthy.url)
    await sender.write(20)
    await sender.delivered("healthy")

    assert 20 == hung.at_once
    assert 21 == healthy.revisions[-1]
    assert list(range(healthy.revisions[0], 22)) == healthy.revisions


async def test_so_many_attempts_at_once_as_the_bound_allows(send, opened):
    """Six new receivers that wait, half of four places: never more than two requests are open; in the end all are served."""
    sender, gate = await send(max_in_flight=4), asyncio.Semaphore(0)
    receiver = await opened(Receiver(held(gate)))
    await sender.write()
    ids = [f"r{n}" for n in range(6)]
    for each in ids:
        await sender.register(each, receiver.url)
    for served in range(6):
        await receiver.arrived(min(served + 2, 6))
        gate.release()
    await sender.delivered(*ids)

    assert 2 == receiver.most_at_once


@pytest.mark.parametrize(("lane", "count"), [(Lane.FAILING, 4), (Lane.NEW, 8), (Lane.PING, 1)])
async def test_those_who_may_hang_take_no_more_than_their_part_of_the_places(lane, count):
    """They wait for each other; one that is well waits for none of them."""
    places, inside, gate = Places(16), [], asyncio.Event()

    async def attempt(lane):
        async def wait():
            inside.append(lane or "well")
            await gate.wait()
            return Attempt(Outcome.DELIVERED, 200, 0.0)

        await places.attempt(lane, wait)

    async with asyncio.TaskGroup() as group:
        for each in [lane] * 20 + [None]:
            group.create_task(attempt(each))
        await asyncio.sleep(0)  # all have asked for a place
        await asyncio.sleep(0)
        before = sorted(inside)
        gate.set()

    assert [*[lane] * count, "well"] == before
    assert (21, 0) == (len(inside), places.in_flight)


# --- changing, removing ---


@pytest.mark.parametrize("failing", [answer(500), hang], ids=["in a wait", "in an attempt"])
async def test_a_new_url_is_tried_at_once(send, opened, failing):
    """Nobody waits for the old one: its wait ends, and an attempt at it is the last."""
    policy = replace(QUICK, timeout_seconds=0.2, retry_seconds=(NEVER_SECONDS,))
    sender, old, new = await send(policy=policy), await opened(Receiver(failing)), await opened(Receiver())
    subscriber = await sender.register("console", old.url)
    await sender.write()
    await old.arrived(1)
    if failing is not hang:
        await sender.until(lambda: subscriber.failures == 1)
    await sender.register("console", new.url)
    [request] = await new.arrived(1)

    assert 1 == request.revision
    assert 1 == len(old.requests)


async def test_a_change_ends_one_wait_and_not_those_to_come(send, opened):
    """Otherwise it would be hammered from then on."""
    sender = await send(policy=replace(QUICK, retry_seconds=(0.2, 0.2, 0.2)))
    receiver = await opened(Receiver(200, 500, 500, 500, 200))
    await sender.write()
    for _ in range(3):
        await sender.register("console", receiver.url)
    await sender.delivered("console")
    await sender.register("console", receiver.url)
    await sender.write()
    _, first, second, third = await receiver.arrived(4)

    assert [True, True] == [second.at - first.at >= 0.8 * 0.2, third.at - second.at >= 0.8 * 0.2]


async def test_a_removed_subscriber_gets_nothing_more(sender, opened):
    """Also what is on its way is broken off; the others go on."""
    removed, other = await opened(Receiver(hang)), await opened(Receiver())
    await sender.register("removed", removed.url)
    await sender.register("other", other.url)
    await sender.write()
    await removed.arrived(1)
    await sender.dispatcher.remove("removed")
    await sender.until(lambda: removed.at_once == 0)
    await sender.write(5)
    await sender.delivered("other")

    assert 1 == len(removed.requests)
    assert ["other"] == sender.audience.subscriber_ids


@pytest.mark.parametrize("full", [False, True])
async def test_an_answer_that_comes_while_its_subscriber_is_removed_harms_nobody(sender, opened, full):
    """It is too late, and that is all. The disk is slow, and may be full."""
    gate = asyncio.Event()
    removed, other = await opened(Receiver(held(gate, answer(500)))), await opened(Receiver())
    await sender.register("removed", removed.url)
    await sender.register("other", other.url)
    await sender.write()
    await removed.arrived(1)
    await sender.database.execute("PRAGMA max_page_count = 20", ())
    async with busy(sender.database):
        if full:
            sender.database.write("INSERT INTO subscribers VALUES ('', zeroblob(1000000))", (), lambda error: None)
        removing = asyncio.create_task(sender.dispatcher.remove("removed"))
        await asyncio.sleep(0)  # it has begun
        gate.set()
    [refused] = await asyncio.gather(removing, return_exceptions=True)
    for _ in range(3):
        await sender.write()
        await sender.delivered("other")
        sender.roster.save_changed()

    assert full is isinstance(refused, StorageFullError)
    assert not sender.running.done()


async def test_a_disk_that_is_full_does_not_end_the_deliveries(sender, opened):
    """What could not be saved is told to whoever asked; what is in force is served, and a drain works."""
    receiver = await opened(Receiver())
    await sender.register("first", receiver.url)
    await sender.write()
    await sender.delivered("first")
    await sender.database.execute("PRAGMA max_page_count = 1", ())
    long = receiver.url + "?" + "x" * 2000
    refused = []
    for n in range(30):
        try:
            await sender.register(f"r{n}", long)
        except StorageFullError:
            refused.append(f"r{n}")
    await sender.dispatcher.drain(asyncio.Event(), PATIENCE_SECONDS)

    assert refused
    assert not [each for each in sender.roster.served() if each.cursor is None]


async def test_who_is_forgotten_leaves_nothing_behind(send, opened):
    """Not even in memory: ids come and go as long as the process lives."""
    sender, receiver = await send(policy=EAGER, tombstone_seconds=-1.0), await opened(Receiver(500))
    await sender.write()
    for n in range(20):
        await sender.register(f"r{n}", receiver.url)
    await sender.until(lambda: not sender.roster.served())
    sender.roster.drop_old_tombstones()
    await sender.until(lambda: gc.collect() >= 0 and not [each for each in gc.get_objects() if isinstance(each, Delivery)])

    assert [] == list(sender.roster)


# --- ping ---


@pytest.mark.parametrize(("status", "outcome"), [(204, Outcome.DELIVERED), (404, Outcome.CLIENT_ERROR), (410, Outcome.GONE)])
async def test_a_ping_tells_how_it_went_and_changes_nothing(sender, opened, status, outcome):
    """Not the failures, not the status, not the cursor."""
    receiver = await opened(Receiver(status))
    subscriber = await sender.register("console", receiver.url)
    result = await sender.dispatcher.ping("console")

    assert (outcome, status) == (result.outcome, result.status)
    assert "fsm.ping" == receiver.requests[0].headers["ce-type"]
    assert (Status.ACTIVE, 0, None) == (subscriber.status, subscriber.failures, subscriber.cursor)


async def test_a_ping_of_a_receiver_that_is_not_there_says_so(sender, opened):
    """Refusing the connection is an outcome as any other."""
    async with Receiver() as receiver:
        await sender.register("console", receiver.url)
    result = await sender.dispatcher.ping("console")

    assert (Outcome.CONNECT, None) == (result.outcome, result.status)


async def test_an_evicted_subscriber_can_be_pinged_and_stays_evicted(send, opened, tmp_path):
    """Before and after a restart: to see whether it is worth registering again."""
    receiver = await opened(Receiver(410, 204))
    async with Sender(tmp_path / "journal.db") as sender:
        subscriber = await sender.register("console", receiver.url)
        await sender.write()
        await sender.until(lambda: subscriber.status is Status.EVICTED)
        before = await sender.dispatcher.ping("console")
    sender = await send()
    after = await sender.dispatcher.ping("console")

    assert [Outcome.DELIVERED] * 2 == [before.outcome, after.outcome]
    assert Status.EVICTED is sender.roster.get("console").status


async def test_who_is_not_known_cannot_be_pinged(sender):
    """It may have been removed."""
    with pytest.raises(UnknownSubscriberError):
        await sender.dispatcher.ping("nobody")


async def test_only_an_answered_ping_ends_the_wait(send, opened):
    """The revision that waits is delivered at once then. A ping that fails changes nothing."""
    sender = await send(policy=replace(QUICK, retry_seconds=(NEVER_SECONDS,)))
    receiver = await opened(Receiver(500, 500, 204))
    subscriber = await sender.register("console", receiver.url)
    await sender.write()
    await sender.until(lambda: subscriber.failures == 1)
    failed = await sender.dispatcher.ping("console")
    failures = subscriber.failures
    answered = await sender.dispatcher.ping("console")
    await sender.delivered("console")
    kinds = [request.headers["ce-type"] for request in receiver.requests]

    assert [Outcome.SERVER_ERROR, Outcome.DELIVERED] == [failed.outcome, answered.outcome]
    assert 1 == failures
    assert ["fsm.state.changed", "fsm.ping", "fsm.ping", "fsm.state.changed"] == kinds


# --- the end ---


async def test_a_drain_waits_for_those_who_are_well(sender, opened):
    """It ends when they have acknowledged everything."""
    receiver = await opened(Receiver(held(gate := asyncio.Event()), 204))
    subscriber = await sender.register("console", receiver.url)
    await sender.write(5)
    await receiver.arrived(1)
    draining = asyncio.create_task(sender.dispatcher.drain(asyncio.Event(), NEVER_SECONDS))
    await asyncio.sleep(0)  # it has looked once
    gate.set()
    await draining

    assert 5 == subscriber.cursor


async def test_a_drain_does_not_wait_for_the_sick(send, opened):
    """Degraded, suspended or evicted: the next process goes on with them."""
    sender = await send(policy=replace(QUICK, retry_seconds=(NEVER_SECONDS,), probe_interval_seconds=NEVER_SECONDS))
    sick, gone = await opened(Receiver(500)), await opened(Receiver(410))
    subscribers = [await sender.register("sick", sick.url), await sender.register("gone", gone.url)]
    await sender.write()
    await sender.until(lambda: all(each.failures for each in subscribers))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await sender.dispatcher.drain(asyncio.Event(), NEVER_SECONDS)

    assert [Status.DEGRADED, Status.EVICTED] == [each.status for each in subscribers]


@pytest.mark.parametrize(("hurry", "seconds"), [(True, NEVER_SECONDS), (False, 0.1), (False, 0.0)])
async def test_a_drain_ends_with_its_time_or_in_a_hurry(sender, opened, hurry, seconds):
    """Although somebody who seemed well hangs."""
    receiver, hurried = await opened(Receiver(hang)), asyncio.Event()
    await sender.register("console", receiver.url)
    await sender.write()
    await receiver.arrived(1)
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(sender.dispatcher.drain(hurried, seconds))
        await asyncio.sleep(0)  # it has begun
        if hurry:
            hurried.set()

    assert 1 == receiver.at_once


async def test_a_delivery_that_dies_takes_the_dispatcher_with_it(opened, tmp_path):
    """A half-alive sidecar is the costly case: here the disk fails, and whoever runs the dispatcher is told."""
    receiver = await opened(Receiver(200, 500, held(gate := asyncio.Event())))
    async with Sender(tmp_path / "journal.db", policy=replace(QUICK, retry_seconds=(NEVER_SECONDS,))) as sender:
        await sender.register("console", receiver.url)
        await sender.write()
        await sender.delivered("console")
        await sender.write(2)
        await receiver.arrived(2)
    async with Sender(tmp_path / "journal.db") as sender:
        await receiver.arrived(3)
        with pytest.raises(StorageFailedError):
            await sender.database.execute("not SQL", ())
        gate.set()  # the next revision has to be read from the disk
        death = await sender.death()

    assert isinstance(death, ExceptionGroup)
    assert death.subgroup(StorageFailedError)


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("fsm_webhook_attempts_total", "outcome", Outcome),
        ("fsm_webhook_revisions_skipped_total", "reason", Jump),
        ("fsm_subscribers_evicted_total", "reason", Reason),
        ("fsm_subscriber_status_changes_total", "status", Status),
        ("fsm_subscriptions_rejected_total", "reason", ("limit", "endpoint")),
    ],
)
async def test_what_may_be_counted_is_there_from_the_start(sender, name, label, values):
    """At 0, so that the first one is seen as an increase."""
    assert [0] * len(values) == [sender.count(name, **{label: value}) for value in values]
