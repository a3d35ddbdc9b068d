"""The catalogue: every metric family, declared once. The scrape, docs/metrics.md, rules and dashboards are held against it.

`counted` families are incremented where an outcome is decided (`meters.py`). `sampled` ones are numbers that somebody keeps
anyway, read at scrape time by `ops/collector.py`. Names follow https://prometheus.io/docs/practices/naming/: base units,
`_total` on counters only. A label has a closed set of values, all of them there at 0 from the start, or says whose names it
takes and what bounds them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.samples import Exemplar

_WRITE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
_ATTEMPT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PROPAGATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)
_BACKUP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Unit = Literal["", "seconds", "bytes", "revisions", "writes"]


class Label(NamedTuple):
    """A label. `values`: its closed set. Empty: it takes the names that `source` says, within the bound named there."""

    name: str
    values: tuple[str, ...] = ()
    source: str = ""


class Family(NamedTuple):
    """One metric family. `kind`: counter, gauge or histogram. `help` says what one more, or the value, means.

    `debug`: for whoever looks into the sidecar itself; neither a panel nor an alert needs it.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[Label, ...] = ()
    unit: Unit = ""
    buckets: Sequence[float] = ()
    debug: bool = False

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    def combinations(self) -> Iterator[tuple[str, ...]]:
        """The label values that are there from the start, where all labels are closed."""
        if all(label.values for label in self.labels):
            yield from product(*(label.values for label in self.labels))

    def counter(self, registry: CollectorRegistry | None) -> Counter:
        """The counter, its closed label values at 0: a rate has to rise from somewhere."""
        counter = Counter(self.name, self.help, self.label_names, registry=registry)
        if self.labels:
            for values in self.combinations():
                counter.labels(*values)
        return counter

    def histogram(self, registry: CollectorRegistry | None, *limits: float) -> Histogram:
        """The histogram. `limits`: configured timeouts, which have to be bounds of buckets to be seen."""
        buckets = sorted({*self.buckets, *limits})
        histogram = Histogram(self.name, self.help, self.label_names, buckets=buckets, registry=registry)
        if self.labels:
            for values in self.combinations():
                histogram.labels(*values)
        return histogram

    def sample(
        self, values: Iterable[tuple[tuple[str, ...], float]], exemplars: Mapping[tuple[str, ...], Exemplar] | None = None
    ) -> CounterMetricFamily | GaugeMetricFamily:
        """The family with these values, each with its label values, for one scrape. Counters may have exemplars."""
        if self.kind == "counter":
            counter = CounterMetricFamily(self.name, self.help, labels=self.label_names)
            for labels, value in values:
                counter.add_metric(labels, value, exemplar=exemplars.get(labels) if exemplars else None)
            return counter
        gauge = GaugeMetricFamily(self.name, self.help, labels=self.label_names)
        for labels, value in values:
            gauge.add_metric(labels, value)
        return gauge


_STATE = "the configured states (at most 256)"
_WRITER = "the names in metrics.writers (at most 16), and other"
_SUBSCRIBER = "the ids of served subscribers (at most metrics.subscriber_series), which go with them"
_ROUTE = "the API's route templates, and other"

# --- the agent's state ---

STATE = Family("fsm_state", "gauge", "1 for the current state, 0 for the others.", (Label("state", source=_STATE),))
STATE_CODE = Family("fsm_state_code", "gauge", "Position of the current state in the configured list; -1: none yet.")
STATE_ENTERED = Family(
    "fsm_state_entered_timestamp_seconds", "gauge", "When the current state was entered; 0: none yet.", unit="seconds"
)
STATE_STALLED = Family("fsm_state_stalled", "gauge", "1 while the agent is in its state for longer than fsm.max_dwell allows.")
FAULT_STATE = Family("fsm_fault_state", "gauge", "1 while the current state is one of fsm.fault_states.")
TRANSITIONS = Family(
    "fsm_transitions_total",
    "counter",
    "Transitions made.",
    (Label("from_state", source=_STATE), Label("to_state", source=_STATE)),
)
VERSION = Family("fsm_version", "gauge", "Version of the current state; -1: none yet.")
SNAPSHOT_BYTES = Family("fsm_snapshot_size_bytes", "gauge", "Size of the current state's JSON.", unit="bytes")
LAST_UPDATE = Family(
    "fsm_last_update_timestamp_seconds", "gauge", "When the last write was accepted; 0: never.", unit="seconds"
)
UPDATE_EXPECTED = Family(
    "fsm_update_expected", "gauge", "1 where health.update_expected says that silence of the agent is abnormal."
)
HEARTBEAT_EXPIRES = Family(
    "fsm_heartbeat_expires_timestamp_seconds",
    "gauge",
    "When the agent's next heartbeat is due, or was; 0: it never sent one.",
    unit="seconds",
)
LAST_WILLS = Family(
    "fsm_last_wills_total",
    "counter",
    "Times that the agent was silent and had a last will, by what became of that.",
    (Label("outcome", ("executed", "unneeded", "overtaken", "refused", "failed")),),
)
CREATED = Family("fsm_created_timestamp_seconds", "gauge", "When the store was created in this process.", unit="seconds")

# --- writes, and who lost against whom ---

SETS = Family("fsm_sets_total", "counter", "Writes accepted.")
GETS = Family("fsm_gets_total", "counter", "Reads of the current state.")
CONFLICTS = Family(
    "fsm_version_conflicts_total",
    "counter",
    "Writes rejected because another came first: what was compared (kind), how it differed (reason), and who lost (writer).",
    (
        Label("kind", ("stale_version", "wrong_expectation", "wrong_epoch", "fenced")),
        Label("reason", ("stale", "equal", "ahead", "exists", "missing", "state", "epoch")),
        Label("writer", source=_WRITER),
    ),
)
REWRITES = Family(
    "fsm_version_rewrites_total",
    "counter",
    "Masked conflicts: stale writes accepted under a new version, for want of a check.",
    (Label("writer", source=_WRITER),),
)
WRITER_CONFLICTS = Family(
    "fsm_writer_conflicts_total",
    "counter",
    "Who met whom: writes by writer that lost against a state by against (rejected), or overwrote it unseen (masked).",
    (Label("writer", source=_WRITER), Label("against", source=_WRITER), Label("outcome", ("rejected", "masked"))),
)
ILLEGAL = Family(
    "fsm_illegal_transitions_total",
    "counter",
    "Transitions that the machine does not allow: refused, or with enforcement warn accepted.",
    (Label("outcome", ("refused", "accepted")),),
)
WRITER_TOKEN = Family(
    "fsm_writer_token",
    "gauge",
    "Number of the newest writer token; 0: none was given out. It grows by one with each new writer.",
    debug=True,
)
UNKNOWN_STATES = Family("fsm_unknown_states_total", "counter", "Writes refused for a state that is not configured.")
WRITE_SECONDS = Family(
    "fsm_write_duration_seconds",
    "histogram",
    "Time from a write's call to its durable commit or its rejection.",
    unit="seconds",
    buckets=_WRITE_BUCKETS,
)
OVERLOADS = Family("fsm_writes_overloaded_total", "counter", "Writes refused because too many waited for the disk.")
REPLAYS = Family("fsm_idempotent_replays_total", "counter", "Repeated writes that got their first answer again.", debug=True)
KEYS = Family("fsm_idempotency_keys", "gauge", "Idempotency keys whose answers are kept.", debug=True)
KEYS_FORGOTTEN = Family(
    "fsm_idempotency_keys_forgotten_early_total",
    "counter",
    "Idempotency keys forgotten before their time, for want of room.",
    debug=True,
)

# --- the journal and its disk ---

HEAD = Family("fsm_journal_head_revision", "gauge", "Newest durable revision.")
OLDEST = Family("fsm_journal_oldest_revision", "gauge", "Oldest revision still kept.")
KEPT_BYTES = Family("fsm_journal_documents_bytes", "gauge", "Size of the documents of all revisions kept.", unit="bytes")
WRITES_WAITING = Family("fsm_writes_waiting", "gauge", "Writes accepted that are not on the disk yet.")
QUEUE = Family("fsm_journal_queue_length", "gauge", "Writes and reads waiting for the writer thread.")
QUEUE_LIMIT = Family(
    "fsm_journal_queue_limit", "gauge", "Writes that may be on their way to the disk; further ones are refused."
)
COMMIT_SECONDS = Family(
    "fsm_journal_commit_duration_seconds",
    "histogram",
    "Time of one group commit, its fsync included.",
    unit="seconds",
    buckets=_WRITE_BUCKETS,
)
COMMIT_WRITES = Family(
    "fsm_journal_commit_writes",
    "histogram",
    "Writes that shared one commit.",
    unit="writes",
    buckets=_BATCH_BUCKETS,
    debug=True,
)
CHECKPOINT_SECONDS = Family(
    "fsm_journal_checkpoint_duration_seconds",
    "histogram",
    "Time to move the write-ahead log into the file.",
    unit="seconds",
    buckets=_WRITE_BUCKETS,
    debug=True,
)
STORAGE_ERRORS = Family(
    "fsm_storage_errors_total",
    "counter",
    "Commits and checkpoints that failed, by kind.",
    (Label("kind", ("full", "failed")),),
)
FILE_BYTES = Family(
    "fsm_journal_file_bytes", "gauge", "Size of the journal's files.", (Label("file", ("db", "wal")),), unit="bytes"
)
FREE_BYTES = Family("fsm_journal_disk_free_bytes", "gauge", "Bytes left for the sidecar on the journal's disk.", unit="bytes")
RESERVE_BYTES = Family(
    "fsm_journal_disk_reserve_bytes",
    "gauge",
    "Bytes that stay free there: with less, writes are refused.",
    unit="bytes",
)
UNCLEAN_STARTS = Family(
    "fsm_journal_unclean_starts_total",
    "counter",
    "Starts after a process that had not closed the journal, in its whole life.",
    debug=True,
)
BACKUPS = Family(
    "fsm_backups_total",
    "counter",
    "Backups asked for through the API, by how they ended.",
    (Label("outcome", ("done", "cut", "full", "failed")),),
    debug=True,
)
BACKUP_SECONDS = Family(
    "fsm_backup_duration_seconds",
    "histogram",
    "Time to copy the journal, without its transfer.",
    unit="seconds",
    buckets=_BACKUP_BUCKETS,
    debug=True,
)
BACKUP_SUCCESS = Family(
    "fsm_backup_last_success_timestamp_seconds",
    "gauge",
    "When a backup was handed over whole; 0: not since the start.",
    unit="seconds",
)

# --- health ---

HEALTHY = Family("fsm_health_healthy", "gauge", "1 while no check of level issue fails.")
ISSUES = Family("fsm_health_issues", "gauge", "Checks of level issue that fail.")
WARNINGS = Family("fsm_health_warnings", "gauge", "Checks of level warning that fail.")
CHECK_OK = Family(
    "fsm_health_check_ok",
    "gauge",
    "1 while the check passes; level: what its failure is.",
    (
        Label("check", ("version_conflicts", "initialised", "subscribers", "freshness", "heartbeat", "dwell")),
        Label("level", ("issue", "warning")),
    ),
)

# --- subscribers and deliveries ---

SUBSCRIBERS = Family(
    "fsm_subscribers",
    "gauge",
    "Webhook subscribers by status; evicted: remembered, not served.",
    (Label("status", ("active", "degraded", "suspended", "evicted")),),
)
SUBSCRIBERS_LIMIT = Family("fsm_subscribers_limit", "gauge", "Places for subscribers of all kinds together.")
SUBSCRIPTIONS = Family("fsm_subscriptions_total", "counter", "Accepted registrations, changes and resumptions of subscribers.")
SUBSCRIPTIONS_REJECTED = Family(
    "fsm_subscriptions_rejected_total",
    "counter",
    "Refused registrations: all places taken, or an endpoint that may not be called.",
    (Label("reason", ("limit", "endpoint")),),
)
UNSUBSCRIPTIONS = Family("fsm_unsubscriptions_total", "counter", "Subscribers removed on request.")
STATUS_CHANGES = Family(
    "fsm_subscriber_status_changes_total",
    "counter",
    "Changes of a subscriber's status, by the new one.",
    (Label("status", ("active", "degraded", "suspended", "evicted")),),
)
EVICTIONS = Family(
    "fsm_subscribers_evicted_total",
    "counter",
    "Subscribers evicted: failing for too long, answered 410, or no longer in the config file.",
    (Label("reason", ("failing", "gone", "unconfigured")),),
)
NOTIFICATIONS = Family("fsm_notifications_total", "counter", "Notifications delivered to subscribers of all kinds.")
NOTIFICATIONS_FAILED = Family("fsm_notifications_failed_total", "counter", "Notifications given up on.")
ATTEMPTS = Family(
    "fsm_webhook_attempts_total",
    "counter",
    "HTTP attempts at a webhook, by their outcome.",
    (
        Label(
            "outcome",
            (
                "delivered",
                "gone",
                "timeout",
                "dns",
                "connect",
                "tls",
                "disconnected",
                "redirect",
                "busy",
                "client_error",
                "server_error",
                "protocol",
                "refused",
            ),
        ),
    ),
)
ATTEMPT_SECONDS = Family(
    "fsm_webhook_attempt_duration_seconds",
    "histogram",
    "Time of one HTTP attempt.",
    unit="seconds",
    buckets=_ATTEMPT_BUCKETS,
)
TIMEOUT_SECONDS = Family(
    "fsm_webhook_timeout_seconds",
    "gauge",
    "Time that an attempt may take, unless the subscriber says otherwise.",
    unit="seconds",
)
IN_FLIGHT = Family("fsm_webhook_attempts_in_flight", "gauge", "HTTP attempts under way.")
IN_FLIGHT_LIMIT = Family("fsm_webhook_attempts_in_flight_limit", "gauge", "HTTP attempts that may be under way at once.")
PROPAGATION_SECONDS = Family(
    "fsm_propagation_delay_seconds",
    "histogram",
    "Time from accepting a revision to the 2xx of a subscriber that got it.",
    unit="seconds",
    buckets=_PROPAGATION_BUCKETS,
)
_JUMPS = (Label("reason", ("max_lag", "compacted", "suspended", "lost")),)
SKIPPED = Family(
    "fsm_webhook_revisions_skipped_total",
    "counter",
    "Revisions that a subscriber was told it will not get, by why it jumped over them.",
    _JUMPS,
)
GAPS = Family("fsm_webhook_gaps_total", "counter", "Deliveries that told a subscriber of a gap, by its reason.", _JUMPS)
TARGETS_REFUSED = Family(
    "fsm_webhook_targets_refused_total",
    "counter",
    "Connections not made because a rule forbids the address.",
    (
        Label(
            "rule",
            (
                "embedded",
                "own_listener",
                "link_local",
                "metadata",
                "control_plane",
                "reserved",
                "denied",
                "loopback",
                "private",
                "public",
                "plain_http",
            ),
        ),
    ),
)
LAG_MAX = Family(
    "fsm_subscriber_lag_max_revisions",
    "gauge",
    "Revisions that the served subscriber furthest behind has not acknowledged yet.",
    unit="revisions",
)
EVICT_FAILURES = Family(
    "fsm_subscriber_evict_after_failures", "gauge", "Consecutive failures after which a subscriber may be evicted."
)
_SUBSCRIBER_LABEL = (Label("subscriber", source=_SUBSCRIBER),)
SUBSCRIBER_ATTEMPTS = Family(
    "fsm_subscriber_attempts_total", "counter", "HTTP attempts at the subscriber since it is served.", _SUBSCRIBER_LABEL
)
SUBSCRIBER_ATTEMPTS_FAILED = Family(
    "fsm_subscriber_attempts_failed_total", "counter", "Those of them that did not end with a 2xx.", _SUBSCRIBER_LABEL
)
SUBSCRIBER_CURSOR = Family("fsm_subscriber_cursor", "gauge", "Last revision the subscriber acknowledged.", _SUBSCRIBER_LABEL)
SUBSCRIBER_LAG = Family(
    "fsm_subscriber_lag_revisions",
    "gauge",
    "Revisions the subscriber has not acknowledged yet.",
    _SUBSCRIBER_LABEL,
    unit="revisions",
)
SUBSCRIBER_FAILURES = Family(
    "fsm_subscriber_consecutive_failures",
    "gauge",
    "Failed attempts since the subscriber's last success.",
    _SUBSCRIBER_LABEL,
)
SUBSCRIBER_SUCCESS = Family(
    "fsm_subscriber_last_success_timestamp_seconds",
    "gauge",
    "When the subscriber last answered 2xx; 0: never.",
    _SUBSCRIBER_LABEL,
    unit="seconds",
)
SUBSCRIBERS_UNLISTED = Family(
    "fsm_subscriber_series_suppressed", "gauge", "Subscribers without series of their own, beyond the cap."
)

ACK_WAITING = Family("fsm_ack_waiting", "gauge", "Writes that wait for acknowledgements now (?wait_acks).")
ACK_WAITS_ENDED = Family(
    "fsm_ack_waits_total",
    "counter",
    "Writes that waited for acknowledgements, by how the wait ended; gone: the caller hung up; refused: no place, not written.",
    (Label("ending", ("complete", "incomplete", "gone", "refused")),),
)

# --- watchers ---

WATCHERS = Family(
    "fsm_watchers",
    "gauge",
    "Requests that wait for the next revision: streams of GET /v1/watch, and long polls of GET /v1/state.",
    (Label("kind", ("stream", "poll")),),
)
WATCHERS_LIMIT = Family("fsm_watchers_limit", "gauge", "Places for watchers of both kinds together.")
WATCHERS_REFUSED = Family("fsm_watchers_refused_total", "counter", "Watchers refused because all places were taken.")
WATCH_EVENTS = Family("fsm_watch_events_total", "counter", "Revisions sent to streams.", debug=True)
WATCH_GAPS = Family(
    "fsm_watch_gaps_total",
    "counter",
    "Streams that were told of revisions they will not get, by why.",
    (Label("reason", ("epoch", "compacted", "slow", "lost")),),
)

# --- the process ---

BUILD = Family(
    "fsm_build_info",
    "gauge",
    "1, with the version of the sidecar and of Python.",
    (Label("version", source="the release"), Label("python", source="the release of Python")),
)
AGENT = Family(
    "fsm_agent_info",
    "gauge",
    "1, with the agent's name and that of its machine.",
    (Label("agent", source="metrics.agent, by default the host's name"), Label("fsm", source="fsm.name")),
)
CONFIG_HASH = Family("fsm_config_hash", "gauge", "The configuration in force as a number: equal files, equal numbers.")
CONFIG_LOADED = Family(
    "fsm_config_loaded_timestamp_seconds", "gauge", "When the configuration in force was loaded.", unit="seconds"
)
CONFIG_VALID = Family(
    "fsm_config_file_valid",
    "gauge",
    "1 while the config file, as it is now, can be loaded; 0: the next start would fail.",
)
CONFIG_CHANGED = Family(
    "fsm_config_file_changed",
    "gauge",
    "1 while the config file says something that only a restart brings into force.",
)
LOOP_LAG = Family(
    "fsm_event_loop_lag_seconds",
    "gauge",
    "The longest time in the last 10 to 11 s that the event loop was busy and nothing else could run.",
    unit="seconds",
)
LOOP_TASKS = Family(
    "fsm_event_loop_tasks",
    "gauge",
    "Tasks of the event loop: its core tasks, one for each connection to the API, and one for each subscriber that is served.",
)
_METHODS = ("GET", "PUT", "PATCH", "POST", "DELETE", "other")
HTTP_REQUESTS = Family(
    "fsm_http_requests_total",
    "counter",
    "API requests answered.",
    (Label("route", source=_ROUTE), Label("method", _METHODS), Label("code", source="the HTTP status codes of docs/api.md")),
)
HTTP_SECONDS = Family(
    "fsm_http_request_duration_seconds",
    "histogram",
    "Time to answer an API request, without the time that it asked to wait.",
    (Label("method", _METHODS),),
    unit="seconds",
    buckets=_REQUEST_BUCKETS,
)
HTTP_AUTH_FAILURES = Family(
    "fsm_http_auth_failures_total",
    "counter",
    "API requests that were not let in: no token, an unknown one, one without the scope, or too many without a valid one; or "
    "of a browser that came by a strange name (host), or for a page of a strange origin; or connections of a strange peer.",
    (Label("reason", ("missing", "unknown", "scope", "limited", "host", "origin", "peer")),),
)
HTTP_IN_FLIGHT = Family(
    "fsm_http_requests_in_flight",
    "gauge",
    "API requests being answered; without those whose body still comes, or whose write waits for the disk.",
)
HTTP_IN_FLIGHT_LIMIT = Family(
    "fsm_http_requests_in_flight_limit", "gauge", "API requests that may be answered at once (api.limits.requests)."
)
_LISTENER = Label("listener", ("api", "ops"))
HTTP_CONNECTIONS = Family("fsm_http_connections", "gauge", "Open connections.", (_LISTENER,))
HTTP_CONNECTIONS_LIMIT = Family("fsm_http_connections_limit", "gauge", "Connections that may be open at once.", (_LISTENER,))
HTTP_REFUSED = Family(
    "fsm_http_connections_refused_total",
    "counter",
    "Connections refused: all are taken (full), or all of one peer (peer); and idle ones closed to make room (displaced).",
    (_LISTENER, Label("reason", ("full", "peer", "displaced"))),
)
HTTP_TIMEOUTS = Family(
    "fsm_http_timeouts_total",
    "counter",
    "Connections ended because the other side was late: with the head of a request, its body, or with reading an answer.",
    (_LISTENER, Label("phase", ("headers", "body", "write"))),
)
HTTP_MALFORMED = Family(
    "fsm_http_malformed_total", "counter", "Requests that are no HTTP as it is taken here, answered with 400.", (_LISTENER,)
)
LOG_MESSAGES = Family(
    "fsm_log_messages_total",
    "counter",
    "Log lines written, by level.",
    (Label("level", ("debug", "info", "warning", "error", "critical")),),
)
COLLECT_SECONDS = Family(
    "fsm_collect_duration_seconds", "gauge", "Time that the scrape before this one took to be made.", unit="seconds"
)
COLLECT_ERRORS = Family("fsm_collect_errors_total", "counter", "Scrapes that could not be made: a fault of the sidecar.")

# --- the store's own numbers, word for word ---

STORE_NUMBERS: dict[str, tuple[str, Unit]] = {
    "total_sets": ("Writes accepted since the start.", ""),
    "total_gets": ("Reads since the start.", ""),
    "version_conflicts": ("Writes rejected because another came first, since the start.", ""),
    "subscriber_count": ("Subscribers of all kinds.", ""),
    "last_update_ts": ("Time of the last accepted write, seconds since the Unix epoch; 0: never.", "seconds"),
    "creation_ts": ("Time the store was created, seconds since the Unix epoch.", "seconds"),
    "notifications_sent": ("Notifications delivered since the start.", ""),
    "notifications_failed": ("Notifications given up on since the start.", ""),
    "dead_subscribers_removed": ("Subscribers evicted since the start.", ""),
    "uptime_seconds": ("Age of the store.", "seconds"),
    "current_version": ("Version of the current state; -1: none yet.", ""),
    "active_subscribers": ("Subscribers that are being served.", ""),
    "max_subscribers": ("Places for subscribers.", ""),
    "queue_size": ("Capacity of an in-process reader's queue.", ""),
}
"""The numeric keys of `AsyncStateStore.get_metrics()`, each the gauge `fsm_store_<key>`."""

_RENAMED = {"subscriber_count": "subscribers"}  # a gauge that ends in _count is refused by promtool

STORE_GAUGES = {
    key: Family(f"fsm_store_{_RENAMED.get(key, key)}", "gauge", text, unit=unit) for key, (text, unit) in STORE_NUMBERS.items()
}

SECTIONS = {
    STATE: "The agent's state",
    SETS: "Writes, and who lost against whom",
    HEAD: "The journal and its disk",
    HEALTHY: "Health",
    SUBSCRIBERS: "Subscribers and deliveries",
    WATCHERS: "Watchers",
    BUILD: "The process",
    STORE_GAUGES["total_sets"]: "The store's own numbers",
}
"""The catalogue's sections: the first family of each, and its title."""

CATALOGUE: tuple[Family, ...] = (
    *(each for each in list(globals().values()) if isinstance(each, Family)),
    *STORE_GAUGES.values(),
)
"""Every family, in the order of this page."""
