"""Writes that met another one: what was expected of the current state, who lost, and who overwrote whom unseen. Pure."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from heapq import merge
from typing import NamedTuple

import msgspec

from sidecar.document import SnapshotDocument
from sidecar.errors import Standing

NO_VERSION = -1
"""The current version while there is no state yet."""

OTHER = "other"
"""The writer of a write whose `source_module` is not one of those that are told apart."""


class ConflictKind(StrEnum):
    """What a write was compared by when it lost; or that it was not compared, and overwrote a state it had not seen."""

    STALE_VERSION = "stale_version"
    WRONG_EXPECTATION = "wrong_expectation"
    WRONG_EPOCH = "wrong_epoch"
    FENCED = "fenced"
    ILLEGAL_TRANSITION = "illegal_transition"
    MASKED = "masked"


class Reason(StrEnum):
    """How the current state differed from what the write expected of it."""

    STALE = "stale"
    EQUAL = "equal"
    AHEAD = "ahead"
    EXISTS = "exists"
    MISSING = "missing"
    STATE = "state"
    EPOCH = "epoch"
    MACHINE = "machine"


VERSION_CONFLICTS: dict[ConflictKind, tuple[Reason, ...]] = {
    ConflictKind.STALE_VERSION: (Reason.STALE, Reason.EQUAL),
    ConflictKind.WRONG_EXPECTATION: (Reason.STALE, Reason.AHEAD, Reason.EXISTS, Reason.MISSING, Reason.STATE),
    ConflictKind.WRONG_EPOCH: (Reason.EPOCH,),
    ConflictKind.FENCED: (Reason.STALE, Reason.AHEAD, Reason.MISSING, Reason.EPOCH),
}
"""The kinds that are version conflicts, and the reasons that each can have."""


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

    def broken_by(self, epoch: str, current: SnapshotDocument | None) -> tuple[ConflictKind, Reason] | None:
        """The first way in which the current epoch and state break the expectation, or None."""
        version = current.version if current else NO_VERSION
        if self.epoch is not None and self.epoch != epoch:
            return ConflictKind.WRONG_EPOCH, Reason.EPOCH
        if self.version is not None and self.version != version:
            return ConflictKind.WRONG_EXPECTATION, _difference(self.version, version)
        if self.state is not None and (current is None or current.state != self.state):
            return ConflictKind.WRONG_EXPECTATION, Reason.STATE if current else Reason.MISSING
        if self.below is not None and version >= self.below:
            return ConflictKind.STALE_VERSION, Reason.EQUAL if version == self.below else Reason.STALE
        if self.any_state and current is None:
            return ConflictKind.WRONG_EXPECTATION, Reason.MISSING
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


def _difference(expected: int, version: int) -> Reason:
    if expected == NO_VERSION:
        return Reason.EXISTS
    if version == NO_VERSION:
        return Reason.MISSING
    return Reason.STALE if expected < version else Reason.AHEAD


def tag(epoch: str | None, version: int) -> str:
    """A version with its journal's epoch, as in an ETag: `k3f9-17`."""
    return f"{epoch}-{version}" if epoch else str(version)


class Attempt(msgspec.Struct, frozen=True):
    """What the writer wanted. `expected`: the expectation that was broken; None where there was none."""

    version: int
    expected: Expectation | None
    state: str
    source_module: str
    reason: str


class Conflict(msgspec.Struct, frozen=True):
    """One write that met another: who tried what, against whom. `at` in seconds since the Unix epoch.

    Kind `masked`: it was accepted under a new version, over the state `against`. All other kinds: rejected.
    """

    at: float
    kind: ConflictKind
    reason: Reason
    attempted: Attempt
    against: Standing

    @classmethod
    def now(
        cls,
        kind: ConflictKind,
        reason: Reason,
        document: SnapshotDocument,
        expected: Expectation | None,
        against: Standing,
    ) -> "Conflict":
        """The conflict of writing `document` now."""
        attempted = Attempt(document.version, expected, document.state, document.source_module, document.reason)
        return cls(time.time(), kind, reason, attempted, against)

    def __str__(self) -> str:
        if self.kind is ConflictKind.MASKED:
            return f"version {self.attempted.version} got a new number, though {_describe(self.against)}"
        if self.kind is ConflictKind.ILLEGAL_TRANSITION:
            return f"{self.against.state} -> {self.attempted.state} is not a transition of the machine"
        if self.kind is ConflictKind.FENCED:
            return f"{FENCED[self.reason]}; {_describe(self.against)}"
        return f"expected {self.attempted.expected}, but {_describe(self.against)}"


FENCED = {
    Reason.STALE: "another writer has taken over since its Writer-Token was given out",
    Reason.AHEAD: "its Writer-Token was never given out",
    Reason.MISSING: "it has no Writer-Token, and only the holder of the newest one may write",
    Reason.EPOCH: "its Writer-Token is of another journal, which is gone",
}
"""Why a write is fenced out."""


def _describe(standing: Standing) -> str:
    if standing.state is None:
        return "there is no state yet"
    current = tag(standing.epoch, standing.version)
    return f"the current version is {current}: {standing.state}, written by {standing.source_module}"


class Meeting(NamedTuple):
    """Whose write met whose state, as the metrics name them: a configured writer, or `other`."""

    writer: str
    against: str
    masked: bool


class Conflicts:
    """The newest conflicts, and how many there were: by kind, by reason and by writer.

    `writers`: the `source_module`s that are told apart in the numbers; all the rest is `other`. `tell` is called with each
    conflict, for the log. The newest `capacity` rejected writes are kept, and as many masked ones: none crowds out the other.
    """

    def __init__(
        self, writers: Iterable[str] = (), *, capacity: int = 256, tell: Callable[[Conflict], None] | None = None
    ) -> None:
        self.writers = (*writers, OTHER)
        self.counts = dict.fromkeys(ConflictKind, 0)
        self.by_reason = {
            (kind, reason, writer): 0
            for kind, reasons in VERSION_CONFLICTS.items()
            for reason in reasons
            for writer in self.writers
        }
        self.latest: dict[tuple[str, str, str], Conflict] = {}
        self.masked = dict.fromkeys(self.writers, 0)
        self.meetings = {
            Meeting(writer, against, masked): 0
            for writer in self.writers
            for against in self.writers
            for masked in (False, True)
        }
        self._rejected: deque[tuple[int, Conflict]] = deque(maxlen=capacity)
        self._masked: deque[tuple[int, Conflict]] = deque(maxlen=capacity)
        self._tell = tell

    def add(self, conflict: Conflict) -> None:
        """Remember, count and tell a conflict."""
        self.counts[conflict.kind] += 1
        self._count(conflict, self._name(conflict.attempted.source_module))
        ring = self._masked if conflict.kind is ConflictKind.MASKED else self._rejected
        ring.append((sum(self.counts.values()), conflict))
        if self._tell:
            self._tell(conflict)

    def _count(self, conflict: Conflict, writer: str) -> None:
        if conflict.kind is ConflictKind.MASKED:
            self.masked[writer] += 1
        elif conflict.kind in VERSION_CONFLICTS:
            key = conflict.kind, conflict.reason, writer
            self.by_reason[key] += 1
            self.latest[key] = conflict
        else:  # the machine's no, whoever came first
            return
        against = conflict.against.source_module
        if against is not None:
            self.meetings[Meeting(writer, self._name(against), conflict.kind is ConflictKind.MASKED)] += 1

    def _name(self, source_module: str) -> str:
        return source_module if source_module in self.writers else OTHER

    def newest_first(self) -> Sequence[Conflict]:
        """Those that are kept, rejected and masked ones, the newest first."""
        return [conflict for _, conflict in merge(reversed(self._rejected), reversed(self._masked), key=_place, reverse=True)]

    @property
    def version_conflicts(self) -> int:
        return sum(self.counts[kind] for kind in VERSION_CONFLICTS)


def _place(numbered: tuple[int, Conflict]) -> int:
    return numbered[0]
