"""What a webhook carries: one revision for one subscriber, the same id and the same bytes on every attempt."""

import secrets
from datetime import UTC, datetime

import msgspec

from sidecar.journal import Entry

CHANGED = "fsm.state.changed"
PING = "fsm.ping"


class Message(msgspec.Struct, frozen=True):
    """A body with its identity. `id` has no dot: Standard Webhooks signs `id.timestamp.body`."""

    id: str
    type: str
    time: str
    body: bytes


class _Changed(msgspec.Struct, frozen=True):
    epoch: str
    revision: int
    previous_revision: int
    skipped: int
    initial: bool
    snapshot: msgspec.Raw


class _Event(msgspec.Struct, frozen=True):
    type: str
    timestamp: str
    data: msgspec.Raw


_encode = msgspec.json.Encoder().encode


def changed(entry: Entry, *, epoch: str, subscriber_id: str, cursor: int | None) -> Message:
    """The message of one revision to a subscriber that last acknowledged `cursor`; None: this is its first one."""
    previous = cursor or 0
    skipped = 0 if cursor is None else entry.revision - cursor - 1
    data = _Changed(epoch, entry.revision, previous, skipped, cursor is None, msgspec.Raw(entry.document))
    return _message(f"{epoch}_{entry.revision}_{subscriber_id}", CHANGED, entry.appended_at, _encode(data))


def ping(*, epoch: str, subscriber_id: str, now: float) -> Message:
    """A message that carries no state, to see whether the receiver answers."""
    return _message(f"{epoch}_ping-{secrets.token_hex(8)}_{subscriber_id}", PING, now, _encode({"epoch": epoch}))


def _message(message_id: str, kind: str, when: float, data: bytes) -> Message:
    time = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Message(message_id, kind, time, _encode(_Event(kind, time, msgspec.Raw(data))))
