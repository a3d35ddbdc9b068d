"""Silent loss is not silent: a journal of which something is gone is refused, and one that is whole is not.

(`tests/test_data_loss.py`: what happens when the loss is accepted.)
"""

import os
import random
import re
import sqlite3
from contextlib import closing

import pytest
from damage import (
    LAST,
    LOST,
    all_but_the_log_missing,
    all_but_the_mark_missing,
    beside,
    each_loss,
    file_emptied,
    file_missing,
    files,
    flip,
    found,
    log_deleted,
    mark_emptied,
    mark_missing,
    mark_overwritten,
    mark_torn,
)
from sidecar_process import on_disk, running, served, written

from sidecar.database import Database
from sidecar.database.mark import Mark, MarkFile, read_mark
from sidecar.errors import JournalDamagedError, StorageError
from sidecar.journal.sqlite import SqliteJournal

MENDS = ("fsm-sidecar journal restore FILE", "fsm-sidecar run --accept-data-loss")


@each_loss
async def test_a_loss_is_refused(journal_of, damage, kind, told):
    """What is missing is named, with both mends; and again at the next start: nothing has hidden it."""
    path = journal_of(kind)
    damage(path)
    before = files(path)
    for _ in range(2):
        with pytest.raises(JournalDamagedError, match=told) as refused:
            await found(path)
        assert all(mend in str(refused.value) for mend in (str(path), *MENDS))
    assert before.get("journal.db.hwm") == files(path).get("journal.db.hwm")


@pytest.mark.parametrize("damage", [file_missing, file_emptied, all_but_the_mark_missing, all_but_the_log_missing, log_deleted])
async def test_a_refusal_changes_nothing(journal_of, damage):
    """No empty journal is made in place of a lost one, and its log is not thrown away: SQLite would delete it."""
    path = journal_of("crashed")
    damage(path)
    before = files(path)
    with pytest.raises(JournalDamagedError):
        await found(path)

    assert before == files(path)


@pytest.mark.parametrize(
    ("damage", "kind", "told"),
    [pytest.param(*LOST[name], id=name) for name in ("log_deleted", "file_missing", "byte_flipped", "overwritten")],
)
def test_the_process_says_what_is_lost(journal_of, damage, kind, told):
    """Exit 65, and one line on standard error: what is missing, and the two mends."""
    path = journal_of(kind)
    damage(path)
    with running(path.with_name("sidecar.yaml")) as sidecar:
        assert 65 == sidecar.exit_code()
    (line,) = sidecar.lines

    assert re.search(told, line)
    assert line.startswith(f"fsm-sidecar: {path}")
    assert all(mend in line for mend in MENDS)


async def test_no_flipped_byte_goes_unnoticed(journal_of, tmp_path):
    """Anywhere in the file, or in the log that a crash left: the history is as it was, or the journal is refused."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    dice, outcomes = random.Random(seed), {"same": 0, "refused": 0}
    print(f"SEED={seed}")
    for kind, suffix in (("ended", ""), ("crashed", "-wal")):
        intact, whole = await found(journal_of(kind))
        for _ in range(100):
            path = journal_of(kind)
            place = dice.randrange(beside(path, suffix).stat().st_size)
            flip(beside(path, suffix), place)
            try:
                seen, history = await found(path)
            except StorageError:
                outcomes["refused"] += 1
            else:
                assert (intact.epoch, whole) == (seen.epoch, history), (suffix, place)
                outcomes["same"] += 1
    print(f"flipped bytes: {outcomes}")
    assert outcomes["refused"] > 50


# --- what is not lost ---


@pytest.mark.parametrize("damage", [mark_missing, mark_emptied, mark_torn, mark_overwritten])
def test_a_journal_without_its_mark_opens_with_a_warning(journal_of, damage):
    """A power cut may tear the mark, which is no reason to stop; but nobody can say whether the end is there. Once."""
    path = journal_of("crashed")
    damage(path)
    for warnings in (1, 0):
        with served(path.with_name("sidecar.yaml")) as sidecar:
            assert LAST == sidecar.api.get("/v1/state").json["revision"]
            assert warnings == len([line for line in sidecar.log if line["event"] == "journal_has_no_mark"])


@pytest.mark.parametrize("revision", [0, 1, 15, 19])
async def test_a_mark_that_lags_is_no_loss(journal_of, revision):
    """It is synced only with a checkpoint: after a power cut the journal may be further, and is then taken as it is."""
    path = journal_of("crashed")
    with closing(sqlite3.connect(path)) as connection:
        chains = dict(connection.execute("SELECT revision, chain FROM journal"))
    path = journal_of("crashed")
    with closing(MarkFile(path)) as marks:
        marks.write(Mark(read_mark(path).epoch, revision, chains.get(revision, bytes(32))))
    seen, history = await found(path)

    assert (LAST, LAST, False, ()) == (seen.head, len(history), seen.unmarked, seen.given_up)


async def test_a_mark_of_a_revision_that_is_compacted_is_no_loss(tmp_path):
    """The mark of an old backup of the folder, say: the chain goes on from the anchor."""
    path = tmp_path / "journal.db"
    async with Database(path) as database:
        journal = SqliteJournal(database)
        for _ in range(20):
            journal.append(b"{}", lambda entry, error: None)
        await journal.beyond(19)
        await journal.compact(10)
    with closing(MarkFile(path)) as marks:
        marks.write(Mark(journal.epoch, 5, bytes(range(32))))

    assert (20, 10) == (await found(path))[0][1:3]


def test_an_unclean_start_is_counted(tmp_path):
    """After kill -9, once; not after an orderly end."""
    config = written(tmp_path, journal=on_disk(tmp_path))
    counts = []
    for end in ("stop", "kill", "stop", "kill", "kill", "stop"):
        with running(config) as sidecar:
            counts += re.findall(r"^fsm_journal_unclean_starts_total (\d+)", sidecar.ops.get("/metrics").body.decode(), re.M)
            getattr(sidecar, end)()

    assert ["0", "0", "1", "1", "2", "3"] == counts
