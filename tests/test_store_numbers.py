"""What the store tells about itself, and how one is made: the ancestor's names, word for word."""

import asyncio
import contextlib
import logging
import subprocess
import sys
import time

import pytest
from prometheus_client import CollectorRegistry

from sidecar import (
    AsyncStateStore,
    FsmSnapshot,
    FsmState,
    Machine,
    StateStoreError,
    StateVersionError,
    create_initialized_store,
    create_store,
    initial_snapshot,
    monitor_state_store,
)
from sidecar.checks import RollingCount, Thresholds, check_all
from sidecar.meters import StoreMetrics

METRICS = {
    *("total_sets", "total_gets", "version_conflicts", "subscriber_count", "last_update_ts", "creation_ts"),
    *("notifications_sent", "notifications_failed", "dead_subscribers_removed", "uptime_seconds", "current_version"),
    *("current_state", "active_subscribers", "max_subscribers", "queue_size"),
}


def snap(version, state=FsmState.IDLE, **fields):
    return FsmSnapshot(version, state, **fields)


@pytest.fixture
def store():
    return AsyncStateStore()


# --- numbers ---


async def test_get_metrics_has_exactly_the_ancestors_keys(store):
    """Before anything happened: all counts 0, no version, no state."""
    numbers = await store.get_metrics()
    times = {key: numbers.pop(key) for key in ("creation_ts", "uptime_seconds")}

    assert METRICS == {*numbers, *times}
    assert {"current_version": -1, "current_state": "UNINITIALIZED", "max_subscribers": 1000, "queue_size": 64} == {
        key: value for key, value in numbers.items() if value != 0
    }
    assert 0 <= times["uptime_seconds"] <= time.time() - times["creation_ts"] + 1


async def test_everything_is_counted_where_it_happens(store):
    """Accepted writes, reads of both kinds, lost writes, what readers were sent and what they lost."""
    before = time.time()
    await store.subscribe("slow", 1)
    for version in (1, 2, 2):
        await store.set(snap(version, FsmState.ACTIVE))
    with pytest.raises(StateVersionError):
        await store.set(snap(1), enforce_version=True)
    with pytest.raises(StateStoreError):
        await store.set(None)
    await store.get()
    await store.get_with_meta()
    numbers = await store.get_metrics()

    assert (3, 2, 1) == (numbers["total_sets"], numbers["total_gets"], numbers["version_conflicts"])
    assert (3, 2) == (numbers["notifications_sent"], numbers["notifications_failed"])
    assert (1, 1, 0) == tuple(numbers[key] for key in ("subscriber_count", "active_subscribers", "dead_subscribers_removed"))
    assert (3, "ACTIVE") == (numbers["current_version"], numbers["current_state"])
    assert before <= numbers["last_update_ts"] <= time.time()


async def test_looking_from_the_side_is_not_counted(store):
    """Metrics, health and the others who only look."""
    await store.get_metrics()
    await store.health_check()
    await store.get_subscriber_info()

    assert store.current is None
    assert 0 == (await store.get_metrics())["total_gets"]


async def test_get_with_meta_tells_what_the_store_knows(store):
    """With exactly the ancestor's keys; -1 stands for no version."""
    keys = {"store_metrics", "subscriber_count", "has_state", "current_version", "max_subscribers", "queue_size"}
    nothing, before = await store.get_with_meta()
    await store.set(snap(7))
    await store.subscribe()
    snapshot, after = await store.get_with_meta()

    assert (None, 7) == (nothing, snapshot.version)
    assert keys == set(before) == set(after)
    assert METRICS == set(after["store_metrics"])
    assert (False, -1, 0) == (before["has_state"], before["current_version"], before["subscriber_count"])
    assert (True, 7, 1) == (after["has_state"], after["current_version"], after["subscriber_count"])


async def test_every_write_is_timed():
    """Whether it was taken or lost."""
    registry = CollectorRegistry()
    store = AsyncStateStore(metrics=StoreMetrics(registry))
    await store.set(snap(1))
    with pytest.raises(StateVersionError):
        await store.set(snap(1), enforce_version=True)

    assert 2 == registry.get_sample_value("fsm_write_duration_seconds_count")


async def test_a_change_of_state_is_counted_and_dated(store):
    """By where it came from and went to; an update in place is neither."""
    await store.set(snap(1, FsmState.BOOTING))
    for version, state in enumerate([FsmState.IDLE, FsmState.IDLE, FsmState.BOOTING, FsmState.IDLE], start=2):
        entered = store.state_entered_ts
        await store.set(snap(version, state))
        assert (version == 3) == (entered == store.state_entered_ts)

    assert {("BOOTING", "IDLE"): 2, ("IDLE", "BOOTING"): 1} == store.transitions


# --- how one is made ---


async def test_an_initial_state_is_there_at_once():
    """As given, and not counted as a write."""
    first = snap(17)
    store = create_store(first, 5, 3)

    assert first is await store.get()
    numbers = await store.get_metrics()
    assert (0, 5, 3) == (numbers["total_sets"], numbers["max_subscribers"], numbers["queue_size"])
    assert 18 == (await store.set(snap(0))).version


async def test_create_store_is_empty_by_default():
    """With the ancestor's limits."""
    store = create_store()

    assert await store.get() is None
    info = await store.get_subscriber_info()
    assert (1000, 64) == (info["max_subscribers"], info["queue_size"])


async def test_create_initialized_store_holds_the_initial_snapshot():
    """Version 0, BOOTING, COLD_START."""
    store = await create_initialized_store(max_subscribers=5, queue_size=3)
    first, wanted = await store.get(), initial_snapshot()

    assert [getattr(wanted, key) for key in ("version", "state", "reason", "source_module")] == [
        getattr(first, key) for key in ("version", "state", "reason", "source_module")
    ]
    assert 5 == (await store.get_metrics())["max_subscribers"]


async def test_initialize_if_empty_leaves_a_state_alone(store):
    """And is no conflict."""
    await store.set(snap(9))
    await store.initialize_if_empty()

    assert 9 == (await store.get()).version
    assert 0 == (await store.get_metrics())["version_conflicts"]


@pytest.mark.parametrize("initial", ["OPEN", "SHUT"])
async def test_initialize_if_empty_starts_in_the_machines_initial_state(initial):
    """Also in the one that has the number 0."""
    store = AsyncStateStore(machine=Machine.from_names(["OPEN", "SHUT"], initial=initial))
    await store.initialize_if_empty()

    assert (initial, "COLD_START") == ((await store.get()).state.name, (await store.get()).reason)


def test_the_store_alone_needs_no_http():
    """`from sidecar import AsyncStateStore` in a program of yours does not load aiohttp."""
    program = "import sys; from sidecar import AsyncStateStore; sys.exit('aiohttp' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode


# --- health ---


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_rolling_count_forgets_what_left_its_window():
    """Little by little, and all of it after a long silence."""
    clock = Clock()
    count = RollingCount(300.0, clock)
    seen = []
    for seconds in (0, 150, 140, 10, 150, 100_000):
        clock.now += seconds
        count.add()
        seen.append(count.total())

    assert [1, 2, 3, 3, 3, 1] == seen
    clock.now += 300
    assert 0 == count.total()


WELL = {
    "sets": 100,
    "conflicts": 10,
    "initialised": True,
    "subscribers": 8,
    "max_subscribers": 10,
    "seconds_since_update": 60.0,
}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({}, []),
        ({"conflicts": 11}, [("version_conflicts", "issue")]),
        ({"sets": 0, "conflicts": 1}, [("version_conflicts", "issue")]),
        ({"sets": 0, "conflicts": 0}, []),
        ({"initialised": False}, [("initialised", "issue")]),
        ({"subscribers": 9}, [("subscribers", "warning")]),
        ({"seconds_since_update": 60.1}, [("freshness", "warning")]),
    ],
)
def test_a_check_fails_beyond_its_threshold(change, failing):
    """At the threshold all is well: 10 % conflicts, 80 % of the places, 60 seconds."""
    checks = check_all(Thresholds(), **(WELL | change))

    assert ["version_conflicts", "initialised", "subscribers", "freshness"] == [check.name for check in checks]
    assert failing == [(check.name, check.level) for check in checks if not check.ok]


async def test_health_check_lists_issues_and_warnings():
    """With exactly the ancestor's keys; warnings alone leave it healthy."""
    store = AsyncStateStore(max_subscribers=1, thresholds=Thresholds(stale_after_seconds=-1.0))
    await store.set(snap(1))
    await store.subscribe()
    before = time.time()
    health = await store.health_check()

    assert {"healthy", "issues", "warnings", "metrics", "timestamp"} == set(health)
    assert (True, []) == (health["healthy"], health["issues"])
    assert ["1 of 1 subscriber places are taken", "no update for 0 s"] == health["warnings"]
    assert METRICS == set(health["metrics"])
    assert before <= health["timestamp"] <= time.time()


async def test_a_store_without_a_state_is_not_healthy(store):
    """Nobody has said yet where the agent is."""
    health = await store.health_check()

    assert (False, ["store not initialised: no state has been written yet"]) == (health["healthy"], health["issues"])
    assert [] == health["warnings"]


async def test_too_many_conflicts_make_the_store_unhealthy(store):
    """Lost writes are set against the accepted ones, not against all attempts."""
    await store.set(snap(1))
    with pytest.raises(StateVersionError):
        await store.set(snap(1), enforce_version=True)
    health = await store.health_check()

    assert not health["healthy"]
    assert ["high version conflict rate: 1 conflicts and 1 writes within 300 s"] == health["issues"]


class Heard(logging.Handler):
    """What was logged, to be awaited."""

    def __init__(self):
        super().__init__()
        self.messages = asyncio.Queue()

    def emit(self, record):
        self.messages.put_nowait((record.levelname, record.getMessage()))


async def test_the_monitor_logs_what_is_wrong_until_it_is_cancelled(store):
    """As warnings, round after round."""
    heard = Heard()
    logging.getLogger("sidecar.store").addHandler(heard)
    monitor = asyncio.create_task(monitor_state_store(store, interval=0))
    complaints = {await heard.messages.get() for _ in range(3)}
    monitor.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await monitor
    logging.getLogger("sidecar.store").removeHandler(heard)

    assert {("WARNING", "state store: store not initialised: no state has been written yet")} == complaints
    assert monitor.cancelled()
