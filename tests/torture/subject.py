"""The store that the model is compared with, in front of a real journal; and what may happen to its file."""

import asyncio
import contextlib
import math
import shutil
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

from sidecar import AsyncStateStore, FsmSnapshot, FsmState
from sidecar.database import Database
from sidecar.document import document_of
from sidecar.errors import CompactedError, StorageError
from sidecar.idempotency import Requests
from sidecar.journal import Request
from sidecar.journal.memory import MemoryJournal
from sidecar.journal.sqlite import SqliteJournal
from sidecar.store import Stored

TTL_SECONDS = 600.0
MAX_KEYS = 8
MAX_QUEUE = 4
MAX_READERS = 3
MAX_REVISIONS = 32
MAX_BYTES = 120_000


@dataclass
class Clock:
    """Seconds, which pass only when somebody says so. `jump`: how far the wall clock is off."""

    passed: float = 0.0
    jump: float = 0.0

    def even(self):
        return 1_000.0 + self.passed

    def wall(self):
        return 1_700_000_000.0 + self.passed + self.jump

    @contextlib.contextmanager
    def shown(self):
        """Everybody in this process sees this wall clock."""
        real, time.time = time.time, self.wall
        try:
            yield
        finally:
            time.time = real


class Killable(Database):
    """Its files can be copied at a moment when no transaction is half done: what a killed process leaves."""

    def __init__(self, path):
        super().__init__(path)
        self.quiet = threading.RLock()  # a commit may begin with a checkpoint

    def _commit(self, *arguments):
        with self.quiet:
            super()._commit(*arguments)

    def _checkpoint(self, *arguments):
        with self.quiet:
            super()._checkpoint(*arguments)


class Follower:
    """Follows the journal from its cursor, as a delivery does, also across restarts."""

    def __init__(self):
        self.cursor = 0
        self.seen = []
        self.gaps = []
        self.moved = asyncio.Event()

    async def follow(self, journal, limit):
        """All that is there, and all that comes, until the journal fails."""
        with contextlib.suppress(StorageError):
            while True:
                await journal.beyond(self.cursor)
                await self.read(journal, limit)
                self.moved.set()

    async def read(self, journal, limit):
        """One page. Whoever is behind what is kept is told, and goes on from there."""
        try:
            entries = await journal.read(self.cursor, limit)
        except CompactedError as error:
            self.gaps.append((self.cursor, error.oldest))
            self.cursor = error.oldest - 1
        else:
            assert entries or self.cursor >= journal.head, f"nothing after revision {self.cursor}"
            self.seen += entries
            self.cursor += len(entries)


class InMemory:
    """A store in front of a journal in memory. A restart is a new store."""

    bounds: ClassVar = {"max_revisions": MAX_REVISIONS, "max_bytes": MAX_BYTES, "max_queue": math.inf}
    unclean_starts = 0
    failed = False

    def __init__(self, folder, clock, machine):
        self.folder, self.clock, self.machine = folder, clock, machine
        self.full = None
        self.follower = Follower()
        self.store = None

    async def open(self):
        await self._start(MemoryJournal(max_revisions=MAX_REVISIONS, max_bytes=MAX_BYTES))

    async def _start(self, journal):
        self.journal, self.queues, self.full = journal, {}, None
        self.store = AsyncStateStore(
            journal=journal,
            machine=self.machine,
            max_subscribers=MAX_READERS,
            max_queue=MAX_QUEUE,
            requests=Requests(ttl_seconds=TTL_SECONDS, limit=MAX_KEYS, clock=self.clock.even),
        )
        await self.store.recover()
        self.following = asyncio.create_task(self.follower.follow(journal, 3))

    async def _stop(self):
        self.following.cancel()
        await asyncio.wait([self.following])

    async def close(self):
        if self.store:
            await self._stop()

    async def restart(self):
        await self._stop()
        await self._start(self.journal)

    async def write(self, wish, padding):
        """The write that the wish is for: what the store answers."""
        request = Request(wish.key, wish.body) if wish.key else None
        expected = [wish.expected] if wish.expected else []
        if wish.how == "move":
            return await self.store.transition(FsmState[wish.state], wish.reason, *expected, request=request)
        snapshot = FsmSnapshot(wish.version, FsmState[wish.state], wish.reason, context_data={"padding": "x" * padding})
        if wish.how == "set":
            return await self.store.set(snapshot, wish.enforce, expected=wish.expected)
        return await self.store.write(lambda tail: document_of(snapshot), *expected, request=request)

    async def settled(self):
        """All that was handed over is durable, or has failed."""

    async def rows(self):
        """The links that the journal has, where it has any."""

    async def caught_up(self):
        """The follower has seen what there is."""
        while self.follower.cursor < self.journal.head and not self.following.done():
            moved = asyncio.ensure_future(self.follower.moved.wait())
            await asyncio.wait([moved, self.following], return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()
            self.follower.moved.clear()


class OnFile(InMemory):
    """A store in front of a SQLite file."""

    bounds: ClassVar = {"max_queue": MAX_QUEUE}

    async def open(self):
        self.place = self.folder / "0"
        self.place.mkdir(parents=True)
        self.unclean_starts = 0
        await self._open()

    async def _open(self):
        self.database = Killable(self.place / "journal.db")
        await self.database.__aenter__()
        await self._start(SqliteJournal(self.database))

    async def close(self):
        if self.store:
            await self._stop()
            await self.database.__aexit__()
            self.store = None

    async def restart(self):
        """An orderly one; after a failure the next start finds that it was not."""
        self.unclean_starts += self.failed
        await self.close()
        await self._open()

    def mark(self):
        return (self.place / "journal.db.hwm").read_bytes()

    async def dead(self):
        """After a failure: the thread has let go of the files."""
        if self.failed:
            await self.database.__aexit__()

    def copy(self, mark=None):
        """What a kill at this moment leaves, in a folder of its own. `mark`: one from before, for it may lag behind."""
        copy = self.folder / str(int(self.place.name) + 1)
        copy.mkdir()
        with self.database.quiet:
            for file in self.place.glob("journal.db*"):
                shutil.copyfile(file, copy / file.name)
        self.following.cancel()
        if mark:
            (copy / "journal.db.hwm").write_bytes(mark)
        return copy

    async def go_on_with(self, copy):
        """The process was killed: there is only the copy."""
        await self.close()
        shutil.rmtree(self.place)
        self.place = copy
        self.unclean_starts += 1
        await self._open()

    async def fill(self, how):
        """There is no room any more: in the file, or beside it."""
        self.full = how
        if how == "pages":
            await self.database.execute("PRAGMA max_page_count = 1", ())
        else:
            self._reserve(1 << 62)

    async def free(self):
        self.full = None
        self._reserve(0)
        await self.database.execute("PRAGMA max_page_count = 1000000", ())

    def _reserve(self, size):
        self.database.space.reserve_bytes = size
        self.database.space._looked_at = 0.0  # look at once

    async def poison(self):
        """A storage error, and not one of room."""
        insert = "INSERT INTO subscribers (id, record) VALUES (?, ?)"
        await self.database.execute(insert, ("twice", b""), (insert, ("twice", b"")))

    @property
    def failed(self):
        return self.database.failed.done()

    async def settled(self):
        with contextlib.suppress(StorageError):
            await self.database.read("SELECT 1")

    async def rows(self):
        return [chain for (chain,) in await self.database.read("SELECT chain FROM journal ORDER BY revision")]


def snapshot_in(answer):
    """The reason, version and state in what a write has answered."""
    snapshot = answer.snapshot if isinstance(answer, Stored) else answer
    return snapshot.reason, snapshot.version, snapshot.state.name
