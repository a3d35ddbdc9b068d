"""Whatever is done to the store, in whatever order, and whatever happens to its journal: it does what a model of it does.

Hypothesis makes up the orders. After each step everything that can be seen is compared.
"""

import os
from collections import Counter

import pytest
import torture
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test
from side_by_side import Done
from walk import Walk, WalkOnFile

from sidecar.conflicts import Expectation
from sidecar.decision import Lost
from sidecar.journal.memory import MemoryJournal
from sidecar.journal.sqlite import SqliteJournal
from sidecar.store import AsyncStateStore

PHASES = [Phase.generate, Phase.shrink] if "SEED" in os.environ else [Phase.generate]
"""Whoever repeats a failure may want a short one, and has the minutes for that."""


def walked(kind, folder, *, examples, steps, chance, **options):
    """Walks of this kind: what was done in them."""
    done = Done(Counter(), Counter())
    places = iter(range(1 << 62))
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )
    walk = seed(chance)(lambda: kind(folder / str(next(places)), done))
    run_state_machine_as_test(walk, settings=chosen)
    return done


def told(counts):
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


@pytest.mark.parametrize(("kind", "examples"), [(Walk, 150), (WalkOnFile, 60)], ids=["in memory", "on a file"])
def test_the_store_is_what_the_model_is(tmp_path, kind, examples):
    """Also across restarts, kills, a full disk, failing storage and clocks that jump."""
    done = walked(
        kind,
        tmp_path,
        examples=torture.scale(examples, 2000),
        steps=torture.scale(30, 60),
        chance=torture.seed(),
        phases=PHASES,
    )
    name = kind.kind.__name__
    torture.report(f"model, {name}: {done.rules['begin']} walks, {done.rules.total()} steps: {told(done.rules)}")
    torture.report(f"model, {name}: {done.outcomes.total()} writes: {told(done.outcomes)}")


# --- the model catches ---


def expectations_are_ignored(patch):
    """A broken expectation is not noticed, once there are five versions."""
    broken_by = Expectation.broken_by

    def forgetful(self, epoch, current):
        broken = broken_by(self, epoch, current)
        return None if broken and current and current.version > 5 else broken

    patch(Expectation, "broken_by", forgetful)


def answers_are_forgotten(patch):
    """A restarted store does not know what it answered."""

    async def answered(self, limit):
        return [] if limit < 1000 else await everything(self, limit)  # the model looks for itself, and asks for more

    everything = MemoryJournal.answered
    patch(MemoryJournal, "answered", answered)


def compaction_takes_one_too_many(patch):
    compact = MemoryJournal.compact
    patch(MemoryJournal, "compact", lambda self, oldest: compact(self, oldest + 1))


def a_failed_append_is_counted(patch):
    """The revision after a failed one is the one after that."""
    settle = SqliteJournal._settle

    def settle_and_stay(self, entry, chain, settled, error):
        tail = self._tail, self._tail_chain
        settle(self, entry, chain, settled, error)
        self._tail, self._tail_chain = tail

    patch(SqliteJournal, "_settle", settle_and_stay)


def a_rejection_does_not_wait(patch):
    """It names a winner that a crash could take back."""
    accept = AsyncStateStore._accept

    def impatient(self, *arguments):
        try:
            return accept(self, *arguments)
        except Lost as lost:
            raise self._record(lost) from None

    patch(AsyncStateStore, "_accept", impatient)


IN_MEMORY = (expectations_are_ignored, answers_are_forgotten, compaction_takes_one_too_many)
ON_A_FILE = (a_failed_append_is_counted, a_rejection_does_not_wait)


@pytest.mark.parametrize("mistake", IN_MEMORY + ON_A_FILE, ids=lambda mistake: mistake.__name__)
def test_the_model_catches_a_mistake(tmp_path, monkeypatch, mistake):
    """Without this, its agreement would say little."""
    mistake(monkeypatch.setattr)
    with pytest.raises((AssertionError, Flaky)):  # what depends on a race need not happen again when it is told
        walked(
            WalkOnFile if mistake in ON_A_FILE else Walk,
            tmp_path,
            examples=200,
            steps=30,
            chance=1,
            phases=[Phase.generate],
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
        )
