"""What is read for each scrape: the store's own numbers as gauges, and the state of everything that has one."""

import asyncio
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from itertools import permutations

import msgspec
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from sidecar import logs, metrics
from sidecar.backup import Backups
from sidecar.configwatch import ConfigWatch
from sidecar.conflicts import Conflict, ConflictKind
from sidecar.database import Database
from sidecar.dispatch.dispatcher import Dispatcher
from sidecar.dispatch.subscriber import Status
from sidecar.dwell import Dwell
from sidecar.heartbeat import Heartbeat
from sidecar.ops.disk import Disk
from sidecar.ops.looplag import LoopLag
from sidecar.serving.server import Server
from sidecar.store import AsyncStateStore
from sidecar.watchers import Watchers

MAX_TRANSITION_SERIES = 256
"""So many pairs of states have a series of their own; the others are counted together as `other`."""

_FEW_STATES = 8
_NAME_LENGTH = 32
_ESCAPED = str.maketrans('"\\\n', "'/ ")
_RELEASE = version("fsm-sidecar"), platform.python_version()


class Facts(msgspec.Struct, frozen=True):
    """What the configuration says and the metrics tell on."""

    agent: str
    fsm: str
    fault_states: tuple[str, ...]
    update_expected: bool
    subscriber_series: int
    webhook_timeout_seconds: float
    evict_failures: int


class StateCollector(Collector):
    """Reads everybody once for each scrape, without awaiting: all values are of one moment."""

    def __init__(
        self,
        store: AsyncStateStore,
        dispatcher: Dispatcher,
        database: Database | None,
        backups: Backups,
        watchers: Watchers,
        *,
        facts: Facts,
        config_watch: ConfigWatch,
        loop_lag: LoopLag,
        servers: Mapping[str, Server],
        in_flight: Callable[[], tuple[int, int]],
        heartbeat: Heartbeat,
        dwell: Dwell,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._database = database
        self._backups = backups
        self._watchers = watchers
        self.facts = facts
        self._config_watch = config_watch
        self._loop_lag = loop_lag
        self._servers = servers
        self._in_flight = in_flight
        self._heartbeat = heartbeat
        self._dwell = dwell
        self.disk = Disk(database) if database else None

    def collect(self) -> Iterator[Metric]:
        """The families of this moment."""
        numbers = self._store.numbers()
        for key, family in metrics.STORE_GAUGES.items():
            yield family.sample([((), numbers[key])])
        yield from self._health()
        yield from self._state(numbers)
        yield from self._writes(numbers)
        yield from self._conflicts()
        yield from self._journal()
        yield from self._deliveries(numbers)
        yield from self._subscribers()
        yield from self._watching()
        yield from self._connections()
        yield from self._process()

    def describe(self) -> Iterator[Metric]:
        """As `collect`: the registry wants to know the names."""
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
        yield metrics.STATE_STALLED.sample([((), self._dwell.stalled)])
        yield metrics.FAULT_STATE.sample([((), state in self.facts.fault_states)])
        yield metrics.TRANSITIONS.sample(self._transitions(states).items())
        yield metrics.VERSION.sample([((), numbers["current_version"])])
        yield metrics.LAST_UPDATE.sample([((), numbers["last_update_ts"])])
        yield metrics.UPDATE_EXPECTED.sample([((), self.facts.update_expected)])
        yield metrics.HEARTBEAT_EXPIRES.sample([((), self._heartbeat.expires_ts)])
        yield metrics.LAST_WILLS.sample(((outcome,), count) for outcome, count in self._heartbeat.outcomes.items())
        yield metrics.CREATED.sample([((), numbers["creation_ts"])])
        yield metrics.SNAPSHOT_BYTES.sample([((), len(current.entry.document) if current else 0)])

    def _transitions(self, states: list[str]) -> dict[tuple[str, str], int]:
        """Those made, and those that may be made at 0: the listed ones, or all where none are listed and there are few."""
        made = self._store.transitions
        if self._store.machine.transitions is None and len(states) <= _FEW_STATES:
            made = dict.fromkeys(permutations(states, 2), 0) | made
        if len(made) <= MAX_TRANSITION_SERIES:
            return made
        pairs = list(made.items())
        rest = sum(count for _, count in pairs[MAX_TRANSITION_SERIES:])
        return dict(pairs[:MAX_TRANSITION_SERIES]) | {("other", "other"): rest}

    def _writes(self, numbers: dict[str, float]) -> Iterator[Metric]:
        store = self._store
        yield metrics.SETS.sample([((), numbers["total_sets"])])
        yield metrics.GETS.sample([((), numbers["total_gets"])])
        yield metrics.WRITES_WAITING.sample([((), store.waiting)])
        yield metrics.OVERLOADS.sample([((), store.overloads)])
        yield metrics.QUEUE_LIMIT.sample([((), store.max_queue)])
        yield metrics.REPLAYS.sample([((), store.replays)])
        yield metrics.KEYS.sample([((), len(store.requests))])
        yield metrics.KEYS_FORGOTTEN.sample([((), store.requests.forgotten_early)])
        yield metrics.WRITER_TOKEN.sample([((), store.fence.number)])
        yield metrics.UNKNOWN_STATES.sample([((), store.unknown_states)])

    def _conflicts(self) -> Iterator[Metric]:
        store, conflicts = self._store, self._store.conflicts
        latest: dict[tuple[str, ...], Exemplar] = {key: _exemplar(conflict) for key, conflict in conflicts.latest.items()}
        yield metrics.CONFLICTS.sample(conflicts.by_reason.items(), latest)
        yield metrics.REWRITES.sample(((writer,), count) for writer, count in conflicts.masked.items())
        yield metrics.WRITER_CONFLICTS.sample(
            ((writer, against, "masked" if masked else "rejected"), count)
            for (writer, against, masked), count in conflicts.meetings.items()
        )
        refused = conflicts.counts[ConflictKind.ILLEGAL_TRANSITION]
        yield metrics.ILLEGAL.sample([(("refused",), refused), (("accepted",), store.illegal_accepted)])

    def _journal(self) -> Iterator[Metric]:
        journal = self._store.journal
        yield metrics.HEAD.sample([((), journal.head)])
        yield metrics.OLDEST.sample([((), journal.oldest)])
        yield metrics.KEPT_BYTES.sample([((), journal.size)])
        yield metrics.BACKUP_SUCCESS.sample([((), self._backups.last_success_at)])
        if self._database and self.disk:
            yield metrics.QUEUE.sample([((), self._database.queue_length)])
            yield metrics.FILE_BYTES.sample(((name,), size) for name, size in self.disk.room.files.items())
            yield metrics.FREE_BYTES.sample([((), self.disk.room.free)])
            yield metrics.RESERVE_BYTES.sample([((), self._database.space.reserve_bytes)])
            yield metrics.UNCLEAN_STARTS.sample([((), self._database.found.unclean_starts)])

    def _deliveries(self, numbers: dict[str, float]) -> Iterator[Metric]:
        places = self._dispatcher.places
        yield metrics.NOTIFICATIONS.sample([((), numbers["notifications_sent"])])
        yield metrics.NOTIFICATIONS_FAILED.sample([((), numbers["notifications_failed"])])
        yield metrics.IN_FLIGHT.sample([((), places.in_flight)])
        yield metrics.IN_FLIGHT_LIMIT.sample([((), places.limit)])
        yield metrics.TIMEOUT_SECONDS.sample([((), self.facts.webhook_timeout_seconds)])
        yield metrics.EVICT_FAILURES.sample([((), self.facts.evict_failures)])
        yield metrics.SUBSCRIBERS_LIMIT.sample([((), numbers["max_subscribers"])])

    def _subscribers(self) -> Iterator[Metric]:
        roster, head = self._dispatcher.roster, self._store.journal.head
        counts = dict.fromkeys(Status, 0)
        for subscriber in roster:
            counts[subscriber.status] += 1
        served = roster.served()
        yield metrics.SUBSCRIBERS.sample(((status,), count) for status, count in counts.items())
        yield metrics.LAG_MAX.sample([((), max((each.lag(head) for each in served), default=0))])
        listed = served[: self.facts.subscriber_series]
        seats = [(each.id, seat) for each in listed if (seat := roster.seat(each))]
        yield metrics.SUBSCRIBER_ATTEMPTS.sample(((name,), seat.attempts) for name, seat in seats)
        yield metrics.SUBSCRIBER_ATTEMPTS_FAILED.sample(((name,), seat.attempts_failed) for name, seat in seats)
        yield metrics.SUBSCRIBER_CURSOR.sample(((each.id,), each.cursor or 0) for each in listed)
        yield metrics.SUBSCRIBER_LAG.sample(((each.id,), each.lag(head)) for each in listed)
        yield metrics.SUBSCRIBER_FAILURES.sample(((each.id,), each.failures) for each in listed)
        yield metrics.SUBSCRIBER_SUCCESS.sample(((each.id,), each.last_success_at) for each in listed)
        yield metrics.SUBSCRIBERS_UNLISTED.sample([((), len(served) - len(listed))])
        yield metrics.ACK_WAITING.sample([((), len(roster.waits))])
        yield metrics.ACK_WAITS_ENDED.sample(((ending,), count) for ending, count in roster.waits.endings.items())

    def _watching(self) -> Iterator[Metric]:
        watchers = self._watchers
        yield metrics.WATCHERS.sample(((kind,), count) for kind, count in watchers.counts().items())
        yield metrics.WATCHERS_LIMIT.sample([((), watchers.limit)])
        yield metrics.WATCHERS_REFUSED.sample([((), watchers.refused)])
        yield metrics.WATCH_EVENTS.sample([((), watchers.events)])
        yield metrics.WATCH_GAPS.sample(((reason,), count) for reason, count in watchers.gaps.items())

    def _connections(self) -> Iterator[Metric]:
        servers = self._servers.items()
        yield metrics.HTTP_CONNECTIONS.sample(((name,), len(server)) for name, server in servers)
        yield metrics.HTTP_CONNECTIONS_LIMIT.sample(((name,), server.limits.connections) for name, server in servers)
        now, limit = self._in_flight()
        yield metrics.HTTP_IN_FLIGHT.sample([((), now)])
        yield metrics.HTTP_IN_FLIGHT_LIMIT.sample([((), limit)])

    def _process(self) -> Iterator[Metric]:
        watch = self._config_watch
        yield metrics.BUILD.sample([(_RELEASE, 1)])
        yield metrics.AGENT.sample([((self.facts.agent, self.facts.fsm), 1)])
        yield metrics.CONFIG_HASH.sample([((), watch.hash)])
        yield metrics.CONFIG_LOADED.sample([((), watch.loaded_at)])
        yield metrics.CONFIG_VALID.sample([((), watch.valid)])
        yield metrics.CONFIG_CHANGED.sample([((), bool(watch.waiting))])
        yield metrics.LOOP_LAG.sample([((), self._loop_lag.seconds)])
        yield metrics.LOOP_TASKS.sample([((), len(asyncio.all_tasks()))])
        yield metrics.LOG_MESSAGES.sample(((level,), count) for level, count in logs.LINES.items())


def _exemplar(conflict: Conflict) -> Exemplar:
    """Who overwrote whom, within the 128 characters that OpenMetrics allows an exemplar."""
    told = {
        "writer": _short(conflict.attempted.source_module),
        "version": str(conflict.attempted.version),
        "against": _short(conflict.against.source_module or ""),
        "current": str(conflict.against.version),
    }
    return Exemplar(told, 1.0, conflict.at)


def _short(name: str) -> str:
    """Not all readers of exemplars understand escapes, so that there are none."""
    return name[:_NAME_LENGTH].translate(_ESCAPED)
