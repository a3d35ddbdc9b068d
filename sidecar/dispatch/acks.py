"""Who waits until subscribers have acknowledged a revision."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

import msgspec

from sidecar.dispatch.subscriber import Subscriber
from sidecar.errors import OverloadedError

MAX_NAMED = 100
"""So many of those who have not acknowledged are named in an answer."""


class Ending(StrEnum):
    """How a wait ended. `gone`: its caller hung up; `refused`: it found no place."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    GONE = "gone"
    REFUSED = "refused"


class Acks(msgspec.Struct, frozen=True):
    """How many acknowledgements a revision was to get, and got; the ids of those that are missing, the first of them."""

    wanted: int
    acknowledged: int
    complete: bool
    waiting_for: list[str]


class Wait:
    """One who waits: for `least` of those asked, None: for all of them. It has its place before its revision is there."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._gone = False
        self._revision = 0
        self._missing: set[str] = set()
        self._least: int | None = None
        self._acknowledged = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def until(self, revision: int, asked: Sequence[Subscriber], least: int | None, timeout_seconds: float) -> Acks:
        """Wait until `least` of those asked (None: all) have acknowledged the revision or a later one, at most so long.

        It ends early when nobody is left who could, when the caller goes, and when the sidecar stops.
        """
        self._revision, self._least = revision, least
        self._missing = {subscriber.id for subscriber in asked}
        for subscriber in asked:
            self.look(subscriber)
        self._end_if_decided()
        await asyncio.wait([self._over], timeout=timeout_seconds)
        self.ending = Ending.GONE if self._gone else Ending.COMPLETE if self._complete else Ending.INCOMPLETE
        return self._result()

    @property
    def _complete(self) -> bool:
        return not self._missing if self._least is None else self._acknowledged >= self._least

    def look(self, subscriber: Subscriber) -> None:
        """Take note if this one has acknowledged."""
        if subscriber.id in self._missing and (subscriber.cursor or 0) >= self._revision:
            self._missing.discard(subscriber.id)
            self._acknowledged += 1
            self._end_if_decided()

    def forget(self, subscriber_id: str) -> None:
        """This one is not served any more."""
        if subscriber_id in self._missing:
            self._missing.discard(subscriber_id)
            self._end_if_decided()

    def leave(self) -> None:
        """Its caller has hung up."""
        self._gone = True
        self.end()

    def end(self) -> None:
        """Nobody waits any more."""
        if not self._over.done():
            self._over.set_result(None)

    def _end_if_decided(self) -> None:
        if self._complete or not self._missing:
            self.end()

    def _result(self) -> Acks:
        wanted = self._acknowledged + len(self._missing) if self._least is None else self._least
        missing = [] if self._complete else sorted(self._missing)
        return Acks(wanted, self._acknowledged, self._complete, missing[:MAX_NAMED])


class Waits:
    """All who wait, at most `limit`: an acknowledgement looks at each of them."""

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        self.endings = dict.fromkeys(Ending, 0)
        self._waits: set[Wait] = set()
        self._closed = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waits)

    @contextmanager
    def admitted(self) -> Iterator[Wait]:
        """A place to wait in, while the block runs. Raises `OverloadedError`."""
        if len(self._waits) >= self.limit:
            self.endings[Ending.REFUSED] += 1
            raise OverloadedError(f"{self.limit} writes wait for acknowledgements already; leave wait_acks out, or try again")
        wait = Wait()
        if self._closed:
            wait.end()
        self._waits.add(wait)
        try:
            yield wait
        finally:
            self._waits.discard(wait)
            if wait.ending:
                self.endings[wait.ending] += 1

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
