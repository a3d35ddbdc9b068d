"""The store: the single source of truth of the agent's state. A write is decided, appended to the journal, then applied.

A write is decided against the tail, the newest accepted snapshot, without awaiting: so no lock is needed, and concurrent
writers share one fsync. It is applied, and can be seen, in order and only once it is durable.
"""

import asyncio
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from sidecar.audience import Audience
from sidecar.checks import Check, RollingCount, Thresholds, check_all
from sidecar.conflicts import NO_VERSION, VERSION_CONFLICTS, Conflict, ConflictKind, Conflicts, Expectation, Reason
from sidecar.decision import Lost, Rules
from sidecar.document import (
    SnapshotDocument,
    check_names,
    decode_document,
    document_of,
    encode_document,
    snapshot_of,
)
from sidecar.errors import (
    InvalidSnapshotError,
    JournalDamagedError,
    OverloadedError,
    StateStoreError,
    StorageError,
    StorageSlowError,
    UnknownStateError,
)
from sidecar.fencing import Claim, Fence, Settling
from sidecar.idempotency import DEFAULT_MAX_KEYS, DEFAULT_TTL_SECONDS, Requests
from sidecar.journal import Entry, Journal, Request
from sidecar.journal.memory import MemoryJournal
from sidecar.machine import Machine
from sidecar.meters import StoreMetrics
from sidecar.readers import Readers
from sidecar.snapshot import FsmSnapshot, FsmState, create_transition, initial_snapshot, next_snapshot
from sidecar.stay import entered_at

DEFAULT_MAX_SUBSCRIBERS = 1000
DEFAULT_QUEUE_SIZE = 64
DEFAULT_MAX_QUEUE = 1024

_LOOKS = 4

_log = logging.getLogger(__name__)

Build = Callable[[SnapshotDocument | None], SnapshotDocument]
"""Makes the document to write from the tail; called at the moment of the decision."""


class Stored:
    """A durable state: its document and its entry in the journal, which has the document's bytes.

    `replayed`: it is the answer to an earlier request, given again.
    """

    __slots__ = ("_snapshot", "_states", "document", "entry", "replayed")

    def __init__(
        self,
        document: SnapshotDocument,
        entry: Entry,
        states: type[IntEnum],
        snapshot: FsmSnapshot | None = None,
        *,
        replayed: bool = False,
    ) -> None:
        self.document = document
        self.entry = entry
        self.replayed = replayed
        self._states = states
        self._snapshot = snapshot

    @property
    def snapshot(self) -> FsmSnapshot:
        """The state as Python users see it; made when it is first asked for."""
        if self._snapshot is None:
            self._snapshot = snapshot_of(self.document, self._states)
        return self._snapshot


class _Pending:
    """An accepted write on its way to the disk, and those who wait for it.

    `masked`: the document as it came, where it takes the place of a state that its writer has not seen.
    """

    __slots__ = ("document", "masked", "request", "snapshot", "waiters")

    def __init__(
        self,
        document: SnapshotDocument,
        snapshot: FsmSnapshot | None,
        request: Request | None,
        masked: SnapshotDocument | None,
    ) -> None:
        self.document = document
        self.masked = masked
        self.snapshot = snapshot
        self.request = request
        self.waiters: list[asyncio.Future[Stored]] = []

    def wait(self) -> "asyncio.Future[Stored]":
        waiter: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        return waiter


class AsyncStateStore:
    """The agent's state, versioned: in memory by default, or in front of a journal.

    `machine` gives the states and the transitions allowed (default: the states of `FsmState`, every move). `audience` is
    the set of listeners when others share it, with its own limit. `history_limit` bounds the transitions that `transition`
    keeps in a snapshot. `max_queue` writes may wait for the disk. `requests` remembers those that may come twice. `conflicts`
    remembers who lost against whom. `fence` says who may write over HTTP. With a journal that may hold a state already, await
    `recover` first; `initial_state` is for a store in memory.
    """

    def __init__(
        self,
        initial_state: FsmSnapshot | None = None,
        max_subscribers: int = DEFAULT_MAX_SUBSCRIBERS,
        queue_size: int = DEFAULT_QUEUE_SIZE,
        *,
        journal: Journal | None = None,
        machine: Machine | None = None,
        audience: Audience | None = None,
        thresholds: Thresholds | None = None,
        history_limit: int = 16,
        max_queue: int = DEFAULT_MAX_QUEUE,
        requests: "Requests[_Pending] | None" = None,
        conflicts: Conflicts | None = None,
        fence: Fence | None = None,
        metrics: StoreMetrics | None = None,
    ) -> None:
        self.journal = MemoryJournal() if journal is None else journal
        self.machine = Machine() if machine is None else machine
        self.conflicts = conflicts or Conflicts()
        self.fence = fence or Fence(self.journal)
        self.rules = Rules(self.machine, self.journal, self.fence)
        self.transitions = dict.fromkeys(self.machine.moves(), 0)
        self.illegal_accepted = 0
        self.unknown_states = 0
        self.state_entered_ts = 0.0
        self.creation_ts = time.time()
        self._audience = Audience(max_subscribers) if audience is None else audience
        self._queue_size = queue_size
        self._readers = Readers(self._audience, queue_size)
        self._thresholds = thresholds or Thresholds()
        self.history_limit = history_limit
        self.max_queue = max_queue
        if requests is None:  # an empty one is false
            requests = Requests(ttl_seconds=DEFAULT_TTL_SECONDS, limit=DEFAULT_MAX_KEYS)
        self.requests = requests
        self._forgotten = 0
        self.replays = 0
        self.overloads = 0
        self.more_checks: Callable[[], Sequence[Check]] = tuple
        """What others have to say about the store's health."""
        self._metrics = metrics or StoreMetrics()
        self._total_sets = 0
        self._total_gets = 0
        self._last_update_ts = 0.0
        self._recent_sets = RollingCount(self._thresholds.window_seconds)
        self._recent_conflicts = RollingCount(self._thresholds.window_seconds)
        self._current: Stored | None = None
        self._tail: SnapshotDocument | None = None
        self._in_flight: deque[_Pending] = deque()
        if initial_state is not None:
            self._tail = document = document_of(initial_state)
            states = self.machine.states
            self.journal.append(
                encode_document(document), lambda entry, _: self._show(Stored(document, entry, states, initial_state))
            )

    # --- reading ---

    @property
    def current(self) -> Stored | None:
        """The newest durable state, uncounted: for those who look from the side."""
        return self._current

    def read(self) -> Stored | None:
        """The newest durable state with its entry."""
        self._total_gets += 1
        return self._current

    @property
    def waiting(self) -> int:
        """Writes accepted that are not on the disk yet; `max_queue` is their limit."""
        return len(self._in_flight)

    async def get(self) -> FsmSnapshot | None:
        """The current snapshot, or None."""
        stored = self.read()
        return stored.snapshot if stored else None

    async def get_with_meta(self) -> tuple[FsmSnapshot | None, dict[str, Any]]:
        """The current snapshot and what the store knows about itself."""
        snapshot = await self.get()
        return snapshot, {
            "store_metrics": self.numbers(),
            "subscriber_count": len(self._audience),
            "has_state": snapshot is not None,
            "current_version": snapshot.version if snapshot else NO_VERSION,
            "max_subscribers": self._audience.limit,
            "queue_size": self._queue_size,
        }

    # --- writing: decide, append, apply ---

    async def set(
        self, snapshot: FsmSnapshot, enforce_version: bool = False, *, expected: int | Expectation | None = None
    ) -> FsmSnapshot:
        """Write a snapshot and return it as stored.

        A version that is not newer than the current one is renumbered to the one after it, or with `enforce_version`
        refused. `expected` is the version that must be the current one (-1: no state yet). Raises `StateVersionError` for
        a lost race, `IllegalTransitionError`, `InvalidSnapshotError`, and `StorageError` when it cannot be made durable.
        """
        if not isinstance(snapshot, FsmSnapshot):
            raise StateStoreError(f"expected an FsmSnapshot, got {type(snapshot).__name__}")
        expectations = [Expectation(expected) if isinstance(expected, int) else expected] if expected is not None else []
        if enforce_version:
            expectations.append(Expectation(below=snapshot.version))
        self._check_members(snapshot)
        stored = await self._write(lambda tail: document_of(snapshot), expectations, snapshot)
        return stored.snapshot

    async def transition(
        self,
        to: IntEnum,
        reason: str,
        *expected: Expectation,
        source_module: str = "fsm_handler",
        request: Request | None = None,
    ) -> Stored:
        """Write the snapshot that follows the current one: in state `to`, the transition in its history."""
        return await self.write(lambda tail: self.moved(tail, to, reason, source_module), *expected, request=request)

    def moved(self, tail: SnapshotDocument | None, to: IntEnum, reason: str, source_module: str) -> SnapshotDocument:
        """The document that follows `tail`, in state `to`."""
        if tail is None:
            return document_of(FsmSnapshot(0, to, reason, source_module=source_module))
        current = snapshot_of(tail, self.machine.states)
        moved = next_snapshot(current, to, reason)
        if to != current.state:
            moved = moved.add_transition(create_transition(current.state, to, reason), self.history_limit)
        return document_of(dataclasses.replace(moved, version=current.version + 1, source_module=source_module))

    async def write(
        self, build: Build, *expected: Expectation, request: Request | None = None, claim: Claim | None = None
    ) -> Stored:
        """Write what `build` makes of the newest accepted state, if all is as expected.

        Raises as `set`, and `OverloadedError`. A `claim` that the fence does not let in raises `FencedError`; None is the
        sidecar itself, and is let in. A `request` that was made before gets its first answer, whatever is expected by
        now; with another fingerprint it raises `KeyReusedError`.
        """
        if request:
            answer = await self._answer_of(request)
            if answer:
                return answer
        return await self._write(build, expected, request=request, claim=claim)

    async def forecast(self, build: Build, *expected: Expectation, claim: Claim | None = None) -> bytes:
        """The document that `write` would store now, as JSON: decided as a write is, and neither written nor counted.

        Raises as `write`, but for what the disk would say.
        """
        try:
            self._refuse_overload()
            body = encode_document(self.rules.decide(build(self._tail), self._tail, expected, claim))
        except Lost as lost:
            await self._settled()
            raise lost.rejection(lost.conflict(), self.fence.holder) from None
        await self._settled()
        return body

    async def _settled(self) -> None:
        """Wait for the tail, and for its writer: what is told of them must not be what a crash could take back."""
        if self._in_flight:
            await self._in_flight[-1].wait()
        await self.fence.settled()

    async def _answer_of(self, request: Request) -> Stored | None:
        """The first answer to a request that was made before; waits for one that is under way. It fails as that one does."""
        place = self.requests.find(request)
        if place is None:
            return None
        if isinstance(place, _Pending):
            first = await place.wait()
            document, entry = first.document, first.entry
        else:
            kept = await self.journal.answer(place)
            if kept is None:  # forgotten just now: look again, for it may have been made again meanwhile
                self.requests.withdraw(request, place)
                return await self._answer_of(request)
            document, entry = _read_back(kept), kept
        self.replays += 1
        return Stored(document, entry, self.machine.states, replayed=True)

    async def _write(
        self,
        build: Build,
        expected: Sequence[Expectation],
        snapshot: FsmSnapshot | None = None,
        request: Request | None = None,
        claim: Claim | None = None,
    ) -> Stored:
        started, revision = time.perf_counter(), None
        try:
            waiter = self._accept(build, expected, snapshot, request, claim)
        except Lost as lost:
            await self._settled()
            raise self._record(lost) from None
        except UnknownStateError:
            self.unknown_states += 1
            raise
        except OverloadedError:
            self.overloads += 1
            raise
        else:
            stored = await waiter
            revision = stored.entry.revision
            return stored
        finally:
            self._metrics.written(time.perf_counter() - started, revision)

    def _accept(
        self,
        build: Build,
        expected: Sequence[Expectation],
        snapshot: FsmSnapshot | None,
        request: Request | None,
        claim: Claim | None,
    ) -> "asyncio.Future[Stored]":
        self._refuse_overload()
        proposed = build(self._tail)
        document = self.rules.decide(proposed, self._tail, expected, claim)
        body = encode_document(document)
        if self._tail and self.rules.warns_of(self._tail, document):
            self._tell_illegal(self._tail, document)
        renumbered = document is not proposed
        unseen = renumbered and self._tail and all(expectation.version is None for expectation in expected)
        pending = _Pending(document, None if renumbered else snapshot, request, proposed if unseen else None)
        waiter = pending.wait()
        self._in_flight.append(pending)
        self._tail = document
        if request:
            self.requests.begin(request, pending)
        self.journal.append(body, self._settle, request)
        return waiter

    def _refuse_overload(self) -> None:
        if self.waiting >= self.max_queue:
            raise OverloadedError(f"{self.max_queue} writes wait for the disk already; try again in a moment")

    def _check_members(self, snapshot: FsmSnapshot) -> None:
        if not isinstance(snapshot.state, self.machine.states):
            raise InvalidSnapshotError(f"{snapshot.state!r} is not a state of the machine", path="$.state")

    def _tell_illegal(self, tail: SnapshotDocument, document: SnapshotDocument) -> None:
        self.illegal_accepted += 1
        _log.warning("illegal_transition_accepted: %s -> %s, by %s", tail.state, document.state, document.source_module)

    def _record(self, lost: Lost) -> StateStoreError:
        """Record the lost write, and give the error that tells its writer."""
        conflict = lost.conflict()
        self.conflicts.add(conflict)
        if lost.kind in VERSION_CONFLICTS:
            self._recent_conflicts.add()
        return lost.rejection(conflict, self.fence.holder)

    def _settle(self, entry: Entry, error: StorageError | None) -> None:
        """The journal has made the oldest write in flight durable, or could not: then all behind it fail as well."""
        pending = self._in_flight.popleft()
        if error:
            self._tail = self._current.document if self._current else None
            if pending.request:
                self.requests.withdraw(pending.request, pending)
        else:
            if pending.request:
                self.requests.settle(pending.request, entry.revision)
            if pending.masked:
                self._tell_masked(pending.masked)
            stored = Stored(pending.document, entry, self.machine.states, pending.snapshot)
            self._total_sets += 1
            self._recent_sets.add()
            self._show(stored)
        for waiter in pending.waiters:
            if waiter.done():  # its caller was cancelled; the write is not
                continue
            if error:
                waiter.set_exception(error)
            else:
                waiter.set_result(stored)

    def _tell_masked(self, document: SnapshotDocument) -> None:
        """Record that a write took the place of a state that its writer had not seen."""
        against = self.rules.standing(self._current.document if self._current else None)
        reason = Reason.EQUAL if document.version == against.version else Reason.STALE
        self.conflicts.add(Conflict.now(ConflictKind.MASKED, reason, document, None, against))

    async def answer_overdue(self, timeout_seconds: float) -> None:
        """Answer those who have waited for the disk that long, or up to a quarter longer. A core task; never ends.

        What they wait for goes on: a write will count or not, and its key will tell.
        """
        newest: deque[tuple[_Pending | None, Settling | None]] = deque([(None, None)] * _LOOKS, maxlen=_LOOKS + 1)
        while True:
            await asyncio.sleep(timeout_seconds / _LOOKS)
            newest.append((self._in_flight[-1] if self._in_flight else None, self.fence.settling))
            overdue, settling = newest[0]
            error = StorageSlowError(f"the disk has not answered for {timeout_seconds:g} s; the write may or may not count")
            if overdue and overdue in self._in_flight:
                self._answer_up_to(overdue, error)
            if settling:
                self.fence.answer_overdue(settling, error)

    def _answer_up_to(self, last: _Pending, error: StorageSlowError) -> None:
        for pending in self._in_flight:
            for waiter in pending.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            if pending is last:
                return

    def _show(self, stored: Stored) -> None:
        """From here on everybody sees it."""
        previous, self._current = self._current, stored
        self._last_update_ts = stored.entry.appended_at
        if previous is None:
            self.state_entered_ts = stored.entry.appended_at
        elif previous.document.state != stored.document.state:
            self.state_entered_ts = stored.entry.appended_at
            move = previous.document.state, stored.document.state
            self.transitions[move] = self.transitions.get(move, 0) + 1
        if self._readers:
            self._readers.show(stored.snapshot)

    # --- starting ---

    async def recover(self) -> None:
        """Show the state that the journal's head holds.

        Raises `InvalidSnapshotError` for a state that is not in the machine, `JournalDamagedError` for what is no document.
        """
        journal = self.journal
        await self.fence.recover()
        self.requests.restore(await journal.answered(self.requests.limit), time.time())
        if journal.head < journal.oldest:
            return
        (newest,) = await journal.read(journal.head - 1, 1)
        self._tail = document = _read_back(newest)
        check_names(document, self.machine.states)
        self._show(Stored(document, newest, self.machine.states))
        self.state_entered_ts = await entered_at(self.journal, newest)

    async def forget_answers(self) -> None:
        """Let the journal forget the answers whose time is over. Raises `StorageError`."""
        self.requests.expire()
        if self.requests.forgotten > self._forgotten:
            forgotten = self.requests.forgotten
            await self.journal.forget_answers(forgotten + 1)
            self._forgotten = forgotten

    async def give_up_answers(self, before: int) -> None:
        """Forget the answers before a revision, early: there is no room for them. Raises `StorageError`."""
        await self.journal.forget_answers(before)
        self.requests.give_up(before)

    async def initialize_if_empty(self) -> None:
        """Write the initial snapshot if there is no state; on return there is one."""
        if self._tail is None:
            initial = FsmState.BOOTING if self.machine.initial is None else self.machine.initial
            await self.set(initial_snapshot(initial))
        elif self._in_flight:
            await self._in_flight[-1].wait()

    # --- in-process readers ---

    async def subscribe(
        self, subscriber_id: str = "unknown", max_queue_size: int | None = None
    ) -> "asyncio.Queue[FsmSnapshot]":
        """A queue that first receives the current snapshot, then each new one. At the limit: `SubscriberLimitError`.

        When the reader is slow, the oldest waiting snapshot makes room for the newest, and is counted as failed.
        """
        return self._readers.join(subscriber_id, max_queue_size, self._current.snapshot if self._current else None)

    async def unsubscribe(self, queue: "asyncio.Queue[FsmSnapshot]") -> bool:
        """Stop serving the queue. True if it was subscribed."""
        return self._readers.leave(queue)

    async def cleanup(self) -> None:
        """Forget all in-process readers."""
        self._readers.leave_all()

    # --- what the store knows about itself ---

    async def get_metrics(self) -> dict[str, Any]:
        """The store's numbers: counts since the start, times in seconds, and the current version and state."""
        return self.numbers()

    def numbers(self) -> dict[str, Any]:
        """As `get_metrics`, for callers that must not await between two looks."""
        current = self._current.document if self._current else None
        return {
            "total_sets": self._total_sets,
            "total_gets": self._total_gets,
            "version_conflicts": self.conflicts.version_conflicts,
            "subscriber_count": len(self._audience),
            "last_update_ts": self._last_update_ts,
            "creation_ts": self.creation_ts,
            "notifications_sent": self._audience.notifications_sent,
            "notifications_failed": self._audience.notifications_failed,
            "dead_subscribers_removed": self._audience.dead_removed,
            "uptime_seconds": time.time() - self.creation_ts,
            "current_version": current.version if current else NO_VERSION,
            "current_state": current.state if current else "UNINITIALIZED",
            "active_subscribers": self._audience.active,
            "max_subscribers": self._audience.limit,
            "queue_size": self._queue_size,
        }

    def judge_by(self, thresholds: Thresholds) -> None:
        """Judge the store's health by these from now on. A window of another length begins anew."""
        if thresholds.window_seconds != self._thresholds.window_seconds:
            self._recent_sets = RollingCount(thresholds.window_seconds)
            self._recent_conflicts = RollingCount(thresholds.window_seconds)
        self._thresholds = thresholds

    def checks(self) -> tuple[Check, ...]:
        """Whether the store is well, check by check."""
        own = check_all(
            self._thresholds,
            sets=self._recent_sets.total(),
            conflicts=self._recent_conflicts.total(),
            initialised=self._current is not None,
            subscribers=len(self._audience),
            max_subscribers=self._audience.limit,
            seconds_since_update=time.time() - self._last_update_ts if self._last_update_ts else 0.0,
        )
        return *own, *self.more_checks()

    async def health_check(self) -> dict[str, Any]:
        """`healthy`, the failing checks as `issues` and `warnings`, `metrics`, and a `timestamp` in seconds."""
        failing = [check for check in self.checks() if not check.ok]
        issues = [check.message for check in failing if check.level == "issue"]
        return {
            "healthy": not issues,
            "issues": issues,
            "warnings": [check.message for check in failing if check.level == "warning"],
            "metrics": self.numbers(),
            "timestamp": time.time(),
        }

    async def get_subscriber_info(self) -> dict[str, Any]:
        """Who listens, and how many may."""
        return {
            "total_subscribers": len(self._audience),
            "subscriber_ids": self._audience.subscriber_ids,
            "max_subscribers": self._audience.limit,
            "queue_size": self._queue_size,
        }


def create_store(
    initial_state: FsmSnapshot | None = None,
    max_subscribers: int = DEFAULT_MAX_SUBSCRIBERS,
    queue_size: int = DEFAULT_QUEUE_SIZE,
) -> AsyncStateStore:
    """A store in memory."""
    return AsyncStateStore(initial_state, max_subscribers, queue_size)


async def create_initialized_store(
    max_subscribers: int = DEFAULT_MAX_SUBSCRIBERS, queue_size: int = DEFAULT_QUEUE_SIZE
) -> AsyncStateStore:
    """A store in memory that holds the initial snapshot."""
    store = create_store(None, max_subscribers, queue_size)
    await store.initialize_if_empty()
    return store


async def monitor_state_store(store: AsyncStateStore, interval: float = 30.0) -> None:
    """Log the store's issues and warnings every `interval` seconds, until cancelled."""
    while True:
        health = await store.health_check()
        for problem in (*health["issues"], *health["warnings"]):
            _log.warning("state store: %s", problem)
        await asyncio.sleep(interval)


def _read_back(entry: Entry) -> SnapshotDocument:
    try:
        return decode_document(entry.document)
    except msgspec.DecodeError as error:
        raise JournalDamagedError(f"revision {entry.revision} of the journal is no state: {error}") from error
