"""Whatever is done to the store, in whatever order, and whatever happens to its journal: it does what a model of it does.

Hypothesis makes up the orders. After each step everything that can be seen is compared.
"""

import os
from collections import Counter

import pytest
import torture
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from side_by_side import Done
from walk import Walk, WalkOnFile

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
