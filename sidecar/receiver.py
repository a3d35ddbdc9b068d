"""For the other end of a webhook: verify a delivery, drop what was seen, tell what is missing.

The standard library alone, in one file: import it, or copy it. One `Receiver` for each subscription:

    receiver = Receiver("whsec_…")

    def hook(headers, body):                              # of any web framework
        for change in receiver.changes(headers, body):    # raises VerificationError: answer 401
            handle(change.snapshot["state"])              # what raises here comes again: answer 500
        return 204
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TOLERANCE_SECONDS = 300.0
"""A delivery's timestamp may be this far from this machine's clock: what is older is a replay."""

_MAX_EPOCHS = 64
_KINDS = ("fsm.state.changed", "fsm.state.batch", "fsm.state.stalled", "fsm.ping")


class VerificationError(Exception):
    """The delivery is not from who knows the secret, or too old. Answer 401. Says why, and never shows a secret."""


@dataclass(frozen=True)
class Position:
    """How far a receiver got: keep it with what you made of it, and give it back after a restart."""

    epoch: str
    revision: int
    left: tuple[str, ...] = ()
    """Epochs before this one, the newest last: a delivery of theirs is old."""


@dataclass(frozen=True)
class Change:
    """One revision that is news. `gap`: so many revisions before it did not come, None: nobody knows how many; 0: none."""

    epoch: str
    revision: int
    previous_revision: int
    skipped: int
    initial: bool
    gap: int | None
    snapshot: dict[str, Any]


class Receiver:
    """Reads the deliveries of one subscription, with the secrets that may sign it: during a rotation the old and the new one.

    `position`: where it stood before a restart. Raises `ValueError` for a secret that is not `whsec_` and base64.
    """

    def __init__(
        self,
        *secrets: str,
        position: Position | None = None,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not secrets:
            raise ValueError("give the secret that the sidecar told when the subscriber was registered")
        self.position = position
        self._keys = [_key(secret) for secret in secrets]
        self._tolerance_seconds = tolerance_seconds
        self._clock = clock

    def changes(self, headers: Mapping[str, str], body: bytes) -> Iterator[Change]:
        """The changes in a delivery that are news, oldest first; none in a repetition, an older one, a stall and a ping.

        Verified before this returns: raises `VerificationError`. `position` moves on once the loop's body is through with
        a change, so what raises there comes again with the next attempt.
        """
        self._verify({name.lower(): value for name, value in headers.items()}, body)
        return self._news(_changes_in(body))

    def _verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"""
        try:
            message_id, sent, signatures = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        except KeyError as missing:
            raise VerificationError(f"the header {missing.args[0]} is missing") from None
        if not (sent.isascii() and sent.isdigit() and len(sent) < 16):
            raise VerificationError("webhook-timestamp is not a number of seconds")
        if abs(self._clock() - int(sent)) > self._tolerance_seconds:
            raise VerificationError("webhook-timestamp is too far from this machine's clock")
        signed = f"{message_id}.{sent}.".encode() + body
        wanted = [hmac.digest(key, signed, hashlib.sha256) for key in self._keys]
        given = [_decoded(each[3:]) for each in signatures.split(" ") if each.startswith("v1,")]
        matches = [hmac.compare_digest(one, other) for one in wanted for other in given]
        if not any(matches):
            raise VerificationError("no signature fits: the secret is another one, or the delivery was changed on its way")

    def _news(self, changes: list[dict[str, Any]]) -> Iterator[Change]:
        for data in changes:
            gap = self._gap_before(data)
            if gap is not _OLD:
                yield Change(**{name: data[name] for name in _FIELDS}, gap=gap)
                self.position = self._moved_to(data)

    def _gap_before(self, data: dict[str, Any]) -> Any:
        """How many revisions are missing before this one; None: not known; or that it is old."""
        at = self.position
        if at is None or data["epoch"] != at.epoch:
            if at is not None and data["epoch"] in at.left:
                return _OLD
            return data["skipped"] if at is None else None
        if data["revision"] <= at.revision:
            return _OLD
        if data["initial"] or data["previous_revision"] > at.revision:  # what came between went to somebody else
            return None
        seen = at.revision - data["previous_revision"]  # what the sidecar does not know of since its crash
        return max(0, data["skipped"] - seen)

    def _moved_to(self, data: dict[str, Any]) -> Position:
        at = self.position
        if at is None:
            return Position(data["epoch"], data["revision"])
        left = at.left if data["epoch"] == at.epoch else (*at.left, at.epoch)[-_MAX_EPOCHS:]
        return Position(data["epoch"], data["revision"], left)

    def __repr__(self) -> str:
        return f"Receiver(position={self.position})"


_OLD = object()
_FIELDS = ("epoch", "revision", "previous_revision", "skipped", "initial", "snapshot")


def _changes_in(body: bytes) -> list[dict[str, Any]]:
    """What a body carries: one change, several, or none. Raises `VerificationError` for what no sidecar sends."""
    try:
        event = json.loads(body)
        data = event["data"]
        by_kind = {"fsm.state.changed": [data], "fsm.state.batch": data.get("changes"), "fsm.state.stalled": [], "fsm.ping": []}
        changes: list[dict[str, Any]] = by_kind[event["type"]]
        for change in changes:
            if not all(name in change for name in _FIELDS):
                raise KeyError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise VerificationError("the body is none of " + ", ".join(_KINDS)) from None
    return changes


def _key(secret: str) -> bytes:
    key = _decoded(secret.strip().removeprefix("whsec_"))
    if not secret.startswith("whsec_") or not key:
        raise ValueError("expected a secret whsec_ followed by base64")
    return key


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
