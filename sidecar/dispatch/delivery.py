"""One subscriber's loop: follow the journal from its cursor, deliver one revision at a time, draw the consequences."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial

import aiohttp
import msgspec
from yarl import URL

from sidecar.audience import Audience
from sidecar.dispatch import message
from sidecar.dispatch.connecting import Sessions
from sidecar.dispatch.feed import Due, Feed
from sidecar.dispatch.roster import Roster
from sidecar.dispatch.subscriber import Reason, Status, Subscriber
from sidecar.dispatch.webhook import Attempt, Outcome, attempt
from sidecar.errors import OverloadedError
from sidecar.journal import Journal
from sidecar.meters import DispatchMetrics

JITTER = 0.2
"""Each wait is up to a fifth shorter or longer, so that subscribers that failed together do not come back together."""

REPEATS = 100
"""After so many revisions a cursor is saved before the next delivery: no more (or a batch more) are repeated after a crash."""

_SLOW = (Outcome.REDIRECT, Outcome.CLIENT_ERROR, Outcome.PROTOCOL, Outcome.GONE, Outcome.REFUSED)
"""The receiver answered, and would answer the same in a second: its owner has to mend something."""


class Policy(msgspec.Struct, frozen=True):
    """When to try again and when to give up. All times in seconds."""

    timeout_seconds: float = 5.0
    connect_timeout_seconds: float = 2.0
    retry_seconds: Sequence[float] = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
    probe_interval_seconds: float = 60.0
    max_retry_after_seconds: float = 300.0
    evict_failures: int = 10
    evict_seconds: float = 900.0
    max_lag: int = 1024

    def status_after(self, failures: int) -> Status:
        """The status after so many consecutive failures."""
        return Status.SUSPENDED if failures > len(self.retry_seconds) else Status.DEGRADED

    def wait_after(self, failures: int, result: Attempt) -> float:
        """How long to wait after a failure, without jitter: what the receiver asked for, within bounds, if that is longer."""
        slow = self.status_after(failures) is Status.SUSPENDED or result.outcome in _SLOW
        wait = self.probe_interval_seconds if slow else self.retry_seconds[failures - 1]
        return max(wait, min(result.retry_after_seconds, self.max_retry_after_seconds))

    def gives_up(self, failures: int, failing_seconds: float) -> bool:
        """Whether it is time to evict: enough failures, and for long enough."""
        return failures >= self.evict_failures and failing_seconds >= self.evict_seconds


class Lane(StrEnum):
    """Whose attempts are to take only a part of all places."""

    FAILING = "failing"
    NEW = "new"
    PING = "ping"


class Places:
    """At most so many attempts at once: a quarter for receivers that fail, half for those not known yet, a few for pings.

    So receivers that hang keep the healthy ones waiting no longer than their own first timeout.
    """

    def __init__(self, max_in_flight: int) -> None:
        self.limit = max_in_flight
        self.in_flight = 0
        self._all = asyncio.Semaphore(max_in_flight)
        parts = {Lane.FAILING: 4, Lane.NEW: 2, Lane.PING: 16}
        self._lanes = {lane: asyncio.Semaphore(max(1, max_in_flight // part)) for lane, part in parts.items()}

    def full(self, lane: Lane) -> bool:
        """Whether the next attempt there would have to wait."""
        return self._lanes[lane].locked()

    async def attempt(self, lane: Lane | None, attempt: Callable[[], Awaitable[Attempt]]) -> Attempt:
        """Wait for a place, and make the attempt. None: the receiver is known to be well."""
        if lane:
            async with self._lanes[lane]:
                return await self.attempt(None, attempt)
        async with self._all:
            self.in_flight += 1
            try:
                result = await attempt()
                if result.outcome is not Outcome.DELIVERED:
                    await asyncio.sleep(0)  # the place counts until the loop has closed the connection
                return result
            finally:
                self.in_flight -= 1


class Delivery:
    """Serves one subscriber until it is evicted or the task is cancelled. `places` bounds the attempts of all together."""

    def __init__(
        self,
        subscriber: Subscriber,
        *,
        roster: Roster,
        journal: Journal,
        sessions: Sessions,
        places: Places,
        policy: Policy,
        audience: Audience,
        metrics: DispatchMetrics,
    ) -> None:
        self.subscriber = subscriber
        self._roster = roster
        self._journal = journal
        self._sessions = sessions
        self._places = places
        self._policy = policy
        self._audience = audience
        self._metrics = metrics
        self._feed = Feed(subscriber, journal, policy.max_lag)
        self._poked = asyncio.Event()
        self._due: Due | None = None  # attempted, and not acknowledged
        self._well_at = subscriber.settings.url if subscriber.last_outcome == Outcome.DELIVERED else None
        self._failing_since: float | None = None
        if subscriber.failures:
            self._failing_since = time.monotonic() - subscriber.failing_seconds

    async def run(self) -> None:
        """Deliver, wait, deliver again."""
        while self.subscriber.status is not Status.EVICTED:
            due = self._due = self._kept(await self._feed.next())
            if due.skipped:  # or after a crash the same message would tell of another gap
                await self._roster.save(self.subscriber, after=1)
            self._poked.clear()  # before the attempt: what changes during it is not seen by it
            url = self.subscriber.settings.url
            result = await self.send(self._message_of(due), self._lane)
            if not self._roster.knows(self.subscriber):
                return  # removed meanwhile
            self._roster.record(self.subscriber, result)
            if result.outcome is Outcome.DELIVERED:
                self._well_at = url
                await self._delivered(due)
            else:
                await self._wait(self._failed(result), result.retry_after_seconds)

    def _kept(self, due: Due) -> Due:
        """What was attempted before, so that a retry is the same, unless there is a reason for something else by now."""
        before = self._due
        if before is None:
            return due
        if due.first == before.first and not (due.skipped or before.skipped):
            return before if len(before.entries) <= self.subscriber.settings.max_batch else due
        self._audience.notifications_failed += sum(entry.revision < due.first for entry in before.entries)
        return due

    def _message_of(self, due: Due) -> message.Message:
        subscriber = self.subscriber
        return message.changed(
            due.entries,
            epoch=self._journal.epoch,
            subscriber_id=subscriber.id,
            previous=subscriber.acknowledged,
            skipped=due.skipped,
        )

    @property
    def _lane(self) -> Lane | None:
        subscriber = self.subscriber
        if subscriber.failures or subscriber.status is not Status.ACTIVE:
            return Lane.FAILING
        return None if subscriber.settings.url == self._well_at else Lane.NEW

    def poke(self) -> None:
        """Try again now instead of waiting: the subscriber has changed, or was seen alive."""
        self._poked.set()

    @property
    def settled(self) -> bool:
        """Nothing is on its way: all is acknowledged, or the subscriber is not well and nobody should wait for it."""
        return self.subscriber.status is not Status.ACTIVE or (self.subscriber.cursor or 0) >= self._journal.head

    async def ping(self) -> Attempt:
        """One attempt with a message that carries no state. Raises `OverloadedError`: nobody is there to wait for a place."""
        if self._places.full(Lane.PING):
            raise OverloadedError("as many pings as may be are on their way already; try again in a moment")
        ping = message.ping(epoch=self._journal.epoch, subscriber_id=self.subscriber.id, now=time.time())
        return await self.send(ping, Lane.PING)

    async def tell(self, stall: message.Stall) -> None:
        """One attempt to say that the agent does not move on; what comes of it changes nothing."""
        epoch, now = self._journal.epoch, time.time()
        await self.send(message.stalled(stall, epoch=epoch, subscriber_id=self.subscriber.id, now=now), self._lane)

    async def send(self, body: message.Message, lane: Lane | None) -> Attempt:
        """One attempt, when there is a place."""
        result = await self._places.attempt(
            lane, partial(self._attempt, body, self._sessions.fresh if lane else self._sessions.kept)
        )
        self._metrics.attempts.labels(result.outcome).inc()
        self._metrics.attempted(result.seconds, self.subscriber.id)
        if result.rule:
            self._metrics.targets_refused.labels(result.rule).inc()
        return result

    async def _attempt(self, body: message.Message, session: aiohttp.ClientSession) -> Attempt:
        settings = self.subscriber.settings
        timeout = aiohttp.ClientTimeout(
            total=settings.timeout_seconds or self._policy.timeout_seconds,
            sock_connect=self._policy.connect_timeout_seconds,
        )
        secrets = self.subscriber.secrets(time.time())
        return await attempt(session, URL(settings.url), body, secrets, timeout)

    async def _delivered(self, due: Due) -> None:
        subscriber, now = self.subscriber, time.time()
        first = subscriber.acknowledged is None
        if due.jump:
            self._metrics.gaps.labels(due.jump).inc()
            self._metrics.skipped.labels(due.jump).inc(due.skipped)
        if not first:  # the first one is as old as the state is
            for entry in due.entries:
                self._metrics.propagated(max(0.0, now - entry.appended_at), subscriber.id, entry.revision)
        self._audience.notifications_sent += len(due.entries)
        subscriber.cursor = subscriber.delivered = due.last
        self._roster.waits.acknowledged(subscriber)
        self._due = None
        subscriber.last_success_at = now
        subscriber.failures, subscriber.failing_seconds, self._failing_since = 0, 0.0, None
        self._roster.set_status(subscriber, Status.ACTIVE)
        # after the first: or a crash would begin again at a later revision, and nobody would be told of those between
        await self._roster.save(subscriber, after=1 if first else REPEATS)

    def _failed(self, result: Attempt) -> float:
        """Count the failure and draw the consequence. Returns the seconds to wait.

        Times are monotonic: a changed clock evicts nobody.
        """
        subscriber, policy, now = self.subscriber, self._policy, time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        subscriber.failures += 1
        subscriber.failing_seconds = now - self._failing_since
        gone = result.outcome is Outcome.GONE
        if not subscriber.configured and (gone or policy.gives_up(subscriber.failures, subscriber.failing_seconds)):
            self._audience.notifications_failed += 1
            self._roster.evict(subscriber, Reason.GONE if gone else Reason.FAILING)
            return 0.0
        wait = policy.wait_after(subscriber.failures, result)
        if gone or subscriber.status is Status.SUSPENDED:  # only a success makes it better
            self._roster.set_status(subscriber, Status.SUSPENDED)
            return max(wait, policy.probe_interval_seconds)
        self._roster.set_status(subscriber, policy.status_after(subscriber.failures))
        return wait

    async def _wait(self, seconds: float, asked_seconds: float) -> None:
        """Wait with jitter, but never less than the receiver asked for (within the cap), or until poked."""
        jittered = seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  (spreads load, keeps no secret)
        asked = min(asked_seconds, self._policy.max_retry_after_seconds, seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(jittered, asked)):
                await self._poked.wait()
