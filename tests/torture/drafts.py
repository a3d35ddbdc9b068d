"""Writes as Hypothesis draws them."""

from typing import NamedTuple

from hypothesis import strategies as st
from model import MAX_VERSION, Wish

from sidecar.conflicts import Expectation

MOVES = {
    "UNSPECIFIED": {"BOOTING"},
    "BOOTING": {"IDLE", "ERROR_STATE"},
    "IDLE": {"ACTIVE", "ERROR_STATE", "SHUTDOWN"},
    "ACTIVE": {"IDLE", "ERROR_STATE"},
    "ERROR_STATE": {"BOOTING", "IDLE", "SHUTDOWN"},
    "SHUTDOWN": {"BOOTING"},
}
ALL_MOVES = {state: {*MOVES} for state in MOVES}


class Draft(NamedTuple):
    """A write as it is drawn: its versions are said by their distance from the newest one, when it is begun."""

    how: str
    state: str
    jump: int
    expects: str
    key: str | None
    body: bytes
    padding: int
    cancelled: str


drafts = st.builds(
    Draft,
    how=st.sampled_from(["set", "put", "move"]),
    state=st.sampled_from(["BOOTING", "IDLE", "IDLE", "ACTIVE", "ERROR_STATE", "SHUTDOWN"]),
    jump=st.sampled_from([1, 1, 1, 0, -3, 2, 7, 1000, MAX_VERSION + 2]),
    expects=st.sampled_from(
        ["nothing"] * 4 + ["right", "right", "wrong", "foreign", "state", "some", "none", "below", "newer"]
    ),
    key=st.sampled_from([None] * 3 + list("abcdef")),
    body=st.sampled_from([b"one", b"one", b"other"]),
    padding=st.sampled_from([0, 0, 0, 10_000]),
    cancelled=st.sampled_from(["no"] * 5 + ["at once", "later"]),
)
several = st.lists(drafts, min_size=1, max_size=6)
"""Fewer than the keys that are remembered."""

states = st.sampled_from([*MOVES])
keys = st.sampled_from([None, *"abcdef"])


def wish_of(draft, reason, tail, epoch):
    """The draft as a write that is begun when `tail` is the newest one."""
    newest = tail.version if tail else -1
    expected = {
        "right": Expectation(newest, epoch),
        "wrong": Expectation(newest + draft.jump),
        "foreign": Expectation(newest, "elsewhere"),
        "state": Expectation(state="IDLE"),
        "some": Expectation(epoch=epoch),
        "none": Expectation(-1),
        "below": Expectation(below=newest + draft.jump),
    }.get(draft.expects)
    enforce = draft.expects == "newer" and draft.how == "set"
    key = None if draft.how == "set" else draft.key
    version = max(0, newest + draft.jump)  # which may be beyond what can be kept
    return Wish(reason, draft.how, draft.state, version, expected, enforce, key, draft.body)
