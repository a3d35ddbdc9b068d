"""A subscriber's life: active, degraded, suspended, evicted, and back. Eviction takes failures and time."""

import asyncio

import pytest
from msgspec.structs import replace
from receiver import NEVER_SECONDS, QUICK, Receiver, Sender, answer, busy, held

from sidecar.dispatch.roster import Reason, Settings, Status


@pytest.fixture
async def send(opened, tmp_path):
    """Opens a sender on one file, with its settings."""
    return lambda **settings: opened(Sender(tmp_path / "journal.db", **settings))


async def test_a_failing_subscriber_is_degraded_then_suspended_then_evicted(send, opened):
    """One status after the other, each counted once; its place is free, and what it did not get counts as failed."""
    sender = await send(policy=replace(QUICK, evict_failures=6, evict_seconds=0.0))
    receiver = await opened(Receiver(500))
    subscriber = await sender.register("console", receiver.url)
    await sender.write()
    seen = [subscriber.status]
    for count in (2, 5):
        await receiver.arrived(count)
        seen.append(subscriber.status)
    await sender.until(lambda: subscriber.status is Status.EVICTED)
    changes = {status: sender.count("fsm_subscriber_status_changes_total", status=status) for status in Status}

    assert [Status.ACTIVE, Status.DEGRADED, Status.SUSPENDED] == seen
    assert {Status.ACTIVE: 0, Status.DEGRADED: 1, Status.SUSPENDED: 1, Status.EVICTED: 1} == changes
    assert (6, 6, Reason.FAILING) == (len(receiver.requests), subscriber.failures, subscriber.evicted_reason)
    assert 1 == sender.count("fsm_subscribers_evicted_total", reason="failing")
    assert (0, 1, 1) == (sender.audience.notifications_sent, sender.audience.notifications_failed, sender.audience.dead_removed)
    assert 0 == len(sender.audience)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"evict_failures": 2, "evict_seconds": NEVER_SECONDS}, id="many failures in a short time"),
        pytest.param({"evict_failures": 1000, "evict_seconds": 0.0}, id="few failures in a long time"),
    ],
)
async def test_neither_failures_nor_time_alone_evict(send, opened, limits):
    """It stays suspended, and is served again as soon as it answers."""
    sender, receiver = await send(policy=replace(QUICK, **limits)), await opened(Receiver(500))
    subscriber = await sender.register("console", receiver.url)
    await sender.write()
    await receiver.arrived(20)
    status = subscriber.status
    receiver.answers(200)
    await sender.delivered("console")

    assert (Status.SUSPENDED, Status.ACTIVE) == (status, subscriber.status)


async def test_it_is_evicted_once_failures_and_time_have_come_together(send, opened):
    """Not before the time since the first failure is over, however many there were."""
    sender = await send(policy=replace(QUICK, evict_failures=3, evict_seconds=0.3))
    receiver = await opened(Receiver(500))
    subscriber = await sender.register("console", receiver.url)
    await sender.write()
    await sender.until(lambda: subscriber.status is Status.EVICTED)

    assert receiver.requests[-1].at - receiver.requests[0].at >= 0.28
    assert subscriber.failing_seconds >= 0.3


async def test_one_success_makes_it_active_and_forgets_the_failures(send, opened):
    """Their number and their time: eviction counts from the next failure."""
    sender = await send(policy=replace(QUICK, evict_failures=6, evict_seconds=0.0))
    receiver = await opened(Receiver(500, 500, 500, 500, 500, 200, 500, held(gate := asyncio.Event(), answer(500)), 500, 200))
    subscriber = await sender.register("console", receiver.url)
    await sender.write()
    await sender.delivered("console")
    recovered = subscriber.status, subscriber.failures, subscriber.failing_seconds
    await sender.write()
    await receiver.arrived(8)
    first = subscriber.failures, subscriber.failing_seconds
    gate.set()
    await sender.delivered("console")

    assert (Status.ACTIVE, 0, 0.0) == recovered
    assert (1, 0.0) == first
    assert Status.ACTIVE is subscriber.status


async def test_a_receiver_that_is_gone_is_evicted_at_once(send, opened):
    """410 says that it will not come back."""
    sender, receiver = await send(), await opened(Receiver(410))
    subscriber = await sender.register("console", receiver.url)
    await sender.write()
    await sender.until(lambda: subscriber.status is Status.EVICTED)
    await sender.write()

    assert (1, Reason.GONE, 410) == (len(receiver.requests), subscriber.evicted_reason, subscriber.last_http_status)
    assert (0, 1) == (len(sender.audience), sender.audience.dead_removed)
    assert 1 == sender.count("fsm_subscribers_evicted_total", reason="gone")


@pytest.mark.parametrize(("status", "degraded"), [(410, 0), (500, 1)])
async def test_a_configured_subscriber_is_suspended_and_never_evicted(send, opened, status, degraded):
    """The config file wants it: it is probed until it answers."""
    receiver = await opened(Receiver(*[status] * 9, held(gate := asyncio.Event(), answer(status)), 200))
    policy = replace(QUICK, evict_failures=1, evict_seconds=0.0)
    sender = await send(policy=policy, configured=[("console", Settings(receiver.url))])
    await sender.write()
    await receiver.arrived(10)
    subscriber = sender.roster.get("console")
    before = subscriber.status, sender.audience.active
    gate.set()
    await sender.delivered("console")

    assert (Status.SUSPENDED, 0) == before
    assert (Status.ACTIVE, 1) == (subscriber.status, sender.audience.active)
    assert degraded == sender.count("fsm_subscriber_status_changes_total", status="degraded")


async def test_who_was_suspended_stays_so_until_a_success(send, opened):
    """Another kind of failure does not make it better than it was."""
    receiver = await opened(Receiver(410, 500, held(gate := asyncio.Event()), 200))
    sender = await send(configured=[("console", Settings(receiver.url))])
    await sender.write()
    await receiver.arrived(3)
    status = sender.roster.get("console").status
    gate.set()

    assert Status.SUSPENDED is status


async def test_an_evicted_subscriber_resumes_from_its_cursor_when_it_registers_again(send, opened):
    """It gets what it missed, and is not told a second time that all begins."""
    sender, receiver = await send(), await opened(Receiver(200, 200, 410, 200))
    subscriber = await sender.register("console", receiver.url)
    for _ in range(2):
        await sender.write()
        await sender.delivered("console")
    await sender.write()
    await sender.until(lambda: subscriber.status is Status.EVICTED)
    await sender.write(2)
    resumed, added, _ = await sender.dispatcher.register("console", Settings(receiver.url))
    await sender.delivered("console")

    assert added
    assert (Status.ACTIVE, 0, None) == (resumed.status, resumed.failures, resumed.evicted_reason)
    assert [1, 2, 3, 3, 4, 5] == receiver.revisions
    assert (2, False) == tuple(receiver.requests[3].data[key] for key in ("previous_revision", "initial"))


async def test_who_resumes_at_the_moment_of_its_eviction_starts_anew(send, opened):
    """The time of its old failures does not count against it."""
    sender = await send(policy=replace(QUICK, evict_failures=2, evict_seconds=0.5))
    receiver = await opened(Receiver(500))
    subscriber = await sender.register("console", receiver.url)
    await sender.write()
    while subscriber.status is not Status.EVICTED:  # noqa: ASYNC110  (in the very next turn of the event loop)
        await asyncio.sleep(0)
    before = len(receiver.requests)
    await sender.register("console", receiver.url)
    await sender.until(lambda: subscriber.status is Status.EVICTED)

    assert receiver.requests[-1].at - receiver.requests[before].at >= 0.48


async def test_who_registers_again_while_it_is_evicted_is_served_and_has_its_place(send, opened):
    """The registration is the later word. (The disk is slow, so that the eviction comes in between.)"""
    sender, gate = await send(), asyncio.Event()
    receiver = await opened(Receiver(held(gate, answer(410)), 200))
    await sender.register("console", receiver.url)
    await sender.write()
    await receiver.arrived(1)
    async with busy(sender.database):
        registering = asyncio.create_task(sender.register("console", receiver.url))
        await asyncio.sleep(0)  # it waits for the disk
        gate.set()
        await sender.until(lambda: sender.audience.dead_removed == 1)
    await registering
    await sender.delivered("console")

    assert ["console"] == [each.id for each in sender.roster.served()] == sender.audience.subscriber_ids
