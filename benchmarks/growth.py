"""How writes, the start and the memory behave with more writers and a longer journal.

A journal of a million revisions is written through the sidecar's own database, then served beside an empty one. Needs wrk.
Usage: python -m benchmarks.growth [--revisions 1000000] [--rounds 3] [--seconds 3]
"""

import argparse
import asyncio
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import msgspec

from benchmarks.processes import Running, folder_on_disk, resident_mib, sidecar
from benchmarks.put import put_state
from benchmarks.wrk import BODY, in_turn, line, load, needed, spread
from sidecar.api.wire import StateWrite
from sidecar.database import Database
from sidecar.document import SnapshotDocument, encode_document
from sidecar.journal.sqlite import SqliteJournal
from sidecar.snapshot import new_uuid

AT_ONCE = 5000
FOREVER = {"revisions": 1_000_000_000, "age": "365d", "bytes": "1000GiB"}


async def fill(path: Path, revisions: int) -> None:
    """A journal with so many revisions, each appended as the sidecar does it."""
    change = msgspec.json.decode(BODY, type=StateWrite)
    first = SnapshotDocument(
        0,
        change.state,
        change.reason,
        ts_mono=1.0,
        ts_wall=time.time(),
        snapshot_id=new_uuid(),
        fsm_instance_id=new_uuid(),
        attempt_count=1,
        source_module=change.source_module,
        context_data=change.context_data,
        state_metadata=change.state_metadata,
    )
    async with Database(path) as database:
        journal = SqliteJournal(database)
        for start in range(0, revisions, AT_ONCE):
            for version in range(start, min(start + AT_ONCE, revisions)):
                journal.append(encode_document(msgspec.structs.replace(first, version=version)), _settled)
            await journal.beyond(min(start + AT_ONCE, revisions) - 1)


def _settled(_: object, error: Exception | None) -> None:
    if error:
        raise error


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revisions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    needed()
    with folder_on_disk() as folder:
        full = Path(folder, "journal.db")
        started = time.perf_counter()
        asyncio.run(fill(full, options.revisions))
        size = full.stat().st_size / 2**20
        print(f"{options.revisions} revisions, {size:.0f} MiB, written in {time.perf_counter() - started:.0f} s\n")
        _starts(full, options.rounds)
        _writes(full, options)


def _over(path: Path | None) -> AbstractContextManager[Running]:
    """A sidecar that keeps everything, over the journal or an empty one."""
    return sidecar(journal={"retention": FOREVER} | ({"path": str(path)} if path else {}))


def _starts(full: Path, rounds: int) -> None:
    print("| journal | ready s | MiB then | MiB after 3 s of writes |\n|---|---|---|---|")
    for name, path in (("empty", None), ("full", full)):
        ready, idle, used = zip(*(_start(path) for _ in range(rounds)), strict=True)
        print(f"| {name} | {spread(ready, '.2f')} | {spread(idle, '.1f')} | {spread(used, '.1f')} |", flush=True)


def _start(path: Path | None) -> tuple[float, float, float]:
    with _over(path) as running:
        time.sleep(1)
        idle = resident_mib(running.pid)
        load(put_state(running.url), connections=64, seconds=3)
        return running.ready_seconds, idle, resident_mib(running.pid)


def _writes(full: Path, options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        starts = {"empty": _over(None), "full": _over(full)}
        calls = {name: put_state(stack.enter_context(start).url) for name, start in starts.items()}
        print("\n| PUT | req/s | p50 ms | p99 ms |\n|---|---|---|---|")
        for connections in (1, 8, 64, 256):
            results = in_turn(calls, connections=connections, rounds=options.rounds, seconds=options.seconds)
            for name, rows in results.items():
                print(line(f"{connections} conn., {name}", rows), flush=True)


if __name__ == "__main__":
    main()
