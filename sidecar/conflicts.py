"""Writes that lost: what was expected of the current state, and a ring of the latest rejections. Pure."""

import time
from collections import deque
from enum import StrEnum

import msgspec

from sidecar.document import SnapshotDocument
from sidecar.errors import Standing

NO_VERSION = -1
"""The current version while there is no state yet."""


class RejectionKind(StrEnum):
    """Why a write was rejected."""

    STALE_VERSION = "stale_version"
    WRONG_EXPECTATION = "wrong_expectation"
    WRONG_EPOCH = "wrong_epoch"
    ILLEGAL_TRANSITION = "illegal_transition"


VERSION_CONFLICTS = (RejectionKind.STALE_VERSION, RejectionKind.WRONG_EXPECTATION, RejectionKind.WRONG_EPOCH)


class Expectation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a writer expects of the current state before its write is applied.

    `version`: the current version is exactly this one; -1: there is no state yet. `below`: it is an older one.
    `epoch`: it is of this journal. `state`: the agent is in it. With none of them: there is a state, whatever it is.
    All that is given has to hold.
    """

    version: int | None = None
    epoch: str | None = None
    below: int | None = None
    state: str | None = None

    def broken_by(self, epoch: str, current: SnapshotDocument | None) -> RejectionKind | None:
        """The first way in which the current epoch and state break the expectation, or None."""
        version = current.version if current else NO_VERSION
        if self.epoch is not None and self.epoch != epoch:
            return RejectionKind.WRONG_EPOCH
        if self.version is not None and self.version != version:
            return RejectionKind.WRONG_EXPECTATION
        if self.state is not None and (current is None or current.state != self.state):
            return RejectionKind.WRONG_EXPECTATION
        if self.below is not None and version >= self.below:
            return RejectionKind.STALE_VERSION
        if self.any_state and current is None:
            return RejectionKind.WRONG_EXPECTATION
        return None

    @property
    def any_state(self) -> bool:
        """Whether it only expects that there is a state."""
        return self.version is None and self.state is None and self.below is None

    def __str__(self) -> str:
        parts = []
        if self.version is not None:
            parts.append("no state yet" if self.version == NO_VERSION else f"version {tag(self.epoch, self.version)}")
        if self.state is not None:
            parts.append(f"state {self.state}")
        if self.below is not None:
            parts.append(f"a version below {self.below}")
        return " and ".join(parts) or "a state, whatever it is"


def tag(epoch: str | None, version: int) -> str:
    """A version with its journal's epoch, as in an ETag: `k3f9-17`."""
    return f"{epoch}-{version}" if epoch else str(version)


class Attempt(msgspec.Struct, frozen=True):
    """What the rejected writer wanted. `expected`: the expectation that was broken; None for an illegal transition."""

    version: int
    expected: Expectation | None
    state: str
    source_module: str
    reason: str


class Rejection(msgspec.Struct, frozen=True):
    """One rejected write: who tried what, against whom. `at` in seconds since the Unix epoch."""

    at: float
    kind: RejectionKind
    attempted: Attempt
    against: Standing


class Rejections:
    """The newest rejections, the oldest forgotten first, and how many there were of each kind."""

    def __init__(self, capacity: int = 256) -> None:
        self._ring: deque[Rejection] = deque(maxlen=capacity)
        self.counts = dict.fromkeys(RejectionKind, 0)

    def add(
        self, kind: RejectionKind, document: SnapshotDocument, expected: Expectation | None, against: Standing
    ) -> Rejection:
        """Remember a write that lost against `against`."""
        attempted = Attempt(document.version, expected, document.state, document.source_module, document.reason)
        rejection = Rejection(time.time(), kind, attempted, against)
        self._ring.append(rejection)
        self.counts[kind] += 1
        return rejection

    def newest_first(self) -> list[Rejection]:
        return list(reversed(self._ring))

    @property
    def version_conflicts(self) -> int:
        return sum(self.counts[kind] for kind in VERSION_CONFLICTS)
