"""What the API answers, as structs. Some are filled in by the handlers; others describe bytes that come from elsewhere."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from sidecar.conflicts import Conflict, ConflictKind, Expectation
from sidecar.dispatch.acks import Acks
from sidecar.dispatch.subscriber import Reason, Status
from sidecar.dispatch.webhook import Outcome
from sidecar.document import SnapshotDocument
from sidecar.errors import Holder, Standing
from sidecar.machine import Enforcement


class State(msgspec.Struct, frozen=True):
    """A state with its place in the journal: its name and the revision. Webhooks carry the same."""

    epoch: str
    revision: int
    snapshot: SnapshotDocument


class Written(State, frozen=True):
    """A state that was written. `acks`: the acknowledgements that were waited for."""

    acks: Acks | UnsetType = UNSET


class DryRun(msgspec.Struct, frozen=True):
    """What a write would have stored."""

    epoch: str
    dry_run: Literal[True]
    snapshot: SnapshotDocument


class Numbers(msgspec.Struct, frozen=True):
    """The store's numbers: counts since the start, times in seconds."""

    total_sets: int
    total_gets: int
    version_conflicts: int
    subscriber_count: int
    last_update_ts: float
    creation_ts: float
    notifications_sent: int
    notifications_failed: int
    dead_subscribers_removed: int
    uptime_seconds: float
    current_version: int
    current_state: str
    active_subscribers: int
    max_subscribers: int
    queue_size: int


class Meta(msgspec.Struct, frozen=True):
    """What the store knows about itself. `current_version` -1: there is no state yet."""

    store_metrics: Numbers
    subscriber_count: int
    has_state: bool
    current_version: int
    max_subscribers: int
    queue_size: int


class StateMeta(msgspec.Struct, frozen=True):
    """The state, null while there is none (revision 0), and what the store knows about itself."""

    epoch: str
    revision: int
    snapshot: SnapshotDocument | None
    meta: Meta


class History(msgspec.Struct, frozen=True):
    """A page of the journal, and which revisions are kept: from `oldest` to `head`."""

    epoch: str
    oldest: int
    head: int
    entries: tuple[State, ...]


class ConflictList(msgspec.Struct, frozen=True):
    """The newest conflicts, and how many there were of each kind."""

    counts: dict[ConflictKind, int]
    conflicts: tuple[Conflict, ...]


class MachineView(msgspec.Struct, frozen=True):
    """The machine and where the agent is. `transitions` null: all are allowed; `allowed`: where it may go from here."""

    agent: str
    name: str
    states: list[str]
    fault_states: list[str]
    initial: str | None
    transitions: dict[str, list[str]] | None
    enforcement: Enforcement
    current: str | None
    allowed: list[str]


class HealthView(msgspec.Struct, frozen=True):
    """The store's health: what fails, and what only warns. `timestamp`: seconds since the Unix epoch."""

    healthy: bool
    issues: tuple[str, ...]
    warnings: tuple[str, ...]
    metrics: Numbers
    timestamp: float


class Eviction(msgspec.Struct, frozen=True):
    """When a subscriber was evicted, in seconds since the Unix epoch, and why."""

    at: float
    reason: Reason | None


class SubscriberView(msgspec.Struct, frozen=True):
    """A subscriber: its settings, its status, how far it got. Null: the configuration's default; nothing yet.

    `secret` is there once: when it was made just now.
    """

    id: str
    url: str
    timeout: str | None
    max_lag: int | None
    on: tuple[Literal["transition", "update"], ...]
    states: tuple[str, ...] | None
    max_batch: int
    source: Literal["config", "api"]
    status: Status
    cursor: int | None
    lag: int
    failures: int
    last_outcome: str | None
    last_http_status: int | None
    last_success_at: float | None
    evicted: Eviction | None
    secret: str | UnsetType = UNSET


class SubscriberList(msgspec.Struct, frozen=True):
    """Everybody."""

    subscribers: list[SubscriberView]


class Ping(msgspec.Struct, frozen=True):
    """How one message went, and how long it took."""

    outcome: Outcome
    status: int | None
    seconds: float


class Rotation(msgspec.Struct, frozen=True):
    """The new secret, and until when the old one signs too, in seconds since the Unix epoch. Null: there was none."""

    id: str
    secret: str
    previous_valid_until: float | None


class Lease(msgspec.Struct, frozen=True):
    """The writer and its token. `expires_at`: seconds since the Unix epoch."""

    name: str
    token: str
    expires_at: float


class WriterView(msgspec.Struct, frozen=True):
    """Who may write, and who has the lease, null: nobody had it yet."""

    writers: Literal["any", "exclusive"]
    holder: Holder | None


class Beat(msgspec.Struct, frozen=True):
    """Until when the next heartbeat has to come, in seconds since the Unix epoch. `state` null: there is none yet."""

    expires_at: float
    ttl: str
    state: str | None


class Problem(msgspec.Struct, frozen=True):
    """An error (RFC 9457). `detail` says what to do; a `type` may bring members of its own."""

    type: str
    title: str
    status: int
    detail: str
    path: str | UnsetType = UNSET
    expected: Expectation | UnsetType = UNSET
    current: Standing | UnsetType = UNSET
    state: str | UnsetType = UNSET
    to: str | UnsetType = UNSET
    allowed: tuple[str, ...] | UnsetType = UNSET
    limit: int | UnsetType = UNSET
    oldest: int | UnsetType = UNSET
    rule: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    holder: Holder | UnsetType | None = UNSET
    outcome: Literal["unknown"] | UnsetType = UNSET


SPARSE: tuple[type[Any], ...] = (Expectation,)
"""Those that leave out what is not set."""
