"""What a webhook carries: one revision, or a batch, for one subscriber; the same id and the same bytes on every attempt."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

import msgspec

from sidecar.journal import Entry
from sidecar.units import Seconds

CHANGED = "fsm.state.changed"
BATCH = "fsm.state.batch"
STALLED = "fsm.state.stalled"
PING = "fsm.ping"


class Message(msgspec.Struct, frozen=True):
    """A body with its identity. `id` has no dot: Standard Webhooks signs `id.timestamp.body`."""

    id: str
    type: str
    time: str
    body: bytes


class Stall(NamedTuple):
    """The agent is in a state for longer than that. `since`: seconds since the Unix epoch. `revision`: the newest one."""

    revision: int
    state: str
    since: float
    max_dwell_seconds: float


class _Stalled(msgspec.Struct, frozen=True):
    epoch: str
    revision: int
    state: str
    since: float
    max_dwell: str


class _Changed(msgspec.Struct, frozen=True):
    epoch: str
    revision: int
    previous_revision: int
    skipped: int
    initial: bool
    snapshot: msgspec.Raw


class _Batch(msgspec.Struct, frozen=True):
    epoch: str
    revision: int
    previous_revision: int
    skipped: int
    initial: bool
    changes: list[_Changed]


class _Event(msgspec.Struct, frozen=True):
    type: str
    timestamp: str
    data: msgspec.Raw


_encode = msgspec.json.Encoder().encode


def changed(entries: Sequence[Entry], *, epoch: str, subscriber_id: str, previous: int | None, skipped: int) -> Message:
    """The message of these revisions, oldest first; of more than one, a batch.

    `previous`: the last revision that the subscriber acknowledged, None: this is its first one. `skipped`: so many after
    that are passed over.
    """
    last = entries[-1]
    first = _changed(entries[0], epoch, previous, skipped)
    place = f"{last.revision}" if len(entries) == 1 else f"{first.revision}-{last.revision}"
    if skipped:  # or it would have the id of the same revision told without a gap, before a crash
        place += f"-after-{first.previous_revision}"
    message_id = f"{epoch}_{place}_{subscriber_id}"
    if len(entries) == 1:
        return _message(message_id, CHANGED, last.appended_at, _encode(first))
    changes = [first, *(_changed(entry, epoch, before.revision, 0) for before, entry in pairwise(entries))]
    data = _Batch(epoch, last.revision, first.previous_revision, skipped, first.initial, changes)
    return _message(message_id, BATCH, last.appended_at, _encode(data))


def _changed(entry: Entry, epoch: str, previous: int | None, skipped: int) -> _Changed:
    return _Changed(epoch, entry.revision, previous or 0, skipped, previous is None, msgspec.Raw(entry.document))


def data(entry: Entry, *, epoch: str, previous: int | None, skipped: int) -> bytes:
    """What a message of one revision has in `data`."""
    return _encode(_changed(entry, epoch, previous, skipped))


def stalled(stall: Stall, *, epoch: str, subscriber_id: str, now: float) -> Message:
    """A message that the agent does not move on; the same id for the same stay, also after a restart."""
    told = _Stalled(epoch, stall.revision, stall.state, stall.since, str(Seconds(stall.max_dwell_seconds)))
    return _message(f"{epoch}_stalled-{stall.since * 1000:.0f}_{subscriber_id}", STALLED, now, _encode(told))


def ping(*, epoch: str, subscriber_id: str, now: float) -> Message:
    """A message that carries no state, to see whether the receiver answers."""
    return _message(f"{epoch}_ping-{secrets.token_hex(8)}_{subscriber_id}", PING, now, _encode({"epoch": epoch}))


def _message(message_id: str, kind: str, when: float, data: bytes) -> Message:
    time = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Message(message_id, kind, time, _encode(_Event(kind, time, msgspec.Raw(data))))
