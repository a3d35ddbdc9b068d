"""The sections of the file: what each key is, and its default."""

from typing import Annotated, Literal

import msgspec

from sidecar.config.values import (
    MAX_BATCH,
    MAX_STATES,
    Amount,
    BodySize,
    Changes,
    Count,
    Duration,
    Dwells,
    HeaderSize,
    HostName,
    Interval,
    JournalPath,
    JournalSize,
    LabelValue,
    Mode,
    Networks,
    Origin,
    Pause,
    Reserve,
    Scopes,
    State,
    SubscriberId,
    Timeout,
    Transitions,
    Url,
    between,
    length,
)
from sidecar.tls import Files
from sidecar.units import Bytes, Listen, Seconds


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of the file. A field's `name` is its key; Python names put the unit last."""


class Fsm(Struct, frozen=True, kw_only=True):
    """The machine. Without `transitions` every move is allowed; `initial` null starts empty.

    `fault_states` null: ERROR_STATE, where it is one of the states.
    """

    name: LabelValue = "default"
    states: Annotated[tuple[State, ...], length(1, MAX_STATES)] = (
        "UNSPECIFIED",
        "BOOTING",
        "IDLE",
        "ACTIVE",
        "ERROR_STATE",
        "SHUTDOWN",
    )
    initial: str | None = "BOOTING"
    transitions: Transitions | None = None
    enforcement: Literal["enforce", "warn", "off"] = "enforce"
    history_limit: Annotated[int, between(0, 1000)] = 16
    max_dwell: Dwells | None = None
    fault_states: Annotated[tuple[str, ...], length(0, MAX_STATES)] | None = None


class Store(Struct, frozen=True, kw_only=True):
    """`max_subscribers` bounds all subscribers together; `queue_size` is for readers in the same process."""

    max_subscribers: Annotated[int, between(1, 100_000)] = 1000
    queue_size: Count = 64


class Idempotency(Struct, frozen=True, kw_only=True):
    """How long the answer to a write with an Idempotency-Key is kept, and how many such answers."""

    ttl_seconds: Duration = msgspec.field(default=Seconds(600), name="ttl")
    max_keys: Annotated[int, between(1, 1_000_000)] = 10_000


class LastWill(Struct, frozen=True, kw_only=True):
    """Where the sidecar puts an agent that has gone silent. `unless` null: SHUTDOWN, where it is one of the states."""

    state: str
    reason: LabelValue = "AGENT_LOST"
    unless: Annotated[tuple[str, ...], length(0, MAX_STATES)] | None = None


class Heartbeat(Struct, frozen=True, kw_only=True):
    """How soon a heartbeat is expected after the one before: unless that says otherwise, and at most."""

    ttl_seconds: Duration = msgspec.field(default=Seconds(15), name="ttl")
    max_ttl_seconds: Duration = msgspec.field(default=Seconds(3600), name="max_ttl")
    last_will: LastWill | None = None


class Lease(Struct, frozen=True, kw_only=True):
    """How long a writer has the lease without renewing it: unless it asks for another time, and at most."""

    ttl_seconds: Duration = msgspec.field(default=Seconds(30), name="ttl")
    max_ttl_seconds: Duration = msgspec.field(default=Seconds(3600), name="max_ttl")


class Writes(Struct, frozen=True, kw_only=True):
    """What a write over HTTP must bring."""

    require_precondition: bool = False
    max_body_bytes: BodySize = msgspec.field(default=Bytes(256 << 10), name="max_body")
    max_queue: Count = 1024
    timeout_seconds: Duration = msgspec.field(default=Seconds(10), name="timeout")
    idempotency: Idempotency = Idempotency()
    writers: Literal["any", "exclusive"] = "any"
    lease: Lease = Lease()


class Retention(Struct, frozen=True, kw_only=True):
    """How much history stays: the newest revisions within all three bounds."""

    revisions: Count = 100_000
    age_seconds: Duration = msgspec.field(default=Seconds(7 * 86400), name="age")
    size_bytes: JournalSize = msgspec.field(default=Bytes(256 << 20), name="bytes")


class Journal(Struct, frozen=True, kw_only=True):
    """Where revisions are kept."""

    backend: Literal["sqlite", "memory"] = "sqlite"
    path: JournalPath = "journal.db"
    retention: Retention = Retention()
    min_free_bytes: Reserve = msgspec.field(default=Bytes(64 << 20), name="min_free")
    ballast_bytes: Reserve = msgspec.field(default=Bytes(8 << 20), name="ballast")


class Token(Struct, frozen=True, kw_only=True):
    """Who may do what: whoever has a token of the file. `name` is how the log and the metrics call them."""

    name: LabelValue
    file: str
    scopes: Scopes


class Socket(Struct, frozen=True, kw_only=True):
    """Who may connect, where the API listens on a Unix socket. `gids`: primary groups. No ids: whoever the mode lets."""

    mode: Mode = "0600"
    uids: Annotated[tuple[Amount, ...], length(0, 32)] = ()
    gids: Annotated[tuple[Amount, ...], length(0, 32)] = ()


class Tls(Struct, frozen=True, kw_only=True):
    """PEM files. `client_ca_file`: clients need a certificate of this CA."""

    cert_file: str | None = None
    key_file: str | None = None
    client_ca_file: str | None = None

    @property
    def files(self) -> Files | None:
        """Where the API speaks TLS."""
        return Files(self.cert_file, self.key_file, self.client_ca_file) if self.cert_file and self.key_file else None


class ApiLimits(Struct, frozen=True, kw_only=True):
    """What clients may take: of connections, of requests at once, of time, and of headers."""

    connections: Annotated[int, between(1, 100_000)] = 1024
    connections_per_peer: Annotated[int, between(1, 100_000)] = 256
    requests: Annotated[int, between(1, 100_000)] = 256
    ack_waits: Annotated[int, between(1, 10_000)] = 64
    header_timeout_seconds: Duration = msgspec.field(default=Seconds(5), name="header_timeout")
    request_timeout_seconds: Duration = msgspec.field(default=Seconds(15), name="request_timeout")
    write_timeout_seconds: Duration = msgspec.field(default=Seconds(30), name="write_timeout")
    keep_alive_seconds: Duration = msgspec.field(default=Seconds(15), name="keep_alive")
    headers: Annotated[int, between(8, 1000)] = 64
    header_size_bytes: HeaderSize = msgspec.field(default=Bytes(4 << 10), name="header_size")


class Api(Struct, frozen=True, kw_only=True):
    """The agent's side. `max_auth_failures`: requests without a valid token, per second and peer.

    `hosts`: names by which it may be called. `cors`: origins of pages that may call it.
    """

    listen: Listen = Listen.parse("127.0.0.1:8470")
    auth: Literal["loopback", "none"] = "loopback"
    tokens: Annotated[tuple[Token, ...], length(0, 16)] = ()
    max_auth_failures: Count = 10
    hosts: Annotated[tuple[HostName, ...], length(0, 32)] = ()
    cors: Annotated[tuple[Origin, ...], length(0, 32)] = ()
    socket: Socket = Socket()
    tls: Tls = Tls()
    limits: ApiLimits = ApiLimits()


class Ops(Struct, frozen=True, kw_only=True):
    """The side of the kubelet and of Prometheus."""

    listen: Listen = Listen.parse("0.0.0.0:8471")
    connections: Annotated[int, between(4, 10_000)] = 64


class EvictAfter(Struct, frozen=True, kw_only=True):
    """A subscriber is given up after that many failures and that long without a success."""

    failures: Count = 10
    time_seconds: Duration = msgspec.field(default=Seconds(900), name="time")


class TargetSettings(Struct, frozen=True, kw_only=True):
    """Which addresses may be called. `allow` and `deny` are about addresses; some are never called, whatever is allowed."""

    loopback: bool = True
    private: bool = True
    public: Literal["https", "any", "none"] = "https"
    allow: Networks = ()
    deny: Networks = ()


class Webhooks(Struct, frozen=True, kw_only=True):
    """How subscribers are called. `max_lag` counts revisions; 0: only the latest."""

    timeout_seconds: Timeout = msgspec.field(default=Seconds(5), name="timeout")
    connect_timeout_seconds: Timeout = msgspec.field(default=Seconds(2), name="connect_timeout")
    dns_timeout_seconds: Timeout = msgspec.field(default=Seconds(2), name="dns_timeout")
    retry_seconds: Annotated[tuple[Duration, ...], length(1)] = msgspec.field(
        default=(Seconds(0.5), Seconds(1), Seconds(2), Seconds(5), Seconds(15), Seconds(30)), name="retry"
    )
    probe_interval_seconds: Duration = msgspec.field(default=Seconds(60), name="probe_interval")
    max_retry_after_seconds: Duration = msgspec.field(default=Seconds(300), name="max_retry_after")
    evict_after: EvictAfter = EvictAfter()
    tombstone_seconds: Duration = msgspec.field(default=Seconds(86400), name="tombstone")
    max_lag: Amount = 1024
    max_in_flight: Count = 64
    secret_overlap_seconds: Pause = msgspec.field(default=Seconds(86400), name="secret_overlap")
    targets: TargetSettings = TargetSettings()


class Subscriber(Struct, frozen=True, kw_only=True):
    """A subscriber that is always there. What it does not say comes from `webhooks`."""

    id: SubscriberId
    url: Url
    secret_file: str | None = None
    timeout_seconds: Timeout | None = msgspec.field(default=None, name="timeout")
    max_lag: Amount | None = None
    on: Changes = ("transition", "update")
    states: Annotated[tuple[str, ...], length(1, MAX_STATES)] | None = None
    max_batch: Annotated[int, between(1, MAX_BATCH)] = 1


class Watch(Struct, frozen=True, kw_only=True):
    """Those who follow the state over a connection of their own. `max_lag` counts revisions; 0: only the latest."""

    max_watchers: Annotated[int, between(1, 100_000)] = 1000
    max_lag: Amount = 256
    heartbeat_seconds: Interval = msgspec.field(default=Seconds(15), name="heartbeat")


class Health(Struct, frozen=True, kw_only=True):
    """When the health check complains."""

    conflict_ratio: Annotated[float, between(0.0, 1.0)] = 0.10
    window_seconds: Duration = msgspec.field(default=Seconds(300), name="window")
    stale_after_seconds: Duration = msgspec.field(default=Seconds(60), name="stale_after")
    update_expected: bool = False


class Metrics(Struct, frozen=True, kw_only=True):
    """How the metrics name the agent and its writers. `agent` null: the host's name, which is the pod's."""

    agent: LabelValue | None = None
    writers: Annotated[tuple[LabelValue, ...], length(0, 16)] = ()
    subscriber_series: Annotated[int, between(0, 1000)] = 50


class Shutdown(Struct, frozen=True, kw_only=True):
    """How the pod's grace period is spent."""

    drain_delay_seconds: Pause = msgspec.field(default=Seconds(2), name="drain_delay")
    flush_timeout_seconds: Pause = msgspec.field(default=Seconds(5), name="flush_timeout")
    grace_period_seconds: Duration = msgspec.field(default=Seconds(30), name="grace_period")


class Logging(Struct, frozen=True, kw_only=True):
    """`auto`: coloured lines on a terminal, JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(Struct, frozen=True, kw_only=True):
    """The whole file."""

    fsm: Fsm = Fsm()
    store: Store = Store()
    writes: Writes = Writes()
    heartbeat: Heartbeat = Heartbeat()
    journal: Journal = Journal()
    api: Api = Api()
    ops: Ops = Ops()
    webhooks: Webhooks = Webhooks()
    subscribers: tuple[Subscriber, ...] = ()
    watch: Watch = Watch()
    health: Health = Health()
    metrics: Metrics = Metrics()
    shutdown: Shutdown = Shutdown()
    logging: Logging = Logging()
