"""What a subscriber gets next: the revisions after its cursor that it wants, or the newest one when it is too far behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from sidecar.dispatch.subscriber import Settings, Status, Subscriber
from sidecar.document import state_of
from sidecar.errors import CompactedError
from sidecar.journal import Entry, Journal

BATCH_BYTES = 512 << 10
"""A batch ends with the revision that makes it larger than this."""

_CHUNK = 64
_LOOK_BACK = 256
"""So far, and up to `max_lag`, a subscriber with a filter is told exactly how many of its own revisions it missed."""


class Jump(StrEnum):
    """Why a subscriber gets the newest revision instead of the next one."""

    MAX_LAG = "max_lag"
    COMPACTED = "compacted"
    SUSPENDED = "suspended"


class Due(NamedTuple):
    """What one delivery carries, oldest first, and how many revisions before it are passed over, for which reason."""

    entries: Sequence[Entry]
    skipped: int = 0
    jump: Jump | None = None

    @property
    def first(self) -> int:
        return self.entries[0].revision

    @property
    def last(self) -> int:
        return self.entries[-1].revision


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


def selects(settings: Settings, before: str | None, state: str) -> bool:
    """Whether the subscriber wants this change. `before`: the state before it; None: not known, then it may be either kind."""
    kind = "transition" if before != state else "update"
    wanted = before is None or kind in settings.on
    return wanted and (settings.states is None or state in settings.states)


class Feed:
    """The journal as one subscriber sees it. `max_lag`: the default, in revisions. Moves the cursor over what is filtered."""

    def __init__(self, subscriber: Subscriber, journal: Journal, max_lag: int) -> None:
        self._subscriber = subscriber
        self._journal = journal
        self._max_lag = max_lag

    async def next(self) -> Due:
        """What is to be delivered next; waits until there is something."""
        while True:
            await self._journal.beyond(self._subscriber.cursor or 0)
            with contextlib.suppress(CompactedError):  # compacted while we looked: look again
                due = await self._look()
                if due:
                    return due

    async def _look(self) -> Due | None:
        subscriber, journal = self._subscriber, self._journal
        cursor, settings = subscriber.cursor, subscriber.settings
        max_lag = self._max_lag if settings.max_lag is None else settings.max_lag
        suspended = subscriber.status is Status.SUSPENDED
        revision, jump = next_revision(cursor, head=journal.head, oldest=journal.oldest, max_lag=max_lag, suspended=suspended)
        if cursor is None or (jump and not self._is_near(cursor, max_lag)):
            skipped = 0 if cursor is None else revision - cursor - 1
            return Due(await journal.read(revision - 1, 1), skipped, jump if skipped else None)
        if jump:
            return await self._newest_match(cursor, jump)
        if settings.takes_all:
            return Due(_fitting(await journal.read(cursor, settings.max_batch)))
        return await self._next_matches(cursor)

    def _is_near(self, cursor: int, max_lag: int) -> bool:
        """Whether it pays to look which of the revisions passed over the subscriber would have got."""
        kept = cursor + 1 >= self._journal.oldest
        return kept and not self._subscriber.settings.takes_all and self._journal.head - cursor <= max(max_lag, _LOOK_BACK)

    async def _newest_match(self, cursor: int, jump: Jump) -> Due | None:
        newest, count, head = None, 0, self._journal.head
        async for entry in self._matches(cursor, head):
            newest, count = entry, count + 1
        if newest is None:
            self._subscriber.cursor = head
            return None
        return Due((newest,), count - 1, jump if count > 1 else None)

    async def _next_matches(self, cursor: int) -> Due | None:
        found: list[Entry] = []
        head = self._journal.head
        async for entry in self._matches(cursor, head):
            if not found:
                self._subscriber.cursor = entry.revision - 1
            found.append(entry)
            if len(found) >= self._subscriber.settings.max_batch:
                break
        if found:
            return Due(_fitting(found))
        self._subscriber.cursor = head
        return None

    async def _matches(self, after: int, head: int) -> AsyncIterator[Entry]:
        """The revisions after `after` up to `head` that the subscriber wants."""
        before = await self._state_at(after)
        while after < head:
            for entry in await self._journal.read(after, min(_CHUNK, head - after)):
                state = state_of(entry.document)
                if selects(self._subscriber.settings, before, state):
                    yield entry
                before, after = state, entry.revision
            await asyncio.sleep(0)  # the others are to be served meanwhile

    async def _state_at(self, revision: int) -> str | None:
        """The state of a revision, None when it is no longer kept."""
        try:
            return state_of((await self._journal.read(revision - 1, 1))[0].document) if revision else None
        except CompactedError:
            return None


def _fitting(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The first of them, in about `BATCH_BYTES`."""
    size = 0
    for count, entry in enumerate(entries, 1):
        size += len(entry.document)
        if size >= BATCH_BYTES:
            return entries[:count]
    return entries
