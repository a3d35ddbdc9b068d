"""kill -9 while webhooks are delivered: each subscriber gets every revision in order, and at most the last few again."""

import itertools
import random
import threading
from collections import Counter

import delivery_rules as rules
from recorded import MANNERS, Recorders
from restarted import Restarted
from sidecar_process import eventually
from torture import report, scale, seed

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BATCH = 20
PATIENCE = {"retry": ["5ms"] * 200, "evict_after": {"failures": 1_000_000, "time": "1h"}, "max_lag": 100_000}
KEPT = {"revisions": 1_000_000}


class Run:
    """A sidecar that is killed again and again, while one writes and its subscribers record."""

    def __init__(self, folder, *, subscribers, revisions, kills, max_lag=None, mutant=None):
        self.subscribers = [(f"s{n}", manner) for n, manner in zip(range(subscribers), itertools.cycle(MANNERS), strict=False)]
        self.revisions, self.kills = revisions, kills
        self.chance = random.Random(seed())
        self._max_lag = max_lag
        backend = {"webhooks": PATIENCE, "fsm": {"history_limit": 0}}
        self.sidecar = Restarted(folder, mutant, **backend)
        self.recorders = Recorders()
        self.head = 0

    def go(self):
        """Write, kill, start, until all is delivered. Gives the snapshots by revision."""
        with self.recorders, self.sidecar:
            for name, manner in self.subscribers:
                wish = {"url": self.recorders.url(name, manner), "secret": SECRET}
                wish |= {"max_batch": BATCH} if manner == "batch" else {}
                wish |= {} if self._max_lag is None else {"max_lag": self._max_lag}
                assert 201 == self.sidecar.api.put(f"/v1/subscribers/{name}", wish).status
            for _ in range(self.kills):
                self._write(self.revisions // (self.kills + 1), killed=True)
            self._write(self.revisions - self.head, killed=False)
            eventually(self._all_delivered, seconds=120)
            return self._history()

    def _write(self, count, *, killed):
        timer = threading.Timer(self.chance.uniform(0.02, 0.3), self.sidecar.kill) if killed else None
        if timer:
            timer.start()
        try:
            for _ in range(count):
                answer = self.sidecar.api.put("/v1/state", {"state": "IDLE", "reason": f"after {self.head}"})
                self.head = answer.json["revision"]
        except OSError:
            assert killed
        if timer:
            timer.join()
            eventually(lambda: self.recorders.quiet)
            self.recorders.life += 1
            self.sidecar.start()

    def _all_delivered(self):
        listed = self.sidecar.api.get("/v1/subscribers").json["subscribers"]
        return all(each["lag"] == 0 for each in listed)

    def _history(self):
        history = {}
        while page := self.sidecar.api.get(f"/v1/history?after={max(history, default=0)}&limit=1000").json["entries"]:
            history |= {entry["revision"]: entry["snapshot"] for entry in page}
        return history

    def faults(self, history):
        """All that is wrong with what was recorded."""
        for name, manner in self.subscribers:
            recording = self.recorders.recordings[name]
            yield from rules.told_in_order(recording, BATCH if manner == "batch" else 0)
            yield from rules.equal_to_the_journal(recording, history)
            yield from rules.same_on_every_attempt(recording)
            yield from rules.signed_and_fresh(recording, SECRET)
            yield from rules.one_at_a_time(recording)

    def told(self):
        """What happened, in words."""
        total = Counter()
        for recording in self.recorders.recordings.values():
            total["attempts"] += len(recording)
            total["revisions"] += len(rules.news(recording))
            total["repeats"] += rules.repeats(recording)
            total["skipped"] += rules.gaps(recording)
            total["batches"] += sum(len(got.changes) > 1 for got in recording)
        counts = ", ".join(f"{count} {what}" for what, count in total.items())
        return f"{len(self.subscribers)} subscribers, {self.head} revisions, {self.kills} kills: {counts}"


def test_every_subscriber_gets_every_revision_in_order(tmp_path):
    """Whatever its manners, and however often the sidecar is killed: no hole, nothing changed, few repeats."""
    run = Run(tmp_path, subscribers=scale(20, 50), revisions=scale(2_000, 10_000), kills=scale(20, 200))
    history = run.go()
    report(f"deliveries: {run.told()}")

    assert [] == list(run.faults(history))
    assert [] == [name for name, recording in run.recorders.recordings.items() if rules.gaps(recording)]


def test_every_gap_is_told_exactly(tmp_path):
    """Those who may lag by only three revisions miss some: each time they are told how many."""
    run = Run(tmp_path, subscribers=12, revisions=scale(600, 5_000), kills=scale(4, 40), max_lag=3)
    history = run.go()
    report(f"gaps: {run.told()}")

    assert [] == list(run.faults(history))
    assert sum(rules.gaps(recording) for recording in run.recorders.recordings.values())


def test_the_proof_catches_a_cursor_that_is_saved_too_early(tmp_path):
    """With that mistake, a kill leaves a hole."""
    run = Run(tmp_path, subscribers=6, revisions=400, kills=4, mutant="the cursor goes ahead of the answer")

    assert any("comes after" in fault for fault in run.faults(run.go()))


def test_the_proof_catches_a_revision_that_is_passed_over(tmp_path):
    """With that mistake, one in a hundred does not come."""
    run = Run(tmp_path, subscribers=6, revisions=300, kills=0, mutant="some revisions are passed over")

    assert any("comes after" in fault or "tells a gap" in fault for fault in run.faults(run.go()))
