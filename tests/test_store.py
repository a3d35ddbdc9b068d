"""The store's decisions: which writes it takes, under which version, and which it refuses."""

import time

import pytest

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
)
from sidecar.conflicts import ConflictKind

MAX_VERSION = 2**53 - 1


def snap(version, state=FsmState.IDLE, **fields):
    return FsmSnapshot(version, state, **fields)


@pytest.fixture
def store():
    return AsyncStateStore()


async def at(version, state=FsmState.IDLE, **options):
    """A store that holds this version."""
    store = AsyncStateStore(**options)
    await store.set(snap(version, state))
    return store


# --- reading ---


async def test_get_gives_the_current_snapshot_or_none(store):
    """The very snapshot that was written."""
    assert await store.get() is None
    written = snap(1)
    await store.set(written)

    assert written is await store.get()


# --- writing ---


@pytest.mark.parametrize("wrong", [None, "IDLE", 1, {"version": 1}, FsmState.IDLE], ids=repr)
async def test_only_snapshots_can_be_set(store, wrong):
    """Anything else is an error, and leaves no trace."""
    with pytest.raises(StateStoreError):
        await store.set(wrong)

    assert await store.get() is None
    assert 0 == (await store.get_metrics())["total_sets"]


@pytest.mark.parametrize("enforce", [False, True])
@pytest.mark.parametrize("version", [0, 1, 50])
async def test_a_newer_version_is_taken_as_it_is(store, version, enforce):
    """A writer may jump ahead; what is stored is what was given."""
    first = snap(version)

    assert first is await store.set(first, enforce)
    assert version + 9 == (await store.set(snap(version + 9), enforce_version=enforce)).version
    assert 0 == store.conflicts.counts["masked"]


@pytest.mark.parametrize("version", [-5, 0, 4, 5])
async def test_a_stale_version_is_renumbered_and_counted(version):
    """To the one after the current; all the rest is kept."""
    store = await at(5)
    stale = snap(version, FsmState.ACTIVE, reason="late")
    stored = await store.set(stale)

    assert (6, FsmState.ACTIVE, "late") == (stored.version, stored.state, stored.reason)
    assert stale.snapshot_id == stored.snapshot_id
    assert stored is await store.get()
    assert 1 == store.conflicts.counts["masked"]


@pytest.mark.parametrize("version", [0, 4, 5])
async def test_an_enforced_stale_version_is_refused_and_counted(version):
    """The current state stays; the error says what stands."""
    store = await at(5)
    with pytest.raises(StateVersionError) as caught:
        await store.set(snap(version), enforce_version=True)

    assert (5, "IDLE", "fsm_handler") == (
        caught.value.current.version,
        caught.value.current.state,
        caught.value.current.source_module,
    )
    assert (version, version) == (caught.value.expected.below, caught.value.attempted.version)
    assert 5 == (await store.get()).version
    numbers = await store.get_metrics()
    assert (1, 1, 0) == (numbers["version_conflicts"], numbers["total_sets"], store.conflicts.counts["masked"])


MET = [5, Expectation(5), Expectation(), Expectation(below=6), Expectation(state="IDLE"), Expectation(5, state="IDLE", below=6)]
BROKEN = {
    ConflictKind.WRONG_EXPECTATION: [
        4,
        6,
        -1,
        0,
        Expectation(state="ACTIVE"),
        Expectation(4, state="IDLE"),
        Expectation(4, below=9),
    ],
    ConflictKind.STALE_VERSION: [Expectation(below=5), Expectation(below=0)],
    ConflictKind.WRONG_EPOCH: [Expectation(5, "another"), Expectation(epoch="another"), Expectation(below=9, epoch="another")],
}


@pytest.mark.parametrize("expected", MET, ids=str)
async def test_a_met_expectation_lets_the_write_in(expected):
    """Also when the write is renumbered."""
    store = await at(5)

    assert 6 == (await store.set(snap(1), expected=expected)).version
    assert 0 == store.conflicts.version_conflicts


@pytest.mark.parametrize(("kind", "expected"), [(kind, one) for kind, all_of in BROKEN.items() for one in all_of], ids=str)
async def test_a_broken_expectation_refuses_the_write(kind, expected):
    """Each part of it has to hold; the kind tells which did not."""
    store = await at(5)
    with pytest.raises(StateVersionError):
        await store.set(snap(8), expected=expected)

    assert 5 == (await store.get()).version
    assert [kind] == [conflict.kind for conflict in store.conflicts.newest_first()]
    assert 1 == store.conflicts.counts[kind] == (await store.get_metrics())["version_conflicts"]


async def test_the_journals_own_epoch_is_met(store):
    """As an ETag of this journal carries it."""
    await store.set(snap(0), expected=Expectation(-1, store.journal.epoch))

    assert 1 == (await store.set(snap(1), expected=Expectation(0, store.journal.epoch))).version


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


async def test_versions_end_where_json_readers_lose_count(store):
    """2**53 - 1 is taken, nothing behind it; and what is not stored is not counted."""
    with pytest.raises(InvalidSnapshotError) as caught:
        await store.set(snap(MAX_VERSION + 1))
    await store.set(snap(MAX_VERSION))

    assert "$.version" == caught.value.path
    with pytest.raises(InvalidSnapshotError):
        await store.set(snap(1))
    assert MAX_VERSION == (await store.get()).version
    assert (1, 0) == ((await store.get_metrics())["total_sets"], store.conflicts.counts["masked"])


async def test_what_has_no_json_form_is_refused_and_leaves_no_trace(store):
    """The next write takes the version after the current one."""
    await store.set(snap(3))
    with pytest.raises(InvalidSnapshotError):
        await store.set(snap(9, reason="\ud800"))

    assert 4 == (await store.set(snap(0))).version


@pytest.mark.parametrize(
    "field", [{"reason": None}, {"version": 1.5}, {"version": "1"}, {"snapshot_id": 5}, {"ts_wall": "x"}], ids=str
)
async def test_a_field_of_the_wrong_type_is_refused(store, field):
    """It could be written, but never be read again: the next start would fail."""
    with pytest.raises(InvalidSnapshotError):
        await store.set(FsmSnapshot(**({"version": 0, "state": FsmState.IDLE} | field)))

    assert (None, 0) == (await store.get(), store.journal.head)


# --- the machine's rules ---

MOVES = {"BOOTING": ["IDLE"], "IDLE": ["ACTIVE", "SHUTDOWN"]}


def machine(enforcement=Enforcement.ENFORCE):
    return Machine.from_names(list(FsmState.__members__), MOVES, enforcement=enforcement)


@pytest.mark.parametrize("state", FsmState)
async def test_any_state_may_come_first(state):
    """Rules are about moves, and updates in place always pass."""
    store = await at(0, state, machine=machine())

    assert state is (await store.set(snap(1, state))).state


async def test_an_illegal_transition_is_refused(caplog):
    """The error carries where the agent is and where it may go; it is no version conflict."""
    store = await at(0, FsmState.IDLE, machine=machine())
    with pytest.raises(IllegalTransitionError) as caught:
        await store.set(snap(1, FsmState.BOOTING))

    assert ("IDLE", "BOOTING", ("ACTIVE", "SHUTDOWN")) == (caught.value.state, caught.value.to, caught.value.allowed)
    assert (FsmState.IDLE, 0) == ((await store.get()).state, (await store.get_metrics())["version_conflicts"])
    assert (1, 0) == (store.conflicts.counts[ConflictKind.ILLEGAL_TRANSITION], store.illegal_accepted)
    assert [] == caplog.messages


@pytest.mark.parametrize(("enforcement", "counted"), [(Enforcement.WARN, 1), (Enforcement.OFF, 0)])
async def test_an_illegal_transition_is_made_when_rules_are_not_enforced(caplog, enforcement, counted):
    """With `warn` it is counted and logged, with `off` nobody looks."""
    store = await at(0, FsmState.IDLE, machine=machine(enforcement))
    await store.set(snap(1, FsmState.BOOTING))

    assert FsmState.BOOTING is (await store.get()).state
    assert (counted, ["illegal_transition_accepted: IDLE -> BOOTING, by fsm_handler"] * counted) == (
        store.illegal_accepted,
        caplog.messages,
    )
    assert [] == store.conflicts.newest_first()


async def test_a_state_of_another_machine_is_refused(store):
    """Whatever its number or name."""
    own = Machine.from_names(["UNSPECIFIED", "OTHER"])

    for wrong in (snap(0, own.states["UNSPECIFIED"]), snap(0, 2), snap(0, "IDLE")):
        with pytest.raises(InvalidSnapshotError) as caught:
            await store.set(wrong)
        assert "$.state" == caught.value.path
    assert "OTHER" == (await AsyncStateStore(machine=own).set(snap(0, own.states["OTHER"]))).state.name


# --- transition() ---


async def test_transition_builds_the_next_snapshot(store):
    """The state left behind is remembered, the move is in the history; nobody writes under the last writer's name."""
    await store.set(snap(3, FsmState.BOOTING, context_data={"goal": 1}, source_module="agent"))
    before = await store.get()
    stored = await store.transition(FsmState.IDLE, "ready")
    after = stored.snapshot
    [move] = after.history

    assert (4, FsmState.IDLE, FsmState.BOOTING, "ready") == (after.version, after.state, after.prev_state, after.reason)
    assert (FsmState.BOOTING, FsmState.IDLE, "ready") == (move.from_state, move.to_state, move.trigger_event)
    assert ({"goal": 1}, "fsm_handler") == (after.context_data, after.source_module)
    assert before.fsm_instance_id == after.fsm_instance_id
    assert (after, 2) == (await store.get(), stored.entry.revision)


async def test_transition_to_the_same_state_is_an_update(store):
    """One version on, nothing in the history; a writer may give its name."""
    await store.transition(FsmState.IDLE, "start", source_module="agent")
    update = (await store.transition(FsmState.IDLE, "still here", source_module="other")).snapshot

    assert (1, None, "still here", "other") == (update.version, update.prev_state, update.reason, update.source_module)
    assert () == update.history


async def test_transition_into_an_empty_store_starts_at_version_0(store):
    """Without a history: nothing was left behind."""
    first = (await store.transition(FsmState.ACTIVE, "start")).snapshot

    assert (0, FsmState.ACTIVE, "start", ()) == (first.version, first.state, first.reason, first.history)


@pytest.mark.parametrize(("limit", "kept"), [(16, 16), (3, 3), (0, 0)])
async def test_the_history_in_a_snapshot_is_bounded(limit, kept):
    """Only the newest moves are kept in it; the journal has them all."""
    store = await at(0, history_limit=limit)
    for n in range(40):
        await store.transition(FsmState.ACTIVE if n % 2 == 0 else FsmState.IDLE, str(n))

    assert [str(n) for n in range(40 - kept, 40)] == [move.trigger_event for move in (await store.get()).history]
    assert 41 == store.journal.head


async def test_transition_keeps_the_rules_and_expectations():
    """As any other write."""
    store = await at(0, FsmState.IDLE, machine=machine())

    with pytest.raises(IllegalTransitionError):
        await store.transition(FsmState.BOOTING, "back")
    with pytest.raises(StateVersionError, match="state ACTIVE"):
        await store.transition(FsmState.ACTIVE, "go", Expectation(state="ACTIVE"))
    assert FsmState.ACTIVE is (await store.transition(FsmState.ACTIVE, "go", Expectation(state="IDLE"))).snapshot.state


# --- who lost against whom ---


async def test_a_rejection_tells_who_tried_what_against_whom():
    """And when."""
    store = await at(5, FsmState.ACTIVE)
    before = time.time()
    with pytest.raises(StateVersionError):
        await store.set(snap(4, reason="late", source_module="planner"), expected=3)
    [conflict] = store.conflicts.newest_first()

    assert before <= conflict.at <= time.time()
    assert ("wrong_expectation", "stale", Expectation(3)) == (conflict.kind, conflict.reason, conflict.attempted.expected)
    assert (4, "IDLE", "planner", "late") == (
        conflict.attempted.version,
        conflict.attempted.state,
        conflict.attempted.source_module,
        conflict.attempted.reason,
    )
    assert (store.journal.epoch, 5, "ACTIVE") == (conflict.against.epoch, conflict.against.version, conflict.against.state)


REASONS = [
    (("wrong_expectation", "stale"), 4),
    (("wrong_expectation", "ahead"), 6),
    (("wrong_expectation", "exists"), -1),
    (("wrong_expectation", "state"), Expectation(state="ACTIVE")),
    (("stale_version", "equal"), Expectation(below=5)),
    (("stale_version", "stale"), Expectation(below=2)),
    (("wrong_epoch", "epoch"), Expectation(5, "another")),
]


@pytest.mark.parametrize(("told", "expected"), REASONS, ids=str)
async def test_a_conflict_tells_how_the_expectation_differed(told, expected):
    """What was compared, and whether the writer was late, ahead, or had another state or journal in mind."""
    store = await at(5)
    with pytest.raises(StateVersionError):
        await store.set(snap(9), expected=expected)
    [conflict] = store.conflicts.newest_first()

    assert told == (conflict.kind, conflict.reason)


@pytest.mark.parametrize("expected", [3, Expectation(state="IDLE"), Expectation()], ids=str)
async def test_what_is_expected_of_an_empty_store_is_missing(store, expected):
    """Whatever it was."""
    with pytest.raises(StateVersionError):
        await store.set(snap(9), expected=expected)

    assert [("wrong_expectation", "missing")] == [(each.kind, each.reason) for each in store.conflicts.newest_first()]


# --- who overwrote whom unseen ---


@pytest.mark.parametrize(("version", "reason"), [(5, "equal"), (4, "stale"), (0, "stale")])
async def test_a_renumbered_write_is_a_masked_conflict(version, reason):
    """It is accepted, and told with the state that it took the place of."""
    store = await at(5, FsmState.ACTIVE)
    await store.set(snap(version, source_module="planner", reason="late"))
    [conflict] = store.conflicts.newest_first()

    assert ("masked", reason, None) == (conflict.kind, conflict.reason, conflict.attempted.expected)
    assert (version, "planner", "late") == (
        conflict.attempted.version,
        conflict.attempted.source_module,
        conflict.attempted.reason,
    )
    assert (5, "ACTIVE", "fsm_handler") == (
        conflict.against.version,
        conflict.against.state,
        conflict.against.source_module,
    )
    assert 0 == (await store.get_metrics())["version_conflicts"]


@pytest.mark.parametrize("expected", [5, Expectation(5), Expectation(5, state="IDLE")], ids=str)
async def test_a_writer_that_named_the_current_version_masks_nothing(expected):
    """It has seen what it replaces, whatever number it gave its own."""
    store = await at(5)

    assert 6 == (await store.set(snap(1), expected=expected)).version
    assert [] == store.conflicts.newest_first()


async def test_the_first_state_masks_nothing(store):
    """There was none to overwrite."""
    await store.set(snap(-3))

    assert [] == store.conflicts.newest_first()


async def test_masked_writes_do_not_crowd_out_rejected_ones():
    """Each sort has places of its own; together they are told in their order."""
    store = await at(5)
    for n in range(300):
        await store.set(snap(1, reason=f"masked {n}"))
        if n in (10, 20):
            with pytest.raises(StateVersionError):
                await store.set(snap(9, reason=f"rejected {n}"), expected=4)
    told = [conflict.attempted.reason for conflict in store.conflicts.newest_first()]

    assert (258, "masked 299") == (len(told), told[0])
    assert ["rejected 20", "rejected 10"] == [each for each in told if each.startswith("rejected")]
    assert ["masked 45", "masked 44", "rejected 20", "rejected 10"] == told[-4:]


async def test_the_last_256_rejections_are_kept_newest_first():
    """The counts go on."""
    store = await at(5)
    for n in range(300):
        with pytest.raises(StateVersionError):
            await store.set(snap(9, reason=str(n)), expected=4)

    assert [str(n) for n in range(299, 43, -1)] == [one.attempted.reason for one in store.conflicts.newest_first()]
    assert 300 == store.conflicts.version_conflicts
