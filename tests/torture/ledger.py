"""What the launcher's ledger promises, and whether a journal keeps it."""

import asyncio
import json
import zlib
from pathlib import Path

from sidecar.database import Database
from sidecar.errors import StorageError
from sidecar.journal.sqlite import SqliteJournal
from sidecar.snapshot import FsmSnapshot, FsmState
from sidecar.store import AsyncStateStore


class Promises:
    """What was acknowledged, line by line of a ledger."""

    def __init__(self):
        self.intents = set()
        self.acked = {}
        self.full = set()
        self.unknown = set()
        self.keeps = 1
        self.epoch = None
        self.phase = "opening"
        self.acked_after_unknown = 0

    def take(self, line):
        kind, *rest = line.split()
        match kind:
            case "intent":
                self.intents.add(rest[0])
            case "acked":
                self.acked[int(rest[0])] = rest[1]
                self.acked_after_unknown += bool(self.unknown)
            case "full":
                self.full.add(rest[0])
            case "unknown":
                self.unknown.add(rest[0])
            case "keeps":
                self.keeps = int(rest[0])
            case "epoch":
                self.epoch = rest[0]
            case "phase":
                self.phase = rest[0]

    @classmethod
    def of(cls, lines):
        promises = cls()
        for line in lines:
            promises.take(line)
        return promises


def broken(path, promises, intents=None):
    """Why the journal at `path` does not keep the promises, or None. It is opened with the product's own code.

    `intents`: all tokens that anybody ever wanted to write, if those are not the promises' own.
    """
    try:
        epoch, oldest, rows, after = asyncio.run(_read(Path(path)))
    except StorageError as error:
        return f"refused: {type(error).__name__}: {error}"
    return (
        _lost(promises, epoch, {row.revision: row for row in rows}, oldest)
        or _wrong(promises.intents if intents is None else intents, promises, rows, oldest)
        or (None if after == oldest + len(rows) else f"the next revision was {after}")
    )


async def _read(path):
    """Epoch, oldest revision, all rows, and the revision that one more write gets."""
    async with Database(path) as database:
        journal = SqliteJournal(database)
        oldest, rows = journal.oldest, []
        while len(page := await journal.read(oldest - 1 + len(rows), 1000)):
            rows += page
        store = AsyncStateStore(journal=journal)
        await store.recover()
        await store.set(FsmSnapshot(0, FsmState.ACTIVE, "one more"))
        return journal.epoch, oldest, rows, store.read().entry.revision


def _lost(promises, epoch, rows, oldest):
    """What was acknowledged, and is not there."""
    if promises.acked and epoch != promises.epoch:
        return f"the epoch was {promises.epoch} and is {epoch}"
    if oldest > promises.keeps:
        return f"the oldest is {oldest}, and {promises.keeps} was to be kept"
    lost = [revision for revision in promises.acked if revision >= promises.keeps and revision not in rows]
    if lost:
        return f"lost {len(lost)} acknowledged revisions, from {min(lost)} to {max(lost)}"
    return None


def _wrong(intents, promises, rows, oldest):
    """What is there, and should not be."""
    tokens = set()
    for expected, row in enumerate(rows, start=oldest):
        token = _token_of(row)
        if row.revision != expected:
            return f"a hole before revision {row.revision}"
        if token is None:
            return f"revision {row.revision} is not what was written"
        if promises.acked.get(row.revision, token) != token:
            return f"revision {row.revision} is another one than was acknowledged"
        if token not in intents or token in tokens or token in promises.full:
            return f"revision {row.revision} was not wanted, or not again, or refused"
        tokens.add(token)
    return None


def _token_of(row):
    """The token of a document, if it is whole."""
    try:
        document = json.loads(row.document)
    except ValueError:
        return None
    token, filler = document["reason"], document["context_data"]["filler"]
    return token if zlib.crc32(filler.encode()) == int(token.rpartition("-")[2]) else None
