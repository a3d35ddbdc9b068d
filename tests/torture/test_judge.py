"""The judge of the crashes knows every kind of broken promise, and accepts what is right."""

import hashlib
import struct

import pytest
from judge import Kept, Row, Write, broken_links, faults, kept_in, writes_in
from writer import Ledger, request

from sidecar.database import Database
from sidecar.journal.sqlite import SqliteJournal
from sidecar.snapshot import FsmSnapshot, FsmState
from sidecar.store import AsyncStateStore

INITIAL = Row(1, 0, "COLD_START")
A = Write("a", status=200, revision=2, version=1, epoch="e")
B = Write("b", '"e-1"', status=200, revision=3, version=2, epoch="e")
SILENCE = Write("silence")
OUTCOME_UNKNOWN = Write("silence", status=503, outcome="unknown")
CONFLICT = Write("late", '"e-0"', status=412, version=1)
FULL = Write("late", status=507)
OVERLOADED = Write("late", status=503)


def judged(writes, rows, epoch="e", broken=()):
    return faults({write.token: write for write in writes}, Kept(epoch, list(rows), list(broken)))


@pytest.mark.parametrize(
    ("writes", "rows"),
    [
        ((), ()),
        ((), (INITIAL,)),
        ((A, B), (INITIAL, Row(2, 1, "a"), Row(3, 2, "b"))),
        ((A, SILENCE), (INITIAL, Row(2, 1, "a"))),
        ((A, SILENCE), (INITIAL, Row(2, 1, "a"), Row(3, 2, "silence"))),
        ((A, OUTCOME_UNKNOWN), (INITIAL, Row(2, 1, "a"), Row(3, 2, "silence"))),
        ((A, CONFLICT), (INITIAL, Row(2, 1, "a"))),
        ((A, FULL), (INITIAL, Row(2, 1, "a"))),
        ((A._replace(version=9),), (INITIAL, Row(2, 9, "a"))),
    ],
)
def test_a_journal_that_holds_what_was_told_is_right(writes, rows):
    """Also with unknown outcomes, either way, and versions that skip some."""
    assert [] == judged(writes, rows)


@pytest.mark.parametrize(
    ("writes", "rows", "fault"),
    [
        ((A,), (INITIAL,), "lost: a was acknowledged as revision 2, and nothing is there"),
        ((A, SILENCE), (INITIAL, Row(2, 1, "silence")), "lost: a was"),
        ((A,), (INITIAL, Row(2, 2, "a")), "acknowledged with version 1, and has 2"),
        ((A._replace(epoch="f"),), (INITIAL, Row(2, 1, "a")), "in epoch f, and the journal has e"),
        ((A, B._replace(revision=4)), (INITIAL, Row(2, 1, "a"), Row(4, 2, "b")), "a hole between the revisions 2 and 4"),
        ((A, SILENCE), (INITIAL, Row(2, 1, "a"), Row(3, 0, "silence")), "revision 3 has version 0, after 1"),
        ((A, SILENCE), (INITIAL, Row(2, 1, "a"), Row(3, 1, "silence")), "revision 3 has version 1, after 1"),
        ((A,), (INITIAL, Row(2, 1, "a"), Row(3, 2, "a")), "a is there twice: revisions 2 and 3"),
        ((SILENCE,), (INITIAL, Row(2, 1, "silence"), Row(3, 2, "silence")), "silence is there twice"),
        ((A, CONFLICT), (INITIAL, Row(2, 1, "a"), Row(3, 2, "late")), "late was refused with 412, and is revision 3"),
        ((A, FULL), (INITIAL, Row(2, 1, "a"), Row(3, 2, "late")), "late was refused with 507"),
        ((A, OVERLOADED), (INITIAL, Row(2, 1, "a"), Row(3, 2, "late")), "late was refused with 503"),
        ((A,), (INITIAL, Row(2, 1, "a"), Row(3, 2, "who")), "revision 3 has 'who', which nobody sent"),
        ((A, B._replace(etag='"e-0"')), (INITIAL, Row(2, 1, "a"), Row(3, 2, "b")), "b expected version 0, and replaced 1"),
        ((A,), (), "lost: a was"),
        ((A, CONFLICT._replace(version=2)), (INITIAL, Row(2, 1, "a")), "lost against version 2, which is not there"),
    ],
)
def test_every_broken_promise_is_found(writes, rows, fault):
    """One by one, each in the words that name it."""
    found = judged(writes, rows)
    assert any(fault in each for each in found), found


def test_a_broken_chain_is_a_fault():
    """Whatever else holds."""
    assert ["broken"] == judged([A], [INITIAL, Row(2, 1, "a")], broken=["broken"])


def linked(anchor, *rows):
    """Records with a chain that holds."""
    for revision, appended_at, document in rows:
        anchor = hashlib.sha256(anchor + struct.pack(">Qd", revision, appended_at) + document).digest()
        yield revision, appended_at, document, anchor


def test_a_change_to_any_row_breaks_the_chain():
    """Its document, its time, its number, and its absence; the anchor too."""
    anchor = bytes(32)
    records = list(linked(anchor, (1, 1.5, b"one"), (2, 2.5, b"two"), (3, 3.5, b"three")))
    _, _, _, link = records[1]
    assert [] == list(broken_links(anchor, records))
    for changed in ((2, 2.5, b"TWO", link), (2, 2.0, b"two", link), (9, 2.5, b"two", link), (2, 2.5, b"two", bytes(32))):
        assert list(broken_links(anchor, [records[0], changed, records[2]])), changed
    assert ["the chain is broken at revision 3"] == list(broken_links(anchor, [records[0], records[2]]))
    assert ["the chain is broken at revision 1"] == list(broken_links(b"x" * 32, records))


def test_a_ledger_is_read_as_it_was_written(tmp_path):
    """The last answer counts; what was never answered is unknown."""
    ledger = Ledger(tmp_path / "w0.ledger")
    ledger.sent("a", None)
    ledger.told("a", 200, {"epoch": "e", "revision": 2, "snapshot": {"version": 1}})
    ledger.sent("silence", None)
    ledger.sent("late", '"e-0"')
    assert SILENCE._replace(token="late", etag='"e-0"') == writes_in(tmp_path)["late"]
    ledger.told("late", 412, {"type": "version-conflict", "current": {"epoch": "e", "version": 1}})
    assert {"a": A, "silence": SILENCE, "late": CONFLICT} == writes_in(tmp_path)
    Ledger(tmp_path / "settled.ledger").told("silence", 503, {"outcome": "unknown"})
    assert OUTCOME_UNKNOWN == writes_in(tmp_path)["silence"]


async def test_a_journal_is_read_as_it_lies_there(tmp_path):
    """With what is only in the write-ahead log, and without a change to the files."""
    path = tmp_path / "journal.db"
    async with Database(path) as database:
        journal = SqliteJournal(database)
        store = AsyncStateStore(journal=journal)
        await store.set(FsmSnapshot(0, FsmState.BOOTING, "COLD_START"))
        await store.set(FsmSnapshot(1, FsmState.IDLE, "a"))
        before = {each: each.read_bytes() for each in tmp_path.glob("journal.db*")}
        kept = kept_in(path, tmp_path / "look")
        assert before == {each: each.read_bytes() for each in tmp_path.glob("journal.db*")}
    assert Kept(journal.epoch, [INITIAL, Row(2, 1, "a")], []) == kept


def test_a_write_is_the_same_each_time_it_is_sent():
    """So that its key finds it again."""
    assert request("w1-2", '"e-1"') == request("w1-2", '"e-1"')
    assert "w1-2" == request("w1-2", None)[3]["Idempotency-Key"]
    assert "Idempotency-Key" not in request("w1-3", None)[3]
