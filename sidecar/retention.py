"""Keeps the journal within its bounds, and brings it back when its disk is full."""

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

from sidecar.database import Database
from sidecar.errors import StorageFullError
from sidecar.journal import Journal, Weight
from sidecar.store import AsyncStateStore
from sidecar.tasks import first_of

LOOK_SECONDS = 1.0
"""How often the bounds are looked at; that of revisions also as soon as it is passed by a tenth."""

_PAGE = 500
_FULL_PAGE, _FULL_BYTES = 100, 256 << 10
"""A full disk is freed in small steps: also a deletion is written first."""
_FULL_SHARE = 0.1


class Limits(NamedTuple):
    """How much history stays: revisions, seconds, bytes of documents. The newest revision always does."""

    revisions: int
    age_seconds: float
    size: int


class Clock:
    """Seconds since the Unix epoch, so that a clock that is set ages nothing.

    Counted evenly from the start on, for one that is set forward; the clock itself, where it was set back: what is written
    since then has its time.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return min(self._offset + time.monotonic(), time.time())


def surplus(weights: Sequence[Weight], journal: Journal, limits: Limits, now: float) -> int:
    """How many of the oldest revisions, whose weights these are, are beyond a limit."""
    kept, size = journal.head - journal.oldest + 1, journal.size
    gone = [0, *accumulate(weight.size for weight in weights)]
    for count, weight in enumerate(weights):
        within = kept - count <= limits.revisions and size - gone[count] <= limits.size
        if within and now - weight.appended_at <= limits.age_seconds:
            return count
    return len(weights)


async def compact(journal: Journal, limits: Limits, now: float) -> None:
    """Forget what is beyond the limits. Raises `StorageError`."""
    while weights := await journal.weigh(_PAGE):
        count = surplus(weights, journal, limits, now)
        if count:
            await journal.compact(weights[count - 1].revision + 1)
        if count < len(weights) or journal.oldest >= journal.head:
            return


async def make_room(store: AsyncStateStore, database: Database) -> None:
    """When the disk is full, forget the oldest revisions step by step until a write fits: it is worth more than its history.

    At least a tenth of the history goes, so that the next writes are not refused as well; and the answers that were kept
    for a repetition go with it, for they would keep its documents. Where all of it would not be enough, since somebody else
    has filled the disk, none is forgotten; nor where that one makes room meanwhile. Raises `StorageFullError` while there is
    no room.
    """
    journal = store.journal
    database.shortage.clear()
    was_low = database.space.low
    if not isinstance(database.last_error, StorageFullError) or (not was_low and await _fits(database)):
        return
    await store.give_up_answers(journal.oldest)
    first, spared = journal.oldest, journal.size * (1 - _FULL_SHARE)
    while journal.oldest < journal.head and database.space.attainable(journal.size):
        untouched = was_low and journal.oldest == first
        if (untouched or journal.size <= spared) and not database.space.low:
            break
        oldest = await _step(journal)
        await store.give_up_answers(oldest)
        await journal.compact(oldest)
    await database.probe()  # where there was nothing to forget, what is small may fit all the same


async def _fits(database: Database) -> bool:
    try:
        await database.probe()
    except StorageFullError:
        return False
    return True


async def _step(journal: Journal) -> int:
    """What the oldest revision is after a small step."""
    weights = await journal.weigh(_FULL_PAGE)
    sizes = accumulate(weight.size for weight in weights)
    within = sum(size <= _FULL_BYTES for size in sizes)
    return weights[0].revision + max(1, within)


async def retain(
    store: AsyncStateStore, limits: Limits, *, database: Database | None = None, clock: Callable[[], float] | None = None
) -> None:
    """Keep the journal within its limits, and bring it back when its disk is full. A core task; runs until cancelled."""
    journal, clock = store.journal, clock or Clock()
    slack = max(1, limits.revisions // 10)
    while True:
        passed = asyncio.ensure_future(journal.beyond(journal.oldest + limits.revisions + slack - 2))
        try:
            await first_of(passed, *([database.shortage] if database else []), timeout_seconds=LOOK_SECONDS)
        finally:
            passed.cancel()
        try:
            if database:
                await make_room(store, database)
            await store.forget_answers()
            await compact(journal, limits, clock())
        except StorageFullError:  # its writers know
            await asyncio.sleep(LOOK_SECONDS)
