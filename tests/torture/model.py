"""What the store has to be, in two pages: a list of revisions, and how each write is decided. It knows no disk and no task."""

import json
import math
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import takewhile
from struct import pack
from typing import NamedTuple

from sidecar.conflicts import Expectation
from sidecar.errors import (
    IllegalTransitionError,
    InvalidSnapshotError,
    KeyReusedError,
    OverloadedError,
    StateVersionError,
)

MAX_VERSION = 2**53 - 1


class Wish(NamedTuple):
    """A write as its caller asks for it. `how`: `set`, `put` (a snapshot, too) or `move`. `reason`: no two have the same."""

    reason: str
    how: str
    state: str
    version: int
    expected: Expectation | None = None
    enforce: bool = False
    key: str | None = None
    body: bytes = b""


class Accepted(NamedTuple):
    """What a write has to become, once it is durable."""

    wish: Wish
    version: int
    previous: str | None
    masked: bool = False


class Refused(NamedTuple):
    """A write that must leave nothing but this error, which tells the winner (where one won)."""

    error: type
    winner: object = None


class Repeated(NamedTuple):
    """A write that must get the answer of an earlier one."""

    first: Accepted


class Line(NamedTuple):
    """A durable revision: what was accepted, and its entry in the journal."""

    accepted: Accepted
    entry: object

    @property
    def version(self):
        return self.accepted.version

    @property
    def state(self):
        return self.accepted.wish.state


@dataclass
class Known:
    """A key that was used. `revision`: what it became, None while nobody knows."""

    body: bytes
    first: Accepted
    expires: float
    revision: int | None = None


@dataclass
class Numbers:
    """What a store has counted since it was started."""

    sets: int = 0
    gets: int = 0
    conflicts: int = 0
    masked: int = 0
    illegal: int = 0
    overloads: int = 0
    sent: int = 0
    failed: int = 0
    transitions: Counter = field(default_factory=Counter)
    entered: float = 0.0
    updated: float = 0.0


class Model:
    """`moves`: from each state's name to those that may follow; `lenient`: others are made all the same.

    `clock`: a fake one. Bounds that a journal has not are infinite.
    """

    def __init__(self, clock, moves, *, lenient, max_queue, max_keys, ttl, max_revisions=math.inf, max_bytes=math.inf):
        self.clock, self.moves, self.lenient = clock, moves, lenient
        self.max_queue, self.max_keys, self.ttl = max_queue, max_keys, ttl
        self.max_revisions, self.max_bytes = max_revisions, max_bytes
        self.log = []
        self.oldest = 1
        self.answers = {}
        self.epoch = ""
        self.in_flight = []
        self.readers = {}
        self.start()

    def start(self):
        """A new process has the journal, and nothing else; of the keys it knows what the journal has."""
        self.numbers, self.readers, self.forgotten = Numbers(), {}, 0
        self.keys = OrderedDict()
        for revision, (key, body, at) in sorted(self.answers.items())[-self.max_keys :]:
            age = min(max(0.0, self.clock.wall() - at), self.ttl)
            self.keys.pop(key, None)
            self.keys[key] = Known(body, self.log[revision - 1].accepted, self.clock.even() + self.ttl - age, revision)
        if self.log:
            recent = self.log[max(self.oldest, self.head - 256) - 1 :]
            in_state = list(takewhile(lambda line: line.state == self.log[-1].state, reversed(recent)))
            self.numbers.entered, self.numbers.updated = in_state[-1].entry.appended_at, self.log[-1].entry.appended_at

    # --- what is there ---

    @property
    def head(self):
        return len(self.log)

    @property
    def kept(self):
        return self.log[self.oldest - 1 :]

    @property
    def size(self):
        return sum(len(line.entry.document) for line in self.kept)

    @property
    def tail(self):
        """What the next write is decided against."""
        if self.in_flight:
            return self.in_flight[-1]
        return self.log[-1].accepted if self.log else None

    def chain(self, anchor=bytes(32)):
        """The link of every kept revision, made from all that there ever were."""
        links = []
        for line in self.log:
            entry = line.entry
            anchor = sha256(anchor + pack(">Qd", entry.revision, entry.appended_at) + entry.document).digest()
            links.append(anchor)
        return links[self.oldest - 1 :]

    # --- writing ---

    def decide(self, wish):
        """What must become of the write, if those before it do not fail."""
        self.expire()
        known = self.keys.get(wish.key)
        if known:
            return Repeated(known.first) if known.body == wish.body else Refused(KeyReusedError)
        if len(self.in_flight) >= self.max_queue:
            self.numbers.overloads += 1
            return Refused(OverloadedError)
        tail = self.tail
        if self._broken(wish, tail):
            return Refused(StateVersionError, tail)
        version = tail.version + 1 if tail else 0
        renumbered = wish.how != "move" and wish.version < version
        if wish.how != "move":
            version = max(version, wish.version)
        if version > MAX_VERSION:
            return Refused(InvalidSnapshotError)
        illegal = tail and tail.wish.state != wish.state and wish.state not in self.moves[tail.wish.state]
        if illegal and not self.lenient:
            return Refused(IllegalTransitionError, tail)
        self.numbers.illegal += bool(illegal)
        unseen = wish.expected is None or wish.expected.version is None
        return self._accept(Accepted(wish, version, self._previous(wish, tail), bool(renumbered and tail and unseen)))

    def _accept(self, accepted):
        self.in_flight.append(accepted)
        wish = accepted.wish
        if wish.key:
            self.keys[wish.key] = Known(wish.body, accepted, self.clock.even() + self.ttl)
            if len(self.keys) > self.max_keys:
                self._drop_key()
        return accepted

    def _broken(self, wish, tail):
        """Whether something expected is not so."""
        version = tail.version if tail else -1
        if wish.enforce and version >= wish.version:
            return True
        wanted = wish.expected
        return wanted is not None and (
            wanted.epoch not in (None, self.epoch)
            or wanted.version not in (None, version)
            or (wanted.state is not None and (tail is None or tail.wish.state != wanted.state))
            or (wanted.below is not None and version >= wanted.below)
            or (tail is None and (wanted.version, wanted.state, wanted.below) == (None, None, None))
        )

    def _previous(self, wish, tail):
        if wish.how != "move" or tail is None:
            return None
        return tail.wish.state if tail.wish.state != wish.state else tail.previous

    def settle(self, entries):
        """The first writes in flight have become these entries, and the others nothing."""
        assert len(entries) <= len(self.in_flight), f"{len(entries)} revisions of {len(self.in_flight)} writes"
        for accepted, entry in zip(self.in_flight, entries, strict=False):
            self._become(accepted, entry)
        for accepted in self.in_flight[len(entries) :]:
            if accepted.wish.key:
                self.keys.pop(accepted.wish.key, None)
        self.in_flight.clear()

    def _become(self, accepted, entry):
        document, wish = json.loads(entry.document), accepted.wish
        told = document["reason"], document["version"], document["state"], document["prev_state"]
        assert told == (wish.reason, accepted.version, wish.state, accepted.previous), f"{told} is not {accepted}"
        assert entry.revision == self.head + 1, f"revision {entry.revision} after {self.head}"
        assert not self.log or accepted.version > self.log[-1].version, "versions do not grow"
        self._show(Line(accepted, entry))
        if wish.key:
            self.answers[entry.revision] = wish.key, wish.body, entry.appended_at
            if wish.key in self.keys:
                self.keys[wish.key].revision = entry.revision
        while self.oldest < self.head and (len(self.kept) > self.max_revisions or self.size > self.max_bytes):
            self.oldest += 1

    def _show(self, line):
        numbers, previous = self.numbers, self.log[-1] if self.log else None
        self.log.append(line)
        numbers.sets += 1
        numbers.masked += line.accepted.masked
        numbers.updated = line.entry.appended_at
        if previous is None or previous.state != line.state:
            numbers.entered = line.entry.appended_at
            if previous:
                numbers.transitions[previous.state, line.state] += 1
        for waiting in self.readers.values():
            self._put(waiting, line)

    # --- keys ---

    def give_up_answers(self, kept):
        """Only the answers at these revisions are left."""
        self.answers = {revision: answer for revision, answer in self.answers.items() if revision in kept}
        for key in [key for key, known in self.keys.items() if known.revision and known.revision not in kept]:
            del self.keys[key]

    def expire(self):
        while self.keys and next(iter(self.keys.values())).expires <= self.clock.even():
            self._drop_key()

    def _drop_key(self):
        _, known = self.keys.popitem(last=False)
        self.forgotten = max(self.forgotten, known.revision)

    def forget(self):
        """The journal forgets what nobody may ask for any more."""
        self.expire()
        self.answers = {revision: answer for revision, answer in self.answers.items() if revision > self.forgotten}

    # --- history ---

    def compact(self, oldest):
        self.oldest = max(self.oldest, min(oldest, self.head))

    def retain(self, limits, now):
        """The oldest goes as long as something is beyond its limit."""
        while self.oldest < self.head and (
            len(self.kept) > limits.revisions
            or self.size > limits.size
            or now - self.kept[0].entry.appended_at > limits.age_seconds
        ):
            self.oldest += 1

    # --- readers ---

    def subscribe(self, reader, size):
        self.readers[reader] = deque(maxlen=size)
        if self.log:
            self._put(self.readers[reader], self.log[-1])

    def _put(self, waiting, line):
        self.numbers.failed += len(waiting) == waiting.maxlen
        waiting.append(line.accepted.wish.reason)
        self.numbers.sent += 1
