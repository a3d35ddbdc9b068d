"""Whatever is done to the store, in whatever order, and whatever happens to its journal: it does what a model of it does.

Hypothesis makes up the orders. After each step everything that can be seen is compared.
"""

import asyncio
import shutil
from collections import Counter
from typing import NamedTuple

import pytest
import torture
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from model import MAX_VERSION, Accepted, Model, Refused, Repeated, Wish
from subject import MAX_KEYS, MAX_READERS, TTL_SECONDS, Clock, Follower, InMemory, OnFile, snapshot_in

from sidecar import FsmState, Machine
from sidecar.conflicts import Expectation
from sidecar.errors import CompactedError, StateVersionError, StorageFailedError, StorageFullError, SubscriberLimitError
from sidecar.machine import Enforcement
from sidecar.retention import Limits, compact, make_room
from sidecar.store import Stored

PATIENCE_SECONDS = 5
MOVES = {
    "UNSPECIFIED": {"BOOTING"},
    "BOOTING": {"IDLE", "ERROR_STATE"},
    "IDLE": {"ACTIVE", "ERROR_STATE", "SHUTDOWN"},
    "ACTIVE": {"IDLE", "ERROR_STATE"},
    "ERROR_STATE": {"BOOTING", "IDLE", "SHUTDOWN"},
    "SHUTDOWN": {"BOOTING"},
}
DAY = 86_400.0


class Draft(NamedTuple):
    """A write as it is drawn: its versions are said by their distance from the newest one, when it is begun."""

    how: str
    state: str
    jump: int
    expects: str
    key: str | None
    body: bytes
    padding: int
    cancelled: str


drafts = st.builds(
    Draft,
    how=st.sampled_from(["set", "put", "move"]),
    state=st.sampled_from(["BOOTING", "IDLE", "IDLE", "ACTIVE", "ERROR_STATE", "SHUTDOWN"]),
    jump=st.sampled_from([1, 1, 1, 0, -3, 2, 7, 1000, MAX_VERSION]),
    expects=st.sampled_from(
        ["nothing"] * 4 + ["right", "right", "wrong", "foreign", "state", "some", "none", "below", "newer"]
    ),
    key=st.sampled_from([None] * 3 + list("abcdef")),
    body=st.sampled_from([b"one", b"one", b"other"]),
    padding=st.sampled_from([0, 0, 0, 10_000]),
    cancelled=st.sampled_from(["no"] * 5 + ["at once", "later"]),
)
several = st.lists(drafts, min_size=1, max_size=6)
"""Fewer than the keys that are remembered."""


class Walk(RuleBasedStateMachine):
    """A walk through what may happen, the model by its side."""

    kind = InMemory

    def __init__(self, folder, done):
        super().__init__()
        self.folder, self.done = folder, done
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.subject = None
        self.poisoned = False
        self.full = None
        self.written = 0

    def run(self, steps):
        """One coroutine, to its end, under the fake clock."""

        async def patiently():
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await steps

        with self.clock.shown():
            answer = self.runner.run(patiently())
        assert not self.accidents, self.accidents
        return answer

    @initialize(enforcement=st.sampled_from(Enforcement))
    def begin(self, enforcement):
        self.accidents = []
        self.runner.get_loop().set_exception_handler(lambda _, accident: self.accidents.append(accident))
        members = FsmState.__members__
        moves = {members[source]: [members[target] for target in targets] for source, targets in MOVES.items()}
        self.subject = self.kind(self.folder, self.clock, Machine(transitions=moves, enforcement=enforcement))
        allowed = {name: {*members} for name in members} if enforcement is Enforcement.OFF else MOVES
        self.model = Model(
            self.clock,
            allowed,
            lenient=enforcement is Enforcement.WARN,
            max_keys=MAX_KEYS,
            ttl=TTL_SECONDS,
            **self.kind.bounds,
        )
        self.run(self.subject.open())
        self.model.epoch = self.subject.journal.epoch
        self.slow = Follower()
        self.done["walks"] += 1

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
        """The draft, now that it is begun."""
        self.written += 1
        tail = self.model.tail
        newest, state = (tail.version, tail.wish.state) if tail else (-1, "BOOTING")
        expected = {
            "right": Expectation(newest, self.journal.epoch),
            "wrong": Expectation(newest + draft.jump),
            "foreign": Expectation(newest, "elsewhere"),
            "state": Expectation(state="IDLE"),
            "some": Expectation(epoch=self.journal.epoch),
            "none": Expectation(-1),
            "below": Expectation(below=newest + draft.jump),
        }.get(draft.expects)
        if draft.jump == MAX_VERSION:  # beyond what can be kept; and an update, for else it may count as a move
            return Wish(f"#{self.written}", "put", state, MAX_VERSION + 1, expected, key=draft.key, body=draft.body)
        enforce = draft.expects == "newer" and draft.how == "set"
        key = None if draft.how == "set" else draft.key
        version = max(0, newest + draft.jump)
        return Wish(f"#{self.written}", draft.how, draft.state, version, expected, enforce, key, draft.body)

    def decided(self, drafts):
        """What is to become of the writes when they are begun together; None for those that never are."""
        wishes = [self.wish(draft) for draft in drafts]
        return wishes, [
            None if draft.cancelled == "at once" else self.model.decide(wish)
            for draft, wish in zip(drafts, wishes, strict=True)
        ]

    async def begun(self, drafts, wishes):
        """All of them, in this order, before anything is durable; then some of their callers go away."""
        writes = [
            asyncio.create_task(self.subject.write(wish, draft.padding)) for draft, wish in zip(drafts, wishes, strict=True)
        ]
        for draft, write in zip(drafts, writes, strict=True):
            if draft.cancelled == "at once":
                write.cancel()
        await asyncio.sleep(0)
        for draft, write in zip(drafts, writes, strict=True):
            if draft.cancelled == "later":
                write.cancel()
        return writes

    async def watched(self, writes):
        """Wait for all; whatever can be seen meanwhile is collected."""
        shown, waiting = [], set(writes)
        while waiting:
            shown.append(self.store.current)
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert (self.store.current.entry.revision if self.store.current else 0) == self.journal.head
        await self.subject.settled()
        return shown

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

    def judge(self, wishes, verdicts, writes, *, killed=False):
        """Whether each write had the end that it should. `killed`: before many of them had any."""
        durable = {line.accepted for line in self.model.log}
        before = None
        for wish, verdict, write in zip(wishes, verdicts, writes, strict=True):
            outcome = cancelled if write.cancelled() else write.exception() or write.result()
            match verdict:
                case None:
                    assert outcome is cancelled
                case Accepted():
                    self.judge_accepted(verdict, outcome, durable, killed)
                    before = verdict
                case Repeated(first):
                    self.judge_repeated(first, outcome, durable)
                case Refused():
                    self.judge_refused(wish, verdict, outcome, before is None or before in durable)
            self.done["cancelled" if outcome is cancelled else name_of(verdict, outcome)] += 1

    def judge_accepted(self, accepted, outcome, durable, killed):
        if outcome is cancelled:
            assert killed or accepted in durable or self.poisoned or self.full
        elif isinstance(outcome, Exception):
            assert accepted not in durable, f"{accepted.wish} had failed, and is there"
            assert self.is_fault(outcome), repr(outcome)
        else:
            assert accepted in durable, f"{accepted.wish} was acknowledged, and is not there"
            assert (accepted.wish.reason, accepted.version, accepted.wish.state) == snapshot_in(outcome)

    def judge_repeated(self, first, outcome, durable):
        if outcome is cancelled:
            return
        if isinstance(outcome, Exception):
            assert self.is_fault(outcome), repr(outcome)
            assert first not in durable or self.poisoned
        else:
            line = self.line(outcome.entry.revision)
            assert (first, line.entry, True) == (line.accepted, outcome.entry, outcome.replayed)

    def judge_refused(self, wish, refused, outcome, settled):
        if outcome is cancelled:
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

    @rule(draft=drafts, padding=st.sampled_from([0, 500, 10_000]))
    def write_one(self, draft, padding):
        """One that has little against it."""
        draft = draft._replace(expects="right" if draft.expects == "wrong" else "nothing", cancelled="no", padding=padding)
        self.run(self.together([draft]))

    @rule(moves=st.lists(st.sampled_from([*MOVES]), min_size=1, max_size=4), key=st.sampled_from([None, *"abcdef"]))
    def move(self, moves, key):
        """One after the other."""
        for state in moves:
            self.run(self.together([Draft("move", state, 1, "nothing", key, b"one", 0, "no")]))
            key = key and chr(ord(key) + 1)

    @rule(drafts=several)
    def write_together(self, drafts):
        self.run(self.together(drafts))

    @rule(draft=drafts, count=st.integers(2, 6), right=st.booleans())
    def compete(self, draft, count, right):
        """Of several writers with one expectation that holds, one wins."""
        won = self.model.head
        draft = draft._replace(
            how="put", jump=1, expects="right" if right else "foreign", key=None, cancelled="no", state="IDLE"
        )
        self.run(self.together([draft] * count))
        allowed = {int(right)} if not (self.full or self.poisoned) else {0, 1}
        legal = self.model.lenient or won == 0 or "IDLE" in self.model.moves[self.line(won).state] | {self.line(won).state}
        assert self.model.head - won in (allowed if legal else {0})

    # --- reading ---

    @rule(whole=st.booleans())
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

    @rule(place=st.integers(0, 120), limit=st.integers(1, 40))
    def page(self, place, limit):
        """Any page of the history is what was written, or it is said from where on it is kept."""
        after = place % (self.model.head + 2)

        async def look():
            return await self.journal.read(after, limit)

        try:
            entries = self.run(look())
        except CompactedError as error:
            assert after + 1 < self.model.oldest == error.oldest
        except StorageFailedError:
            assert self.poisoned
        else:
            assert after + 1 >= self.model.oldest or after >= self.model.head
            assert [line.entry for line in self.model.log[after : after + limit]] == list(entries)

    @rule(limit=st.integers(1, 10))
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

    @precondition(lambda self: len(self.model.readers) <= MAX_READERS)
    @rule(size=st.integers(1, 4))
    def subscribe(self, size):
        async def join():
            return await self.store.subscribe(str(self.written), size)

        try:
            queue = self.run(join())
        except SubscriberLimitError:
            assert len(self.model.readers) == MAX_READERS
        else:
            assert len(self.model.readers) < MAX_READERS
            self.model.subscribe(queue, size)

    @rule(which=st.integers(0, MAX_READERS - 1), leave=st.booleans())
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

    @precondition(lambda self: not self.poisoned and self.full != "pages")
    @rule(back=st.integers(0, 30))
    def compact(self, back):
        oldest = self.model.head - back
        self.model.compact(oldest)
        self.run(self.journal.compact(oldest))

    @precondition(lambda self: not self.poisoned and self.full != "pages")
    @rule(
        revisions=st.sampled_from([1, 3, 10, 1000]),
        size=st.sampled_from([1, 5_000, 50_000, 1 << 30]),
        age=st.sampled_from([0.0, 300.0, DAY, 1e12]),
    )
    def retain(self, revisions, size, age):
        limits = Limits(revisions, age, size)
        now = self.clock.wall()
        self.model.retain(limits, now)
        self.run(compact(self.journal, limits, now))
        assert self.journal.head - self.journal.oldest < max(1, revisions)
        assert self.journal.size <= size or self.journal.oldest == self.journal.head

    @precondition(lambda self: not self.poisoned and self.full != "pages")
    @rule()
    def forget(self):
        self.model.forget()
        self.run(self.store.forget_answers())

    @rule(seconds=st.sampled_from([0.001, 1.0, 200.0, 601.0, 2 * DAY]))
    def let_time_pass(self, seconds):
        self.clock.passed += seconds

    @rule(seconds=st.sampled_from([-3600.0, 3600.0, 3652 * DAY, -5.0]))
    def jump_clock(self, seconds):
        self.clock.jump += seconds

    # --- restarts ---

    @rule()
    def restart(self):
        self.run(self.subject.restart())
        self.started_again()

    def started_again(self):
        self.poisoned, self.full = False, None
        self.model.start()

    # --- what holds after each step ---

    @invariant()
    def all_is_as_in_the_model(self):
        if self.subject:
            self.done["steps"] += 1
            self.run(self.compare())

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
            numbers.rewrites,
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
            store.version_rewrites,
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


class WalkOnFile(Walk):
    """There is more that may happen to a file."""

    kind = OnFile

    def started_again(self):
        super().started_again()
        found = self.subject.database.found
        assert (self.subject.unclean_starts, ()) == (found.unclean_starts, found.given_up)
        assert self.model.chain() == self.run(self.subject.rows())

    @rule(drafts=several, ends=st.integers(0, 3), lagging=st.booleans())
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
    @rule(how=st.sampled_from(["pages", "reserve"]))
    def fill(self, how):
        self.full = how
        self.run(self.subject.fill(how))

    @precondition(lambda self: not self.poisoned and self.full)
    @rule()
    def free(self):
        self.run(self.subject.free())
        self.full = None

    @precondition(lambda self: not self.poisoned and self.full != "pages")
    @rule()
    def make_room(self):
        """History goes for a write to fit, as far as need be; the newest revision stays."""
        try:
            self.run(make_room(self.journal, self.subject.database))
        except StorageFullError:
            assert self.full
            assert self.journal.oldest == max(1, self.model.head)
        assert self.full or self.journal.oldest == self.model.oldest or self.model.head
        self.model.compact(self.journal.oldest)

    @precondition(lambda self: not self.poisoned and not self.full)
    @rule(drafts=several, place=st.integers(0, 6))
    def poison(self, drafts, place):
        """The storage fails in the middle: what is acknowledged is there, and from then on nothing is."""
        drafts = [draft._replace(how="put" if draft.how == "set" else draft.how, cancelled="no") for draft in drafts]
        self.poisoned = True
        self.run(self.failing(drafts, place))

    async def failing(self, drafts, place):
        wishes, verdicts = self.decided(drafts)
        first = await self.begun(drafts[:place], wishes[:place])
        failure = asyncio.create_task(self.subject.poison())
        writes = first + await self.begun(drafts[place:], wishes[place:])
        await asyncio.wait([failure, *writes])
        assert isinstance(failure.exception(), StorageFailedError)
        assert self.subject.failed
        stored = [write.result() for write in writes if not write.exception()]
        self.model.settle([one.entry for one in stored if isinstance(one, Stored) and not one.replayed])
        self.judge(wishes, verdicts, writes)


cancelled = object()


def name_of(verdict, outcome):
    """What became of a write, for the report."""
    if isinstance(outcome, Exception):
        return type(outcome).__name__
    return "replayed" if isinstance(verdict, Repeated) else "written"


def walked(kind, folder, *, examples, steps, seed_of=None, **options):
    """Walks of this kind: what was done in them."""
    done = Counter()
    places = iter(range(1 << 62))
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )
    walk = seed(torture.seed() if seed_of is None else seed_of)(lambda: kind(folder / str(next(places)), done))
    run_state_machine_as_test(walk, settings=chosen)
    return done


@pytest.mark.parametrize("kind", [Walk, WalkOnFile], ids=["in memory", "on a file"])
def test_the_store_is_what_the_model_is(tmp_path, kind):
    """Also across restarts, kills, a full disk, failing storage and clocks that jump."""
    done = walked(
        kind,
        tmp_path,
        examples=torture.scale(60, 2000),
        steps=torture.scale(30, 60),
        phases=[Phase.generate],
    )
    counts = ", ".join(f"{count} {name}" for name, count in sorted(done.items()))
    torture.report(f"model, {kind.kind.__name__}: {counts}")
