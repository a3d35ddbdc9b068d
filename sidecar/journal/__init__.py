"""The journal: the durable, ordered log of every accepted snapshot. It is also the queue that subscribers follow.

This module is the contract; `memory` and `sqlite` keep it, and `tests/test_journal.py` holds both to it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from sidecar.errors import StorageError


class Entry(msgspec.Struct, frozen=True):
    """One revision. `appended_at`: seconds since the Unix epoch, by this process's clock. `document`: the snapshot's JSON."""

    revision: int
    appended_at: float
    document: bytes


class Weight(NamedTuple):
    """What retention asks of a revision: its age, seconds since the Unix epoch, and the bytes of its document."""

    revision: int
    appended_at: float
    size: int


class Request(NamedTuple):
    """A write that may be sent again: its Idempotency-Key, and a digest of what else it said."""

    key: str
    fingerprint: bytes


class Answered(NamedTuple):
    """A request and the revision that it became, at `answered_at`, seconds since the Unix epoch."""

    revision: int
    request: Request
    answered_at: float


Noted = Callable[[StorageError | None], None]
"""Told once, on the event loop, what became of a note."""

Settled = Callable[[Entry, StorageError | None], None]
"""Told once, on the event loop, what became of an append: None, durable; an error, not acknowledged."""


class Journal(ABC):
    """Revisions 1, 2, 3 … without holes, but for those whose loss somebody accepted.

    `epoch` is the journal's identity. `head` is the newest durable revision (0: none yet), `oldest` the oldest one
    still kept (`head + 1`: none). Both change only on the event loop, in order, after the revision is durable.
    """

    def __init__(self, epoch: str, *, head: int = 0, oldest: int = 1) -> None:
        self.epoch = epoch
        self.head = head
        self.oldest = oldest
        self._followers: set[asyncio.Future[None]] = set()

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of the documents that are kept."""

    @abstractmethod
    def append(self, document: bytes, settled: Settled, request: Request | None = None) -> None:
        """Hand over the next revision, and with it the request that it answers.

        `settled` is called exactly once, in the order of the appends, perhaps before this returns. When one fails, all
        those behind it fail too, and the next append takes the revision after `head` again.
        """

    @abstractmethod
    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        """Up to `limit` durable revisions after `after`, oldest first; none when `after` is the head.

        Raises `CompactedError` when revision `after + 1` is no longer kept.
        """

    @abstractmethod
    async def weigh(self, limit: int) -> Sequence[Weight]:
        """The oldest revisions kept, at most `limit`."""

    @abstractmethod
    async def compact(self, oldest: int) -> None:
        """Forget the revisions before `oldest`. The head is always kept, and so are answers."""

    @abstractmethod
    async def answered(self, limit: int) -> Sequence[Answered]:
        """The requests whose answers are kept, the newest `limit` of them, oldest first."""

    @abstractmethod
    async def answer(self, revision: int) -> Entry | None:
        """The entry that answered a request; None when it is not kept any more."""

    @abstractmethod
    async def forget_answers(self, before: int) -> None:
        """Forget the answers before a revision."""

    @abstractmethod
    def note(self, name: str, value: bytes, noted: Noted) -> None:
        """Keep a small value beside the revisions, in place of the one before.

        It takes its turn among the appends: what was handed over before is durable before it is, or fails first.
        """

    @abstractmethod
    async def noted(self, name: str) -> bytes | None:
        """The value of a note; None: there is none."""

    async def beyond(self, revision: int) -> None:
        """Wait until the head is beyond `revision`."""
        while self.head <= revision:
            advanced = asyncio.get_running_loop().create_future()
            self._followers.add(advanced)
            try:
                await advanced
            finally:
                self._followers.discard(advanced)

    async def follow(self, after: int, limit: int) -> Sequence[Entry]:
        """As `read`, but wait until there is at least one revision after `after`."""
        await self.beyond(after)
        return await self.read(after, limit)

    def _advance(self, head: int) -> None:
        """Move the head and wake the followers. For the backends: call it after the appends up to `head` are settled."""
        self.head = head
        followers, self._followers = self._followers, set()
        for follower in followers:
            if not follower.done():
                follower.set_result(None)
