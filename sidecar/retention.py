"""Keeps the journal within its bounds, and brings it back when its disk is full."""

import asyncio
import contextlib
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
_FULL_PAGE = 100
"""A full disk is freed in small steps: also a deletion is written first."""


class Limits(NamedTuple):
    """How much history stays: revisions, seconds, bytes of documents. The newest revision always does."""

    revisions: int
    age_seconds: float
    size: int


class Clock:
    """Seconds since the Unix epoch, counted evenly from the start on: a clock that is set ages nothing."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return self._offset + time.monotonic()


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


async def make_room(journal: Journal, database: Database) -> None:
    """Forget the oldest revisions, step by step, until a write fits again: it is worth more than its history."""
    while isinstance(database.last_error, StorageFullError):
        try:
            await database.probe()
        except StorageFullError:
            if journal.oldest >= journal.head:
                raise
            await journal.compact(journal.oldest + _FULL_PAGE)


async def retain(
    store: AsyncStateStore, limits: Limits, *, database: Database | None = None, clock: Callable[[], float] | None = None
) -> None:
    """Keep the journal within its limits, and bring it back when its disk is full. A core task; runs until cancelled."""
    journal, clock = store.journal, clock or Clock()
    slack = max(1, limits.revisions // 10)
    while True:
        passed = asyncio.ensure_future(journal.beyond(journal.oldest + limits.revisions + slack - 2))
        try:
            await first_of(passed, timeout_seconds=LOOK_SECONDS)
        finally:
            passed.cancel()
        with contextlib.suppress(StorageFullError):  # its writers know; the next look tries again
            if database:
                await make_room(journal, database)
            await store.forget_answers()
            await compact(journal, limits, clock())
