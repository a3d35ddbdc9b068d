"""Whichever system call on the journal's files fails, the storage acknowledges nothing that is not there after it.

Every call of a run fails once, and once and for all after it, with each error.
"""

import collections
import itertools
import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import faults
import faulty_process
import ledger
import pytest
import torture
from launcher import EX_IOERR
from strace_log import needs_strace

pytestmark = needs_strace

ANY = None
NOBODYS_HARM = (
    (ANY, ANY, "journal"),  # SQLite does not look whether its sync of the folder worked; but we sync it as well
    (ANY, ANY, "journal.db.ballast"),  # without it, less room is kept
    ("pwrite64", "ENOSPC", "journal.db-journal"),  # of a tidying up that is done when there is room
    ("pwrite64", "ENOSPC", "journal.db"),  # of a checkpoint: what it was to move stays in the log until there is room
)
"""Calls, errors and files that nobody has to be told of."""


@pytest.fixture
def begun(tmp_path):
    """What the runs start with, made once."""
    places = {start: tmp_path / "begun" / str(number) for number, start in enumerate(faults.STARTS)}
    for start, place in places.items():
        faults.begin(place, start)
    return places


def test_no_failing_call_takes_an_acknowledged_write(tmp_path, begun):
    """Nor lets the storage acknowledge anything after it. A full disk is told as that, and it goes on."""
    possible = [
        fault
        for number, (start, place) in enumerate(begun.items())
        for fault in faults.all_faults(start, faults.census(tmp_path / f"census-{number}", place))
    ]

    def judge(folder, fault):
        ending = faults.run(folder, begun[fault.start], fault)
        return ending, [*complaints(folder, fault, ending), *unfaithful(ending.promises)]

    outcomes = judged(tmp_path, chosen(possible, 100, 60), judge, "the storage")
    assert {"stopped", "did not start", "full, went on"} <= outcomes.keys()


def test_the_sidecar_stops_when_its_storage_fails(tmp_path):
    """Whatever call fails: 503 with an unknown outcome, unready, exit 74 within five seconds; 507 where it was the room."""
    possible = list(faults.all_faults("a new journal", faulty_process.census(tmp_path / "census")))

    def judge(folder, fault):
        ending, wrong = faulty_process.run(folder, fault)
        return ending, [*wrong, *complaints(folder, fault, ending)]

    outcomes = judged(tmp_path, chosen(possible, 30, 20), judge, "the sidecar")
    assert {"stopped", "did not start"} <= outcomes.keys()


def chosen(possible, anywhere, committing):
    """In the long run all faults; otherwise so many: of each call, file and error alike, and of those that make a commit."""
    if torture.TORTURE:
        return possible
    commits = [fault for fault in possible if fault.file == "journal.db-wal" and fault.call in ("pwrite64", "fdatasync")]
    return sample(possible, anywhere) + sample(commits, committing)


def sample(possible, count):
    """So many of the faults, of each kind alike. A late one is likelier: most of a short run is its start."""
    chance = random.Random(f"{torture.seed()} faults {count}")
    by_kind = collections.defaultdict(list)
    for fault in possible:
        by_kind[fault.call, fault.file, fault.error].append(fault)
    for found in by_kind.values():
        found.sort(key=lambda fault: chance.random() ** (1 / fault.number**2), reverse=True)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_kind.values()))
    return list(itertools.islice(filter(None, in_turn), count))


def judged(folder, wanted, judge, what):
    """Judge a run with each fault, two at a time; tells, and gives, how often they ended in which way."""
    outcomes, injected, failures = collections.Counter(), collections.Counter(), []

    def one(number, fault):
        place = folder / f"run-{number}"
        ending, wrong = judge(place, fault)
        wrong = list(wrong)
        shutil.rmtree(place)
        return fault, ending, wrong

    with ThreadPoolExecutor(2) as pool:
        for fault, ending, wrong in pool.map(one, itertools.count(), wanted):
            outcomes[ending.kind] += 1
            injected[f"{fault.call} {fault.error}"] += bool(ending.hit)
            if wrong:
                failures.append(f"{fault}, hit {', '.join(ending.hit)}, {ending.kind}: {'; '.join(wrong)}\n{ending.stderr}")
    torture.report(f"failing calls: {outcomes.total()} runs of {what}: {told(outcomes)}; injected: {told(injected)}")
    assert not failures, f"{len(failures)} of {outcomes.total()} runs, SEED={torture.seed()}:\n" + "\n".join(failures[:20])
    return outcomes


def complaints(folder, fault, ending):
    """What is wrong with how it ended, and with the journal that it left."""
    journal = folder / "journal/journal.db"
    yield from filter(None, (ledger.broken(journal, ending.promises), faults.unsound(journal)))
    if "Traceback" in ending.stderr:
        yield "a traceback"
    if ending.code is None:
        yield f"it did not end within {faults.TIMEOUT_SECONDS} s"
    elif ending.code not in (0, EX_IOERR):
        yield f"exit code {ending.code}"
    if ending.promises.unknown and not ending.code:
        yield "it failed, and ended as if it had not"
    if ending.promises.full and fault.error != "ENOSPC":
        yield f"{fault.error} was told as a full disk"
    if ending.kind == "unnoticed" and not all(_harms_nobody(fault, file) for file in ending.hit):
        yield "nobody noticed"


def unfaithful(promises):
    """What the launcher's ledger, the order of which is that of the telling, has against the storage."""
    if promises.acked_after_unknown:
        yield "a write was acknowledged after the storage had failed"


def _harms_nobody(fault, file):
    return any(
        all(one in (ANY, other) for one, other in zip(known, (fault.call, fault.error, file), strict=True))
        for known in NOBODYS_HARM
    )


def told(counts):
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
