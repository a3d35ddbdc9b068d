"""A snapshot as a JSON document: the same bytes in the journal, in an API answer and in a webhook.

States and transition statuses are written by name.
"""

from enum import IntEnum
from typing import Any, TypeVar

import msgspec

from sidecar.errors import InvalidSnapshotError
from sidecar.snapshot import FsmSnapshot, FsmTransition, TransitionStatus


class TransitionDocument(msgspec.Struct, frozen=True):
    """An `FsmTransition` in JSON."""

    from_state: str
    to_state: str
    trigger_event: str = ""
    status: str = TransitionStatus.SUCCESS.name
    error_message: str = ""
    ts_mono: float = 0.0
    ts_wall: float = 0.0


class _StateOnly(msgspec.Struct, frozen=True):
    state: str


class SnapshotDocument(msgspec.Struct, frozen=True):
    """An `FsmSnapshot` in JSON, field for field."""

    version: int
    state: str
    reason: str = ""
    ts_mono: float = 0.0
    ts_wall: float = 0.0
    snapshot_id: str = ""
    fsm_instance_id: str = ""
    prev_state: str | None = None
    source_module: str = "fsm_handler"
    attempt_count: int = 0
    history: tuple[TransitionDocument, ...] = ()
    context_data: dict[str, Any] = {}
    state_metadata: dict[str, Any] = {}


_STATUSES = TransitionStatus.__members__

_Names = TypeVar("_Names", bound=IntEnum)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SnapshotDocument).decode
_decode_state = msgspec.json.Decoder(_StateOnly).decode


def encode_document(document: SnapshotDocument) -> bytes:
    """The document's bytes. Raises `InvalidSnapshotError` when a value in it has no JSON form."""
    try:
        return _encode(document)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidSnapshotError(f"the snapshot has a value without a JSON form: {error}") from error


def decode_document(body: bytes) -> SnapshotDocument:
    """The document in the journal's bytes."""
    return _decode(body)


def document_of(snapshot: FsmSnapshot) -> SnapshotDocument:
    """The snapshot as a document. Raises `InvalidSnapshotError` for a value that could not be read back from one."""
    try:
        document = SnapshotDocument(
            snapshot.version,
            snapshot.state.name,
            snapshot.reason,
            snapshot.ts_mono,
            snapshot.ts_wall,
            snapshot.snapshot_id,
            snapshot.fsm_instance_id,
            None if snapshot.prev_state is None else snapshot.prev_state.name,
            snapshot.source_module,
            snapshot.attempt_count,
            tuple(_transition_document(transition) for transition in snapshot.history) if snapshot.history else (),
            snapshot.context_data,
            snapshot.state_metadata,
        )
        _decode(encode_document(document))
    except AttributeError as error:
        raise InvalidSnapshotError(f"states have to be members of the machine's states: {error}") from None
    except msgspec.ValidationError as error:
        detail, path = split_path(error)
        raise InvalidSnapshotError(detail, path=path) from None
    return document


def split_path(error: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec found wrong, and its JSON path."""
    detail, _, path = str(error).partition(" - at `")
    return detail[:200], path.rstrip("`") or "$"


def _transition_document(transition: FsmTransition) -> TransitionDocument:
    return TransitionDocument(
        transition.from_state.name,
        transition.to_state.name,
        transition.trigger_event,
        transition.status.name,
        transition.error_message,
        transition.ts_mono,
        transition.ts_wall,
    )


def state_of(body: bytes) -> str:
    """The name of the state in `body`, without decoding the rest."""
    return _decode_state(body).state


def check_names(document: SnapshotDocument, states: type[IntEnum]) -> None:
    """Raises `InvalidSnapshotError` with the path of a name that is not a state, or not a transition's status."""
    names = states.__members__
    if document.state not in names:
        _member(states, document.state, "$.state")  # which tells what is wrong with it
    if document.prev_state is not None and document.prev_state not in names:
        _member(states, document.prev_state, "$.prev_state")
    for n, item in enumerate(document.history):
        if item.from_state not in names or item.to_state not in names or item.status not in _STATUSES:
            _transition_of(item, states, f"$.history[{n}]")


def snapshot_of(document: SnapshotDocument, states: type[IntEnum]) -> FsmSnapshot:
    """The document's snapshot, its names looked up. Raises `InvalidSnapshotError` as `check_names` does."""
    return FsmSnapshot(
        document.version,
        _member(states, document.state, "$.state"),
        document.reason,
        document.ts_mono,
        document.ts_wall,
        document.snapshot_id,
        document.fsm_instance_id,
        None if document.prev_state is None else _member(states, document.prev_state, "$.prev_state"),
        document.source_module,
        document.attempt_count,
        tuple(_transition_of(item, states, f"$.history[{n}]") for n, item in enumerate(document.history)),
        document.context_data,
        document.state_metadata,
    )


def _transition_of(document: TransitionDocument, states: type[IntEnum], path: str) -> FsmTransition:
    return FsmTransition(
        _member(states, document.from_state, f"{path}.from_state"),
        _member(states, document.to_state, f"{path}.to_state"),
        document.trigger_event,
        _member(TransitionStatus, document.status, f"{path}.status"),
        document.error_message,
        document.ts_mono,
        document.ts_wall,
    )


def _member(members: type[_Names], name: str, path: str) -> _Names:
    try:
        return members[name]
    except KeyError:
        raise InvalidSnapshotError(f"expected one of {', '.join(members.__members__)}", path=path) from None
