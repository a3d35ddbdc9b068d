"""What Prometheus reads at scrape time: the store's own numbers as gauges, and the state of everything that has one."""

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sidecar import metrics
from sidecar.backup import Backups
from sidecar.conflicts import VERSION_CONFLICTS
from sidecar.database import Database, file_bytes
from sidecar.dispatch.dispatcher import Dispatcher
from sidecar.dispatch.subscriber import Status
from sidecar.store import AsyncStateStore

MAX_SUBSCRIBER_SERIES = 50
"""So many subscribers have series of their own; the others are counted in `fsm_subscriber_series_suppressed`."""


class StateCollector(Collector):
    """Reads the store and the roster once for each scrape, without awaiting: all values are of one moment."""

    def __init__(
        self,
        store: AsyncStateStore,
        dispatcher: Dispatcher,
        database: Database | None,
        backups: Backups,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._database = database
        self._backups = backups

    def collect(self) -> Iterator[Metric]:
        numbers = self._store.numbers()
        for key, family in metrics.STORE_GAUGES.items():
            yield family.sample([((), numbers[key])])
        yield from self._health()
        yield from self._state(numbers)
        yield from self._writes(numbers)
        yield from self._journal()
        yield from self._subscribers(numbers)
        yield metrics.BUILD.sample([((version("fsm-sidecar"), platform.python_version()), 1)])

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def _health(self) -> Iterator[Metric]:
        checks = self._store.checks()
        failing = [check.level for check in checks if not check.ok]
        yield metrics.HEALTHY.sample([((), "issue" not in failing)])
        yield metrics.ISSUES.sample([((), failing.count("issue"))])
        yield metrics.WARNINGS.sample([((), failing.count("warning"))])
        yield metrics.CHECK_OK.sample(((check.name, check.level), check.ok) for check in checks)

    def _state(self, numbers: dict[str, float]) -> Iterator[Metric]:
        store, current = self._store, self._store.current
        state = current.document.state if current else None
        states = list(store.machine.states.__members__)
        yield metrics.STATE.sample(((name,), name == state) for name in states)
        yield metrics.STATE_CODE.sample([((), states.index(state) if state is not None else -1)])
        yield metrics.STATE_ENTERED.sample([((), store.state_entered_ts)])
        yield metrics.VERSION.sample([((), numbers["current_version"])])
        yield metrics.LAST_UPDATE.sample([((), numbers["last_update_ts"])])
        yield metrics.CREATED.sample([((), numbers["creation_ts"])])
        yield metrics.SNAPSHOT_BYTES.sample([((), len(current.entry.document) if current else 0)])

    def _writes(self, numbers: dict[str, float]) -> Iterator[Metric]:
        store = self._store
        yield metrics.SETS.sample([((), numbers["total_sets"])])
        yield metrics.GETS.sample([((), numbers["total_gets"])])
        yield metrics.CONFLICTS.sample(((kind,), store.rejections.counts[kind]) for kind in VERSION_CONFLICTS)
        yield metrics.OVERLOADS.sample([((), store.overloads)])
        yield metrics.QUEUE_LIMIT.sample([((), store.max_queue)])
        yield metrics.REPLAYS.sample([((), store.replays)])
        yield metrics.KEYS.sample([((), len(store.requests))])
        yield metrics.KEYS_FORGOTTEN.sample([((), store.requests.forgotten_early)])
        yield metrics.REWRITES.sample([((), store.version_rewrites)])
        refused = sum(store.rejections.counts.values()) - store.rejections.version_conflicts
        yield metrics.ILLEGAL.sample([(("refused",), refused), (("accepted",), store.illegal_accepted)])
        yield metrics.TRANSITIONS.sample(store.transitions.items())

    def _journal(self) -> Iterator[Metric]:
        journal = self._store.journal
        yield metrics.HEAD.sample([((), journal.head)])
        yield metrics.OLDEST.sample([((), journal.oldest)])
        yield metrics.KEPT_BYTES.sample([((), journal.size)])
        yield metrics.BACKUP_SUCCESS.sample([((), self._backups.last_success_at)])
        database = self._database
        if database:
            yield metrics.QUEUE.sample([((), database.queue_length)])
            yield metrics.FILE_BYTES.sample(((name,), size) for name, size in file_bytes(database.path).items())
            yield metrics.FREE_BYTES.sample([((), database.space.free())])
            yield metrics.UNCLEAN_STARTS.sample([((), database.found.unclean_starts)])

    def _subscribers(self, numbers: dict[str, float]) -> Iterator[Metric]:
        everybody = list(self._dispatcher.roster)
        head = self._store.journal.head
        counts = dict.fromkeys(Status, 0)
        for subscriber in everybody:
            counts[subscriber.status] += 1
        yield metrics.SUBSCRIBERS.sample(((status,), count) for status, count in counts.items())
        yield metrics.SUBSCRIBERS_LIMIT.sample([((), numbers["max_subscribers"])])
        yield metrics.NOTIFICATIONS.sample([((), numbers["notifications_sent"])])
        yield metrics.NOTIFICATIONS_FAILED.sample([((), numbers["notifications_failed"])])
        yield metrics.IN_FLIGHT.sample([((), self._dispatcher.places.in_flight)])
        yield metrics.IN_FLIGHT_LIMIT.sample([((), self._dispatcher.places.limit)])
        served = self._dispatcher.roster.served()
        listed = served[:MAX_SUBSCRIBER_SERIES]
        yield metrics.SUBSCRIBER_CURSOR.sample(((s.id,), s.cursor or 0) for s in listed)
        yield metrics.SUBSCRIBER_LAG.sample(((s.id,), s.lag(head)) for s in listed)
        yield metrics.SUBSCRIBER_FAILURES.sample(((s.id,), s.failures) for s in listed)
        yield metrics.SUBSCRIBER_SUCCESS.sample(((s.id,), s.last_success_at) for s in listed)
        yield metrics.SUBSCRIBERS_UNLISTED.sample([((), len(served) - len(listed))])
