"""The roster: who subscribes, at most so many, what is remembered of the evicted, and what the config file owns."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry
from receiver import SECRET, TARGETS

from sidecar.audience import Audience
from sidecar.dispatch.roster import Reason, Roster, Settings, Status
from sidecar.dispatch.secret import Secret
from sidecar.dispatch.webhook import Attempt, Outcome
from sidecar.errors import (
    ConfiguredSubscriberError,
    EndpointRefusedError,
    SubscriberLimitError,
    UnknownSubscriberError,
)
from sidecar.meters import DispatchMetrics

URL = "http://127.0.0.1:9000/hook"
OTHER = "http://127.0.0.1:9000/other"


class Kept(Roster):
    """A loaded roster, with its audience and its numbers at hand."""

    @classmethod
    async def on(cls, database, *, limit=100, tombstone_seconds=3600.0):
        audience, registry = Audience(limit), CollectorRegistry()
        roster = cls(database, audience, DispatchMetrics(registry), TARGETS, tombstone_seconds=tombstone_seconds)
        roster.audience, roster.count = audience, lambda name, **labels: registry.get_sample_value(name, labels)
        await roster.load()
        return roster


@pytest.fixture(params=["memory", "sqlite"])
async def roster(request, database):
    """An empty roster, in memory and in a file."""
    return await Kept.on(database if request.param == "sqlite" else None)


def ids(subscribers):
    return [subscriber.id for subscriber in subscribers]


# --- registering ---


async def test_a_new_subscriber_is_active_and_has_acknowledged_nothing(roster):
    """It is told that it was added, and takes a place."""
    subscriber, added, _ = await roster.register("console", Settings(URL, timeout_seconds=3.0, max_lag=7))

    assert added
    assert (Status.ACTIVE, None, 0, False) == (subscriber.status, subscriber.cursor, subscriber.failures, subscriber.configured)
    assert (URL, 3.0, 7) == (subscriber.settings.url, subscriber.settings.timeout_seconds, subscriber.settings.max_lag)
    assert (["console"], ["console"]) == (ids(roster), roster.audience.subscriber_ids)
    assert roster.get("console") is subscriber
    assert 1 == roster.count("fsm_subscriptions_total")


async def test_registering_again_changes_the_settings_and_nothing_else(roster):
    """Idempotent: one subscriber, one place, and it stays where it is in the journal."""
    first, *_ = await roster.register("console", Settings(URL, max_lag=7))
    first.cursor, first.failures = 5, 2
    second, added, _ = await roster.register("console", Settings(OTHER, timeout_seconds=3.0))

    assert not added
    assert first is second
    assert (OTHER, 3.0, None) == (second.settings.url, second.settings.timeout_seconds, second.settings.max_lag)
    assert (5, 2) == (second.cursor, second.failures)
    assert ["console"] == ids(roster) == roster.audience.subscriber_ids


async def test_a_secret_is_made_when_none_is_given_and_kept_until_another_is(roster):
    """Each subscriber has its own; changing the URL does not change it."""
    console, *_ = await roster.register("console", Settings(URL))
    other, *_ = await roster.register("other", Settings(URL))
    made = console.settings.secret
    await roster.register("console", Settings(OTHER))
    kept = console.settings.secret
    await roster.register("console", Settings(URL, SECRET))

    assert Secret.parse(made).text == made == kept
    assert made != other.settings.secret
    assert (SECRET, SECRET) == (console.settings.secret, console.secrets(time.time())[0].text)


async def test_a_refused_endpoint_changes_nothing(roster):
    """Neither for a new subscriber nor for a known one; it is counted."""
    console, *_ = await roster.register("console", Settings(URL))
    for each in ("console", "new"):
        with pytest.raises(EndpointRefusedError):
            await roster.register(each, Settings("ftp://127.0.0.1/"))

    assert URL == console.settings.url
    assert ["console"] == ids(roster) == roster.audience.subscriber_ids
    assert 2 == roster.count("fsm_subscriptions_rejected_total", reason="endpoint")


async def test_nobody_unknown_is_found(roster):
    """Its own error, for asking and for removing."""
    with pytest.raises(UnknownSubscriberError):
        roster.get("nobody")
    with pytest.raises(UnknownSubscriberError):
        await roster.remove("nobody")


# --- the limit ---


async def test_a_full_roster_takes_nobody_new(database):
    """Refused and counted; who is known can still change, and a place that comes free can be taken."""
    roster = await Kept.on(database, limit=2)
    console, *_ = await roster.register("console", Settings(URL))
    await roster.register("other", Settings(URL))
    with pytest.raises(SubscriberLimitError) as refused:
        await roster.register("new", Settings(URL))
    await roster.register("console", Settings(OTHER))
    await roster.remove("other")
    await roster.register("newer", Settings(URL))

    assert 2 == refused.value.limit
    assert OTHER == console.settings.url
    assert ["console", "newer"] == ids(roster)
    assert 1 == roster.count("fsm_subscriptions_rejected_total", reason="limit")


async def test_an_evicted_subscriber_gives_its_place_to_others(database):
    """When it comes back it needs one again; until then its tombstone is untouched."""
    roster = await Kept.on(database, limit=1)
    old, *_ = await roster.register("old", Settings(URL, SECRET))
    roster.evict(old, Reason.FAILING)
    await roster.register("new", Settings(URL))
    with pytest.raises(SubscriberLimitError):
        await roster.register("old", Settings(OTHER))
    refused = old.status, old.settings
    await roster.remove("new")
    await roster.register("old", Settings(OTHER))

    assert (Status.EVICTED, Settings(URL, SECRET)) == refused
    assert (Status.ACTIVE, Settings(OTHER, SECRET)) == (old.status, old.settings)


async def test_many_who_register_at_once_do_not_exceed_the_limit(database):
    """The place is taken in the step that checks it, although each waits for the disk."""
    roster = await Kept.on(database, limit=10)
    answers = await asyncio.gather(*(roster.register(f"r{n}", Settings(URL)) for n in range(30)), return_exceptions=True)

    assert 20 == sum(isinstance(each, SubscriberLimitError) for each in answers)
    assert [f"r{n}" for n in range(10)] == ids(roster) == roster.audience.subscriber_ids


async def test_one_id_that_registers_many_times_at_once_is_one_subscriber(roster):
    """One place, one secret; exactly one of them was the first, and what it is told is what holds."""

    async def told():
        subscriber, added, made = await roster.register("console", Settings(URL))
        return added, made, subscriber.settings.secret

    answers = await asyncio.gather(*(told() for _ in range(10)))
    secret = roster.get("console").settings.secret

    assert [(True, secret, secret)] + [(False, None, secret)] * 9 == sorted(answers, key=lambda each: not each[0])
    assert ["console"] == ids(roster) == roster.audience.subscriber_ids


async def test_who_registers_behind_a_removal_is_told_its_new_secret(roster):
    """The old one has gone with the subscriber."""
    await roster.register("console", Settings(URL, SECRET))
    _, again = await asyncio.gather(roster.remove("console"), roster.register("console", Settings(URL)))

    assert (True, again.subscriber.settings.secret) == (again.added, again.made_secret)
    assert SECRET != again.made_secret


# --- removing, and tombstones ---


async def test_a_removed_subscriber_is_forgotten(database):
    """Also by the next process; registered again, it starts from the beginning."""
    roster = await Kept.on(database)
    console, *_ = await roster.register("console", Settings(URL))
    console.cursor = 5
    await roster.remove("console")
    forgotten = ids(roster), ids(await Kept.on(database)), len(roster.audience)
    again, added, _ = await roster.register("console", Settings(URL))

    assert ([], [], 0) == forgotten
    assert (None, True) == (again.cursor, added)


async def test_a_tombstone_keeps_what_is_needed_to_understand_and_to_resume(roster):
    """Id, cursor, reason, time and last outcome; it is listed, but not served."""
    before = time.time()
    console, *_ = await roster.register("console", Settings(URL, SECRET))
    console.cursor = 5
    roster.record(console, Attempt(Outcome.SERVER_ERROR, 503, 0.1))
    roster.evict(console, Reason.FAILING)

    assert (["console"], []) == (ids(roster), ids(roster.served()))
    assert (5, Reason.FAILING, "server_error", 503) == (
        *(console.cursor, console.evicted_reason),
        *(console.last_outcome, console.last_http_status),
    )
    assert before <= console.evicted_at <= time.time()


async def test_who_registers_again_is_brought_back_from_its_tombstone(roster):
    """With its cursor and its secret, without its failures."""
    console, *_ = await roster.register("console", Settings(URL, SECRET))
    console.cursor, console.failures, console.failing_seconds = 5, 10, 900.0
    roster.evict(console, Reason.FAILING)
    resumed, added, _ = await roster.register("console", Settings(OTHER))

    assert added
    assert (Status.ACTIVE, 5, SECRET) == (resumed.status, resumed.cursor, resumed.settings.secret)
    assert (0, 0.0, 0.0, None) == (resumed.failures, resumed.failing_seconds, resumed.evicted_at, resumed.evicted_reason)


async def test_old_tombstones_are_dropped(database):
    """Those evicted longer ago than they are kept; also from the file."""
    roster = await Kept.on(database, tombstone_seconds=60.0)
    for each in ("old", "young", "served"):
        await roster.register(each, Settings(URL))
    roster.evict(roster.get("old"), Reason.FAILING)
    roster.evict(roster.get("young"), Reason.FAILING)
    roster.get("old").evicted_at -= 61.0
    roster.drop_old_tombstones()

    assert ["young", "served"] == ids(roster) == ids(await Kept.on(database))


async def test_no_more_tombstones_are_kept_than_subscribers(database):
    """The oldest go first: ids that come and go do not fill the memory."""
    roster = await Kept.on(database, limit=3)
    for n in range(7):
        subscriber, *_ = await roster.register(f"r{n}", Settings(URL))
        roster.evict(subscriber, Reason.GONE)
    roster.drop_old_tombstones()

    assert ["r4", "r5", "r6"] == ids(roster) == ids(await Kept.on(database))


# --- the config file ---


async def test_the_config_file_adds_changes_and_removes(database):
    """At each start its subscribers are what it says; who is no longer there is a tombstone, and no dead subscriber."""
    first = await Kept.on(database)
    first.configure([("kept", Settings(URL, SECRET)), ("left", Settings(URL))])
    first.get("kept").cursor = first.get("left").cursor = 5
    first.save_changed()
    second = await Kept.on(database)
    second.configure([("kept", Settings(OTHER)), ("new", Settings(URL))])
    kept, left, new = (second.get(each) for each in ("kept", "left", "new"))

    assert (Settings(OTHER), 5, Status.ACTIVE) == (kept.settings, kept.cursor, kept.status)
    assert (Status.EVICTED, Reason.UNCONFIGURED, 5) == (left.status, left.evicted_reason, left.cursor)
    assert (None, Status.ACTIVE, True) == (new.cursor, new.status, new.configured)
    assert ["kept", "new"] == ids(second.served()) == second.audience.subscriber_ids
    assert 0 == second.audience.dead_removed


async def test_who_comes_back_into_the_config_file_resumes(database):
    """From its cursor, as after any eviction."""
    for configured in ([("console", Settings(URL))], [], [("console", Settings(OTHER))]):
        roster = await Kept.on(database)
        roster.configure(configured)
        if configured and roster.get("console").cursor is None:
            roster.get("console").cursor = 5
        roster.save_changed()

    assert (Status.ACTIVE, 5) == (roster.get("console").status, roster.get("console").cursor)


async def test_a_configured_subscriber_finds_a_place_where_others_hold_all(database):
    """The sidecar starts: its API is needed to free a place."""
    first = await Kept.on(database, limit=1)
    await first.register("api", Settings(URL))
    second = await Kept.on(database, limit=1)
    second.configure([("console", Settings(URL))])

    assert {"api", "console"} == set(second.audience.subscriber_ids)


async def test_a_subscriber_that_left_the_config_file_is_evicted_once(database):
    """Not at every start anew, which would keep its tombstone for ever."""
    first = await Kept.on(database)
    first.configure([("console", Settings(URL))])
    first.save_changed()
    second = await Kept.on(database)
    second.configure([])
    second.save_changed()
    third = await Kept.on(database)
    third.configure([])

    assert second.get("console").evicted_at == third.get("console").evicted_at
    assert not third.count("fsm_subscribers_evicted_total", reason="unconfigured")


async def test_what_the_config_file_owns_is_not_changed_elsewhere(roster):
    """Not even by the one who knows its id; once it left the file, anybody may register it."""
    roster.configure([("console", Settings(URL))])
    with pytest.raises(ConfiguredSubscriberError):
        await roster.register("console", Settings(OTHER))
    with pytest.raises(ConfiguredSubscriberError):
        await roster.remove("console")
    settings = roster.get("console").settings
    roster.configure([])
    subscriber, added, _ = await roster.register("console", Settings(OTHER))

    assert Settings(URL) == settings
    assert (True, False, OTHER) == (added, subscriber.configured, subscriber.settings.url)
