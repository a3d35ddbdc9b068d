"""The clock of eviction, by a clock of the tests': it takes ten failures, and a quarter of an hour since the first of them."""

import time
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from receiver import QUICK, Receiver, Sender, answer

from sidecar.dispatch.subscriber import Reason, Status

POLICY = replace(QUICK, retry_seconds=(0.001,), probe_interval_seconds=0.001, evict_failures=10, evict_seconds=900.0)
MINUTE, DAY = 60.0, 86400.0


@pytest.fixture
def clock(monkeypatch):
    """What delivery takes for the monotonic time; the event loop keeps its own."""
    fake = SimpleNamespace(now=1000.0, monotonic=lambda: fake.now, time=time.time)
    monkeypatch.setattr("sidecar.dispatch.delivery.time", fake)
    return fake


@pytest.fixture
async def sender(opened, tmp_path):
    """A sender with the default limits, which tries again at once."""
    return await opened(Sender(tmp_path / "journal.db", policy=POLICY))


def after(clock, seconds, status=500):
    """An answer that comes so much later."""

    async def give(reader, writer):
        clock.now += seconds
        await answer(status)(reader, writer)

    return give


async def subscribed(sender, opened, *answers):
    receiver = await opened(Receiver(*answers))
    subscriber = await sender.register("console", receiver.url)
    await sender.write()
    return receiver, subscriber


async def test_steady_failure_evicts_when_the_time_is_over(sender, opened, clock):
    """One failure a minute: ten are not enough, the sixteenth comes a quarter of an hour after the first."""
    _, subscriber = await subscribed(sender, opened, after(clock, MINUTE))
    await sender.until(lambda: subscriber.status is Status.EVICTED)

    assert (16, 15 * MINUTE, Reason.FAILING) == (subscriber.failures, subscriber.failing_seconds, subscriber.evicted_reason)


async def test_a_long_silence_evicts_nobody(sender, opened, clock):
    """A day between two failures: still it takes ten of them."""
    _, subscriber = await subscribed(sender, opened, after(clock, 0), after(clock, DAY), after(clock, 0))
    await sender.until(lambda: subscriber.status is Status.EVICTED)

    assert (10, DAY) == (subscriber.failures, subscriber.failing_seconds)


async def test_sporadic_failure_evicts_nobody(sender, opened, clock):
    """Nine failures and a success, again and again for weeks: each success begins anew."""
    rounds = [*[after(clock, DAY)] * 9, after(clock, DAY, 200)] * 3
    receiver, subscriber = await subscribed(sender, opened, *rounds, answer(200))
    for _ in range(3):
        await sender.delivered("console")
        await sender.write()
    await sender.delivered("console")

    assert (Status.ACTIVE, 0, 0.0) == (subscriber.status, subscriber.failures, subscriber.failing_seconds)
    assert 31 == len(receiver.requests)
