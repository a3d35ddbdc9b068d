"""The checker of histories catches what it has to, and nothing else: by hand, at random, and against a search."""

import math
import random
import time

import pytest
from histories import legal, linearizable_by_search, with_lost_update, with_stale_read
from linearizable import NOTHING, OK, READ, REJECTED, UNKNOWN, WRITE, Entry, Expected, Operation, faults
from torture import report, scale, seed

FIRST, SECOND, THIRD = (Entry(n, n - 1, "IDLE", f"w{n}") for n in (1, 2, 3))
JOURNAL = (FIRST, SECOND, THIRD)


def read(seen, *, at, client="reader"):
    return Operation(client, READ, at, at + 5, OK, seen)


def write(seen, *, at, expected=Expected(), client="writer"):  # noqa: B008  (it is a tuple)
    return Operation(client, WRITE, at, at + 5, OK, seen, seen.value, expected)


def rejected(value, seen, *, at, expected):
    return Operation("loser", WRITE, at, at + 5, REJECTED, seen._replace(revision=None), value, expected)


def cut(value, *, at, expected=Expected()):  # noqa: B008
    return Operation("cut", WRITE, at, math.inf, UNKNOWN, None, value, expected)


WRITES = (write(FIRST, at=10), write(SECOND, at=20), write(THIRD, at=30))


def kinds(journal, *history, given=0):
    return {fault.kind for fault in faults(journal, history, given=given)}


# --- by hand ---

ONE_AT_A_TIME = (
    *WRITES,
    read(NOTHING, at=1),
    read(FIRST, at=16),
    read(THIRD, at=40),
    rejected("late", THIRD, at=50, expected=Expected(version=SECOND.version)),
)


def test_one_after_the_other_is_legal():
    """Writes, reads in between, and a rejection that names what it lost to."""
    assert set() == kinds(JOURNAL, *ONE_AT_A_TIME)


def test_at_the_same_time_both_orders_are_legal():
    """Two reads during a write: one shows it, the other one, which ends later, does not."""
    during = Operation("writer", WRITE, 20, 90, OK, SECOND, SECOND.value)
    assert set() == kinds(JOURNAL[:2], WRITES[0], during, read(SECOND, at=30), read(FIRST, at=31))


def test_a_write_that_was_cut_may_be_there_or_not():
    """An unknown outcome excludes neither."""
    assert set() == kinds(JOURNAL, *WRITES[:2], cut("w3", at=25), read(THIRD, at=90))
    assert set() == kinds(JOURNAL[:2], *WRITES[:2], cut("w3", at=25), read(SECOND, at=90))


def test_what_was_there_before_needs_no_writer():
    """The history may begin on a journal that is not empty."""
    assert set() == kinds(JOURNAL, *WRITES[1:], given=1)


def test_a_stale_read_is_caught():
    """It began after the write that replaced what it shows was acknowledged."""
    assert {"stale read"} == kinds(JOURNAL, *WRITES, read(SECOND, at=40))


def test_a_read_that_goes_back_is_caught():
    """Nobody was told yet that the write is done, but one reader has seen it, and the next one has not."""
    slow = Operation("writer", WRITE, 20, 90, OK, SECOND, SECOND.value)
    assert {"stale read"} == kinds(JOURNAL[:2], WRITES[0], slow, read(SECOND, at=30), read(FIRST, at=40))


def test_a_stale_rejection_is_caught():
    """It names as the winner what had been replaced before it began."""
    late = rejected("late", FIRST, at=40, expected=Expected(version=SECOND.version))
    assert {"stale read"} == kinds(JOURNAL, *WRITES, late)


def test_a_lost_update_is_caught():
    """Acknowledged, and not in the journal; or another one has its place."""
    assert {"lost update"} == kinds(JOURNAL[:2], *WRITES)
    assert "lost update" in kinds((FIRST, SECOND._replace(value="w9")), *WRITES[:2], cut("w9", at=1))


def test_a_read_from_the_future_is_caught():
    """It shows what is written only after it."""
    assert {"read from the future"} == kinds(JOURNAL, *WRITES, read(THIRD, at=22))
    assert {"read from the future"} == kinds(JOURNAL, *WRITES[:2], cut("w3", at=50), read(THIRD, at=22))


def test_two_winners_of_one_expectation_are_caught():
    """Both expected the first, both were told that they won."""
    second, third = (write(entry, at=20, expected=Expected(version=FIRST.version)) for entry in (SECOND, THIRD))
    assert {"wrong winner"} == kinds(JOURNAL, WRITES[0], second, third)
    assert "lost update" in kinds(JOURNAL[:2], WRITES[0], second, write(SECOND._replace(value="w3"), at=20))


def test_a_cut_write_must_have_been_expected_as_well():
    """An unknown outcome is no licence to replace anything."""
    assert {"wrong winner"} == kinds(JOURNAL, *WRITES[:2], cut("w3", at=25, expected=Expected(version=FIRST.version)))


@pytest.mark.parametrize(
    "broken", [Expected(version=7), Expected(below=SECOND.version), Expected(state="ACTIVE"), Expected(version=-1)]
)
def test_every_kind_of_expectation_counts(broken):
    """A version, none yet, an older one, a state: each is compared with the predecessor."""
    assert {"wrong winner"} == kinds(JOURNAL, *WRITES[:2], write(THIRD, at=30, expected=broken))


def test_a_value_from_nowhere_is_caught():
    """In the journal, in a read, as the reason of a rejection."""
    taken_back = THIRD._replace(value="w8")
    late = rejected("late", taken_back, at=50, expected=Expected(version=FIRST.version))
    assert {"value from nowhere"} == kinds(JOURNAL, *WRITES[:2])
    assert {"value from nowhere"} == kinds(JOURNAL, *WRITES, read(taken_back, at=40))
    assert {"value from nowhere"} == kinds(JOURNAL, *WRITES, late)


def test_a_rejected_write_that_is_applied_is_caught():
    """412, and there it is."""
    no = rejected("w3", SECOND, at=30, expected=Expected(version=FIRST.version))
    assert {"rejected write applied", "wrong winner"} == kinds(JOURNAL, *WRITES[:2], no)


def test_a_rejection_without_a_ground_is_caught():
    """What it names as the winner is what the loser had expected."""
    assert {"groundless rejection"} == kinds(JOURNAL, *WRITES, rejected("late", THIRD, at=50, expected=Expected(version=2)))


def test_writes_against_the_order_of_time_are_caught():
    """The second one was acknowledged before the first one began."""
    assert {"writes out of order"} == kinds(JOURNAL[:2], write(SECOND, at=10), write(FIRST, at=20))


def test_a_write_that_is_there_twice_is_caught():
    """At most once, whatever the outcome was."""
    assert {"applied twice"} == kinds((FIRST, SECOND, THIRD._replace(value="w2")), *WRITES[:2])


def test_a_hole_and_an_older_version_are_caught():
    """Revisions are 1, 2, 3; versions only grow."""
    assert "hole" in kinds((FIRST, THIRD), *WRITES)
    assert "version not newer" in kinds((FIRST, SECOND._replace(version=0)), *WRITES[:1], cut("w2", at=1))


# --- at random ---


def test_broken_histories_are_caught_and_legal_ones_are_not():
    """Each mutation in each of many histories; no false alarm in twice as many."""
    dice, count = random.Random(seed()), scale(100, 2000)
    for number in range(2 * count):
        journal, history = legal(dice, 400)
        assert [] == faults(journal, history)
        if number < count:
            assert "stale read" in kinds(*flat(with_stale_read(dice, journal, history)))
            assert "lost update" in kinds(*flat(with_lost_update(dice, journal, history)))
    report(f"checker: {2 * count} legal histories, no false alarm; {count} stale reads, {count} lost updates, all caught")


def flat(broken):
    journal, history = broken
    return journal, *history


def test_the_search_judges_the_same():
    """A search that knows no journal agrees: on legal histories, and on broken ones without unknown outcomes.

    But for the loss of the very last write: nobody has seen anything after it, and only the journal can tell.
    """
    dice, count = random.Random(seed()), scale(50, 500)
    for _ in range(count):
        journal, history = legal(dice, 192)
        assert ([], True) == (faults(journal, history), linearizable_by_search(history))
        journal, history = with_stale_read(dice, *legal(dice, 192, unknown=0))
        assert (True, False) == (bool(faults(journal, history)), linearizable_by_search(history))
        whole, history = legal(dice, 192, unknown=0)
        journal, history = with_lost_update(dice, whole, history)
        was_last = list(journal) == list(whole)[:-1]
        assert (True, was_last) == (bool(faults(journal, history)), linearizable_by_search(history))
    report(f"checker: {3 * count} histories of 192 operations judged by search as well, {2 * count} of them broken")


def test_it_is_fast_enough_for_long_histories():
    """n log n: ten times as many operations do not take a hundred times as long."""
    journal, history = legal(random.Random(seed()), scale(50_000, 200_000))
    started = time.perf_counter()
    assert [] == faults(journal, history)
    report(f"checker: {len(history)} operations in {time.perf_counter() - started:.2f} s")
