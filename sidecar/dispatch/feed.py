"""What a subscriber gets next: the revisions after its cursor that it wants, or the newest one when it is too far behind."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
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
    """Why a subscriber does not get the revision after its cursor; `lost`: somebody accepted the loss, or restored a backup."""

    MAX_LAG = "max_lag"
    COMPACTED = "compacted"
    SUSPENDED = "suspended"
    LOST = "lost"


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


async def state_at(journal: Journal, revision: int) -> str | None:
    """The state of a revision, None when it is no longer kept."""
    try:
        return state_of((await journal.read(revision - 1, 1))[0].document) if revision else None
    except CompactedError:
        return None


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
            return _due(await journal.read(revision - 1, 1), cursor, jump)
        if jump:
            return await self._newest_match(cursor, jump)
        if settings.takes_all:
            return _due(_in_a_row(await journal.read(cursor, settings.max_batch)), cursor, None)
        return await self._next_matches(cursor)

    def _is_near(self, cursor: int, max_lag: int) -> bool:
        """Whether it pays to look which of the revisions passed over the subscriber would have got."""
        kept = cursor + 1 >= self._journal.oldest
        return kept and not self._subscriber.settings.takes_all and self._journal.head - cursor <= max(max_lag, _LOOK_BACK)

    async def _newest_match(self, cursor: int, jump: Jump) -> Due | None:
        found, count, scanned = await self._scan(cursor, most=None)
        if found:
            return Due(found, count - 1, jump if count > 1 else None)
        return await self._passed(cursor, scanned)

    async def _next_matches(self, cursor: int) -> Due | None:
        found, _, scanned = await self._scan(cursor, most=self._subscriber.settings.max_batch)
        if found:
            return Due(_fitting(found))
        return await self._passed(cursor, scanned)

    async def _passed(self, cursor: int, scanned: int) -> Due | None:
        """The cursor goes on over what is not wanted. What comes after lost revisions is for everybody: it tells of them."""
        if scanned > cursor:
            self._subscriber.cursor = scanned
            return None
        return _due(await self._journal.read(cursor, 1), cursor, None)

    async def _scan(self, after: int, *, most: int | None) -> tuple[Sequence[Entry], int, int]:
        """The revisions after `after` that the subscriber wants, up to the head or to where some are lost.

        Gives the first `most`, or the newest one; how many there were; and the last revision that was looked at.
        """
        found: deque[Entry] = deque(maxlen=most or 1)
        count, before = 0, await state_at(self._journal, after)
        while after < self._journal.head:
            entries = _in_a_row(await self._journal.read(after, _CHUNK))
            if entries[0].revision != after + 1:
                break
            for entry in entries:
                state, after = state_of(entry.document), entry.revision
                if selects(self._subscriber.settings, before, state):
                    found.append(entry)
                    count += 1
                    if count == most:
                        return list(found), count, after
                before = state
            await asyncio.sleep(0)  # the others are to be served meanwhile
        return list(found), count, after


def _due(entries: Sequence[Entry], cursor: int | None, jump: Jump | None) -> Due:
    skipped = 0 if cursor is None else entries[0].revision - cursor - 1
    return Due(_fitting(entries), skipped, (jump or Jump.LOST) if skipped else None)


def _in_a_row(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Up to the first revision after which some are lost."""
    for count, (entry, following) in enumerate(pairwise(entries), 1):
        if following.revision != entry.revision + 1:
            return entries[:count]
    return entries


def _fitting(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The first of them, in about `BATCH_BYTES`."""
    size = 0
    for count, entry in enumerate(entries, 1):
        size += len(entry.document)
        if size >= BATCH_BYTES:
            return entries[:count]
    return entries
