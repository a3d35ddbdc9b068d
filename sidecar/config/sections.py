"""The sections of the file: what each key is, its default, and what a value must be beyond its type."""

import re
from collections.abc import Callable, Collection
from ipaddress import AddressValueError, IPv6Address, ip_network
from typing import Annotated, Any, Literal

import msgspec

from sidecar.config.problems import NOUNS, misfit
from sidecar.tls import Files
from sidecar.units import Bytes, Listen, Seconds

# What a value must be, beyond its type. A rule is called with the value and raises `ValueError` saying what is expected.

Rule = Callable[[Any], None]


def _between(low: float, high: float | None = None) -> Rule:
    noun = NOUNS[type(low)]
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"

    def check(value: float) -> None:
        if value < low or (high is not None and value > high):
            raise ValueError(f"expected {noun} {bounds}, got {value}")

    return check


def _length(low: int, high: int | None = None) -> Rule:
    bounds = f"{low} or more" if high is None else f"{low} to {high}"

    def check(items: Collection[Any]) -> None:
        if len(items) < low or (high is not None and len(items) > high):
            raise ValueError(f"expected {bounds} entries, got {len(items) or 'none'}")

    return check


def _state_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise misfit("a name of letters, digits and _, at most 64, not a digit first", name)
    if name == "mro" or name.startswith("_FsmState__") or (len(name) > 2 and name[0] == name[-1] == "_"):
        raise ValueError(f"{name} has a meaning of its own in Python; choose another name")


def _subscriber_id(text: str) -> None:
    if not _ID.fullmatch(text):
        raise misfit("an id of letters, digits, _ and -, at most 63, a letter or digit first", text)


def _url(url: str) -> None:
    match = _URL.fullmatch(url) if len(url) <= 2048 else None
    if not match or not 0 < int(match["port"] or 80) < 65536 or not _is_host(match["host"]):
        raise ValueError(  # without the URL, for it can hold a password
            "expected an http:// or https:// URL with a host, and without user, password and fragment,"
            " in at most 2048 ASCII characters"
        )


def _is_host(host: str) -> bool:
    try:
        return not host.startswith("[") or bool(IPv6Address(host[1:-1]))
    except AddressValueError:
        return False


def _label_value(text: str) -> None:
    if not (0 < len(text) <= 128 and text.isprintable()):
        raise misfit("a name of 1 to 128 printable characters", text)


def _network(text: str) -> None:
    try:
        ip_network(text)
    except ValueError:
        raise misfit("an address or a network such as 10.1.2.3 or 10.1.0.0/16", text) from None


def _host_name(text: str) -> None:
    if not _HOST_NAME.fullmatch(text):
        raise misfit("a host's name, without a port", text)


def _origin(text: str) -> None:
    if not _ORIGIN.fullmatch(text):
        raise ValueError("expected an origin as browsers send it, such as https://console.example.org: no path, no *")


def _mode(text: str) -> None:
    if not _MODE.fullmatch(text):
        raise misfit('a mode in octal digits, in quotes, such as "0660"', text)


def _journal_path(path: str) -> None:
    if path in ("", ":memory:"):
        raise ValueError("expected the path of a file; to keep nothing across a restart write `backend: memory`")


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_URL = re.compile(
    r"(?i:https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?][!\"$-\[\]-~]*)?"
)
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_ORIGIN = re.compile(r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?)(?::[0-9]{1,5})?")
_MODE = re.compile(r"0[0-7]{3}")
_MAX_STATES = 256
_SHORTEST, _LONGEST = Seconds(0.001), Seconds(365 * 86400)

Amount = Annotated[int, _between(0)]
Count = Annotated[int, _between(1)]
Duration = Annotated[Seconds, _between(_SHORTEST, _LONGEST)]
Pause = Annotated[Seconds, _between(Seconds(0), _LONGEST)]
Interval = Annotated[Seconds, _between(Seconds(0.1), Seconds(3600))]
Timeout = Annotated[Seconds, _between(_SHORTEST, Seconds(30))]
HeaderSize = Annotated[Bytes, _between(Bytes(1 << 10), Bytes(64 << 10))]
BodySize = Annotated[Bytes, _between(Bytes(1 << 10), Bytes(16 << 20))]
JournalSize = Annotated[Bytes, _between(Bytes(64 << 10))]
Reserve = Annotated[Bytes, _between(Bytes(0))]
State = Annotated[str, _state_name]
Targets = Annotated[tuple[str, ...], _length(0, _MAX_STATES)]
Transitions = Annotated[dict[str, Targets], _length(0, _MAX_STATES)]
Dwells = Annotated[dict[str, Duration], _length(0, _MAX_STATES)]
LabelValue = Annotated[str, _label_value]
SubscriberId = Annotated[str, _subscriber_id]
Networks = Annotated[tuple[Annotated[str, _network], ...], _length(0, 256)]
Changes = Annotated[tuple[Literal["transition", "update"], ...], _length(1)]
Scopes = Annotated[tuple[Literal["state:read", "state:write", "subscribe", "admin"], ...], _length(1, 4)]
MAX_BATCH = 100


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of the file. A field's `name` is its key; Python names put the unit last."""


class Fsm(Struct, frozen=True, kw_only=True):
    """The machine. Without `transitions` every move is allowed; `initial` null starts empty.

    `fault_states` null: ERROR_STATE, where it is one of the states.
    """

    name: LabelValue = "default"
    states: Annotated[tuple[State, ...], _length(1, _MAX_STATES)] = (
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
    history_limit: Annotated[int, _between(0, 1000)] = 16
    max_dwell: Dwells | None = None
    fault_states: Annotated[tuple[str, ...], _length(0, _MAX_STATES)] | None = None


class Store(Struct, frozen=True, kw_only=True):
    """`max_subscribers` bounds all subscribers together; `queue_size` is for readers in the same process."""

    max_subscribers: Annotated[int, _between(1, 100_000)] = 1000
    queue_size: Count = 64


class Idempotency(Struct, frozen=True, kw_only=True):
    """How long the answer to a write with an Idempotency-Key is kept, and how many such answers."""

    ttl_seconds: Duration = msgspec.field(default=Seconds(600), name="ttl")
    max_keys: Annotated[int, _between(1, 1_000_000)] = 10_000


class LastWill(Struct, frozen=True, kw_only=True):
    """Where the sidecar puts an agent that has gone silent. `unless` null: SHUTDOWN, where it is one of the states."""

    state: str
    reason: LabelValue = "AGENT_LOST"
    unless: Annotated[tuple[str, ...], _length(0, _MAX_STATES)] | None = None


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
    path: Annotated[str, _journal_path] = "journal.db"
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

    mode: Annotated[str, _mode] = "0600"
    uids: Annotated[tuple[Amount, ...], _length(0, 32)] = ()
    gids: Annotated[tuple[Amount, ...], _length(0, 32)] = ()


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

    connections: Annotated[int, _between(1, 100_000)] = 1024
    connections_per_peer: Annotated[int, _between(1, 100_000)] = 256
    requests: Annotated[int, _between(1, 100_000)] = 256
    header_timeout_seconds: Duration = msgspec.field(default=Seconds(5), name="header_timeout")
    request_timeout_seconds: Duration = msgspec.field(default=Seconds(15), name="request_timeout")
    write_timeout_seconds: Duration = msgspec.field(default=Seconds(30), name="write_timeout")
    keep_alive_seconds: Duration = msgspec.field(default=Seconds(15), name="keep_alive")
    headers: Annotated[int, _between(8, 1000)] = 64
    header_size_bytes: HeaderSize = msgspec.field(default=Bytes(4 << 10), name="header_size")


class Api(Struct, frozen=True, kw_only=True):
    """The agent's side. `max_auth_failures`: requests without a valid token, per second and peer.

    `hosts`: names by which it may be called. `cors`: origins of pages that may call it.
    """

    listen: Listen = Listen.parse("127.0.0.1:8470")
    auth: Literal["loopback", "none"] = "loopback"
    tokens: Annotated[tuple[Token, ...], _length(0, 16)] = ()
    max_auth_failures: Count = 10
    hosts: Annotated[tuple[Annotated[str, _host_name], ...], _length(0, 32)] = ()
    cors: Annotated[tuple[Annotated[str, _origin], ...], _length(0, 32)] = ()
    socket: Socket = Socket()
    tls: Tls = Tls()
    limits: ApiLimits = ApiLimits()


class Ops(Struct, frozen=True, kw_only=True):
    """The side of the kubelet and of Prometheus."""

    listen: Listen = Listen.parse("0.0.0.0:8471")
    connections: Annotated[int, _between(4, 10_000)] = 64


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
    retry_seconds: Annotated[tuple[Duration, ...], _length(1)] = msgspec.field(
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
    url: Annotated[str, _url]
    secret_file: str | None = None
    timeout_seconds: Timeout | None = msgspec.field(default=None, name="timeout")
    max_lag: Amount | None = None
    on: Changes = ("transition", "update")
    states: Annotated[tuple[str, ...], _length(1, _MAX_STATES)] | None = None
    max_batch: Annotated[int, _between(1, MAX_BATCH)] = 1


class Watch(Struct, frozen=True, kw_only=True):
    """Those who follow the state over a connection of their own. `max_lag` counts revisions; 0: only the latest."""

    max_watchers: Annotated[int, _between(1, 100_000)] = 1000
    max_lag: Amount = 256
    heartbeat_seconds: Interval = msgspec.field(default=Seconds(15), name="heartbeat")
    stalled_seconds: Duration = msgspec.field(default=Seconds(30), name="stalled")


class Health(Struct, frozen=True, kw_only=True):
    """When the health check complains."""

    conflict_ratio: Annotated[float, _between(0.0, 1.0)] = 0.10
    window_seconds: Duration = msgspec.field(default=Seconds(300), name="window")
    stale_after_seconds: Duration = msgspec.field(default=Seconds(60), name="stale_after")
    update_expected: bool = False


class Metrics(Struct, frozen=True, kw_only=True):
    """How the metrics name the agent and its writers. `agent` null: the host's name, which is the pod's."""

    agent: LabelValue | None = None
    writers: Annotated[tuple[LabelValue, ...], _length(0, 16)] = ()
    subscriber_series: Annotated[int, _between(0, 1000)] = 50


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
