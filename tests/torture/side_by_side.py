"""The store and its model side by side: the same writes for both, and everything that can be seen compared."""

import asyncio
import shutil
from collections import Counter
from typing import NamedTuple

import pytest
from drafts import ALL_MOVES, MOVES, wish_of
from hypothesis.stateful import RuleBasedStateMachine
from model import Accepted, Model, Refused, Repeated
from subject import MAX_KEYS, TTL_SECONDS, Clock, Follower, snapshot_in

from sidecar import Machine
from sidecar.errors import CompactedError, StateVersionError, StorageFailedError, StorageFullError
from sidecar.machine import Enforcement

PATIENCE_SECONDS = 20
CANCELLED = object()


class Done(NamedTuple):
    """How often each rule was run, and each outcome of a write was seen."""

    rules: Counter
    outcomes: Counter


class SideBySide(RuleBasedStateMachine):
    """What the rules are made of. `poisoned`: the storage has failed. `full`: there is no room, and where."""

    kind = None

    def __init__(self, folder, done):
        super().__init__()
        self.folder, self.done = folder, done
        self.runner = asyncio.Runner()
        self.accidents = []
        self.clock = Clock()
        self.subject = None
        self.poisoned = False
        self.full = None
        self.written = 0

    def open(self, enforcement):
        self.runner.get_loop().set_exception_handler(lambda _, accident: self.accidents.append(accident))
        machine = Machine.from_names(list(MOVES), MOVES, enforcement=enforcement)
        self.subject = self.kind(self.folder, self.clock, machine)
        self.model = Model(
            self.clock,
            ALL_MOVES if enforcement is Enforcement.OFF else MOVES,
            lenient=enforcement is Enforcement.WARN,
            max_keys=MAX_KEYS,
            ttl=TTL_SECONDS,
            **self.kind.bounds,
        )
        self.run(self.subject.open())
        self.model.epoch = self.subject.journal.epoch
        self.slow = Follower()

    def run(self, steps):
        """One coroutine, to its end, under the fake clock."""

        async def patiently():
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await steps

        with self.clock.shown():
            answer = self.runner.run(patiently())
        assert not self.accidents, self.accidents
        return answer

    def teardown(self):
        if self.subject:
            self.run(self.subject.close())
        self.runner.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def store(self):
        return self.subject.store

    @property
    def journal(self):
        return self.subject.journal

    # --- writing ---

    def wish(self, draft):
        """The draft, now that it is begun. No two are the same."""
        self.written += 1
        return wish_of(draft, f"#{self.written}", self.model.tail, self.journal.epoch)

    def decided(self, drafts):
        """What is to become of the writes when they are begun together; None for those that never are."""
        wishes, verdicts = [self.wish(draft) for draft in drafts], []
        for draft, wish in zip(drafts, wishes, strict=True):
            verdicts.append(None if draft.cancelled == "at once" else self.model.decide(wish))
            if self.poisoned:  # it has failed before the next one begins
                self.model.settle(())
        return wishes, verdicts

    async def begun(self, drafts, wishes):
        """All of them, in this order, before anything is durable; then some of their callers go away."""
        writes = [
            asyncio.create_task(self.subject.write(wish, draft.padding)) for draft, wish in zip(drafts, wishes, strict=True)
        ]
        self.cancel(drafts, writes, "at once")
        await asyncio.sleep(0)
        self.cancel(drafts, writes, "later")
        return writes

    def cancel(self, drafts, writes, when):
        for draft, write in zip(drafts, writes, strict=True):
            if draft.cancelled == when:
                write.cancel()

    async def watched(self, writes):
        """Wait for all; whatever can be seen meanwhile is collected."""
        shown, waiting = [], set(writes)
        while waiting:
            shown.append(self.store.current)
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            self.look_at_winners(done)
            assert (self.store.current.entry.revision if self.store.current else 0) == self.journal.head
        await self.subject.settled()
        return shown

    def look_at_winners(self, done):
        """A rejection names no winner that is not durable yet."""
        newest = self.store.current.document.version if self.store.current else -1
        for write in done:
            error = None if write.cancelled() else write.exception()
            assert not isinstance(error, StateVersionError) or error.current.version <= newest

    async def together(self, drafts):
        wishes, verdicts = self.decided(drafts)
        writes = await self.begun(drafts, wishes)
        shown = await self.watched(writes)
        self.model.settle(await self.new_entries())
        self.judge(wishes, verdicts, writes)
        assert all(stored is None or stored.entry == self.line(stored.entry.revision).entry for stored in shown)

    async def new_entries(self):
        """What the journal has, and the model has not."""
        if self.poisoned:
            return ()
        return await self.journal.read(self.model.head, 100)

    def line(self, revision):
        return self.model.log[revision - 1]

    # --- judging the outcomes ---

    def judge(self, wishes, verdicts, writes, *, killed=False):
        """Whether each write had the end that it should. `killed`: before many of them had any."""
        durable = {line.accepted for line in self.model.log}
        before = None
        for wish, verdict, write in zip(wishes, verdicts, writes, strict=True):
            outcome = CANCELLED if write.cancelled() else write.exception() or write.result()
            match verdict:
                case None:
                    assert outcome is CANCELLED
                case Accepted():
                    self.judge_accepted(verdict, outcome, durable, killed)
                    before = verdict
                case Repeated(first):
                    self.judge_repeated(first, outcome, durable)
                case Refused():
                    self.judge_refused(wish, verdict, outcome, before is None or before in durable)
            self.done.outcomes[name_of(verdict, outcome)] += 1

    def judge_accepted(self, accepted, outcome, durable, killed):
        if outcome is CANCELLED:
            assert killed or accepted in durable or self.poisoned or self.full
        elif isinstance(outcome, Exception):
            assert accepted not in durable, f"{accepted.wish} had failed, and is there"
            assert self.is_fault(outcome), repr(outcome)
        else:
            assert accepted in durable, f"{accepted.wish} was acknowledged, and is not there"
            assert (accepted.wish.reason, accepted.version, accepted.wish.state) == snapshot_in(outcome)

    def judge_repeated(self, first, outcome, durable):
        if outcome is CANCELLED:
            return
        if isinstance(outcome, Exception):
            assert self.is_fault(outcome), repr(outcome)
            assert first not in durable or self.poisoned
        else:
            line = self.line(outcome.entry.revision)
            assert (first, line.entry, True) == (line.accepted, outcome.entry, outcome.replayed)

    def judge_refused(self, wish, refused, outcome, settled):
        if outcome is CANCELLED:
            return
        if isinstance(outcome, StorageFailedError | StorageFullError):  # it would have told a winner that was not to be
            assert not settled
            assert self.is_fault(outcome)
            return
        assert isinstance(outcome, refused.error), f"{outcome!r} for {wish}, not {refused}"
        if isinstance(outcome, StateVersionError):
            winner = refused.winner
            self.model.numbers.conflicts += 1
            assert (winner.version if winner else -1) == outcome.current.version

    def is_fault(self, error):
        return isinstance(error, StorageFailedError if self.poisoned else StorageFullError) and (self.poisoned or self.full)

    # --- comparing what can be seen ---

    async def compare(self):
        model, journal = self.model, self.journal
        assert (model.epoch, model.head, model.oldest, model.size) == (
            journal.epoch,
            journal.head,
            journal.oldest,
            journal.size,
        )
        current = self.store.current
        assert (current.entry if current else None) == (model.log[-1].entry if model.log else None)
        assert [queue.qsize() for queue in model.readers] == [len(waiting) for waiting in model.readers.values()]
        self.compare_numbers()
        await self.compare_followers()
        if not self.poisoned:
            await self.compare_journal()

    def compare_numbers(self):
        store, numbers, told = self.store, self.model.numbers, self.store.numbers()
        counted = (
            numbers.sets,
            numbers.gets,
            numbers.conflicts,
            numbers.sent,
            numbers.failed,
            numbers.masked,
            numbers.illegal,
            numbers.overloads,
            numbers.entered,
            numbers.updated,
            len(self.model.readers),
            +numbers.transitions,
        )
        keys = ("total_sets", "total_gets", "version_conflicts", "notifications_sent", "notifications_failed")
        assert counted == (
            *(told[key] for key in keys),
            store.conflicts.counts["masked"],
            store.illegal_accepted,
            store.overloads,
            store.state_entered_ts,
            told["last_update_ts"],
            told["subscriber_count"],
            +Counter(store.transitions),
        )

    async def compare_followers(self):
        await self.subject.caught_up()
        for follower in (self.subject.follower, self.slow):
            skipped = {revision for after, oldest in follower.gaps for revision in range(after + 1, oldest)}
            seen = [line.entry for line in self.model.log[: follower.cursor] if line.entry.revision not in skipped]
            assert seen == follower.seen
        assert self.poisoned or self.subject.follower.cursor == self.model.head

    async def compare_journal(self):
        model, journal = self.model, self.journal
        assert [line.entry for line in model.kept] == list(await journal.read(model.oldest - 1, 10_000))
        if model.oldest > 1:
            with pytest.raises(CompactedError) as told:
                await journal.read(model.oldest - 2, 1)
            assert told.value.oldest == model.oldest
        answers = {answer.revision: (*answer.request, answer.answered_at) for answer in await journal.answered(10_000)}
        assert model.answers == answers


def name_of(verdict, outcome):
    """What became of a write, for the report."""
    if outcome is CANCELLED or isinstance(outcome, Exception):
        return "cancelled" if outcome is CANCELLED else type(outcome).__name__
    return "replayed" if isinstance(verdict, Repeated) else "written"
