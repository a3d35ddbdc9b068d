"""What may happen to a store, as the rules of a walk that Hypothesis takes."""

import asyncio
import functools

from drafts import Draft, drafts, keys, several, states
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from side_by_side import SideBySide
from subject import MAX_READERS, InMemory, OnFile, snapshot_in

from sidecar.errors import CompactedError, StorageFailedError, StorageFullError, SubscriberLimitError
from sidecar.machine import Enforcement
from sidecar.retention import Limits, compact, make_room

DAY = 86_400.0


def step(**arguments):
    """A rule, counted."""

    def counted(function):
        @functools.wraps(function)
        def run(walk, **drawn):
            walk.done.rules[function.__name__] += 1
            return function(walk, **drawn)

        return rule(**arguments)(run)

    return counted


healthy = precondition(lambda walk: not walk.poisoned)
"""A failed process does not do much: no time is wasted on it."""


class Walk(SideBySide):
    """A walk through what may happen to any journal."""

    kind = InMemory

    @initialize(enforcement=st.sampled_from(Enforcement), moves=st.lists(states, max_size=12))
    def begin(self, enforcement, moves):
        self.done.rules["begin"] += 1
        self.open(enforcement)
        self.join(2)
        self.go(moves)

    # --- writing ---

    @healthy
    @step(moves=st.lists(states, min_size=1, max_size=12), key=keys)
    def move(self, moves, key):
        """One after the other, each with a key of its own, or without."""
        self.go(moves, key)

    def go(self, moves, key=None):
        for place, state in enumerate(moves):
            following = key and chr(ord(key) + place)
            self.run(self.together([Draft("move", state, 1, "nothing", following, b"one", 0, "no")]))

    @healthy
    @step(draft=drafts, padding=st.sampled_from([0, 500, 10_000]))
    def write_one(self, draft, padding):
        """One that has little against it."""
        draft = draft._replace(expects="right" if draft.expects == "wrong" else "nothing", cancelled="no", padding=padding)
        self.run(self.together([draft]))

    @step(drafts=several)
    def write_together(self, drafts):
        self.run(self.together(drafts))

    @healthy
    @step(draft=drafts, count=st.integers(2, 6), right=st.booleans())
    def compete(self, draft, count, right):
        """Of several writers with one expectation that holds, one wins."""
        won = self.model.head
        draft = draft._replace(
            how="put", jump=1, expects="right" if right else "foreign", key=None, cancelled="no", state="IDLE"
        )
        self.run(self.together([draft] * count))
        allowed = {0, int(right)} if self.full else {int(right)}
        legal = self.model.lenient or won == 0 or "IDLE" in self.model.moves[self.line(won).state] | {self.line(won).state}
        assert self.model.head - won in (allowed if legal else {0})

    # --- reading ---

    @step(whole=st.booleans())
    def read(self, whole):
        async def look():
            if not whole:
                return self.store.read()
            snapshot, meta = await self.store.get_with_meta()
            assert (meta["current_version"], meta["has_state"]) == (snapshot.version if snapshot else -1, bool(snapshot))
            return snapshot

        seen = self.run(look())
        self.model.numbers.gets += 1
        newest = self.model.log[-1] if self.model.log else None
        assert (snapshot_in(seen) if seen else None) == (
            (newest.accepted.wish.reason, newest.version, newest.state) if newest else None
        )

    @step(place=st.integers(0, 120), limit=st.integers(1, 40))
    def page(self, place, limit):
        """Any page of the history is what was written, or it is said from where on it is kept."""
        after = place % (self.model.head + 2)

        async def look():
            return await self.journal.read(after, limit)

        try:
            entries = self.run(look())
        except CompactedError as error:
            assert after + 1 < self.model.oldest == error.oldest  # noqa: PT017  (it may come or not)
        except StorageFailedError:
            assert self.poisoned
        else:
            assert after + 1 >= self.model.oldest or after >= self.model.head
            assert [line.entry for line in self.model.log[after : after + limit]] == list(entries)

    @step(limit=st.integers(1, 10))
    def follow(self, limit):
        """A slow follower reads on from its cursor."""
        before, oldest = self.slow.cursor, self.model.oldest
        try:
            self.run(self.slow.read(self.journal, limit))
        except StorageFailedError:
            assert self.poisoned
        else:
            compacted = before + 1 < oldest
            assert compacted == (self.slow.gaps[-1:] == [(before, oldest)])

    @healthy
    @step(size=st.integers(1, 4))
    def subscribe(self, size):
        try:
            self.join(size)
        except SubscriberLimitError:
            assert len(self.model.readers) == MAX_READERS
        else:
            assert len(self.model.readers) <= MAX_READERS

    def join(self, size):
        queue = self.run(self.store.subscribe("reader", size))
        self.model.subscribe(queue, size)

    @step(which=st.integers(0, MAX_READERS - 1), leave=st.booleans())
    def drain(self, which, leave):
        """A reader's queue has the newest snapshots, in their order."""
        for queue in list(self.model.readers)[which : which + 1]:
            waiting = self.model.readers[queue]
            assert list(waiting) == [queue.get_nowait().reason for _ in range(queue.qsize())]
            waiting.clear()
            if leave:
                del self.model.readers[queue]
                assert self.run(self.store.unsubscribe(queue))
                assert not self.run(self.store.unsubscribe(queue))

    # --- forgetting, and time ---

    @healthy
    @step(back=st.integers(0, 30))
    def compact(self, back):
        oldest = self.model.head - back
        if self.managed(self.journal.compact(oldest)):
            self.model.compact(oldest)

    @healthy
    @step(
        revisions=st.sampled_from([1, 3, 10, 1000]),
        size=st.sampled_from([1, 5_000, 50_000, 1 << 30]),
        age=st.sampled_from([0.0, 300.0, DAY, 1e12]),
    )
    def retain(self, revisions, size, age):
        limits, now = Limits(revisions, age, size), self.clock.wall()
        if self.managed(compact(self.journal, limits, now)):
            self.model.retain(limits, now)
            assert self.journal.head - self.journal.oldest < max(1, revisions)
            assert self.journal.size <= size or self.journal.oldest == self.journal.head

    @healthy
    @step()
    def forget(self):
        self.model.expire()
        if self.managed(self.store.forget_answers()):
            self.model.forget()

    def managed(self, freeing):
        """Whether there was room enough to make room, which is written first."""
        try:
            self.run(freeing)
        except StorageFullError:
            assert self.full == "pages"
            return False
        return True

    @healthy
    @step(seconds=st.sampled_from([0.001, 1.0, 200.0, 601.0, 2 * DAY]))
    def let_time_pass(self, seconds):
        self.clock.passed += seconds

    @healthy
    @step(seconds=st.sampled_from([-3600.0, 3600.0, 3652 * DAY, -5.0]))
    def jump_clock(self, seconds):
        self.clock.jump += seconds

    # --- restarts ---

    @step(jump=st.sampled_from([0.0, 0.0, -3600.0, 3600.0]))
    def restart(self, jump):
        """Sometimes somebody sets the clock meanwhile."""
        self.clock.jump += jump
        self.run(self.subject.restart())
        self.started_again()

    def started_again(self):
        self.poisoned, self.full = False, None
        self.model.start()
        self.join(2)

    # --- what holds after each step ---

    @invariant()
    def all_is_as_in_the_model(self):
        if self.subject:
            self.run(self.compare())


class WalkOnFile(Walk):
    """There is more that may happen to a file."""

    kind = OnFile

    def started_again(self):
        super().started_again()
        found = self.subject.database.found
        assert (self.subject.unclean_starts, ()) == (found.unclean_starts, found.given_up)
        assert self.model.chain() == self.run(self.subject.rows())

    @step(drafts=several, ends=st.integers(0, 3), lagging=st.booleans())
    def crash(self, drafts, ends, lagging):
        """The process is killed, some writes under way: those that had been acknowledged are there, in their order."""
        self.run(self.killed(drafts, ends, lagging))
        self.started_again()

    async def killed(self, drafts, ends, lagging):
        mark = self.subject.mark()
        wishes, verdicts = self.decided(drafts)
        writes = await self.begun(drafts, wishes)
        while sum(write.done() for write in writes) < min(ends, len(writes)):
            await asyncio.wait([write for write in writes if not write.done()], return_when=asyncio.FIRST_COMPLETED)
        await self.subject.dead()
        copy, head = self.subject.copy(mark if lagging else None), self.journal.head
        for write in writes:
            write.cancel()
        await asyncio.wait(writes)
        await self.subject.go_on_with(copy)
        assert self.journal.head >= head, "somebody was shown what a crash took back"
        self.model.settle(await self.journal.read(self.model.head, 100))
        self.judge(wishes, verdicts, writes, killed=True)

    @precondition(lambda self: not self.poisoned and not self.full)
    @step(how=st.sampled_from(["pages", "reserve"]), drafts=several)
    def fill(self, how, drafts):
        self.full = how
        self.run(self.subject.fill(how))
        self.run(self.together(drafts))

    @precondition(lambda self: not self.poisoned and self.full)
    @step()
    def free(self):
        self.run(self.subject.free())
        self.full = None
        self.go(["IDLE"])

    @healthy
    @step()
    def make_room(self):
        """History goes for a write to fit, as far as need be, and its answers with it; the newest revision stays."""
        before = self.journal.oldest
        try:
            self.run(make_room(self.store, self.subject.database))
        except StorageFullError:
            assert self.full
        kept = {answer.revision for answer in self.run(self.journal.answered(10**6))}
        assert self.full or kept == set(self.model.answers)
        self.model.give_up_answers(kept)
        assert self.full or before == self.journal.oldest
        assert self.journal.oldest <= max(1, self.model.head)
        self.model.compact(self.journal.oldest)

    @precondition(lambda self: not self.poisoned and not self.full)
    @step(drafts=several, place=st.integers(0, 6))
    def poison(self, drafts, place):
        """The storage fails in the middle: what is acknowledged is there, and from then on nothing is."""
        drafts = [draft._replace(how="put" if draft.how == "set" else draft.how, cancelled="no") for draft in drafts]
        self.run(self.failing(drafts, place))

    async def failing(self, drafts, place):
        wishes, verdicts = self.decided(drafts)
        steps = [self.subject.write(wish, draft.padding) for draft, wish in zip(drafts, wishes, strict=True)]
        steps.insert(place, self.subject.poison())
        writes = [asyncio.create_task(step) for step in steps]
        await asyncio.wait(writes)
        failure = writes.pop(min(place, len(drafts)))
        assert isinstance(failure.exception(), StorageFailedError)
        assert self.subject.failed
        stored = [write.result() for write in writes if not write.exception()]
        self.model.settle([one.entry for one in stored if not one.replayed])
        self.poisoned = True
        self.judge(wishes, verdicts, writes)
