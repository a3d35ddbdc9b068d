"""The sidecar with one mistake in its store or its deliveries: the proofs have to find it.

    python mutants.py MUTANT run --config FILE

The disk is slower than it is, so that there is time for the mistake to show.
"""

import itertools
import sys
import time

from sidecar.cli import main
from sidecar.conflicts import Expectation
from sidecar.database import Database
from sidecar.decision import Lost
from sidecar.dispatch.delivery import Delivery
from sidecar.dispatch.feed import Feed
from sidecar.document import encode_document
from sidecar.journal import Entry
from sidecar.store import AsyncStateStore, Stored

COMMIT_SECONDS = 0.01
SKIPPED_EACH = 50


def reads_show_the_tail():
    """A read shows the newest accepted write, although it is not durable yet."""

    def read(self):
        waiting = len(self._in_flight)
        if not waiting:
            return self.current
        entry = Entry(self.current.entry.revision + waiting, time.time(), encode_document(self._tail))
        return Stored(self._tail, entry, self.machine.states)

    replace(AsyncStateStore, "read", read)


def rejections_show_the_tail():
    """A rejection names a winner that is not durable yet."""
    accept = AsyncStateStore._accept

    def impatient(self, *arguments):
        try:
            return accept(self, *arguments)
        except Lost as lost:
            raise self._record(lost) from None

    replace(AsyncStateStore, "_accept", impatient)


def expectations_are_skipped():
    """One broken expectation in fifty is not noticed."""
    broken_by, turns = Expectation.broken_by, itertools.count(1)

    def forgetful(self, *arguments):
        broken = broken_by(self, *arguments)
        return None if broken and next(turns) % SKIPPED_EACH == 0 else broken

    replace(Expectation, "broken_by", forgetful)


def decisions_are_late():
    """A write is decided against the newest durable state, not against the newest accepted one."""
    accept = AsyncStateStore._accept

    def late(self, *arguments):
        tail, self._tail = self._tail, self.current and self.current.document
        try:
            return accept(self, *arguments)
        except Lost:
            self._tail = tail
            raise

    replace(AsyncStateStore, "_accept", late)


def the_cursor_goes_ahead():
    """A subscriber's cursor is saved when a revision is sent, not when it is acknowledged."""
    send = Delivery.send

    async def hasty(self, body, lane):
        self.subscriber.cursor = self.subscriber.delivered = self._due.last
        await self._roster.save(self.subscriber, after=1)
        return await send(self, body, lane)

    replace(Delivery, "send", hasty)


def some_are_passed_over():
    """One revision in fifty is not delivered, and nobody is told."""
    look, turns = Feed._look, itertools.count(1)

    async def careless(self):
        if self._subscriber.cursor and next(turns) % SKIPPED_EACH == 0:
            self._subscriber.cursor += 1
        return await look(self) if self._subscriber.cursor != self._journal.head else None

    replace(Feed, "_look", careless)


def the_disk_is_slow():
    """Each commit takes longer, and the next writes wait for it."""
    commit = Database._commit

    def slow(self, *arguments):
        time.sleep(COMMIT_SECONDS)
        return commit(self, *arguments)

    replace(Database, "_commit", slow)


def replace(owner, name, value):
    """A mutant that changes nothing would prove nothing."""
    if not hasattr(owner, name):
        sys.exit(f"{owner.__name__} has no {name} any more")
    setattr(owner, name, value)


MUTANTS = {
    "reads show the tail": reads_show_the_tail,
    "rejections show the tail": rejections_show_the_tail,
    "expectations are skipped": expectations_are_skipped,
    "decisions are late": decisions_are_late,
    "the cursor goes ahead of the answer": the_cursor_goes_ahead,
    "some revisions are passed over": some_are_passed_over,
    "none": lambda: None,
}

if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
    the_disk_is_slow()
    sys.exit(main(sys.argv[2:]))
