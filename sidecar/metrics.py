"""Every metric family, declared once.

Counters and histograms that are counted where an outcome is decided are built from a registry that is passed in.
Everything that somebody keeps as a number anyway is `SAMPLED`: read at scrape time by `ops/collector.py`.
Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` on counters only.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

_WRITE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_ATTEMPT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PROPAGATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)
_BACKUP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Family(NamedTuple):
    """One metric family. `kind`: counter, gauge or histogram. `help` says what one more, or the value, means."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] = ()

    def counter(self, registry: CollectorRegistry | None) -> Counter:
        return Counter(self.name, self.help, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry | None) -> Histogram:
        return Histogram(self.name, self.help, self.labels, buckets=self.buckets, registry=registry)

    def sample(self, values: Iterable[tuple[Sequence[str], float]]) -> CounterMetricFamily | GaugeMetricFamily:
        """The family with these values, each with its label values, for one scrape."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family: CounterMetricFamily | GaugeMetricFamily = kind(self.name, self.help, labels=self.labels)
        for labels, value in values:
            family.add_metric(labels, value)
        return family


# --- counted where the outcome is decided ---

WRITE_SECONDS = Family(
    "fsm_write_duration_seconds",
    "histogram",
    "Time from a write's call to its durable commit or its rejection.",
    (),
    _WRITE_BUCKETS,
)
COMMIT_SECONDS = Family(
    "fsm_journal_commit_duration_seconds",
    "histogram",
    "Time of one group commit, its fsync included.",
    (),
    _WRITE_BUCKETS,
)
COMMIT_WRITES = Family("fsm_journal_commit_writes", "histogram", "Writes that shared one commit.", (), _BATCH_BUCKETS)
CHECKPOINT_SECONDS = Family(
    "fsm_journal_checkpoint_duration_seconds",
    "histogram",
    "Time to move the write-ahead log into the file.",
    (),
    _WRITE_BUCKETS,
)
STORAGE_ERRORS = Family("fsm_storage_errors_total", "counter", "Commits and checkpoints that failed, by kind.", ("kind",))
BACKUPS = Family("fsm_backups_total", "counter", "Backups asked for through the API, by how they ended.", ("outcome",))
BACKUP_SECONDS = Family(
    "fsm_backup_duration_seconds", "histogram", "Time to copy the journal, without its transfer.", (), _BACKUP_BUCKETS
)
ATTEMPTS = Family("fsm_webhook_attempts_total", "counter", "HTTP attempts at a webhook, by their outcome.", ("outcome",))
ATTEMPT_SECONDS = Family("fsm_webhook_attempt_duration_seconds", "histogram", "Time of one HTTP attempt.", (), _ATTEMPT_BUCKETS)
PROPAGATION_SECONDS = Family(
    "fsm_propagation_delay_seconds",
    "histogram",
    "Time from accepting a revision to the 2xx of a subscriber that got it.",
    (),
    _PROPAGATION_BUCKETS,
)
SKIPPED = Family(
    "fsm_webhook_revisions_skipped_total",
    "counter",
    "Revisions that a subscriber was told it will not get.",
    ("reason",),
)
GAPS = Family("fsm_webhook_gaps_total", "counter", "Deliveries that told a subscriber of a gap, by its reason.", ("reason",))
TARGETS_REFUSED = Family(
    "fsm_webhook_targets_refused_total", "counter", "Connections not made because a rule forbids the address.", ("rule",)
)
EVICTIONS = Family("fsm_subscribers_evicted_total", "counter", "Subscribers evicted, by reason.", ("reason",))
STATUS_CHANGES = Family(
    "fsm_subscriber_status_changes_total", "counter", "Changes of a subscriber's status, by the new one.", ("status",)
)
SUBSCRIPTIONS = Family("fsm_subscriptions_total", "counter", "Accepted registrations, changes and resumptions of subscribers.")
SUBSCRIPTIONS_REJECTED = Family("fsm_subscriptions_rejected_total", "counter", "Refused registrations, by reason.", ("reason",))
HTTP_REQUESTS = Family("fsm_http_requests_total", "counter", "API requests answered.", ("route", "method", "code"))
HTTP_SECONDS = Family(
    "fsm_http_request_duration_seconds", "histogram", "Time to answer an API request.", ("route",), _WRITE_BUCKETS
)

# --- sampled at scrape ---

SETS = Family("fsm_sets_total", "counter", "Writes accepted.")
GETS = Family("fsm_gets_total", "counter", "Reads of the current state.")
CONFLICTS = Family(
    "fsm_version_conflicts_total", "counter", "Writes rejected because another came first, by reason.", ("reason",)
)
REWRITES = Family("fsm_version_rewrites_total", "counter", "Stale writes accepted under a new version, for want of a check.")
ILLEGAL = Family("fsm_illegal_transitions_total", "counter", "Transitions that the machine does not allow.", ("outcome",))
TRANSITIONS = Family("fsm_transitions_total", "counter", "Transitions made.", ("from_state", "to_state"))
VERSION = Family("fsm_version", "gauge", "Version of the current state; -1: none yet.")
STATE = Family("fsm_state", "gauge", "1 for the current state, 0 for the others.", ("state",))
STATE_CODE = Family("fsm_state_code", "gauge", "Position of the current state in the configured list; -1: none yet.")
STATE_ENTERED = Family("fsm_state_entered_timestamp_seconds", "gauge", "When the current state was entered; 0: none yet.")
LAST_UPDATE = Family("fsm_last_update_timestamp_seconds", "gauge", "When the last write was accepted; 0: never.")
CREATED = Family("fsm_created_timestamp_seconds", "gauge", "When the store was created in this process.")
SNAPSHOT_BYTES = Family("fsm_snapshot_size_bytes", "gauge", "Size of the current state's JSON.")
HEAD = Family("fsm_journal_head_revision", "gauge", "Newest durable revision.")
OLDEST = Family("fsm_journal_oldest_revision", "gauge", "Oldest revision still kept.")
QUEUE = Family("fsm_journal_queue_length", "gauge", "Writes and reads waiting for the writer thread.")
FILE_BYTES = Family("fsm_journal_file_bytes", "gauge", "Size of the journal's files.", ("file",))
FREE_BYTES = Family("fsm_journal_disk_free_bytes", "gauge", "Bytes left for the sidecar on the journal's disk.")
KEPT_BYTES = Family("fsm_journal_documents_bytes", "gauge", "Size of the documents of all revisions kept.")
UNCLEAN_STARTS = Family(
    "fsm_journal_unclean_starts_total", "counter", "Starts after a process that had not closed the journal, in its whole life."
)
QUEUE_LIMIT = Family("fsm_journal_queue_limit", "gauge", "Writes that may wait for the disk; further ones are refused.")
OVERLOADS = Family("fsm_writes_overloaded_total", "counter", "Writes refused because too many waited for the disk.")
REPLAYS = Family("fsm_idempotent_replays_total", "counter", "Repeated writes that got their first answer again.")
KEYS = Family("fsm_idempotency_keys", "gauge", "Idempotency keys whose answers are kept.")
KEYS_FORGOTTEN = Family(
    "fsm_idempotency_keys_forgotten_early_total", "counter", "Idempotency keys forgotten before their time, for want of room."
)
BACKUP_SUCCESS = Family(
    "fsm_backup_last_success_timestamp_seconds", "gauge", "When a backup was handed over whole; 0: not since the start."
)
HEALTHY = Family("fsm_health_healthy", "gauge", "1 while no check of level issue fails.")
ISSUES = Family("fsm_health_issues", "gauge", "Checks of level issue that fail.")
WARNINGS = Family("fsm_health_warnings", "gauge", "Checks of level warning that fail.")
CHECK_OK = Family("fsm_health_check_ok", "gauge", "1 while the check passes.", ("check", "level"))
SUBSCRIBERS = Family("fsm_subscribers", "gauge", "Webhook subscribers by status; evicted: remembered, not served.", ("status",))
SUBSCRIBERS_LIMIT = Family("fsm_subscribers_limit", "gauge", "Places for subscribers of all kinds together.")
NOTIFICATIONS = Family("fsm_notifications_total", "counter", "Notifications delivered to subscribers of all kinds.")
NOTIFICATIONS_FAILED = Family("fsm_notifications_failed_total", "counter", "Notifications given up on.")
IN_FLIGHT = Family("fsm_webhook_attempts_in_flight", "gauge", "HTTP attempts under way.")
IN_FLIGHT_LIMIT = Family("fsm_webhook_attempts_in_flight_limit", "gauge", "HTTP attempts that may be under way at once.")
SUBSCRIBER_CURSOR = Family("fsm_subscriber_cursor", "gauge", "Last revision the subscriber acknowledged.", ("subscriber",))
SUBSCRIBER_LAG = Family(
    "fsm_subscriber_lag_revisions", "gauge", "Revisions the subscriber has not acknowledged yet.", ("subscriber",)
)
SUBSCRIBER_FAILURES = Family(
    "fsm_subscriber_consecutive_failures",
    "gauge",
    "Failed attempts since the subscriber's last success.",
    ("subscriber",),
)
SUBSCRIBER_SUCCESS = Family(
    "fsm_subscriber_last_success_timestamp_seconds",
    "gauge",
    "When the subscriber last answered 2xx; 0: never.",
    ("subscriber",),
)
SUBSCRIBERS_UNLISTED = Family(
    "fsm_subscriber_series_suppressed", "gauge", "Subscribers without series of their own, beyond the cap."
)
BUILD = Family("fsm_build_info", "gauge", "1, with the version of the sidecar and of Python.", ("version", "python"))

STORE_NUMBERS = {
    "total_sets": "Writes accepted since the start.",
    "total_gets": "Reads since the start.",
    "version_conflicts": "Writes rejected because another came first, since the start.",
    "subscriber_count": "Subscribers of all kinds.",
    "last_update_ts": "Time of the last accepted write, seconds since the Unix epoch; 0: never.",
    "creation_ts": "Time the store was created, seconds since the Unix epoch.",
    "notifications_sent": "Notifications delivered since the start.",
    "notifications_failed": "Notifications given up on since the start.",
    "dead_subscribers_removed": "Subscribers evicted since the start.",
    "uptime_seconds": "Age of the store.",
    "current_version": "Version of the current state; -1: none yet.",
    "active_subscribers": "Subscribers that are being served.",
    "max_subscribers": "Places for subscribers.",
    "queue_size": "Capacity of an in-process reader's queue.",
}
"""The numeric keys of `AsyncStateStore.get_metrics()`, each the gauge `fsm_store_<key>`."""

_RENAMED = {"subscriber_count": "subscribers"}  # a gauge that ends in _count is refused by promtool

STORE_GAUGES = {key: Family(f"fsm_store_{_RENAMED.get(key, key)}", "gauge", text) for key, text in STORE_NUMBERS.items()}


class DispatchMetrics:
    """What delivery counts. The owner of a closed set of label values creates them all at 0, for a rate to rise from."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.attempts = ATTEMPTS.counter(registry)
        self.attempt_seconds = ATTEMPT_SECONDS.histogram(registry)
        self.propagation_seconds = PROPAGATION_SECONDS.histogram(registry)
        self.skipped = SKIPPED.counter(registry)
        self.gaps = GAPS.counter(registry)
        self.targets_refused = TARGETS_REFUSED.counter(registry)
        self.evictions = EVICTIONS.counter(registry)
        self.status_changes = STATUS_CHANGES.counter(registry)
        self.subscriptions = SUBSCRIPTIONS.counter(registry)
        self.subscriptions_rejected = SUBSCRIPTIONS_REJECTED.counter(registry)


class StoreMetrics:
    """What the store counts besides its own numbers. Without a registry it counts unseen."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.write_seconds = WRITE_SECONDS.histogram(registry)


class DatabaseMetrics:
    """What the writer thread counts."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.commit_seconds = COMMIT_SECONDS.histogram(registry)
        self.commit_writes = COMMIT_WRITES.histogram(registry)
        self.checkpoint_seconds = CHECKPOINT_SECONDS.histogram(registry)
        self.errors = STORAGE_ERRORS.counter(registry)
        for kind in ("full", "failed"):
            self.errors.labels(kind)


class BackupMetrics:
    """What backups of the running sidecar count."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.backups = BACKUPS.counter(registry)
        self.seconds = BACKUP_SECONDS.histogram(registry)
        for outcome in ("done", "cut", "full", "failed"):
            self.backups.labels(outcome)


class HttpMetrics:
    """What the API counts. Children are kept: looking one up by labels costs more than counting."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._requests = HTTP_REQUESTS.counter(registry)
        self._seconds = HTTP_SECONDS.histogram(registry)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, route: str, method: str, code: int, seconds: float) -> None:
        """Count one answered request. `route` is the route's template, never the path that was asked for."""
        children = self._children.get((route, method, code))
        if children is None:
            children = self._requests.labels(route, method, str(code)), self._seconds.labels(route)
            self._children[route, method, code] = children
        children[0].inc()
        children[1].observe(seconds)
