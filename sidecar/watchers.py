"""Those who wait for the next revision over HTTP: each a cursor over the journal, which is the only queue there is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from typing import NamedTuple

from sidecar.errors import AccessError, CompactedError, DrainingError, StorageError, TooManyWatchersError
from sidecar.journal import Entry, Journal

CLOSING_SECONDS = 0.5
"""How long a stop waits for a watcher to take what was sent to it before."""

_BATCH = 16
_BATCH_BYTES = 16 << 10

_TOGETHER = 128
"""So many are served at a time, about a millisecond; then everybody else has a turn, the writers first. A turn costs a few
milliseconds on a busy machine: with fewer at a time, the last ones wait for many turns."""


Judge = Callable[[], None]
"""Raises `AccessError` when the watcher may not be here any more."""

Take = Callable[[Sequence[Entry]], bool]
"""Sends revisions, and does not wait; tells whether more can be sent. The same sequence for all who stand at the same place."""


class Kind(StrEnum):
    """What a watcher is: a stream of events, or one request that waits."""

    STREAM = "stream"
    POLL = "poll"


class Gap(StrEnum):
    """Why a watcher does not get the revision after its cursor; `lost`: somebody accepted the loss."""

    EPOCH = "epoch"
    COMPACTED = "compacted"
    SLOW = "slow"
    LOST = "lost"


class Due(NamedTuple):
    """A revision for a watcher. `previous`: the one it had before, None: none of this journal. `gap`: why some are left out."""

    entry: Entry
    previous: int | None
    gap: Gap | None = None

    @property
    def skipped(self) -> int:
        """How many are left out."""
        return self.entry.revision - (self.previous or 0) - 1 if self.gap else 0


class Watcher:
    """One who waits. `cursor`: the last revision that it has; None: none of this journal yet.

    `revoked`: why it may not be here any more. `take`: how it gets, while it waits, what comes next, without being woken.
    """

    def __init__(self, watchers: "Watchers", kind: Kind, cursor: int | None, gap: Gap | None) -> None:
        self.kind = kind
        self.cursor = cursor
        self.gone = False
        self.revoked: AccessError | None = None
        self.take: Take | None = None
        self._gap = gap
        self._watchers = watchers
        self._waiting: asyncio.Future[None] | None = None
        self._patience: asyncio.Timeout | None = None
        self._served_at = 0.0

    @property
    def behind(self) -> bool:
        """Whether there is something that it does not have."""
        return self._watchers.journal.head > (self.cursor or 0)

    @property
    def _slow(self) -> bool:
        return self.cursor is not None and self._watchers.journal.head - self.cursor > max(self._watchers.max_lag, 1)

    async def wait(self, seconds: float) -> None:
        """Return when it is behind, gone or revoked, can take no more, was sent nothing for so long, or the sidecar stops."""
        if self.behind or self.gone or self.revoked or self._watchers.closed:
            return
        loop = asyncio.get_running_loop()
        self._waiting = waiting = loop.create_future()
        self._served_at = loop.time()
        self._timer = loop.call_at(self._served_at + seconds, self._look, seconds)
        try:
            await waiting
        finally:
            self._timer.cancel()
            self._waiting = None

    def _look(self, seconds: float) -> None:
        """Whether it was sent nothing for so long."""
        loop = asyncio.get_running_loop()
        due = self._served_at + seconds
        if loop.time() >= due:
            self.wake()
        else:
            self._timer = loop.call_at(due, self._look, seconds)

    def serve(self, following: Mapping[int | None, Sequence[Entry]]) -> None:
        """Send what follows its cursor, where that can be done on the spot; otherwise wake it. Nothing when it is awake."""
        if not self._waiting or self._waiting.done() or not self.behind:
            return
        entries = following.get(self.cursor)
        if not entries or not self.take or self._gap or self._slow:
            self.wake()
            return
        self.cursor = entries[-1].revision
        self._watchers.events += len(entries)
        self._served_at = asyncio.get_running_loop().time()
        if not self.take(entries):
            self.wake()

    def wake(self) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)

    def leave(self) -> None:
        """Its connection is lost."""
        self.gone = True
        self.wake()

    async def due(self) -> Sequence[Due]:
        """What comes next, oldest first, at most a few kilobytes; moves the cursor. Only while it is behind."""
        while True:
            with contextlib.suppress(CompactedError):  # compacted while we looked: look again
                return self._taken(await self._read())

    async def _read(self) -> Sequence[Entry]:
        journal, cursor = self._watchers.journal, self.cursor
        if cursor is not None and cursor + 1 < journal.oldest:
            self._gap = Gap.COMPACTED
        elif self._slow:
            self._gap = Gap.SLOW
        if cursor is None or self._gap:
            return await journal.read(journal.head - 1, 1)
        return await journal.read(cursor, _BATCH)

    def _taken(self, entries: Sequence[Entry]) -> Sequence[Due]:
        found: list[Due] = []
        for entry in _few(entries):
            found.append(self._next(entry))
            self.cursor = entry.revision
        self._watchers.events += len(found)
        return found

    def _next(self, entry: Entry) -> Due:
        gap, self._gap = self._gap, None
        if gap is None and self.cursor is not None and entry.revision > self.cursor + 1:
            gap = Gap.LOST
        if gap:
            self._watchers.gaps[gap] += 1
        return Due(entry, self.cursor, gap)

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """The time that it may leave what was sent untaken, once the sidecar stops. Raises `TimeoutError`."""
        async with asyncio.timeout(CLOSING_SECONDS if self._watchers.closed else None) as self._patience:
            try:
                yield
            finally:
                self._patience = None

    def hurry(self) -> None:
        """The sidecar stops."""
        self.wake()
        if self._patience:
            self._patience.reschedule(asyncio.get_running_loop().time() + CLOSING_SECONDS)


class Watchers:
    """All of them, at most `limit`. Who is more than `max_lag` revisions behind jumps to the newest, and is told."""

    def __init__(
        self,
        journal: Journal,
        *,
        limit: int = 1000,
        max_lag: int = 256,
        heartbeat_seconds: float = 15.0,
    ) -> None:
        self.journal = journal
        self.limit = limit
        self.max_lag = max_lag
        self.heartbeat_seconds = heartbeat_seconds
        self.closed = False
        self.events = 0
        self.gaps = dict.fromkeys(Gap, 0)
        self.refused = 0
        self._watchers: dict[Watcher, Judge] = {}
        self._somebody = asyncio.Event()

    @contextmanager
    def admitted(self, kind: Kind, cursor: int | None, gap: Gap | None = None, *, judge: Judge) -> Iterator[Watcher]:
        """A watcher, while the block runs. Raises `TooManyWatchersError`."""
        if self.closed:
            raise DrainingError("the sidecar is stopping; its next instance will answer")
        if len(self._watchers) >= self.limit:
            self.refused += 1
            raise TooManyWatchersError(self.limit)
        watcher = Watcher(self, kind, cursor, gap)
        self._watchers[watcher] = judge
        self._somebody.set()
        try:
            yield watcher
        finally:
            del self._watchers[watcher]
            watcher.take = None  # which knows the request, and that the watcher

    def counts(self) -> dict[Kind, int]:
        """How many there are of each kind."""
        counts = dict.fromkeys(Kind, 0)
        for watcher in self._watchers:
            counts[watcher.kind] += 1
        return counts

    async def run(self) -> None:
        """The core task: serves those who are behind; runs until cancelled. Without watchers a write does not wake it."""
        seen = self.journal.head
        while True:
            if not self._watchers:
                self._somebody.clear()
                await self._somebody.wait()
            await self.journal.beyond(seen)
            seen = await self._serve(seen)

    async def _serve(self, before: int) -> int:
        """Serve all who are behind. Gives the revision up to which everybody now has what there is, or is awake."""
        seen = self.journal.head
        everybody = list(self._watchers)
        for start in range(0, len(everybody), _TOGETHER):
            following = await self._following(before)  # each time: what came meanwhile goes along
            if following:
                seen = min(seen, before + len(following))
            for watcher in everybody[start : start + _TOGETHER]:
                watcher.serve(following)
            await asyncio.sleep(0)
        return seen

    async def _following(self, before: int) -> Mapping[int | None, Sequence[Entry]]:
        """What follows `before` and each revision behind it: a few. None when they are many, or some of them are lost."""
        if self.journal.head - before > _BATCH:
            return {}
        try:
            entries = tuple(_few(await self.journal.read(before, _BATCH)))
        except (CompactedError, StorageError):
            return {}  # each of them looks for itself, and is told
        if not entries or entries[-1].revision != before + len(entries):
            return {}
        return {before + n: entries[n:] for n in range(len(entries))}

    def revise(self) -> None:
        """Others may be here than before: who may not any more is sent away."""
        for watcher, judge in self._watchers.items():
            try:
                judge()
            except AccessError as error:
                watcher.revoked = error
                watcher.wake()

    def close(self) -> None:
        """All of them come to an end, and nobody is admitted any more."""
        self.closed = True
        for watcher in self._watchers:
            watcher.hurry()


def _few(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The first ones, as many as are a few kilobytes; one at least."""
    size = 0
    for entry in entries:
        yield entry
        size += len(entry.document)
        if size >= _BATCH_BYTES:
            return
