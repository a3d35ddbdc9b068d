"""Is what the clients saw what one single state, changed by one write after the other, could have shown them? Pure.

Answers tell revisions, so the order of the writes need not be searched: it is the journal's. What is left is whether that
order agrees with time. Each operation has a place in it: a write the one of its revision, a read (and a rejection, which
shows what it lost to) the one right behind the revision it showed. The history is linearizable if and only if no operation
ended before another began that has an earlier place, every write had the predecessor it expected, and all that was shown
is in the journal.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

READ, WRITE = "read", "write"
OK, REJECTED, UNKNOWN = "ok", "rejected", "unknown"


class Entry(NamedTuple):
    """A state as the journal keeps it. `value`: what tells it from all others. A rejection shows it without its revision."""

    revision: int | None
    version: int
    state: str
    value: str


NOTHING = Entry(0, -1, "", "")
"""What there is before the first write."""


class Expected(NamedTuple):
    """What a write expects of the state it replaces; with none of them: nothing."""

    version: int | None = None
    below: int | None = None
    state: str | None = None

    def holds(self, entry: Entry) -> bool:
        return (
            (self.version is None or entry.version == self.version)
            and (self.below is None or entry.version < self.below)
            and (self.state is None or entry.state == self.state)
        )


class Operation(NamedTuple):
    """What one client asked, and what came back. `call` and `back`: the time before and after; unknown: never back.

    `seen`: what was read, what was stored, or what a rejected write lost to; None when nothing was told. `value`: what a
    write writes. An operation with a known outcome that shows nothing, a write refused without a reason, was not applied.
    """

    client: str
    kind: str
    call: int
    back: float
    outcome: str
    seen: Entry | None = None
    value: str = ""
    expected: Expected = Expected()


class Fault(NamedTuple):
    """A way in which the history is not that of a single state."""

    kind: str
    what: str


def faults(journal: Sequence[Entry], history: Sequence[Operation], *, given: int = 0) -> list[Fault]:
    """All faults of the history; none: it is linearizable. `given`: so many revisions were there before it began."""
    return [
        *_faults_of(journal),
        *_foreign(journal, history, given),
        *_untrue(journal, history),
        *_wrong_winners(journal, history),
        *_disorder(journal, history),
    ]


def _faults_of(journal: Sequence[Entry]) -> Iterator[Fault]:
    """Revisions without holes, versions that only grow, and no write twice."""
    for before, entry in zip((NOTHING, *journal), journal, strict=False):
        if entry.revision != before.revision + 1:
            yield Fault("hole", f"{entry} follows {before}")
        if entry.version <= before.version:
            yield Fault("version not newer", f"{entry} follows {before}")
    for value, count in Counter(entry.value for entry in journal).items():
        if count > 1:
            yield Fault("applied twice", f"{value} is there {count} times")


def _foreign(journal: Sequence[Entry], history: Sequence[Operation], given: int) -> Iterator[Fault]:
    """Every value was written by somebody, who was not told that it was not."""
    written = {operation.value: operation for operation in history if operation.kind == WRITE}
    for entry in journal[given:]:
        writer = written.get(entry.value)
        if writer is None:
            yield Fault("value from nowhere", f"nobody wrote {entry}")
        elif writer.outcome == REJECTED:
            yield Fault("rejected write applied", f"{entry} is there, but {writer}")


def _untrue(journal: Sequence[Entry], history: Sequence[Operation]) -> Iterator[Fault]:
    """What was shown is in the journal, what was acknowledged as well, and a rejection had a reason."""
    kept = _Kept(journal)
    for operation in history:
        if operation.seen is None:
            continue
        found = kept.like(operation.seen)
        if operation.kind == WRITE and operation.outcome == OK:
            if found is None or found.value != operation.value:
                yield Fault("lost update", f"{operation} is not in the journal")
        elif found is None:
            yield Fault("value from nowhere", f"{operation} shows what the journal does not have")
        elif operation.outcome == REJECTED and operation.expected.holds(found):
            yield Fault("groundless rejection", f"{operation} was rejected by what it expected")


def _wrong_winners(journal: Sequence[Entry], history: Sequence[Operation]) -> Iterator[Fault]:
    """What was applied had the predecessor that it expected."""
    expected = {operation.value: operation.expected for operation in history if operation.kind == WRITE}
    for before, entry in zip((NOTHING, *journal), journal, strict=False):
        wanted = expected.get(entry.value)
        if wanted and not wanted.holds(before):
            yield Fault("wrong winner", f"{entry} replaced {before}, but expected {wanted}")


def _disorder(journal: Sequence[Entry], history: Sequence[Operation]) -> Iterator[Fault]:
    """Nothing ended before something began that has an earlier place."""
    kept = _Kept(journal)
    placed = [(place, operation) for operation in history if (place := kept.place(operation)) is not None]
    ended = sorted(placed, key=lambda pair: pair[1].back)
    latest, passed = (-1, None), 0
    for place, operation in sorted(placed, key=lambda pair: pair[1].call):
        while ended[passed][1].back < operation.call:
            latest = max(latest, ended[passed], key=lambda pair: pair[0])
            passed += 1
        if latest[0] > place:
            kind = _KINDS[operation.kind == WRITE and operation.outcome != REJECTED, latest[1].kind == WRITE]
            yield Fault(kind, f"{operation} began after the end of {latest[1]}")


_KINDS = {
    (False, False): "stale read",
    (False, True): "stale read",
    (True, False): "read from the future",
    (True, True): "writes out of order",
}
"""By whether the late one is a write, and whether the early one is."""


class _Kept:
    """The journal, for looking things up."""

    def __init__(self, journal: Sequence[Entry]) -> None:
        self._by_version = {entry.version: entry for entry in (NOTHING, *journal)}
        self._by_value = {entry.value: entry for entry in journal}

    def like(self, seen: Entry) -> Entry | None:
        """The entry that is what was seen, as far as it was seen."""
        entry = self._by_version.get(seen.version)
        told = seen if entry is None or seen.revision is not None else seen._replace(revision=entry.revision)
        return entry if entry == told else None

    def place(self, operation: Operation) -> int | None:
        """Where the operation stands in the order; None: nowhere, for it changed nothing and showed nothing."""
        if operation.kind == WRITE and operation.outcome != REJECTED:
            entry = self._by_value.get(operation.value)
            return 2 * entry.revision if entry else None
        entry = self.like(operation.seen) if operation.seen else None
        return 2 * entry.revision + 1 if entry else None
