"""One subscriber's loop: follow the journal from its cursor, deliver one revision at a time, draw the consequences."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum

import aiohttp
import msgspec
from yarl import URL

from sidecar.audience import Audience
from sidecar.dispatch import message
from sidecar.dispatch.roster import Reason, Roster, Status, Subscriber
from sidecar.dispatch.webhook import Attempt, Outcome, attempt
from sidecar.errors import CompactedError
from sidecar.journal import Entry, Journal
from sidecar.metrics import DispatchMetrics

JITTER = 0.2
"""Each wait is up to a fifth shorter or longer, so that subscribers that failed together do not come back together."""

_SLOW = (Outcome.REDIRECT, Outcome.CLIENT_ERROR, Outcome.PROTOCOL, Outcome.GONE)
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


class Jump(StrEnum):
    """Why a subscriber gets the newest revision instead of the next one."""

    MAX_LAG = "max_lag"
    COMPACTED = "compacted"
    SUSPENDED = "suspended"


def next_revision(cursor: int | None, *, head: int, oldest: int, max_lag: int, suspended: bool) -> tuple[int, Jump | None]:
    """The revision to deliver after `cursor` (None: the first one), and why it is not simply the next one."""
    if cursor is None:
        return head, None
    if suspended:
        return head, Jump.SUSPENDED
    if cursor + 1 < oldest:
        return head, Jump.COMPACTED
    if head - cursor > max_lag:
        return head, Jump.MAX_LAG
    return cursor + 1, None


class Places:
    """At most so many attempts at once; of these, those who fail get a quarter.

    So receivers that hang keep the healthy ones waiting no longer than their own first timeout.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._all = asyncio.Semaphore(max_in_flight)
        self._failing = asyncio.Semaphore(max(1, max_in_flight // 4))

    @asynccontextmanager
    async def taken(self, subscriber: Subscriber) -> AsyncIterator[None]:
        """Wait for a place, and hold it while the block runs."""
        async with AsyncExitStack() as stack:
            if subscriber.failures or subscriber.status is not Status.ACTIVE:
                await stack.enter_async_context(self._failing)
            await stack.enter_async_context(self._all)
            yield


class Delivery:
    """Serves one subscriber until it is evicted or the task is cancelled. `places` bounds the attempts of all together."""

    def __init__(
        self,
        subscriber: Subscriber,
        *,
        roster: Roster,
        journal: Journal,
        session: aiohttp.ClientSession,
        places: Places,
        policy: Policy,
        audience: Audience,
        metrics: DispatchMetrics,
    ) -> None:
        self.subscriber = subscriber
        self._roster = roster
        self._journal = journal
        self._session = session
        self._places = places
        self._policy = policy
        self._audience = audience
        self._metrics = metrics
        self._poked = asyncio.Event()
        self._attempted: int | None = None
        self._failing_since: float | None = None
        if subscriber.failures:
            self._failing_since = time.monotonic() - subscriber.failing_seconds

    async def run(self) -> None:
        """Deliver, wait, deliver again."""
        while self.subscriber.status is not Status.EVICTED:
            entry, jump = await self._next()
            if self._attempted not in (None, entry.revision):
                self._audience.notifications_failed += 1  # tried, and now passed over
            self._attempted = entry.revision
            self._poked.clear()  # before the attempt: what changes during it is not seen by it
            result = await self.send(
                message.changed(
                    entry, epoch=self._journal.epoch, subscriber_id=self.subscriber.id, cursor=self.subscriber.cursor
                )
            )
            if not self._roster.knows(self.subscriber):
                return  # removed meanwhile
            self._roster.record(self.subscriber, result)
            if result.outcome is Outcome.DELIVERED:
                first = self.subscriber.cursor is None
                self._delivered(entry, jump)
                if first:  # or a crash would begin again at a later revision, and nobody would be told of those between
                    await self._roster.save(self.subscriber)
            else:
                await self._wait(self._failed(result), result.retry_after_seconds)

    def _message_of(self, entry: Entry) -> message.Message:
        subscriber = self.subscriber
        return message.changed(entry, epoch=self._journal.epoch, subscriber_id=subscriber.id, cursor=subscriber.cursor)

    def poke(self) -> None:
        """Try again now instead of waiting: the subscriber has changed, or was seen alive."""
        self._poked.set()

    @property
    def settled(self) -> bool:
        """Nothing is on its way: all is acknowledged, or the subscriber is not well and nobody should wait for it."""
        return self.subscriber.status is not Status.ACTIVE or (self.subscriber.cursor or 0) >= self._journal.head

    async def send(self, body: message.Message) -> Attempt:
        """One attempt, when a slot is free."""
        settings = self.subscriber.settings
        timeout = aiohttp.ClientTimeout(
            total=settings.timeout_seconds or self._policy.timeout_seconds,
            sock_connect=self._policy.connect_timeout_seconds,
        )
        async with self._places.taken(self.subscriber):
            result = await attempt(self._session, URL(settings.url), body, self.subscriber.secret, timeout)
        self._metrics.attempts.labels(result.outcome).inc()
        self._metrics.attempt_seconds.observe(result.seconds)
        return result

    async def _next(self) -> tuple[Entry, Jump | None]:
        """The entry to deliver next; waits until there is one."""
        subscriber, journal = self.subscriber, self._journal
        while True:
            await journal.beyond(subscriber.cursor or 0)
            revision, jump = next_revision(
                subscriber.cursor,
                head=journal.head,
                oldest=journal.oldest,
                max_lag=self._policy.max_lag if subscriber.settings.max_lag is None else subscriber.settings.max_lag,
                suspended=subscriber.status is Status.SUSPENDED,
            )
            try:
                (entry,) = await journal.read(revision - 1, 1)
            except CompactedError:
                continue  # compacted while we looked: look again
            return entry, jump

    def _delivered(self, entry: Entry, jump: Jump | None) -> None:
        subscriber = self.subscriber
        skipped = entry.revision - subscriber.cursor - 1 if subscriber.cursor is not None else 0
        if jump and skipped:
            self._metrics.skipped.labels(jump).inc(skipped)
        self._metrics.propagation_seconds.observe(max(0.0, time.time() - entry.appended_at))
        self._audience.notifications_sent += 1
        subscriber.cursor, self._attempted = entry.revision, None
        subscriber.last_success_at = time.time()
        subscriber.failures, subscriber.failing_seconds, self._failing_since = 0, 0.0, None
        self._roster.set_status(subscriber, Status.ACTIVE)

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
