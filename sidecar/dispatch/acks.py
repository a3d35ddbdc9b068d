"""Who waits until subscribers have acknowledged a revision."""

import asyncio
from collections.abc import Sequence

import msgspec

from sidecar.dispatch.subscriber import Subscriber

MAX_NAMED = 100
"""So many of those who have not acknowledged are named in an answer."""


class Acks(msgspec.Struct, frozen=True):
    """How many acknowledgements a revision was to get, and got; the ids of those that are missing, the first of them."""

    wanted: int
    acknowledged: int
    complete: bool
    waiting_for: list[str]


class _Wait:
    """One who waits: for `least` of those asked, None: for all of them."""

    def __init__(self, revision: int, asked: Sequence[Subscriber], least: int | None) -> None:
        self.revision = revision
        self.missing = {subscriber.id for subscriber in asked}
        self.least = least
        self.acknowledged = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def complete(self) -> bool:
        return not self.missing if self.least is None else self.acknowledged >= self.least

    def look(self, subscriber: Subscriber) -> None:
        """Take note if this one has acknowledged."""
        if subscriber.id in self.missing and (subscriber.cursor or 0) >= self.revision:
            self.missing.discard(subscriber.id)
            self.acknowledged += 1
            self.end_if_decided()

    def forget(self, subscriber_id: str) -> None:
        """This one is not served any more."""
        self.missing.discard(subscriber_id)
        self.end_if_decided()

    def end_if_decided(self) -> None:
        if self.complete or not self.missing:
            self.end()

    def end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def result(self) -> Acks:
        wanted = self.acknowledged + len(self.missing) if self.least is None else self.least
        missing = [] if self.complete else sorted(self.missing)
        return Acks(wanted, self.acknowledged, self.complete, missing[:MAX_NAMED])


class Waits:
    """All who wait. While nobody does, an acknowledgement costs one look."""

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()
        self._closed = False

    async def wait(self, revision: int, asked: Sequence[Subscriber], least: int | None, timeout_seconds: float) -> Acks:
        """Wait until `least` of those asked (None: all) have acknowledged the revision or a later one, at most so long.

        It ends early when nobody is left who could, and when the sidecar stops.
        """
        wait = _Wait(revision, asked, least)
        for subscriber in asked:
            wait.look(subscriber)
        wait.end_if_decided()
        if not self._closed:
            self._waits.add(wait)
            try:
                await asyncio.wait([wait.over], timeout=timeout_seconds)
            finally:
                self._waits.discard(wait)
        return wait.result()

    def acknowledged(self, subscriber: Subscriber) -> None:
        """Its cursor has moved."""
        for wait in self._waits:
            wait.look(subscriber)

    def left(self, subscriber_id: str) -> None:
        """It was evicted or removed: nobody waits for it any more."""
        for wait in self._waits:
            wait.forget(subscriber_id)

    def close(self) -> None:
        """Whoever waits is answered now, and nobody waits from here on."""
        self._closed = True
        for wait in self._waits:
            wait.end()
