"""Filters and batches: what a subscriber asked for, in order; what it did not ask for is no gap."""

import asyncio
import json

import pytest
from msgspec.structs import replace
from receiver import QUICK, Receiver, Sender, answer, held

from sidecar.dispatch.feed import BATCH_BYTES, selects
from sidecar.dispatch.subscriber import Settings, Status
from sidecar.snapshot import FsmSnapshot, FsmState


@pytest.fixture
async def sender(opened, tmp_path):
    """A sender that fails fast and never evicts."""
    return await opened(Sender(tmp_path / "journal.db"))


async def write(sender, *states, **fields):
    """One revision for each state."""
    for state in states:
        await sender.store.set(FsmSnapshot(0, FsmState[state], "test", **fields))


def told(request):
    """What a message says of its place: the revision, the one before, and the gap."""
    return request.data["revision"], request.data["previous_revision"], request.data["skipped"]


BOTH = ("transition", "update")


@pytest.mark.parametrize(
    ("on", "states", "before", "state", "wanted"),
    [
        (BOTH, None, "IDLE", "ACTIVE", True),
        (BOTH, None, "IDLE", "IDLE", True),
        (("transition",), None, "IDLE", "ACTIVE", True),
        (("transition",), None, "IDLE", "IDLE", False),
        (("update",), None, "IDLE", "ACTIVE", False),
        (("update",), None, "IDLE", "IDLE", True),
        (("update",), None, None, "IDLE", True),
        (("transition",), None, None, "IDLE", True),
        (BOTH, ("ACTIVE",), "IDLE", "ACTIVE", True),
        (BOTH, ("ACTIVE",), "ACTIVE", "IDLE", False),
        (("transition",), ("ACTIVE",), "ACTIVE", "ACTIVE", False),
        (("update",), ("ACTIVE",), None, "IDLE", False),
    ],
)
def test_a_filter_selects_by_kind_and_by_state(on, states, before, state, wanted):
    """Both have to fit; where the state before is not known, either kind does."""
    assert wanted is selects(Settings("http://a/", on=on, states=states), before, state)


# --- filters ---


async def test_only_what_was_asked_for_arrives_and_the_rest_is_no_gap(sender, opened):
    """The first delivery is the current state whatever it is; then the previous revision is the last one delivered."""
    receiver = await opened(Receiver())
    await write(sender, "IDLE")
    subscriber = await sender.register("console", receiver.url, states=("ACTIVE",), on=("transition",))
    await sender.delivered("console")
    await write(sender, "IDLE", "ACTIVE", "ACTIVE", "IDLE", "ACTIVE", "IDLE")
    await sender.delivered("console")

    assert [(1, 0, 0), (3, 1, 0), (6, 3, 0)] == [told(request) for request in receiver.requests]
    assert (7, 6, 0) == (subscriber.cursor, subscriber.delivered, subscriber.lag(sender.journal.head))


async def test_updates_alone_can_be_asked_for(sender, opened):
    """A transition to the same states is not one of them."""
    receiver = await opened(Receiver())
    await write(sender, "IDLE")
    await sender.register("console", receiver.url, on=("update",))
    await sender.delivered("console")
    await write(sender, "ACTIVE", "ACTIVE", "IDLE", "IDLE")
    await sender.delivered("console")

    assert [1, 3, 5] == receiver.revisions


async def test_the_newest_of_ones_own_comes_after_a_small_lag(sender, opened):
    """Latest only: the newest revision that the filter lets through, and how many of these were passed over."""
    receiver = await opened(Receiver(200, held(gate := closed_gate(), answer()), 200))
    await write(sender, "IDLE")
    await sender.register("console", receiver.url, states=("ACTIVE",), max_lag=0)
    await sender.delivered("console")
    await write(sender, "ACTIVE")
    await receiver.arrived(2)
    await write(sender, "IDLE", "ACTIVE", "IDLE", "ACTIVE", "IDLE")
    gate.release()
    await sender.delivered("console")

    assert [(1, 0, 0), (2, 1, 0), (6, 2, 1)] == [told(request) for request in receiver.requests]


def closed_gate():
    """Closed; a release lets one through."""
    return asyncio.Semaphore(0)


async def test_a_filter_holds_after_a_restart(opened, tmp_path):
    """The state before the first revision to look at is read from the journal."""
    receiver = await opened(Receiver())
    async with Sender(tmp_path / "journal.db") as sender:
        await write(sender, "IDLE")
        await sender.register("console", receiver.url, on=("transition",))
        await sender.delivered("console")
    async with Sender(tmp_path / "journal.db") as sender:
        await write(sender, "IDLE", "ACTIVE")
        await sender.delivered("console")

    assert [(1, 0, 0), (3, 1, 0)] == [told(request) for request in receiver.requests]


async def test_a_suspended_subscriber_is_probed_with_the_newest_that_it_wants(opened, tmp_path):
    """And it is told how many of these it missed, not how many there were."""
    sender = await opened(Sender(tmp_path / "journal.db", policy=replace(QUICK, retry_seconds=(0.001,))))
    receiver = await opened(Receiver(200, 500))
    await write(sender, "IDLE")
    subscriber = await sender.register("console", receiver.url, states=("ACTIVE",))
    await sender.delivered("console")
    await write(sender, "ACTIVE", "IDLE", "ACTIVE", "IDLE", "ACTIVE", "IDLE")
    await sender.until(lambda: subscriber.status is Status.SUSPENDED)
    await sender.until(lambda: receiver.requests[-1].revision == 6)  # an older probe may have been on its way
    receiver.answers(200)
    await sender.delivered("console")

    assert (6, 1, 2) == told(receiver.requests[-1])
    assert 2 == sender.count("fsm_webhook_revisions_skipped_total", reason="suspended")
    assert 1 == sender.count("fsm_webhook_gaps_total", reason="suspended")


# --- batches ---


async def test_who_lags_gets_a_batch(sender, opened):
    """At most as many as asked for, each as it would have come alone; one that keeps up gets single messages."""
    gate = closed_gate()
    receiver = await opened(Receiver(200, held(gate), 200))
    await sender.write()
    await sender.register("console", receiver.url, max_batch=4)
    await sender.delivered("console")
    await sender.write()
    await receiver.arrived(2)
    await sender.write(6)
    gate.release()
    await sender.delivered("console")
    kinds = [json.loads(request.body)["type"].rpartition(".")[2] for request in receiver.requests]
    batch = receiver.requests[2]
    entries = await sender.journal.read(2, 4)

    assert ["changed", "changed", "batch", "batch"] == kinds
    assert f"{sender.journal.epoch}_3-6_console" == batch.headers["webhook-id"]
    assert (6, 2, 0) == told(batch)
    assert [json.loads(entry.document) for entry in entries] == [each["snapshot"] for each in batch.data["changes"]]
    assert [(3, 2), (4, 3), (5, 4), (6, 5)] == [(e["revision"], e["previous_revision"]) for e in batch.data["changes"]]
    assert {sender.journal.epoch} == {each["epoch"] for each in batch.data["changes"]}
    assert (8, 6, 0) == told(receiver.requests[3])


async def test_a_batch_that_is_tried_again_is_the_same(sender, opened):
    """The same id and body, also when more has been written meanwhile."""
    gate = closed_gate()
    receiver = await opened(Receiver(200, held(gate, answer(500)), 500, 200))
    await sender.write()
    await sender.register("console", receiver.url, max_batch=10)
    await sender.delivered("console")
    await sender.write(1)
    await receiver.arrived(2)
    await sender.write(3)
    gate.release()
    await sender.delivered("console")
    ids = [request.headers["webhook-id"].split("_")[1] for request in receiver.requests]

    assert ["1", "2", "2", "2", "3-5"] == ids
    assert 1 == len({request.body for request in receiver.requests[1:4]})


async def test_a_batch_is_bounded_in_bytes(sender, opened):
    """It ends with the revision that makes it large."""
    gate = closed_gate()
    receiver = await opened(Receiver(200, held(gate), 200))
    await sender.write()
    await sender.register("console", receiver.url, max_batch=100)
    await sender.delivered("console")
    await sender.write()
    await receiver.arrived(2)
    await write(sender, *["IDLE"] * 5, context_data={"text": "x" * (BATCH_BYTES // 2)})
    gate.release()
    await sender.delivered("console")

    assert ["1", "2", "3-4", "5-6", "7"] == [request.headers["webhook-id"].split("_")[1] for request in receiver.requests]


async def test_a_batch_has_only_what_was_asked_for(sender, opened):
    """Filtered revisions between its changes are no gaps."""
    gate = closed_gate()
    receiver = await opened(Receiver(200, held(gate), 200))
    await write(sender, "IDLE")
    await sender.register("console", receiver.url, max_batch=10, states=("ACTIVE",))
    await sender.delivered("console")
    await write(sender, "ACTIVE")
    await receiver.arrived(2)
    await write(sender, "IDLE", "ACTIVE", "IDLE", "ACTIVE", "IDLE")
    gate.release()
    await sender.delivered("console")

    assert (6, 2, 0) == told(receiver.requests[2])
    assert [(4, 2), (6, 4)] == [(e["revision"], e["previous_revision"]) for e in receiver.requests[2].data["changes"]]
