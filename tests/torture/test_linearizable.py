"""Reads and writes are linearizable, and no state is shown that a crash takes back: many clients, kills, cut connections."""

import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from linearizable import OK, REJECTED, UNKNOWN, WRITE, faults
from restarted import Restarted
from torture import report, scale, seed
from traffic import entry_of, read_history

TRAFFIC = Path(__file__).parent / "traffic.py"
CLIENTS, PROCESSES = 16, 2
ATTEMPTS = 3
LONGEST_RUN_SECONDS = 600


class Run(NamedTuple):
    """What the clients noted, and what the journal has at the end."""

    journal: list
    history: list
    kills: int
    seconds: float

    @property
    def outcomes(self):
        return {outcome: sum(o.outcome == outcome for o in self.history) for outcome in (OK, REJECTED, UNKNOWN)}

    @property
    def proves_something(self):
        """Enough was written, some of it with an unknown outcome, and there were crashes in between."""
        applied = sum(o.kind == WRITE and o.outcome == OK for o in self.history)
        return applied > len(self.history) / 20 and self.outcomes[UNKNOWN] and self.kills > 1

    @property
    def faults(self):
        return faults(self.journal, self.history, given=1)

    def __str__(self):
        told = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())
        kept = {entry.value for entry in self.journal}
        survived = sum(o.value in kept for o in self.history if o.outcome == UNKNOWN)
        return (
            f"{len(self.history)} operations ({told} of which {survived} were applied), {len(self.journal)} revisions,"
            f" {self.kills} kills, {self.seconds:.0f} s"
        )


def run(folder, name, operations, *, every, mutant=None):
    """So many operations from several processes, and again and again a kill: `every` seconds at the latest."""
    folder.mkdir()
    dice, kills, started = random.Random(name), 0, time.monotonic()
    with Restarted(folder, mutant, fsm={"history_limit": 2}) as sidecar:
        with traffic(folder, name, sidecar.port, operations) as clients:
            while not ended(clients, dice.uniform(every / 4, every)):
                assert time.monotonic() - started < LONGEST_RUN_SECONDS
                sidecar.kill()
                kills += 1
                sidecar.start()
        seconds = time.monotonic() - started
        assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE", "source_module": "the last one"}).status
        *journal, last = whole_journal(sidecar.api)
    assert "the last one" == last.value
    return Run(journal, [o for n in range(PROCESSES) for o in read_history(folder / f"history-{n}")], kills, seconds)


@contextlib.contextmanager
def traffic(folder, name, port, operations):
    """The processes of the clients. They end by themselves."""
    each = (operations // PROCESSES, CLIENTS // PROCESSES)
    started = [
        subprocess.Popen([sys.executable, TRAFFIC, *map(str, (port, *each, f"{name}-{n}", folder / f"history-{n}"))])
        for n in range(PROCESSES)
    ]
    try:
        yield started
        assert [0] * PROCESSES == [process.wait() for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def ended(processes, seconds):
    """Whether all of them have, after so many seconds at most."""
    deadline = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0, deadline - time.monotonic()))
    return all(process.poll() is not None for process in processes)


def whole_journal(api):
    """Every revision, from the first one, as the API tells them."""
    journal = []
    while (page := api.get(f"/v1/history?after={len(journal)}&limit=1000").json)["entries"]:
        journal += map(entry_of, page["entries"])
    return journal


@pytest.mark.parametrize("number", range(scale(1, 20)))
def test_reads_and_writes_are_linearizable(tmp_path, number):
    """Through kills and cut connections: one order explains every answer that any client ever got.

    A run in which too little happened proves nothing, and is repeated; a fault in it is a fault all the same.
    """
    for attempt in range(ATTEMPTS):
        done = run(tmp_path / f"{attempt}", f"{seed()}-{number}-{attempt}", scale(24_000, 50_000), every=1)
        report(f"linearizable: {'' if done.proves_something else 'a void run: '}{done}")
        assert [] == done.faults[:5]
        if done.proves_something:
            return
    pytest.fail("no run proved anything")


@pytest.mark.parametrize(
    ("mutant", "kinds"),
    [
        ("reads show the tail", {"value from nowhere"}),
        ("rejections show the tail", {"value from nowhere"}),
        ("expectations are skipped", {"wrong winner"}),
        ("decisions are late", {"wrong winner"}),
    ],
)
def test_the_proof_catches(tmp_path, mutant, kinds):
    """A sidecar with this mistake does not pass."""
    found = set()
    for attempt in range(ATTEMPTS):
        done = run(tmp_path / f"{attempt}", f"{seed()}-{mutant}-{attempt}", 2400, every=0.6, mutant=mutant)
        found = {fault.kind for fault in done.faults}
        report(f"linearizable, {mutant}: {done}: {', '.join(sorted(found)) or 'nothing found'}")
        if kinds <= found:
            break
    assert kinds <= found


def test_a_slow_disk_alone_is_no_mistake(tmp_path):
    """What the mutants change besides their mistake does not make the proof red."""
    done = run(tmp_path / "none", f"{seed()}-none", 2400, every=0.6, mutant="none")
    report(f"linearizable, no mutant: {done}")

    assert [] == done.faults[:5]
