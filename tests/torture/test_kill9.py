"""kill -9 at any moment: nothing that was acknowledged is lost, nothing that was refused is there.

The page cache survives a killed process, so this says nothing about the loss of power: that is another proof.
"""

import random
import shutil
from collections import Counter
from contextlib import ExitStack

from crashes import Crashes
from torture import report, scale, seed

COUNTED = (
    "while_writing",
    "in_a_checkpoint",
    "while_starting",
    "while_opening",
    "void",
    "acknowledged",
    "conflicts",
    "unknown, applied",
    "unknown, not applied",
    "unknown settled by a retry",
)

CYCLES_EACH = 50
"""So many crashes see the same journal, in the long run."""


def kills(crashes, count, chance):
    """So many ways to be killed, of ten: seven while it is written to, one in a checkpoint, two in the recovery. Shuffled."""
    ten = 7 * [crashes.while_writing] + [crashes.in_a_checkpoint, crashes.while_starting, crashes.while_opening]
    chosen = (ten * (count // 10 + 1))[:count]
    chance.shuffle(chosen)
    return chosen


def test_no_acknowledged_write_is_lost(tmp_path):
    """Every write that was acknowledged is there, as its writer was told; a refused one never; an unknown one at most once."""
    total, cycles = Counter(), scale(30, 500)
    chance = random.Random(seed())
    for n, begin in enumerate(range(0, cycles, CYCLES_EACH)):
        with ExitStack() as stack:
            crashes = Crashes(stack, tmp_path / str(n), chance.random())
            for kill in kills(crashes, min(CYCLES_EACH, cycles - begin), chance):
                crashes.survive(kill)
            assert [] == crashes.finish()
            total += crashes.count
        shutil.rmtree(tmp_path / str(n))  # the long run would leave gigabytes
    did = ", ".join(f"{total[what]} {what.replace('_', ' ')}" for what in COUNTED)
    report(f"kill -9: {cycles} cycles: {did}")


def test_a_kill_at_the_very_first_start_leaves_a_journal_that_opens(tmp_path):
    """Whatever was there of the new journal: the next start makes or finds it, and takes a write."""
    count = scale(6, 100)
    for n in range(count):
        with ExitStack() as stack:
            crashes = Crashes(stack, tmp_path / str(n), f"{seed()}-{n}", writers=0)
            crashes.survive(crashes.while_opening)
            assert [] == crashes.finish()
    report(f"kill -9: {count} journals killed at their first start")


def test_the_proof_catches_a_sidecar_that_acknowledges_before_the_commit(tmp_path):
    """With that mistake, acknowledged writes are found to be lost."""
    with ExitStack() as stack:
        crashes = Crashes(stack, tmp_path / "journal", seed(), mistake="hasty")
        for _ in range(20):  # it loses something in every other one
            crashes.while_writing()
            if any(fault.startswith("lost") for fault in crashes.check()):
                return
    raise AssertionError("it was not caught")
