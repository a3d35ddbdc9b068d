"""Snapshots, transitions and their JSON: values that follow from one another and can never be changed."""

import copy
import dataclasses
import json
import math
import pickle
import time
import uuid

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import FsmSnapshot, FsmState, FsmTransition, TransitionStatus, create_transition, initial_snapshot, next_snapshot
from sidecar.document import decode_document, document_of, encode_document, snapshot_of, state_of
from sidecar.errors import InvalidSnapshotError
from sidecar.frozen import MAX_DEPTH, thaw
from sidecar.machine import Machine

DATA = {"goal": {"steps": ["look", {"at": 1}]}, "tags": ["a", "b"]}


def encoded(snapshot):
    return encode_document(document_of(snapshot))


def decoded(body, states=FsmState):
    return snapshot_of(decode_document(body), states)


@pytest.fixture
def snapshot():
    history = (create_transition(FsmState.BOOTING, FsmState.IDLE, "ready"),)
    told = {"context_data": DATA, "state_metadata": {"n": 1}}
    return FsmSnapshot(3, FsmState.IDLE, "ready", prev_state=FsmState.BOOTING, history=history, **told)


# --- the enums ---


def test_states_and_statuses_keep_the_ancestors_numbers():
    """Both enums are closed sets."""
    states = {"UNSPECIFIED": 0, "BOOTING": 1, "IDLE": 2, "ACTIVE": 3, "ERROR_STATE": 4, "SHUTDOWN": 5}
    statuses = {"UNSPECIFIED": 0, "SUCCESS": 1, "FAILED": 2, "PENDING": 3}

    assert states == {state.name: state.value for state in FsmState}
    assert statuses == {status.name: status.value for status in TransitionStatus}


# --- defaults and what is filled in ---


def test_a_snapshot_has_the_ancestors_defaults():
    """Everything but version and state may be left out."""
    bare = FsmSnapshot(version=1, state=FsmState.IDLE)

    assert (1, FsmState.IDLE, "", None) == (bare.version, bare.state, bare.reason, bare.prev_state)
    assert ("fsm_handler", 0, ()) == (bare.source_module, bare.attempt_count, bare.history)
    assert ({}, {}) == (bare.context_data, bare.state_metadata)


def test_missing_ids_are_filled_in_with_uuids():
    """Each snapshot made without ids gets random UUIDs (version 4) of its own."""
    made = [FsmSnapshot(0, FsmState.IDLE) for _ in range(50)]
    ids = {identity for one in made for identity in (one.snapshot_id, one.fsm_instance_id)}

    assert 100 == len(ids)
    assert all(str(uuid.UUID(identity, version=4)) == identity for identity in ids)


def test_missing_times_are_filled_in_with_now():
    """Times of 0 become the monotonic and the wall clock's seconds."""
    before = time.monotonic(), time.time()
    for made in (FsmSnapshot(0, FsmState.IDLE), create_transition(FsmState.IDLE, FsmState.ACTIVE, "go")):
        assert before[0] <= made.ts_mono <= time.monotonic()
        assert before[1] <= made.ts_wall <= time.time()


def test_given_ids_and_times_are_kept():
    """Nothing that the caller gave is replaced."""
    made = FsmSnapshot(0, FsmState.IDLE, ts_mono=1.5, ts_wall=2.5, snapshot_id="s", fsm_instance_id="i")

    assert (1.5, 2.5, "s", "i") == (made.ts_mono, made.ts_wall, made.snapshot_id, made.fsm_instance_id)


def test_the_initial_snapshot_is_a_cold_start():
    """An agent that has just been started: version 0, BOOTING."""
    first = initial_snapshot()

    assert (0, FsmState.BOOTING) == (first.version, first.state)
    assert ("COLD_START", "initial_boot") == (first.reason, first.source_module)


def test_create_transition_takes_the_ancestors_arguments():
    """By name and by position, success by default."""
    failed = create_transition(FsmState.IDLE, FsmState.ACTIVE, trigger="go", status=TransitionStatus.FAILED, error_msg="no")

    assert (
        FsmTransition(FsmState.IDLE, FsmState.ACTIVE, "go", TransitionStatus.FAILED, "no", failed.ts_mono, failed.ts_wall)
        == failed
    )
    assert TransitionStatus.SUCCESS is create_transition(FsmState.IDLE, FsmState.ACTIVE, "go").status


# --- what follows from what ---


def test_a_change_of_state_counts(snapshot):
    """Version and attempt count grow by one, the state left behind is remembered, the instance stays."""
    successor = next_snapshot(snapshot, FsmState.ACTIVE, "go")

    assert (4, 1) == (successor.version, successor.attempt_count)
    assert (FsmState.ACTIVE, FsmState.IDLE, "go") == (successor.state, successor.prev_state, successor.reason)
    assert snapshot.fsm_instance_id == successor.fsm_instance_id
    assert snapshot.snapshot_id != successor.snapshot_id
    assert (snapshot.history, DATA) == (successor.history, successor.context_data)
    assert snapshot.ts_mono <= successor.ts_mono


def test_an_update_in_the_same_state_does_not_count(snapshot):
    """Version, attempt count and previous state stay; id and reason are new."""
    successor = next_snapshot(snapshot, FsmState.IDLE, "still here")

    assert (3, 0, FsmState.BOOTING) == (successor.version, successor.attempt_count, successor.prev_state)
    assert "still here" == successor.reason
    assert snapshot.snapshot_id != successor.snapshot_id


@pytest.mark.parametrize("to", [FsmState.IDLE, FsmState.ACTIVE])
def test_a_given_transition_joins_the_history(snapshot, to):
    """Whether the state changes or not."""
    transition = create_transition(FsmState.IDLE, to, "go")

    assert (*snapshot.history, transition) == next_snapshot(snapshot, to, "go", transition).history


@pytest.mark.parametrize(("max_history", "kept"), [(None, 5), (9, 5), (5, 5), (4, 4), (1, 1), (0, 0)])
def test_add_transition_keeps_the_newest(max_history, kept):
    """At most `max_history` transitions, the newest ones; by default all."""
    moves = tuple(create_transition(FsmState.IDLE, FsmState.ACTIVE, str(n)) for n in range(5))
    before = FsmSnapshot(1, FsmState.ACTIVE, history=moves[:4])

    after = before.add_transition(moves[4], max_history)

    assert moves[5 - kept :] == after.history
    assert moves[:4] == before.history
    assert before.snapshot_id == after.snapshot_id


# --- nothing can be changed ---

CHANGES = {
    "set a key": lambda s: s.context_data.__setitem__("goal", 1),
    "update": lambda s: s.context_data.update(goal=1),
    "|=": lambda s: s.context_data.__ior__({"goal": 1}),
    "pop": lambda s: s.context_data.pop("goal"),
    "clear": lambda s: s.context_data.clear(),
    "a nested object": lambda s: s.context_data["goal"].update(steps=[]),
    "an object in an array": lambda s: s.context_data["goal"]["steps"][1].clear(),
    "append": lambda s: s.context_data["tags"].append("c"),
    "extend": lambda s: s.context_data["tags"].extend("c"),
    "+=": lambda s: s.context_data["tags"].__iadd__(["c"]),
    "set an item": lambda s: s.context_data["tags"].__setitem__(0, "c"),
    "sort": lambda s: s.context_data["tags"].sort(),
    "the metadata": lambda s: s.state_metadata.update(n=2),
    "the history": lambda s: s.history.__setitem__(0, None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_inside_a_snapshot_can_be_changed(snapshot, change):
    """Every mutator raises, at every depth, and leaves the snapshot as it was."""
    with pytest.raises((TypeError, AttributeError)):
        change(snapshot)

    assert DATA == snapshot.context_data


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(FsmSnapshot)])
def test_no_field_of_a_snapshot_can_be_set(snapshot, name):
    """Frozen, like its transitions."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(snapshot, name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.history[0].trigger_event = "other"


def test_a_snapshot_does_not_follow_what_it_was_made_of():
    """Changing the caller's dicts and lists afterwards changes nothing."""
    data, history = copy.deepcopy(DATA), []
    made = FsmSnapshot(0, FsmState.IDLE, context_data=data, history=history)
    data["goal"]["steps"].append("more")
    data["tags"].clear()
    history.append(None)

    assert (DATA, ()) == (made.context_data, made.history)


@pytest.mark.parametrize("value", [{1}, bytearray(b"x")], ids=repr)
def test_no_mutable_value_finds_its_way_in(value):
    """What can be changed and is neither a dict nor a list is refused: a JSON object has no such value."""
    with pytest.raises((ValueError, TypeError, InvalidSnapshotError)):
        encoded(FsmSnapshot(0, FsmState.IDLE, context_data={"value": value}))


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda snapshot: pickle.loads(pickle.dumps(snapshot)),  # noqa: S301  (our own bytes)
    "replace": dataclasses.replace,
    "JSON": lambda snapshot: decoded(encoded(snapshot)),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_a_copy_is_equal_and_just_as_read_only(snapshot, duplicate):
    """However it is made."""
    twin = duplicate(snapshot)

    assert snapshot == twin
    assert hash(snapshot) == hash(twin)
    with pytest.raises(TypeError):
        twin.context_data["goal"]["steps"].append("more")


def test_read_only_data_behaves_like_plain_data(snapshot):
    """It compares, prints, encodes and converts as the dicts and lists it holds."""
    assert DATA == snapshot.context_data
    assert json.dumps(DATA) == json.dumps(snapshot.context_data)
    assert msgspec.json.encode(DATA) == msgspec.json.encode(snapshot.context_data)
    assert repr(DATA) == repr(snapshot.context_data)
    assert DATA == dataclasses.asdict(snapshot)["context_data"]


def test_thaw_gives_a_plain_copy_to_work_on(snapshot):
    """It can be changed freely, and the snapshot stays."""
    thaw(snapshot.context_data)["goal"]["steps"].append("more")

    assert DATA == snapshot.context_data == thaw(snapshot.context_data)


def test_nesting_has_a_limit():
    """At the limit it is taken, one level deeper refused: no body can exhaust the stack."""
    deep = {}
    for _ in range(MAX_DEPTH - 1):
        deep = {"in": deep}

    assert deep == FsmSnapshot(0, FsmState.IDLE, context_data=deep).context_data
    for inside in (deep, FsmSnapshot(0, FsmState.IDLE, context_data=deep).context_data):
        with pytest.raises(ValueError, match=f"deeper than {MAX_DEPTH}"):
            FsmSnapshot(0, FsmState.IDLE, context_data={"in": inside})


# --- the JSON ---


def test_states_and_statuses_are_written_by_name(snapshot):
    """Numbers mean nothing to a reader of the JSON."""
    document = json.loads(encoded(snapshot))

    assert ("IDLE", "BOOTING") == (document["state"], document["prev_state"])
    assert [("BOOTING", "IDLE", "SUCCESS")] == [(t["from_state"], t["to_state"], t["status"]) for t in document["history"]]
    assert [field.name for field in dataclasses.fields(FsmSnapshot)] == list(document)
    assert "IDLE" == state_of(encoded(snapshot))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=4)
states = st.sampled_from(FsmState)
seconds = st.floats(min_value=0, allow_infinity=False)
transitions = st.builds(
    FsmTransition, states, states, st.text(), st.sampled_from(TransitionStatus), st.text(), ts_mono=seconds, ts_wall=seconds
)
snapshots = st.builds(
    FsmSnapshot,
    version=st.integers(0, 2**53 - 1),
    state=states,
    reason=st.text(),
    ts_mono=seconds,
    ts_wall=seconds,
    snapshot_id=st.text(),
    fsm_instance_id=st.text(),
    prev_state=st.none() | states,
    source_module=st.text(),
    attempt_count=st.integers(0, 2**53 - 1),
    history=st.lists(transitions, max_size=3),
    context_data=json_objects,
    state_metadata=json_objects,
)


@settings(deadline=None)
@given(snapshots)
def test_a_snapshot_survives_its_json(original):
    """Whatever is in it: written and read again, it is the same, and so are the bytes."""
    body = encoded(original)

    assert original == decoded(body)
    assert body == encoded(decoded(body))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"state": "FLYING"}, "$.state"),
        ({"prev_state": "FLYING"}, "$.prev_state"),
        ({"history": [{"from_state": "FLYING", "to_state": "IDLE"}]}, "$.history[0].from_state"),
        (
            {"history": [{"from_state": "IDLE", "to_state": "IDLE"}] * 2 + [{"from_state": "IDLE", "to_state": "X"}]},
            "$.history[2].to_state",
        ),
        ({"history": [{"from_state": "IDLE", "to_state": "IDLE", "status": "MAYBE"}]}, "$.history[0].status"),
    ],
)
def test_an_unknown_name_is_refused_with_its_path(change, path):
    """The error says where it is and which names there are."""
    body = json.dumps({"version": 1, "state": "IDLE"} | change).encode()

    with pytest.raises(InvalidSnapshotError, match="expected one of UNSPECIFIED, ") as caught:
        decoded(body)
    assert path == caught.value.path


def test_names_are_looked_up_in_the_given_states():
    """A machine of one's own decodes to its own members."""
    machine = Machine.from_names(["OPEN", "SHUT"])

    assert machine.states["SHUT"] is decoded(b'{"version": 1, "state": "SHUT"}', machine.states).state
    with pytest.raises(InvalidSnapshotError, match="OPEN, SHUT"):
        decoded(b'{"version": 1, "state": "IDLE"}', machine.states)


FORMLESS = [object(), 1j, "\ud800", {None: 1}, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", FORMLESS, ids=["object", "complex", "surrogate", "null key", "NaN", "inf", "-inf"])
@pytest.mark.parametrize("field", ["context_data", "state_metadata"])
def test_a_value_without_json_form_is_refused(field, value):
    """When the snapshot is made or when it is written, but never silently turned into something else."""
    with pytest.raises((InvalidSnapshotError, ValueError), match="without a JSON form"):
        encoded(FsmSnapshot(0, FsmState.IDLE, **{field: {"value": value}}))
