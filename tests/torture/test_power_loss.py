"""Whenever the power fails, the journal that is left has every acknowledged write, and opens.

Real runs of the storage are recorded, with every byte that went to a file. From the record, folders are made as a power cut
may leave them, at any point of the run; each is opened with the product's own code.
"""

import collections
import contextlib
import itertools
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import launcher
import ledger
import pytest
import torture
from crash_states import WAYS, Disk, distinct
from strace_log import Create, Note, Reading, Remove, Resize, Sync, SyncFolder, Unfinished, Write, needs_strace, record

pytestmark = needs_strace

PAGE = 4096
ATTEMPTS = 5
SESSIONS = (
    {"writes": 16, "end": "kill"},
    {"writes": 20, "keep": 50, "end": "close"},
    {"writes": 16, "keep": 40, "end": "kill"},
    {"writes": 12, "keep": 20, "end": "close"},
)
"""Of one run: a crash at first, so that the second one recovers; a clean end; and both once more."""


@pytest.fixture
def folder(tmp_path):
    """A folder in memory, where there is one: what is tested here is not the speed of this disk."""
    if not Path("/dev/shm").is_dir():  # noqa: S108
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="power-loss-") as name:
        yield Path(name)


# --- recording ---


class Point(NamedTuple):
    """After so many operations of a run, and what was going on there."""

    number: int
    place: str


class RecordError(Exception):
    """The record of a run is not what is in its folder."""


def recorded(folder, seed, **plan):
    """The operations of one run: all sessions, one after the other, on one journal.

    When a process is killed in a system call, strace may not see which one it was: such a run is void, and repeated.
    """
    for attempt in range(1, ATTEMPTS + 1):
        place = folder / f"run-{attempt}"
        place.mkdir()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, place)
            if attempt < ATTEMPTS:
                stack.enter_context(contextlib.suppress(RecordError))
            return recorded_once(place, seed, **plan)
    raise AssertionError("the last attempt gives or raises")


def recorded_once(folder, seed, **plan):
    journal, notes = folder / "journal", folder / "ledger"
    journal.mkdir()
    reading, operations = Reading(journal, notes), []
    for number, session in enumerate(SESSIONS):
        log = folder / f"log-{number}"
        arguments = json.dumps(session | {"seed": seed, "session": number} | plan)
        ran = record(log, [sys.executable, launcher.__file__, journal / "journal.db", notes, arguments], capture_output=True)
        assert (-9 if session["end"] == "kill" else 0) == ran.returncode, ran.stderr.decode()
        operations += settled(operations, reading.operations(log), files_in(journal))
    return operations


def files_in(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def settled(before, operations, files):
    """These operations, and of the one in which the process was killed, what took place: the files tell.

    They tell as well whether the record is complete: what is rebuilt from it must be what is there.
    """
    for candidate in itertools.product(*map(outcomes, operations)):
        settled = [operation for operation in candidate if operation is not None]
        disk = Disk()
        for operation in itertools.chain(before, settled):
            disk.do(operation)
        if disk.now() == files:
            return settled
    differing = [name for name in files.keys() | disk.now().keys() if files.get(name) != disk.now().get(name)]
    raise RecordError(f"{differing}, the last: {str(operations[-3:])[:1000]}")


def outcomes(operation):
    """What may have taken place of it. A sync that did not return has promised nothing; a write is cut between pages."""
    if not isinstance(operation, Unfinished):
        return [operation]
    match operation.operation:
        case Sync() | SyncFolder():
            return [None]
        case Write(name, offset, data):
            pages = range(offset // PAGE * PAGE + PAGE, offset + len(data), PAGE)
            return [None, operation.operation, *(Write(name, offset, data[: page - offset]) for page in pages)]
    return [None, operation.operation]


# --- the points of a run ---


def points(operations):
    """Every point of the run, by what goes on there."""
    phase, sessions, found = "opening", 0, []
    for number, operation in enumerate(operations, start=1):
        match operation:
            case Note(text) if text.startswith("phase "):
                phase = text.removeprefix("phase ")
                sessions += phase == "opening"
        found.append(Point(number, place_of(operation, phase, sessions)))
    return found


def place_of(operation, phase, sessions):
    match operation:
        case Write("journal.db") | Resize("journal.db" | "journal.db-wal") | Sync("journal.db") if phase in (
            "writing",
            "compacting",
        ):
            return "checkpoint"
    if phase == "opening" and sessions > 1:
        return "recovery" if sessions % 2 == 0 else "reopening"  # SESSIONS end by turns with a kill and a close
    return phase


def checkpoints(operations):
    """How many checkpoints there were that left the log as long as it was, and that cut it."""
    kinds = collections.Counter()
    log = [
        each
        for each in operations
        if isinstance(each, Write | Resize | Sync | Remove | Create) and each.name in ("journal.db", "journal.db-wal")
    ]
    for this, following in itertools.pairwise(log):
        if this == Sync("journal.db"):
            kinds["cut" if following == Resize("journal.db-wal", 0) else "passive"] += 1
    return kinds


def sampled(operations, count, chance):
    """Points and ways to lose power there, all places alike: the rare ones with all they have."""
    by_place = collections.defaultdict(list)
    for point in points(operations):
        by_place[point.place] += [(point, way) for way in WAYS]
    for choices in by_place.values():
        chance.shuffle(choices)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_place.values()))
    return itertools.islice((choice for choice in in_turn if choice), count)


# --- the states ---


class State(NamedTuple):
    place: str
    way: str
    files: dict
    promises: ledger.Promises


def states(operations, chosen, chance):
    """The distinct crash states at the chosen points, in the order of the run."""
    wanted = collections.defaultdict(list)
    for point, way in chosen:
        wanted[point.number].append((point, way))
    disk, promises, seen = Disk(), ledger.Promises(), set()
    for number, operation in enumerate(operations, start=1):
        disk.do(operation)
        if isinstance(operation, Note):
            promises.take(operation.text)
        for point, way in wanted[number]:
            fates = way(disk.unsynced, chance)
            name = (distinct(disk, fates), len(promises.acked), promises.keeps)
            if name not in seen:
                seen.add(name)
                yield State(point.place, way.__name__, disk.left(fates), promises)


def intents(operations):
    """All that was ever to be written."""
    lines = [each.text for each in operations if isinstance(each, Note)]
    return ledger.Promises.of(lines).intents


def opened(folder, state, wanted):
    """What is wrong with the state, or None."""
    place = folder / "left"
    place.mkdir()
    try:
        for name, data in state.files.items():
            (place / name).write_bytes(data)
        return ledger.broken(place / "journal.db", state.promises, wanted)
    finally:
        shutil.rmtree(place)


def chance_of(*words):
    return random.Random(f"{torture.seed()} {words}")


# --- the promises ---


def test_no_power_cut_takes_an_acknowledged_write(folder):
    """Nor leaves a hole, a write of nobody, or a journal that does not open."""
    counts, kinds, cuts, acked = collections.Counter(), collections.Counter(), collections.Counter(), 0
    for run in range(torture.scale(1, 24)):
        chance, base = chance_of("run", run), folder / str(run)
        base.mkdir()
        operations = recorded(base, chance.randrange(1 << 32))
        cuts += checkpoints(operations)
        wanted = intents(operations)
        chosen = sampled(operations, torture.scale(1200, 1500), chance)
        for state in states(operations, chosen, chance):
            wrong = opened(base, state, wanted)
            assert wrong is None, f"{wrong}; power cut while {state.place}, {state.way} of the rest, SEED={torture.seed()}"
            counts[state.place] += 1
            kinds[state.way] += 1
        acked += len(state.promises.acked)
        shutil.rmtree(base)
    total = counts.total()
    torture.report(
        f"power loss: {total} crash states, none lost one of {acked} acknowledged writes; by place: {told(counts)};"
        f" of what was not synced: {told(kinds)}; checkpoints: {told(cuts)}"
    )
    assert total >= torture.scale(500, 20_000)
    assert {"opening", "writing", "checkpoint", "compacting", "closing", "closed", "recovery", "reopening"} <= counts.keys()
    assert {"passive", "cut"} <= cuts.keys()


@pytest.mark.parametrize("mutant", launcher.MUTANTS)
def test_storage_that_forgets_is_caught(folder, mutant):
    """This test of the storage fails for one that is known to lose acknowledged writes."""
    chance = chance_of(mutant)
    operations = recorded(folder, chance.randrange(1 << 32), mutant=mutant)
    chosen = [choice for choice in sampled(operations, 1500, chance) if choice[0].place in ("writing", "compacting")]
    wanted, tried = intents(operations), 0
    for state in states(operations, chosen, chance):
        tried += 1
        wrong = opened(folder, state, wanted)
        if wrong:
            torture.report(f"power loss: {mutant} is caught in crash state {tried}: {wrong.replace(str(folder), '')[:100]}")
            return
    pytest.fail(f"{mutant} lost nothing in {tried} crash states: the test is blind")


def told(counts):
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
