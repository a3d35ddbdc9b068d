"""What code written for the store relies on, held by both: `AsyncStateStore`, and `StateClient` with a sidecar behind it."""

import asyncio
import contextlib
import dataclasses
import inspect
from enum import IntEnum

import pytest
from sidecar_process import served, written

from sidecar import (
    AsyncStateStore,
    Enforcement,
    Expectation,
    FsmSnapshot,
    FsmState,
    IllegalTransitionError,
    InvalidSnapshotError,
    Machine,
    StateExistsError,
    StateStoreError,
    StateVersionError,
    SubscriberLimitError,
    create_transition,
    next_snapshot,
)
from sidecar.client import StateClient

MAX_VERSION = 2**53 - 1
MOVES = {"BOOTING": ["IDLE"], "IDLE": ["ACTIVE", "SHUTDOWN"]}
PATIENCE_SECONDS = 10


def snap(version, state=FsmState.IDLE, **fields):
    return FsmSnapshot(version, state, **fields)


@pytest.fixture(params=["AsyncStateStore", "StateClient"])
async def made(request, tmp_path):
    """Makes an empty store of each kind: `await made(machine=…, max_subscribers=…)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(machine=None, **options):
            if request.param == "AsyncStateStore":
                return AsyncStateStore(machine=machine, **options)
            fsm = {"initial": None}
            if machine:
                fsm |= {"states": list(machine.states.__members__), "enforcement": str(machine.enforcement)}
                if machine.transitions is not None:
                    fsm["transitions"] = {state.name: machine.allowed(state) for state in machine.states}
            sidecar = stack.enter_context(served(written(tmp_path, fsm=fsm)))
            return await stack.enter_async_context(StateClient(f"http://{sidecar.api.address}", **options))

        yield make


@pytest.fixture
async def store(made):
    return await made()


async def at(store, version, state=FsmState.IDLE):
    await store.set(snap(version, state))
    return store


async def told(queue):
    return await asyncio.wait_for(queue.get(), PATIENCE_SECONDS)


def test_the_client_has_the_methods_of_the_class():
    """By name, with the arguments in the same order; what it takes beside them is taken by name alone."""
    names = "get get_with_meta set transition initialize_if_empty subscribe unsubscribe cleanup"
    for name in [*names.split(), "get_metrics", "health_check", "get_subscriber_info"]:
        parameters = list(inspect.signature(getattr(AsyncStateStore, name)).parameters)
        own = inspect.signature(getattr(StateClient, name)).parameters.items()
        shared = [name for name, each in own if name in parameters or each.kind is not each.KEYWORD_ONLY]
        assert parameters[: len(shared)] == shared


# --- reading and writing ---


async def test_get_gives_what_was_written_or_none(store):
    """Every field as it was, deeply read-only."""
    assert await store.get() is None
    written = snap(1, reason="start", context_data={"goal": [1, {"x": 0.25}]}, state_metadata={"m": None}, attempt_count=3)

    assert written == await store.set(written) == await store.get()
    with pytest.raises(TypeError):
        (await store.get()).context_data["goal"][1]["x"] = 2


async def test_a_whole_snapshot_comes_back(store):
    """With its history and the state before, in the types of the class."""
    first = snap(0, FsmState.BOOTING)
    move = create_transition(FsmState.BOOTING, FsmState.IDLE, "ready")
    second = next_snapshot(first, FsmState.IDLE, "ready", move)
    await store.set(first)
    stored = await store.set(second)

    assert second == stored
    assert (FsmState.BOOTING, move) == (stored.prev_state, stored.history[0])
    assert all(type(state) is FsmState for state in (stored.state, stored.prev_state, stored.history[0].to_state))


@pytest.mark.parametrize("wrong", [None, "IDLE", 1, {"version": 1}, FsmState.IDLE], ids=repr)
async def test_only_snapshots_can_be_set(store, wrong):
    """Anything else is an error, and leaves no trace."""
    with pytest.raises(StateStoreError):
        await store.set(wrong)

    assert (None, 0) == (await store.get(), (await store.get_metrics())["total_sets"])


@pytest.mark.parametrize("enforce", [False, True])
@pytest.mark.parametrize("version", [0, 1, 50])
async def test_a_newer_version_is_taken_as_it_is(store, version, enforce):
    """A writer may jump ahead."""
    assert version == (await store.set(snap(version), enforce)).version
    assert version + 9 == (await store.set(snap(version + 9), enforce_version=enforce)).version


@pytest.mark.parametrize("version", [-5, 0, 4, 5])
async def test_a_stale_version_is_renumbered(store, version):
    """To the one after the current; all the rest is kept."""
    await at(store, 5)
    stale = snap(version, reason="late")

    assert dataclasses.replace(stale, version=6) == await store.set(stale) == await store.get()


@pytest.mark.parametrize("version", [0, 4, 5])
async def test_an_enforced_stale_version_is_refused_and_counted(store, version):
    """The current state stays; the error says what stands."""
    await at(store, 5)
    with pytest.raises(StateVersionError, match=f"expected a version below {version}, but the current version is") as caught:
        await store.set(snap(version), enforce_version=True)
    current, numbers = caught.value.current, await store.get_metrics()

    assert (5, "IDLE", "fsm_handler", version) == (
        current.version,
        current.state,
        current.source_module,
        caught.value.expected.below,
    )
    assert (5, 1, 1) == ((await store.get()).version, numbers["version_conflicts"], numbers["total_sets"])


MET = [5, Expectation(5), Expectation(), Expectation(below=6), Expectation(state="IDLE"), Expectation(5, state="IDLE", below=6)]
BROKEN = [4, 6, -1, 0, Expectation(state="ACTIVE"), Expectation(4, state="IDLE"), Expectation(below=5), Expectation(5, "other")]


@pytest.mark.parametrize("expected", MET, ids=str)
async def test_a_met_expectation_lets_the_write_in(store, expected):
    """Also when the write is renumbered."""
    await at(store, 5)

    assert 6 == (await store.set(snap(1), expected=expected)).version


@pytest.mark.parametrize("expected", BROKEN, ids=str)
async def test_a_broken_expectation_refuses_the_write(store, expected):
    """Each part of it has to hold; the error says what stands."""
    await at(store, 5)
    with pytest.raises(StateVersionError) as caught:
        await store.set(snap(8), expected=expected)

    assert (5, 5) == ((await store.get()).version, caught.value.current.version)


@pytest.mark.parametrize("expected", [0, 5, Expectation(), Expectation(state="IDLE")], ids=str)
async def test_an_empty_store_meets_no_expectation_of_a_state(store, expected):
    """Nothing is not version 0."""
    with pytest.raises(StateVersionError, match="there is no state yet") as caught:
        await store.set(snap(1), expected=expected)

    assert (-1, None) == (caught.value.current.version, caught.value.current.state)


async def test_expecting_no_state_creates_it_once(store):
    """The second creator is told that it exists."""
    await store.set(snap(0), expected=-1)

    with pytest.raises(StateExistsError):
        await store.set(snap(1), expected=-1)


@pytest.mark.parametrize(
    "wrong", [{"version": MAX_VERSION + 1}, {"reason": "\ud800"}, {"reason": None}, {"version": 1.5}, {"ts_wall": "x"}], ids=str
)
async def test_what_cannot_be_kept_is_refused(store, wrong):
    """The error names the field; the next write counts."""
    with pytest.raises(InvalidSnapshotError) as caught:
        await store.set(FsmSnapshot(**({"version": 0, "state": FsmState.IDLE} | wrong)))

    assert caught.value.path in ("$", f"$.{next(iter(wrong))}")
    assert (None, 4) == (await store.get(), (await store.set(snap(4))).version)


# --- the machine ---


async def test_an_illegal_transition_is_refused(made):
    """The error carries where the agent is and where it may go."""
    store = await at(await made(Machine.from_names(list(FsmState.__members__), MOVES)), 0)
    with pytest.raises(IllegalTransitionError) as caught:
        await store.set(snap(1, FsmState.BOOTING))

    assert ("IDLE", "BOOTING", ("ACTIVE", "SHUTDOWN")) == (caught.value.state, caught.value.to, caught.value.allowed)
    assert "IDLE -> BOOTING is not a transition of the machine; from IDLE: ACTIVE, SHUTDOWN" == str(caught.value)


async def test_rules_that_are_not_enforced_let_it_pass(made):
    """With `off`."""
    machine = Machine.from_names(list(FsmState.__members__), MOVES, enforcement=Enforcement.OFF)
    store = await at(await made(machine), 0)

    assert FsmState.BOOTING is (await store.set(snap(1, FsmState.BOOTING))).state


async def test_a_state_of_another_machine_is_refused(store):
    """Whatever its number or name."""
    other = IntEnum("Other", ["IDLE"])
    for wrong in (other.IDLE, 2, "IDLE"):
        with pytest.raises(InvalidSnapshotError) as caught:
            await store.set(snap(0, wrong))
        assert "$.state" == caught.value.path


async def test_a_machine_of_other_states_has_its_own(made):
    """By name and number, in the order of the machine."""
    own = Machine.from_names(["OFF", "WARM", "HOT"])
    store = await made(own)
    states = own.states if isinstance(store, AsyncStateStore) else await store.states()

    assert ["OFF", "WARM", "HOT"] == list(states.__members__)
    assert states["HOT"] is (await store.set(FsmSnapshot(0, states["HOT"]))).state


# --- transition() ---


async def test_transition_builds_the_next_snapshot(store):
    """The state left behind is remembered, the move is in the history."""
    await store.set(snap(3, FsmState.BOOTING, context_data={"goal": 1}))
    before = await store.get()
    after = (await store.transition(FsmState.IDLE, "ready", source_module="agent")).snapshot
    [move] = after.history

    assert (4, FsmState.IDLE, FsmState.BOOTING, "ready", "agent") == (
        after.version,
        after.state,
        after.prev_state,
        after.reason,
        after.source_module,
    )
    assert (FsmState.BOOTING, FsmState.IDLE, "ready") == (move.from_state, move.to_state, move.trigger_event)
    assert ({"goal": 1}, before.fsm_instance_id) == (after.context_data, after.fsm_instance_id)
    assert after == await store.get()


async def test_transition_keeps_expectations(store):
    """Of a state, of a version, and of both."""
    await at(store, 5)
    with pytest.raises(StateVersionError):
        await store.transition(FsmState.ACTIVE, "go", Expectation(state="ACTIVE"))
    with pytest.raises(StateVersionError):
        await store.transition(FsmState.ACTIVE, "go", Expectation(state="IDLE"), Expectation(4))

    assert 6 == (await store.transition(FsmState.ACTIVE, "go", Expectation(state="IDLE"), Expectation(5))).snapshot.version


RACES = [(5, snap(6)), (Expectation(state="IDLE"), snap(6, FsmState.ACTIVE)), (Expectation(below=6), snap(6))]


@pytest.mark.parametrize(("expected", "change"), RACES, ids=lambda value: str(value)[:30])
async def test_of_many_writers_with_one_expectation_one_wins(store, expected, change):
    """However it is expressed; the others are told."""
    await at(store, 5)
    answers = await asyncio.gather(*(store.set(change, expected=expected) for _ in range(8)), return_exceptions=True)

    assert 7 == sum(isinstance(answer, StateVersionError) for answer in answers)
    assert 6 == (await store.get()).version


async def test_who_expects_what_still_holds_is_not_in_conflict(store):
    """Others may write between: the state is as expected each time."""
    await at(store, 5)
    writes = (store.set(snap(0, reason=str(n)), expected=Expectation(state="IDLE")) for n in range(8))

    assert list(range(6, 14)) == sorted(stored.version for stored in await asyncio.gather(*writes))


# --- starting, knowing, listening ---


async def test_initialize_if_empty_writes_the_first_state_once(store):
    """Version 0, and not over what is there."""
    await asyncio.gather(*(store.initialize_if_empty() for _ in range(5)))
    first = await store.get()

    assert (0, FsmState.BOOTING, "COLD_START", "initial_boot") == (
        first.version,
        first.state,
        first.reason,
        first.source_module,
    )
    await store.set(snap(1))
    await store.initialize_if_empty()
    assert 1 == (await store.get()).version


async def test_the_store_knows_itself(store):
    """Metadata, numbers, health and listeners, by the names of the class."""
    snapshot, meta = await store.get_with_meta()
    assert (None, False, -1) == (snapshot, meta["has_state"], meta["current_version"])
    assert ["store not initialised: no state has been written yet"] == (await store.health_check())["issues"]
    await at(store, 5)
    snapshot, meta = await store.get_with_meta()
    numbers, health, info = await store.get_metrics(), await store.health_check(), await store.get_subscriber_info()

    assert (5, True, 5, 0, 1000, 64) == (
        snapshot.version,
        *(meta[key] for key in ("has_state", "current_version", "subscriber_count", "max_subscribers", "queue_size")),
    )
    assert set(numbers) == set(meta["store_metrics"]) == set(health["metrics"])
    assert (1, 5, "IDLE", 0) == tuple(
        numbers[key] for key in ("total_sets", "current_version", "current_state", "active_subscribers")
    )
    assert (True, [], []) == tuple(health[key] for key in ("healthy", "issues", "warnings"))
    assert {"total_subscribers": 0, "subscriber_ids": [], "max_subscribers": 1000, "queue_size": 64} == info


async def test_a_queue_has_the_current_state_first_then_each_new_one(store):
    """In order, whoever writes."""
    early = await store.subscribe("early")
    await at(store, 5)
    assert 5 == (await told(early)).version
    late = await store.subscribe("late")
    for n in range(6, 20):
        await store.set(snap(n))

    assert list(range(6, 20)) == [(await told(early)).version for _ in range(14)]
    assert list(range(5, 20)) == [(await told(late)).version for _ in range(15)]


async def test_what_was_written_is_in_a_queue_from_then_on(store):
    """Who writes and then listens sees the own write first."""
    await store.subscribe("other")
    for n in range(1, 30):
        await store.set(snap(n))
        queue = await store.subscribe("reader")
        assert n == queue.get_nowait().version
        await store.unsubscribe(queue)


async def test_there_are_as_many_queues_as_the_limit_says(made):
    """One more is refused and told the limit; one that goes makes room."""
    store = await made(max_subscribers=2)
    first = await store.subscribe("a")
    await store.subscribe("b")
    with pytest.raises(SubscriberLimitError) as refused:
        await store.subscribe("c")
    assert (2, ["a", "b"]) == (refused.value.limit, (await store.get_subscriber_info())["subscriber_ids"])

    assert (True, False) == (await store.unsubscribe(first), await store.unsubscribe(first))
    await store.subscribe("c")
    assert ["b", "c"] == (await store.get_subscriber_info())["subscriber_ids"]


async def test_a_slow_reader_loses_the_oldest_and_it_is_counted(made):
    """The newest is always in the queue."""
    store = await made(queue_size=2)
    slow, quick = await store.subscribe("slow"), await store.subscribe("quick", max_queue_size=50)
    for n in range(5):
        await store.set(snap(n))
        assert n == (await told(quick)).version

    assert [3, 4] == [slow.get_nowait().version for _ in range(slow.qsize())]
    assert 3 == (await store.get_metrics())["notifications_failed"]


async def test_cleanup_forgets_all_queues(store):
    """The store itself goes on."""
    queue = await store.subscribe("a")
    await store.cleanup()
    await at(store, 5)

    assert (0, False, 0) == (
        queue.qsize(),
        await store.unsubscribe(queue),
        (await store.get_subscriber_info())["total_subscribers"],
    )


async def test_readers_may_come_and_go_at_once(made):
    """The first, the last and all between: each gets the current state, and nothing is left behind."""
    store = await made()
    await at(store, 5)

    async def visit(n):
        queue = await store.subscribe(f"reader {n}")
        assert 5 == (await told(queue)).version
        await store.unsubscribe(queue)

    for _ in range(5):
        await asyncio.gather(*(visit(n) for n in range(10)))
    assert 0 == (await store.get_metrics())["subscriber_count"]
