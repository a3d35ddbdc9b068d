"""What counts: for each part that decides outcomes, its families of the catalogue, built from a registry that is passed in.

Without a registry it counts unseen. What took long is told with an exemplar that says which one it was: nobody asks that of
what was quick, and making an exemplar costs more than counting.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from sidecar import metrics

SLOW_WRITE_SECONDS = 0.01
SLOW_DELIVERY_SECONDS = 0.05


class DispatchMetrics:
    """What delivery counts. `timeout_seconds` of an attempt is a bound of its histogram."""

    def __init__(self, registry: CollectorRegistry | None = None, *, timeout_seconds: float = 5.0) -> None:
        self.attempts = metrics.ATTEMPTS.counter(registry)
        self._attempt_seconds = metrics.ATTEMPT_SECONDS.histogram(registry, timeout_seconds)
        self._propagation_seconds = metrics.PROPAGATION_SECONDS.histogram(registry)
        self.skipped = metrics.SKIPPED.counter(registry)
        self.gaps = metrics.GAPS.counter(registry)
        self.targets_refused = metrics.TARGETS_REFUSED.counter(registry)
        self.evictions = metrics.EVICTIONS.counter(registry)
        self.status_changes = metrics.STATUS_CHANGES.counter(registry)
        self.subscriptions = metrics.SUBSCRIPTIONS.counter(registry)
        self.subscriptions_rejected = metrics.SUBSCRIPTIONS_REJECTED.counter(registry)
        self.unsubscriptions = metrics.UNSUBSCRIPTIONS.counter(registry)

    def attempted(self, seconds: float, subscriber: str) -> None:
        """An attempt has ended."""
        exemplar = {"subscriber": subscriber} if seconds >= SLOW_DELIVERY_SECONDS else None
        self._attempt_seconds.observe(seconds, exemplar)

    def propagated(self, seconds: float, subscriber: str, revision: int) -> None:
        """A revision has reached a subscriber."""
        slow = seconds >= SLOW_DELIVERY_SECONDS
        self._propagation_seconds.observe(seconds, {"subscriber": subscriber, "revision": str(revision)} if slow else None)


class StoreMetrics:
    """What the store counts besides its own numbers. `timeout_seconds` of a write is a bound of its histogram."""

    def __init__(self, registry: CollectorRegistry | None = None, *, timeout_seconds: float = 10.0) -> None:
        self._write_seconds = metrics.WRITE_SECONDS.histogram(registry, timeout_seconds)

    def written(self, seconds: float, revision: int | None) -> None:
        """A write was answered; None: it was refused."""
        exemplar = {"revision": str(revision)} if revision and seconds >= SLOW_WRITE_SECONDS else None
        self._write_seconds.observe(seconds, exemplar)


class DatabaseMetrics:
    """What the writer thread counts."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.commit_seconds = metrics.COMMIT_SECONDS.histogram(registry)
        self.commit_writes = metrics.COMMIT_WRITES.histogram(registry)
        self.checkpoint_seconds = metrics.CHECKPOINT_SECONDS.histogram(registry)
        self.errors = metrics.STORAGE_ERRORS.counter(registry)


class BackupMetrics:
    """What backups of the running sidecar count."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.backups = metrics.BACKUPS.counter(registry)
        self.seconds = metrics.BACKUP_SECONDS.histogram(registry)


class ListenerFamilies:
    """What happens to connections, on all listeners."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._refused = metrics.HTTP_REFUSED.counter(registry)
        self._late = metrics.HTTP_TIMEOUTS.counter(registry)
        self._malformed = metrics.HTTP_MALFORMED.counter(registry)

    def of(self, listener: str) -> "ListenerMetrics":
        """What one of them counts: api or ops."""
        return ListenerMetrics(listener, self._refused, self._late, self._malformed.labels(listener))


class ListenerMetrics:
    """What one listener counts."""

    def __init__(self, listener: str, refused: Counter, late: Counter, malformed: Counter) -> None:
        self.listener = listener
        self._refused = refused
        self._late = late
        self.malformed = malformed

    def refused(self, reason: str) -> None:
        """A connection was not taken, or made room: full, peer, displaced."""
        self._refused.labels(self.listener, reason).inc()

    def late(self, phase: str) -> None:
        """A connection was ended: headers, body, write."""
        self._late.labels(self.listener, phase).inc()


class HttpMetrics:
    """What the API counts. Children are kept: looking one up by labels costs more than counting."""

    def __init__(self, registry: CollectorRegistry | None = None, routes: Iterable[tuple[str, str]] = ()) -> None:
        """`routes`: the templates and methods that are there at 0 from the start, as answered with 200."""
        self._requests = metrics.HTTP_REQUESTS.counter(registry)
        self._seconds = metrics.HTTP_SECONDS.histogram(registry)
        self._auth_failures = metrics.HTTP_AUTH_FAILURES.counter(registry)
        self._methods = set(metrics.HTTP_SECONDS.labels[0].values)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        for route, method in routes:
            self._children_of(route, method, 200)

    def observe(self, route: str, method: str, code: int, seconds: float) -> None:
        """Count one answered request. `route` is the route's template, never the path that was asked for."""
        requests, duration = self._children.get((route, method, code)) or self._children_of(route, method, code)
        requests.inc()
        duration.observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a request that was not let in."""
        self._auth_failures.labels(reason).inc()

    def _children_of(self, route: str, method: str, code: int) -> tuple[Counter, Histogram]:
        known = method if method in self._methods else "other"
        children = self._requests.labels(route, known, str(code)), self._seconds.labels(known)
        self._children[route, method, code] = children
        return children
