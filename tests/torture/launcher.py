"""A program that writes states into a journal, with the sidecar's own storage, and keeps a ledger of what it was told.

    python launcher.py JOURNAL LEDGER '{"seed": 1, …}'

The ledger's lines, each one write(2): `phase NAME`; `epoch NAME` of the journal, once it is open; `intent TOKEN` before a
write is handed over; `acked REVISION TOKEN` after; `full TOKEN` when it was not applied; `unknown TOKEN` when nobody can say;
`keeps REVISION` before older ones are given up; `failed` when the journal cannot be opened, or closed.
"""

import asyncio
import os
import random
import signal
import sys
import zlib
from pathlib import Path

import msgspec

import sidecar.database
from sidecar.database import Database, schema
from sidecar.document import document_of
from sidecar.errors import StorageError, StorageFullError
from sidecar.journal.sqlite import SqliteJournal
from sidecar.snapshot import FsmSnapshot, FsmState
from sidecar.store import AsyncStateStore

EX_IOERR = 74
BALLAST_BYTES = 64 << 10


class Plan(msgspec.Struct, forbid_unknown_fields=True):
    """What one session does."""

    seed: int = 0
    session: int = 0
    writers: int = 6
    writes: int = 20  # of each
    keep: int | None = None  # compact to so many, in the middle
    end: str = "close"  # or "kill": in the middle of a write
    mutant: str | None = None
    checkpoint_bytes: int = 96 << 10
    longest_log: int = 160 << 10


class Ledger:
    """The file that says what the process was told, in the order in which it was."""

    def __init__(self, path):
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, *words):
        os.write(self._handle, (" ".join(map(str, words)) + "\n").encode())


# --- what is changed in the product ---


def replaced(owner, name, value):
    """Change something of the product. What the tests rest on and is not there any more must be told."""
    if not hasattr(owner, name):
        raise SystemExit(f"launcher: {owner.__name__} has no {name} any more")
    setattr(owner, name, value)


def with_pragma(name, value, expected):
    """The journal is opened with this pragma instead."""
    if name not in [pragma for pragma, *_ in schema.PRAGMAS]:
        raise SystemExit(f"launcher: the database does not set {name} any more")
    changed = tuple((name, value, expected) if pragma[0] == name else pragma for pragma in schema.PRAGMAS)
    replaced(schema, "PRAGMAS", changed)


def acknowledging_before_commit():
    """Everybody is told that a batch is durable, and only then it is committed."""
    commit = Database._commit

    def early(self, connection, writes):
        for write in writes:
            done, write.done = write.done, lambda _: None
            self._tell(done, None)
        return commit(self, connection, writes)

    replaced(Database, "_commit", early)


MUTANTS = {
    "synchronous=NORMAL": lambda: with_pragma("synchronous", "NORMAL", 1),
    "synchronous=OFF": lambda: with_pragma("synchronous", "OFF", 0),
    "acknowledge before commit": acknowledging_before_commit,
}
"""Storage that loses acknowledged writes when the power fails."""


def prepared(plan):
    """The product as the plan wants it: checkpoints come soon, so that there are many."""
    replaced(sidecar.database, "_CHECKPOINT_BYTES", plan.checkpoint_bytes)
    replaced(sidecar.database, "_LONGEST_LOG", plan.longest_log)
    if plan.mutant:
        MUTANTS[plan.mutant]()


# --- a session ---


def document(token, chance):
    """A state that carries the token and, as its sum in the token tells, all of its filler."""
    filler = chance.randbytes(chance.choice((10, 100, 400, 3000))).hex()
    state = chance.choice((FsmState.IDLE, FsmState.ACTIVE))
    return FsmSnapshot(0, state, f"{token}-{zlib.crc32(filler.encode())}", context_data={"filler": filler})


async def write(store, ledger, snapshot):
    """One write; gives whether the journal still takes some."""
    ledger.note("intent", snapshot.reason)
    try:
        stored = await store.write(lambda _: document_of(snapshot))
    except StorageFullError:
        ledger.note("full", snapshot.reason)
    except StorageError:
        await asyncio.sleep(0)  # a refusal is told at once: those who were told before may speak first
        ledger.note("unknown", snapshot.reason)
        return False
    else:
        ledger.note("acked", stored.entry.revision, snapshot.reason)
    return True


async def writer(store, ledger, plan, number):
    chance = random.Random(f"{plan.seed} {plan.session} {number}")
    for count in range(plan.writes):
        if not await write(store, ledger, document(f"{plan.session}-{number}-{count}", chance)):
            break


async def compact(journal, ledger, plan, half_way):
    """Give up the oldest in the middle of the writing, if it gets there."""
    await asyncio.wait([half_way])
    if half_way.cancelled():
        return
    oldest = journal.head - plan.keep + 1
    ledger.note("keeps", max(1, oldest))
    ledger.note("phase", "compacting")
    try:
        await journal.compact(oldest)
    except StorageFullError:
        ledger.note("full", "compaction")
    except StorageError:
        await asyncio.sleep(0)  # as above
        ledger.note("unknown", "compaction")
    ledger.note("phase", "writing")


async def write_all(journal, ledger, plan):
    store = AsyncStateStore(journal=journal)
    await store.recover()
    ledger.note("phase", "writing")
    total = plan.writers * plan.writes
    writing = [asyncio.ensure_future(writer(store, ledger, plan, number)) for number in range(plan.writers)]
    half_way = asyncio.ensure_future(journal.beyond(journal.head + total // 2))
    compacting = [asyncio.ensure_future(compact(journal, ledger, plan, half_way))] if plan.keep else []
    if plan.end == "kill":
        await journal.beyond(journal.head + total * 3 // 4)
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.gather(*writing)
    half_way.cancel()
    await asyncio.gather(*compacting)
    ledger.note("phase", "closing")


async def session(path, ledger, plan):
    ledger.note("phase", "opening")
    async with Database(path, ballast_bytes=BALLAST_BYTES) as database:
        journal = SqliteJournal(database)
        ledger.note("epoch", journal.epoch)
        await write_all(journal, ledger, plan)
    ledger.note("phase", "closed")
    return EX_IOERR if database.failed.done() else 0


def main(path, ledger, plan):
    ledger, plan = Ledger(ledger), msgspec.json.decode(plan, type=Plan)
    prepared(plan)
    try:
        return asyncio.run(session(Path(path), ledger, plan))
    except StorageError as error:
        ledger.note("failed")
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EX_IOERR


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
