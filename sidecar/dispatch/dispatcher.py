"""The dispatcher: owns the delivery loops, one for each subscriber that is served."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from sidecar.audience import Audience
from sidecar.dispatch.acks import Acks, Wait
from sidecar.dispatch.connecting import Sessions
from sidecar.dispatch.delivery import Delivery, Places, Policy
from sidecar.dispatch.feed import selects, state_at
from sidecar.dispatch.message import Stall
from sidecar.dispatch.roster import Registered, Roster
from sidecar.dispatch.subscriber import Settings, Start, Status, Subscriber
from sidecar.dispatch.webhook import Attempt, Outcome
from sidecar.document import state_of
from sidecar.journal import Entry, Journal
from sidecar.meters import DispatchMetrics
from sidecar.tasks import first_of

HOUSEKEEPING_SECONDS = 1.0
"""How often cursors are saved: after a crash, at most the deliveries of this time are repeated."""
_DRAIN_LOOK_SECONDS = 0.02

_log = structlog.get_logger("dispatch")


class _Served(NamedTuple):
    delivery: Delivery
    task: asyncio.Task[None]


class Dispatcher:
    """Starts and stops the loops as subscribers come and go. `run` is its core task; `stamped_at` says when it last turned.

    `places` are those for attempts.
    """

    def __init__(
        self,
        *,
        roster: Roster,
        journal: Journal,
        sessions: Sessions,
        policy: Policy,
        max_in_flight: int,
        audience: Audience,
        metrics: DispatchMetrics,
    ) -> None:
        self.roster = roster
        self.stamped_at = time.monotonic()
        self._journal = journal
        self._sessions = sessions
        self._policy = policy
        self._audience = audience
        self._metrics = metrics
        self.places = Places(max_in_flight)
        self._served: dict[str, _Served] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()

    async def run(self) -> None:
        """Serve everybody in the roster, and keep house. A loop that dies takes this task with it."""
        async with self._group:
            for subscriber in self.roster.served():
                self._serve(subscriber)
            while True:
                self.stamped_at = time.monotonic()
                self.roster.save_changed()
                self.roster.drop_old_tombstones()
                await asyncio.sleep(HOUSEKEEPING_SECONDS)

    def _serve(self, subscriber: Subscriber) -> None:
        self._stop(subscriber.id)
        delivery = self._delivery_to(subscriber)
        task = self._group.create_task(delivery.run(), name=f"delivery {subscriber.id}")
        self._served[subscriber.id] = _Served(delivery, task)
        task.add_done_callback(lambda _: self._ended(delivery))

    def _ended(self, delivery: Delivery) -> None:
        served = self._served.get(delivery.subscriber.id)
        if served and served.delivery is delivery:
            del self._served[delivery.subscriber.id]

    def _stop(self, subscriber_id: str) -> None:
        served = self._served.pop(subscriber_id, None)
        if served:
            served.task.cancel()

    def _delivery_to(self, subscriber: Subscriber) -> Delivery:
        return Delivery(
            subscriber,
            roster=self.roster,
            journal=self._journal,
            sessions=self._sessions,
            places=self.places,
            policy=self._policy,
            audience=self._audience,
            metrics=self._metrics,
        )

    async def register(self, subscriber_id: str, settings: Settings, start: Start | None = None) -> Registered:
        """As `Roster.register`; its deliveries start, or go on with the new settings at once."""
        registered = await self.roster.register(subscriber_id, settings, start)
        served = self._served.get(subscriber_id)
        if registered.added or start or served is None:
            self._serve(registered.subscriber)
        else:
            served.delivery.poke()
        return registered

    def configure(self, configured: Sequence[tuple[str, Settings]]) -> None:
        """As `Roster.configure`, while running: deliveries start, stop, or go on with their new settings at once."""
        before = {subscriber.id: subscriber.settings for subscriber in self.roster.served()}
        self.roster.configure(configured)
        served = {subscriber.id: subscriber for subscriber in self.roster.served()}
        for subscriber_id in set(before) - set(served):
            self._stop(subscriber_id)
        for subscriber_id, subscriber in served.items():
            delivery = self._served.get(subscriber_id)
            if delivery is None:
                self._serve(subscriber)
            elif subscriber.settings != before[subscriber_id]:
                delivery.delivery.poke()

    def max_lag(self, settings: Settings) -> int:
        """How far behind a subscriber with these settings may be, in revisions."""
        return self._policy.max_lag if settings.max_lag is None else settings.max_lag

    async def remove(self, subscriber_id: str) -> None:
        """As `Roster.remove`; its deliveries stop."""
        try:
            await self.roster.remove(subscriber_id)
        finally:
            served = self._served.get(subscriber_id)
            if served and not self.roster.knows(served.delivery.subscriber):
                self._stop(subscriber_id)

    async def acks(self, wait: Wait, entry: Entry, least: int | None, timeout_seconds: float) -> Acks:
        """Wait until this revision is acknowledged by `least` (None: all) of those served now that want it, at most so long."""
        asked = self.roster.served()
        if not all(subscriber.settings.takes_all for subscriber in asked):
            before, state = await state_at(self._journal, entry.revision - 1), state_of(entry.document)
            asked = [each for each in self.roster.served() if selects(each.settings, before, state)]
        return await wait.until(entry.revision, asked, least, timeout_seconds)

    async def ping(self, subscriber_id: str) -> Attempt:
        """Send a message without a state, and say how it went. An answer ends the subscriber's wait."""
        subscriber = self.roster.get(subscriber_id)
        served = self._served.get(subscriber_id)
        delivery = served.delivery if served else self._delivery_to(subscriber)
        result = await delivery.ping()
        if result.outcome is Outcome.DELIVERED:
            delivery.poke()
        return result

    def tell(self, stall: Stall) -> None:
        """Tell the subscribers that are well and take this state, once. Not while another stall is being told still."""
        if self._telling:
            _log.warning("stall_not_told", state=stall.state, still_telling=len(self._telling))
            return
        for subscriber_id, (delivery, _) in self._served.items():
            subscriber = delivery.subscriber
            if subscriber.status is Status.ACTIVE and stall.state in (subscriber.settings.states or (stall.state,)):
                task = self._group.create_task(delivery.tell(stall), name=f"stall to {subscriber_id}")
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def drain(self, hurried: asyncio.Event, timeout_seconds: float) -> None:
        """Let the subscribers that are well get what is left. Ends when they have it, the time is over, or there is a hurry."""
        deadline = time.monotonic() + timeout_seconds
        while not (self._settled() or hurried.is_set() or time.monotonic() >= deadline):
            await first_of(hurried, timeout_seconds=_DRAIN_LOOK_SECONDS)

    def _settled(self) -> bool:
        return all(served.delivery.settled for served in self._served.values())
