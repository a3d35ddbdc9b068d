"""The rules for deliveries: each accepts what is right, and finds its own violation."""

import json
import time
from datetime import UTC, datetime

import pytest
from delivery_rules import Got, equal_to_the_journal, one_at_a_time, same_on_every_attempt, signed_and_fresh, told_in_order
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def got(revision, previous=None, skipped=0, *, life=0, status=204, name=None, text="", late=0, at=None):
    """One attempt, as a sidecar without faults would make it."""
    now = int(time.time()) - late
    previous = revision - 1 if previous is None else previous
    data = {"revision": revision, "previous_revision": previous, "skipped": skipped, "initial": previous == 0}
    body = json.dumps({"data": data | {"snapshot": {"n": revision, "text": text}}})
    name = name or f"e_{revision}_s"
    signature = Webhook(SECRET).sign(name, datetime.fromtimestamp(now, UTC), body)
    headers = {"webhook-id": name, "webhook-timestamp": str(now), "webhook-signature": signature}
    at = now + late if at is None else at
    return Got(headers, body.encode(), at, at, status, life)


HISTORY = {n: {"n": n, "text": ""} for n in (1, 2, 3)}


@pytest.mark.parametrize(
    "attempts",
    [
        lambda: [got(1), got(2), got(3)],
        lambda: [got(1), got(2, status=500), got(2), got(3)],
        lambda: [got(1), got(3, 1, 1)],
        lambda: [got(1), got(2), got(2, life=1), got(3, life=1)],
    ],
    ids=["in a row", "a retry", "a gap that is told", "a repeat after a kill"],
)
def test_what_is_right_has_no_faults(attempts):
    """Order, retries, gaps that are told and repeats after a kill are all allowed."""
    right = attempts()  # made now: a signature holds for five minutes, and this may run long after it was collected
    found = told_in_order(right) + equal_to_the_journal(right, HISTORY) + same_on_every_attempt(right)
    assert [] == found + signed_and_fresh(right, SECRET) + one_at_a_time(right)


@pytest.mark.parametrize(
    "wrong",
    [
        [got(1), got(3)],
        [got(1), got(3, 1, 0)],
        [got(1), got(3, 1, 2)],
        [got(1), got(2), got(2)],
        [got(1), got(2), got(1)],
        [got(1), got(2), got(4, life=1)],
        [got(1), *(got(n) for n in range(2, 150)), got(20, life=1)],
    ],
    ids=["a hole", "a gap untold", "a gap miscounted", "twice", "backwards", "a hole after a kill", "too many repeats"],
)
def test_a_broken_order_is_found(wrong):
    """A hole, a wrong gap, a repeat without a kill or too many after one."""
    assert told_in_order(wrong)


def test_another_document_and_a_missing_end_are_found():
    """What differs from the journal, and what never came."""
    assert equal_to_the_journal([got(1), got(2), got(3, text="other")], HISTORY)
    assert equal_to_the_journal([got(1), got(2)], HISTORY)


def test_another_body_under_the_same_id_is_found():
    """Also when the first attempt failed."""
    assert same_on_every_attempt([got(1, status=500), got(1, text="other")])


def test_a_bad_signature_and_an_old_timestamp_are_found():
    """The one as well as the other."""
    forged = got(1)
    forged.body += b" "
    assert signed_and_fresh([forged], SECRET)
    assert signed_and_fresh([got(1, late=10)], SECRET)


def test_two_at_once_are_found():
    """The second arrives before the first is answered."""
    first, second = got(1, at=1.0), got(2, at=2.0)
    first.until = 3.0
    assert one_at_a_time([first, second])
