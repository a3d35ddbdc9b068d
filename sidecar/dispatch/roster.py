"""The roster: who subscribes, how far each one got, and how well it goes. Kept in the journal's file."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import structlog

from sidecar.audience import Audience, Seat
from sidecar.database import Database
from sidecar.dispatch.acks import Waits
from sidecar.dispatch.secret import Secret
from sidecar.dispatch.subscriber import OldSecret, Reason, Settings, Start, Status, Subscriber
from sidecar.dispatch.target import Targets
from sidecar.dispatch.webhook import Attempt, Outcome
from sidecar.errors import (
    ConfiguredSubscriberError,
    EndpointRefusedError,
    JournalDamagedError,
    StorageError,
    StorageFullError,
    SubscriberLimitError,
    UnknownSubscriberError,
)
from sidecar.logs import Summarised
from sidecar.meters import DispatchMetrics

_log = structlog.get_logger("roster")

_SAVE = "INSERT INTO subscribers (id, record) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record"
_DELETE = "DELETE FROM subscribers WHERE id = ?"


_RENEWED = ("settings", "old_secrets", "cursor", "delivered", "failures", "failing_seconds", "evicted_at", "evicted_reason")

MAX_OLD_SECRETS = 3
"""So many replaced secrets sign at most; whoever rotates faster loses the oldest."""


class Registered(NamedTuple):
    """A subscriber, whether it was not served before, and the secret that was made for it: nobody else knows that one."""

    subscriber: Subscriber
    added: bool
    made_secret: str | None


class Roster:
    """The subscribers by id; the evicted ones stay as tombstones for a while. Without a database it lives in memory."""

    def __init__(
        self,
        database: Database | None,
        audience: Audience,
        metrics: DispatchMetrics,
        targets: Targets,
        *,
        tombstone_seconds: float,
        secret_overlap_seconds: float = 86400.0,
        max_ack_waits: int = 64,
    ) -> None:
        self._database = database
        self._audience = audience
        self._metrics = metrics
        self._targets = targets
        self._tombstone_seconds = tombstone_seconds
        self._secret_overlap_seconds = secret_overlap_seconds
        self.waits = Waits(max_ack_waits)
        self._subscribers: dict[str, Subscriber] = {}
        self._seats: dict[str, Seat] = {}
        self._unsaved: set[str] = set()
        self._saved_cursors: dict[str, int | None] = {}
        self._tell_good, self._tell_bad = Summarised(_log.info), Summarised(_log.warning)
        self._removing: str | None = None  # not to be saved any more
        self._changing = asyncio.Lock()  # registrations and removals, one after the other: each waits for the disk

    async def load(self) -> None:
        """Take up the subscribers that the last process left."""
        rows = await self._database.read("SELECT record FROM subscribers ORDER BY rowid") if self._database else []
        for (record,) in rows:
            try:
                subscriber = msgspec.json.decode(record, type=Subscriber)
            except msgspec.DecodeError as error:
                raise JournalDamagedError(f"the journal has a subscriber that cannot be read: {error}") from error
            self._subscribers[subscriber.id] = subscriber
            self._saved_cursors[subscriber.id] = subscriber.cursor
            if subscriber.status is not Status.EVICTED:
                seat = self._seats[subscriber.id] = self._audience.admit(subscriber.id)
                seat.active = subscriber.status is not Status.SUSPENDED

    def configure(self, configured: Iterable[tuple[str, Settings]]) -> None:
        """Make the subscribers of the config file what it says: new, changed, or no longer there."""
        wanted = dict(configured)
        for subscriber in [s for s in self.served() if s.configured and s.id not in wanted]:
            self.evict(subscriber, Reason.UNCONFIGURED)
        for subscriber_id, settings in wanted.items():
            self._install(subscriber_id, settings, configured=True)  # also when others hold all places: the file was checked

    async def register(self, subscriber_id: str, settings: Settings, start: Start | None = None) -> Registered:
        """Register, change or bring back a subscriber; durable on return.

        A secret that is not given stays as it was; a new subscriber gets one made. Without a `start` it goes on where it
        was. Raises `SubscriberLimitError`, `EndpointRefusedError`, `ConfiguredSubscriberError` for one that the config file
        owns, and `StorageError`: then nothing has changed.
        """
        self._check(settings)
        async with self._changing:
            known = self._subscribers.get(subscriber_id)
            served = known is not None and known.status is not Status.EVICTED
            self._refuse_configured(known)
            made = None
            if settings.secret is None:
                kept = known.settings.secret if known else None
                made = None if kept else Secret.generate().text
                settings = msgspec.structs.replace(settings, secret=kept or made)
            self._take_seat(subscriber_id)
            try:
                await self._save(self._renewed(known or Subscriber(subscriber_id, settings), settings, start))
            except StorageError:
                if not served:
                    self._leave(subscriber_id)
                raise
            self._refuse_configured(self._subscribers.get(subscriber_id))  # a reload may have brought it meanwhile
            self._metrics.subscriptions.inc()
            return Registered(self._install(subscriber_id, settings, start, configured=False), not served, made)

    def _refuse_configured(self, known: Subscriber | None) -> None:
        if known and known.configured and known.status is not Status.EVICTED:
            self.changed(known)  # what another registration may have saved is not what holds
            raise ConfiguredSubscriberError(f"subscriber {known.id} is written in the config file; change it there")

    async def rotate(self, subscriber_id: str) -> Subscriber:
        """Make a new secret; the old one signs beside it for the overlap. Raises as `get` and `register`."""
        subscriber = self.get(subscriber_id)
        if subscriber.status is Status.EVICTED:
            raise UnknownSubscriberError("this subscriber was evicted; register it again first")
        settings = msgspec.structs.replace(subscriber.settings, secret=Secret.generate().text)
        return (await self.register(subscriber_id, settings)).subscriber

    def _check(self, settings: Settings) -> None:
        try:
            self._targets.check(settings.url)
        except EndpointRefusedError:
            self._metrics.subscriptions_rejected.labels("endpoint").inc()
            raise

    def _take_seat(self, subscriber_id: str) -> None:
        if subscriber_id in self._seats:
            return
        try:
            self._seats[subscriber_id] = self._audience.join(subscriber_id)
        except SubscriberLimitError:
            self._metrics.subscriptions_rejected.labels("limit").inc()
            raise

    def _install(self, subscriber_id: str, settings: Settings, start: Start | None = None, *, configured: bool) -> Subscriber:
        subscriber = self._subscribers.setdefault(subscriber_id, Subscriber(subscriber_id, settings))
        if subscriber_id not in self._seats:  # configured, or evicted while its registration was being saved
            self._seats[subscriber_id] = self._audience.admit(subscriber_id)
        fresh = self._renewed(subscriber, settings, start)
        for field in _RENEWED:
            setattr(subscriber, field, getattr(fresh, field))
        subscriber.configured = configured
        self.set_status(subscriber, fresh.status)
        self.changed(subscriber)
        return subscriber

    def _renewed(self, subscriber: Subscriber, settings: Settings, start: Start | None) -> Subscriber:
        """A copy with these settings. One that was evicted starts anew, from where it stood."""
        now = time.time()
        fresh = msgspec.structs.replace(subscriber, settings=settings, configured=False)
        replaced = OldSecret(subscriber.settings.secret or "", now + self._secret_overlap_seconds)
        old = [replaced, *subscriber.old_secrets] if replaced.secret != (settings.secret or "") else subscriber.old_secrets
        others = [each for each in old if each.secret not in ("", settings.secret) and now < each.until]
        fresh.old_secrets = tuple(others[:MAX_OLD_SECRETS])
        if subscriber.status is Status.EVICTED:
            fresh.status, fresh.failures, fresh.failing_seconds = Status.ACTIVE, 0, 0.0
            fresh.evicted_at, fresh.evicted_reason = 0.0, None
        if start:
            fresh.cursor, fresh.delivered = None if start.revision is None else start.revision - 1, None
        return fresh

    async def remove(self, subscriber_id: str) -> None:
        """Forget a subscriber and its cursor; durable on return. Raises as `get`, and for one that the config file owns."""
        async with self._changing:
            subscriber = self.get(subscriber_id)
            if subscriber.configured and subscriber.status is not Status.EVICTED:
                raise ConfiguredSubscriberError(f"subscriber {subscriber_id} is written in the config file; remove it there")
            self._removing = subscriber_id
            try:
                if self._database:
                    await self._database.execute(_DELETE, (subscriber_id,))
                self._forget(subscriber_id)
                self._metrics.unsubscriptions.inc()
            finally:
                self._removing = None

    def _forget(self, subscriber_id: str) -> None:
        del self._subscribers[subscriber_id]
        self._unsaved.discard(subscriber_id)
        self._saved_cursors.pop(subscriber_id, None)
        self._leave(subscriber_id)

    def _leave(self, subscriber_id: str) -> None:
        seat = self._seats.pop(subscriber_id, None)
        if seat:
            seat.leave()
        self.waits.left(subscriber_id)

    def knows(self, subscriber: Subscriber) -> bool:
        """Whether this very subscriber is in the roster: it may have been removed while an attempt was under way."""
        return self._subscribers.get(subscriber.id) is subscriber

    def evict(self, subscriber: Subscriber, reason: Reason) -> None:
        """Stop serving a subscriber. Its tombstone keeps the cursor."""
        subscriber.evicted_at, subscriber.evicted_reason = time.time(), reason
        self._leave(subscriber.id)
        self._audience.dead_removed += reason is not Reason.UNCONFIGURED
        self._metrics.evictions.labels(reason).inc()
        self.set_status(subscriber, Status.EVICTED)

    def set_status(self, subscriber: Subscriber, status: Status) -> None:
        """Change the status: counted, logged and saved. The same status again does nothing."""
        before, subscriber.status = subscriber.status, status
        seat = self._seats.get(subscriber.id)
        if seat:
            seat.active = status is not Status.SUSPENDED
        if before is status:
            return
        self._metrics.status_changes.labels(status).inc()
        tell = self._tell_good if status is Status.ACTIVE else self._tell_bad
        tell(
            "subscriber_status_changed",
            subscriber=subscriber.id,
            before=str(before),
            status=str(status),
            failures=subscriber.failures,
            outcome=subscriber.last_outcome,
            cursor=subscriber.cursor,
            reason=subscriber.evicted_reason,
        )
        self.changed(subscriber)
        self.save_changed()

    def record(self, subscriber: Subscriber, attempt: Attempt) -> None:
        """Keep what the last attempt was, and count it."""
        seat = self._seats.get(subscriber.id)
        if seat:
            seat.attempts += 1
            seat.attempts_failed += attempt.outcome is not Outcome.DELIVERED
        subscriber.last_outcome, subscriber.last_http_status = str(attempt.outcome), attempt.status
        self.changed(subscriber)

    def changed(self, subscriber: Subscriber) -> None:
        """Remember to save it with the next batch."""
        self._unsaved.add(subscriber.id)

    def save_changed(self) -> None:
        """Hand all unsaved subscribers to the database, without waiting. A storage that failed ends the process elsewhere."""
        saving = self._unsaved - {self._removing}
        self._unsaved -= saving
        if self._database:
            for subscriber in [self._subscribers[subscriber_id] for subscriber_id in saving]:
                self._database.write(_SAVE, _row(subscriber), partial(self._saved, subscriber, subscriber.cursor))

    def close(self) -> None:
        """Save what is unsaved, and write the log lines that were held back."""
        self.save_changed()
        self._tell_good.flush()
        self._tell_bad.flush()

    def _saved(self, subscriber: Subscriber, cursor: int | None, error: StorageError | None) -> None:
        if not self.knows(subscriber):
            return
        if error:
            self.changed(subscriber)  # with the next batch, if there is one
        else:
            self._saved_cursors[subscriber.id] = cursor

    async def save(self, subscriber: Subscriber, *, after: int) -> None:
        """Save one subscriber now if its cursor has moved by `after` revisions or more since the last time.

        Durable on return, or with the next batch when the disk is full.
        """
        cursor, saved = subscriber.cursor, self._saved_cursors.get(subscriber.id)
        if cursor is None or cursor - (saved or 0) < after:
            return
        try:
            await self._save(subscriber)
            self._saved(subscriber, cursor, None)
        except StorageFullError:
            self.changed(subscriber)

    async def _save(self, subscriber: Subscriber) -> None:
        if self._database:
            await self._database.execute(_SAVE, _row(subscriber))

    def drop_old_tombstones(self) -> None:
        """Forget those evicted longer ago than they are kept, and the oldest ones beyond the limit of subscribers."""
        if self._changing.locked():  # one of them may be coming back
            return
        tombstones = sorted((s for s in self if s.status is Status.EVICTED), key=lambda s: s.evicted_at, reverse=True)
        kept_since = time.time() - self._tombstone_seconds
        for place, subscriber in enumerate(tombstones):
            if subscriber.evicted_at < kept_since or place >= self._audience.limit:
                self._forget(subscriber.id)
                if self._database:
                    self._database.write(_DELETE, (subscriber.id,), lambda error: None)

    def get(self, subscriber_id: str) -> Subscriber:
        """Raises `UnknownSubscriberError`."""
        try:
            return self._subscribers[subscriber_id]
        except KeyError:
            raise UnknownSubscriberError("no subscriber has this id") from None

    def seat(self, subscriber: Subscriber) -> Seat | None:
        """The place of one who is served."""
        return self._seats.get(subscriber.id)

    def served(self) -> Sequence[Subscriber]:
        """All but the evicted."""
        return [subscriber for subscriber in self if subscriber.status is not Status.EVICTED]

    def __iter__(self) -> Iterator[Subscriber]:
        return iter(list(self._subscribers.values()))


def _row(subscriber: Subscriber) -> tuple[str, bytes]:
    return subscriber.id, msgspec.json.encode(subscriber)
