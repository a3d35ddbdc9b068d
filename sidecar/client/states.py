"""What a client gives back: states with their place in the journal, and what a watch sees."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import msgspec

from sidecar.client.problems import UnavailableError
from sidecar.conflicts import Attempt
from sidecar.document import SnapshotDocument, snapshot_of
from sidecar.errors import Holder, Standing
from sidecar.snapshot import FsmSnapshot


class Position(NamedTuple):
    """A place in a journal. As text it is the id of the event that carried it."""

    epoch: str
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.revision}"


@dataclass(frozen=True, slots=True)
class Acks:
    """How many subscribers were to acknowledge a revision, how many did in time, and who did not: at most 100 ids."""

    wanted: int
    acknowledged: int
    complete: bool
    waiting_for: list[str]


@dataclass(frozen=True, slots=True)
class State:
    """A durable state and its place in the journal. `replayed`: the answer to an earlier try of the same write.

    `acks`: of a write that waited for them.
    """

    epoch: str
    revision: int
    snapshot: FsmSnapshot
    replayed: bool = False
    acks: Acks | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A watch sees a state. `initial`: it was there before; `skipped`: revisions passed over since `previous_revision`."""

    epoch: str
    revision: int
    previous_revision: int
    skipped: int
    initial: bool
    snapshot: FsmSnapshot

    @property
    def position(self) -> Position:
        """Where a watch can go on after it."""
        return Position(self.epoch, self.revision)


@dataclass(frozen=True, slots=True)
class Gap:
    """A watch will not see some revisions: those between `previous_revision` and `revision`, the next that it sees.

    `reason` is the sidecar's word for it, or `unseen` where only the client noticed.
    """

    epoch: str
    revision: int
    previous_revision: int
    skipped: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lease:
    """This client is the writer, by its token. From `expires_at` (seconds since the Unix epoch) on anybody may become it."""

    name: str
    token: str
    expires_at: float


class WriterAnswer(msgspec.Struct, frozen=True):
    """What a client has to know of `GET /v1/writer`."""

    holder: Holder | None


class BeatAnswer(msgspec.Struct, frozen=True):
    """What a client has to know of the answer to a heartbeat."""

    expires_at: float


class StateAnswer(msgspec.Struct, frozen=True):
    """Every answer about a state."""

    epoch: str
    revision: int
    snapshot: SnapshotDocument
    acks: Acks | None = None

    def typed(self, states: type[IntEnum], *, replayed: bool = False) -> State:
        """With the snapshot as Python users see it."""
        return State(self.epoch, self.revision, snapshot_of(self.snapshot, states), replayed, self.acks)


class ChangeData(StateAnswer, frozen=True, kw_only=True):
    """The data of a watch's `state`."""

    previous_revision: int = 0
    skipped: int = 0
    initial: bool = False

    def change(self, states: type[IntEnum]) -> Change:
        """With the snapshot as Python users see it."""
        snapshot = snapshot_of(self.snapshot, states)
        return Change(self.epoch, self.revision, self.previous_revision, self.skipped, self.initial, snapshot)


class DryRunAnswer(msgspec.Struct, frozen=True):
    """What a write would store."""

    snapshot: SnapshotDocument


class MetaAnswer(msgspec.Struct, frozen=True):
    """`GET /v1/state/meta`."""

    epoch: str
    revision: int
    snapshot: SnapshotDocument | None
    meta: dict[str, Any]


class HistoryAnswer(msgspec.Struct, frozen=True):
    """`GET /v1/history`."""

    oldest: int
    head: int
    entries: tuple[StateAnswer, ...]


class MachineAnswer(msgspec.Struct, frozen=True):
    """What a client has to know of `GET /v1/machine`."""

    states: tuple[str, ...]
    initial: str | None = None


class Conflict(msgspec.Struct, frozen=True):
    """One write that met another: who tried what, against whom. `at` in seconds since the Unix epoch.

    Kind `masked`: it was accepted under a new version, over the state `against`. All other kinds: rejected.
    """

    at: float
    kind: str
    reason: str
    attempted: Attempt
    against: Standing


class ConflictsAnswer(msgspec.Struct, frozen=True):
    """`GET /v1/conflicts`."""

    conflicts: list[Conflict]


_Decoded = TypeVar("_Decoded")


def decoded(body: bytes | str, kind: type[_Decoded]) -> _Decoded:
    """The answer as a struct. Raises `UnavailableError` for what no sidecar answers."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise UnavailableError(f"the answer is not that of a sidecar: {wrong}", outcome="unknown") from None
