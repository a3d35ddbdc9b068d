"""What a subscriber gets: every revision in order or the gap told, again until it is acknowledged, and when it is tried."""

import asyncio
import json
from datetime import datetime
from itertools import pairwise

import pytest
from msgspec.structs import replace
from receiver import NEVER_SECONDS, QUICK, SECRET, Receiver, Sender, answer, held
from standardwebhooks import Webhook

from sidecar.dispatch.delivery import Policy
from sidecar.dispatch.feed import Jump, next_revision
from sidecar.dispatch.roster import Status
from sidecar.dispatch.webhook import Attempt, Outcome

POLICY = Policy(retry_seconds=(0.5, 1.0, 2.0), probe_interval_seconds=60.0, max_retry_after_seconds=300.0)


@pytest.fixture
async def sender(opened, tmp_path):
    """A sender that fails fast and never evicts."""
    return await opened(Sender(tmp_path / "journal.db"))


# --- when to try again, and when to give up: pure ---


@pytest.mark.parametrize(
    ("failures", "status"),
    [(1, Status.DEGRADED), (2, Status.DEGRADED), (3, Status.DEGRADED), (4, Status.SUSPENDED), (999, Status.SUSPENDED)],
)
def test_a_subscriber_is_suspended_when_the_retries_are_used_up(failures, status):
    """Three retries in the policy: degraded through the third failure, suspended from the fourth on."""
    assert status is POLICY.status_after(failures)


@pytest.mark.parametrize(
    ("failures", "outcome", "asked", "wait"),
    [
        *(
            (failures, outcome, 0.0, wait)
            for outcome in (
                *(Outcome.TIMEOUT, Outcome.DNS, Outcome.CONNECT, Outcome.TLS, Outcome.DISCONNECTED),
                *(Outcome.BUSY, Outcome.SERVER_ERROR),
            )
            for failures, wait in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 60.0), (999, 60.0)]
        ),
        *(
            (failures, outcome, 0.0, 60.0)
            for outcome in (Outcome.REDIRECT, Outcome.CLIENT_ERROR, Outcome.PROTOCOL, Outcome.GONE)
            for failures in (1, 3, 4)
        ),
        (1, Outcome.BUSY, 0.4, 0.5),
        (1, Outcome.BUSY, 10.0, 10.0),
        (3, Outcome.SERVER_ERROR, 10.0, 10.0),
        (1, Outcome.BUSY, 300.0, 300.0),
        (1, Outcome.BUSY, 301.0, 300.0),
        (1, Outcome.BUSY, 1e12, 300.0),
        (4, Outcome.BUSY, 10.0, 60.0),
        (4, Outcome.BUSY, 100.0, 100.0),
        (1, Outcome.CLIENT_ERROR, 100.0, 100.0),
    ],
)
def test_the_wait_follows_the_schedule_or_the_receiver_if_that_is_longer(failures, outcome, asked, wait):
    """Retries for what may pass, the probe interval for what somebody must mend, Retry-After within its cap."""
    assert wait == POLICY.wait_after(failures, Attempt(outcome, 503, 0.1, asked))


def test_a_cap_below_the_schedule_does_not_shorten_the_schedule():
    """It bounds what a receiver can ask for, and nothing else."""
    policy = replace(POLICY, max_retry_after_seconds=0.1)

    assert 0.5 == policy.wait_after(1, Attempt(Outcome.BUSY, 503, 0.1, 1000.0))


@pytest.mark.parametrize(
    ("failures", "seconds", "given_up"),
    [
        (10, 900.0, True),
        (11, 1e9, True),
        (9, 1e9, False),
        (1, 900.0, False),
        (10, 899.9, False),
        (10**6, 0.0, False),
    ],
)
def test_giving_up_takes_enough_failures_and_enough_time(failures, seconds, given_up):
    """Neither alone: not a burst of failures, and not a quiet night with one."""
    assert given_up is Policy().gives_up(failures, seconds)


@pytest.mark.parametrize(
    ("cursor", "head", "oldest", "max_lag", "suspended", "expected"),
    [
        (None, 1, 1, 1024, False, (1, None)),
        (None, 50, 40, 0, False, (50, None)),
        (None, 50, 1, 1024, True, (50, None)),
        (0, 1, 1, 1024, False, (1, None)),
        (7, 8, 1, 1024, False, (8, None)),
        (7, 20, 1, 1024, False, (8, None)),
        (7, 20, 8, 1024, False, (8, None)),
        (7, 20, 9, 1024, False, (20, Jump.COMPACTED)),
        (7, 20, 20, 1024, False, (20, Jump.COMPACTED)),
        (7, 20, 1, 13, False, (8, None)),
        (7, 20, 1, 12, False, (20, Jump.MAX_LAG)),
        (7, 20, 1, 0, False, (20, Jump.MAX_LAG)),
        (7, 20, 1, 1, False, (20, Jump.MAX_LAG)),
        (7, 8, 1, 1, False, (8, None)),
        (7, 20, 1, 1024, True, (20, Jump.SUSPENDED)),
        (7, 20, 9, 12, True, (20, Jump.SUSPENDED)),
    ],
)
def test_the_next_revision_is_the_next_one_unless_there_is_a_reason(cursor, head, oldest, max_lag, suspended, expected):
    """First the newest; then one by one; the newest again when too far behind, compacted away or suspended."""
    assert expected == next_revision(cursor, head=head, oldest=oldest, max_lag=max_lag, suspended=suspended)


# --- what is in it ---


async def test_the_first_delivery_is_the_current_snapshot(sender, opened):
    """Not the history before it; `initial` says so."""
    receiver = await opened(Receiver())
    await sender.write(3)
    await sender.register("console", receiver.url)
    [request] = await receiver.arrived(1)
    [entry] = await sender.journal.read(2, 1)
    event = json.loads(request.body)

    assert {
        "epoch": sender.journal.epoch,
        "revision": 3,
        "previous_revision": 0,
        "skipped": 0,
        "initial": True,
        "snapshot": json.loads(entry.document),
    } == event.pop("data")
    assert "fsm.state.changed" == event["type"] == request.headers["ce-type"]
    assert abs(entry.appended_at - datetime.fromisoformat(event["timestamp"]).timestamp()) <= 0.001
    assert f"{sender.journal.epoch}_3_console" == request.headers["webhook-id"]


async def test_a_subscriber_of_an_empty_journal_gets_the_first_state_once_there_is_one(sender, opened):
    """It waits; nothing is sent before."""
    receiver = await opened(Receiver())
    await sender.register("console", receiver.url)
    await sender.write()
    [request] = await receiver.arrived(1)

    assert (1, 0, True) == tuple(request.data[key] for key in ("revision", "previous_revision", "initial"))


async def test_every_revision_is_delivered_in_order_one_at_a_time(sender, opened):
    """However fast they are written; each names the one before it, and carries the journal's document as it is."""
    receiver = await opened(Receiver())
    await sender.register("console", receiver.url)
    await sender.write()
    await sender.delivered("console")
    await asyncio.gather(*(sender.write(7) for _ in range(7)))
    await sender.delivered("console")
    entries = await sender.journal.read(0, 100)

    assert list(range(1, 51)) == receiver.revisions
    assert list(range(50)) == [request.data["previous_revision"] for request in receiver.requests]
    assert {(0, False)} == {(request.data["skipped"], request.data["initial"]) for request in receiver.requests[1:]}
    assert all(entry.document in request.body for entry, request in zip(entries, receiver.requests, strict=True))
    assert 1 == receiver.most_at_once


# --- again, until it is acknowledged ---


async def test_a_retry_is_the_same_message_with_a_fresh_signature(opened, tmp_path):
    """Same id and same bytes, so that a receiver can know it; a new timestamp, so that it is not taken for a replay."""
    policy = replace(QUICK, retry_seconds=(1.3, 0.01))
    sender, receiver = await opened(Sender(tmp_path / "journal.db", policy=policy)), await opened(Receiver(500, 500, 200))
    await sender.write()
    await sender.register("console", receiver.url)
    await sender.delivered("console")
    first, second, third = receiver.requests

    assert first.body == second.body == third.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == third.headers["webhook-id"]
    assert int(first.headers["webhook-timestamp"]) < int(second.headers["webhook-timestamp"])
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    for request in receiver.requests:
        assert 1 == Webhook(SECRET).verify(request.body, request.headers)["data"]["revision"]


async def test_a_retry_stays_the_same_after_a_restart(opened, tmp_path):
    """Also the next process sends the same id and the same bytes."""
    receiver = await opened(Receiver(200, 500))
    async with Sender(tmp_path / "journal.db", policy=replace(QUICK, retry_seconds=(NEVER_SECONDS,))) as sender:
        await sender.register("console", receiver.url)
        await sender.write(2)
        await sender.until(lambda: sender.roster.get("console").failures)
    await opened(Sender(tmp_path / "journal.db"))
    _, before, after = await receiver.arrived(3)

    assert before.body == after.body
    assert before.headers["webhook-id"] == after.headers["webhook-id"]


async def test_waits_follow_the_schedule_and_start_over_after_a_success(opened, tmp_path):
    """Each within a fifth of its value; this sees the lower end."""
    policy = replace(QUICK, retry_seconds=(0.05, 0.15), probe_interval_seconds=0.3)
    sender = await opened(Sender(tmp_path / "journal.db", policy=policy))
    receiver = await opened(Receiver(500, 500, 500, 200, 500, 200))
    await sender.write(1)
    await sender.register("console", receiver.url)
    await receiver.arrived(4)
    await sender.write(1)
    gaps = [second.at - first.at for first, second in pairwise(await receiver.arrived(6))]

    assert [True] * 4 == [gap >= 0.8 * wait for gap, wait in zip([*gaps[:3], gaps[4]], [0.05, 0.15, 0.3, 0.05], strict=True)]
    assert [1, 1, 1, 1, 2, 2] == receiver.revisions


async def test_what_somebody_must_mend_is_tried_at_the_probe_interval(opened, tmp_path):
    """A 404 will be a 404 again in a moment."""
    policy = replace(QUICK, probe_interval_seconds=0.3)
    sender, receiver = await opened(Sender(tmp_path / "journal.db", policy=policy)), await opened(Receiver(404, 200))
    await sender.write()
    await sender.register("console", receiver.url)
    first, second = await receiver.arrived(2)

    assert second.at - first.at >= 0.8 * 0.3


async def test_nobody_is_tried_before_the_time_it_asked_for(sender, opened):
    """Retry-After is honoured: jitter makes it later, never earlier."""
    receivers = [await opened(Receiver(answer(429, Retry_After="1"), 200)) for _ in range(16)]
    await sender.write()
    for n, receiver in enumerate(receivers):
        await sender.register(f"r{n}", receiver.url)
    pairs = [await receiver.arrived(2) for receiver in receivers]

    assert [] == [second.at - first.at for first, second in pairs if second.at - first.at < 0.99]


@pytest.mark.parametrize("asked", ["86400", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_a_receiver_cannot_ask_for_more_than_the_cap(asked, opened, tmp_path):
    """Otherwise one header would silence a subscription."""
    policy = replace(QUICK, max_retry_after_seconds=0.02)
    sender = await opened(Sender(tmp_path / "journal.db", policy=policy))
    receiver = await opened(Receiver(answer(503, Retry_After=asked), 200))
    await sender.write()
    await sender.register("console", receiver.url)

    assert [1, 1] == [request.revision for request in await receiver.arrived(2)]


# --- gaps ---


async def behind(sender, opened, *, head, max_lag=None):
    """A subscriber whose delivery of revision 2 waits while the journal goes on; opening the gate lets it answer."""
    gate = asyncio.Event()
    receiver = await opened(Receiver(200, held(gate), 200))
    await sender.register("console", receiver.url, max_lag=max_lag)
    await sender.write(2)
    await receiver.arrived(2)
    await sender.write(head - 2)
    return receiver, gate


@pytest.mark.parametrize(
    ("max_lag", "revisions", "skipped"),
    [(6, [3, 4, 5, 6, 7, 8], 0), (5, [8], 5), (1, [8], 5), (0, [8], 5), (None, [3, 4, 5, 6, 7, 8], 0)],
)
async def test_who_is_further_behind_than_its_max_lag_gets_the_newest_and_is_told(sender, opened, max_lag, revisions, skipped):
    """`skipped` counts what it will not get, `previous_revision` is the last one it acknowledged; then it goes on as usual."""
    receiver, gate = await behind(sender, opened, head=8, max_lag=max_lag)
    gate.set()
    await sender.delivered("console")
    jump = receiver.requests[2]
    await sender.write()
    await sender.delivered("console")

    assert [1, 2, *revisions, 9] == receiver.revisions
    assert (2, skipped, False) == tuple(jump.data[key] for key in ("previous_revision", "skipped", "initial"))
    assert (8, 0) == tuple(receiver.requests[-1].data[key] for key in ("previous_revision", "skipped"))
    assert skipped == sender.count("fsm_webhook_revisions_skipped_total", reason="max_lag")


async def test_what_was_compacted_away_is_told(sender, opened):
    """The subscriber gets the newest, with the number of revisions it missed."""
    receiver, gate = await behind(sender, opened, head=8)
    await sender.journal.compact(6)
    gate.set()
    await sender.delivered("console")

    assert [1, 2, 8] == receiver.revisions
    assert (2, 5) == tuple(receiver.requests[2].data[key] for key in ("previous_revision", "skipped"))
    assert 5 == sender.count("fsm_webhook_revisions_skipped_total", reason="compacted")


async def test_a_gap_is_counted_once_it_is_acknowledged(sender, opened):
    """Not on each attempt to tell it."""
    receiver, gate = await behind(sender, opened, head=8, max_lag=0)
    receiver.answers(500, 500, 200)
    gate.set()
    await sender.delivered("console")

    assert [1, 2, 8, 8, 8] == receiver.revisions
    assert 5 == sender.count("fsm_webhook_revisions_skipped_total", reason="max_lag")


async def test_a_suspended_subscriber_is_probed_with_the_newest_state(sender, opened):
    """It learns at once where things stand and how much it missed; what was tried and passed over counts as failed."""
    gate = asyncio.Event()
    receiver = await opened(Receiver(200, 500, 500, 500, 500, held(gate, answer(500)), 200))
    subscriber = await sender.register("console", receiver.url)
    await sender.write()
    await sender.delivered("console")
    await sender.write()
    await receiver.arrived(6)
    suspended = subscriber.status
    await sender.write(3)
    gate.set()
    await sender.delivered("console")
    await sender.write()
    await sender.delivered("console")

    assert (Status.SUSPENDED, Status.ACTIVE) == (suspended, subscriber.status)
    assert [1, 2, 2, 2, 2, 2, 5, 6] == receiver.revisions
    assert (1, 3) == tuple(receiver.requests[6].data[key] for key in ("previous_revision", "skipped"))
    assert 3 == sender.count("fsm_webhook_revisions_skipped_total", reason="suspended")
    assert (3, 1) == (sender.audience.notifications_sent, sender.audience.notifications_failed)


# --- what is counted ---


async def test_each_attempt_is_counted_by_its_outcome(sender, opened):
    """And timed; a revision that got there counts as one notification, with the time it took, but for the first."""
    receiver = await opened(Receiver(500, 503, 429, 204))
    await sender.write()
    await sender.register("console", receiver.url)
    await sender.delivered("console")
    await sender.write()
    await sender.delivered("console")
    counted = {outcome: sender.count("fsm_webhook_attempts_total", outcome=outcome) for outcome in Outcome}

    assert {"server_error": 2, "busy": 1, "delivered": 2} == {outcome: count for outcome, count in counted.items() if count}
    assert 5 == sender.count("fsm_webhook_attempt_duration_seconds_count")
    assert 1 == sender.count("fsm_propagation_delay_seconds_count")
    assert (2, 0) == (sender.audience.notifications_sent, sender.audience.notifications_failed)
