"""The decision on a write: what becomes of it, or what it loses to. Pure: nothing is written, counted or awaited."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from sidecar.conflicts import FENCED, NO_VERSION, Conflict, ConflictKind, Expectation, Reason
from sidecar.document import SnapshotDocument, check_names
from sidecar.errors import (
    FencedError,
    Holder,
    IllegalTransitionError,
    InvalidSnapshotError,
    Standing,
    StateExistsError,
    StateStoreError,
    StateVersionError,
    UnknownStateError,
)
from sidecar.fencing import Claim, Fence
from sidecar.journal import Journal
from sidecar.machine import Enforcement, Machine

MAX_VERSION = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259, section 6)."""


@dataclass
class Lost(Exception):  # noqa: N818  (no error: the store makes one of it that tells the writer)
    """The decision went against a write: why, and what it lost to."""

    kind: ConflictKind
    reason: Reason
    document: SnapshotDocument
    against: Standing
    expected: Expectation | None = None
    allowed: Sequence[str] = ()

    def conflict(self) -> Conflict:
        """It as a conflict of now."""
        return Conflict.now(self.kind, self.reason, self.document, self.expected, self.against)

    def rejection(self, conflict: Conflict, holder: Holder | None) -> StateStoreError:
        """The error that tells its writer. `holder`: who may write, where it was fenced out."""
        if self.kind is ConflictKind.FENCED:
            return FencedError(FENCED[self.reason], holder, attempted=conflict.attempted)
        if self.expected is None:
            return IllegalTransitionError(
                state=self.against.state or "", to=self.document.state, allowed=self.allowed, attempted=conflict.attempted
            )
        error = StateExistsError if self.expected.version == NO_VERSION else StateVersionError
        return error(str(conflict), expected=self.expected, current=self.against, attempted=conflict.attempted)


class Rules:
    """What a write is held against, beside the newest accepted state: the machine, the journal's epoch, and the fence."""

    def __init__(self, machine: Machine, journal: Journal, fence: Fence) -> None:
        self.machine = machine
        self._journal = journal
        self._fence = fence

    def decide(
        self,
        document: SnapshotDocument,
        tail: SnapshotDocument | None,
        expected: Sequence[Expectation],
        claim: Claim | None,
    ) -> SnapshotDocument:
        """The document as it will be stored behind `tail`, in one step. Raises `Lost`, and `InvalidSnapshotError`."""
        current = tail.version if tail else NO_VERSION
        self.state_named(document.state)
        check_names(document, self.machine.states)
        fenced = self._fence.broken_by(claim) if claim else None
        if fenced:
            raise Lost(ConflictKind.FENCED, fenced, document, self.standing(tail))
        for expectation in expected:
            broken = expectation.broken_by(self._journal.epoch, tail)
            if broken:
                raise Lost(*broken, document, self.standing(tail), expectation)
        version = max(document.version, current + 1)
        if version > MAX_VERSION:
            raise InvalidSnapshotError("the version cannot grow beyond 2**53 - 1; start with a new journal", path="$.version")
        if tail and self.machine.enforcement is Enforcement.ENFORCE and not self._allows(tail, document):
            allowed = self.machine.allowed(self.machine.states[tail.state])
            raise Lost(ConflictKind.ILLEGAL_TRANSITION, Reason.MACHINE, document, self.standing(tail), allowed=allowed)
        if version != document.version:
            document = msgspec.structs.replace(document, version=version)
        return document

    def warns_of(self, tail: SnapshotDocument | None, document: SnapshotDocument) -> bool:
        """Whether it would have lost, if the machine were enforced."""
        return tail is not None and self.machine.enforcement is Enforcement.WARN and not self._allows(tail, document)

    def state_named(self, name: str, path: str = "$.state") -> IntEnum:
        """The state of this name. Raises `UnknownStateError`."""
        states = self.machine.states
        try:
            return states[name]
        except KeyError:
            raise UnknownStateError(f"expected one of {', '.join(states.__members__)}", path=path) from None

    def standing(self, document: SnapshotDocument | None) -> Standing:
        """Where the current state stands, as a writer that met it is told; None: there is none."""
        if document is None:
            return Standing(self._journal.epoch)
        return Standing(self._journal.epoch, document.version, document.state, document.source_module, document.ts_wall)

    def _allows(self, tail: SnapshotDocument, document: SnapshotDocument) -> bool:
        states = self.machine.states
        return tail.state == document.state or self.machine.allows(states[tail.state], states[document.state])
