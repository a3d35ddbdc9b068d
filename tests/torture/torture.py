"""What all torture tests share: how much they do, the seed of what they do, and the line that says what they did.

`TORTURE=1` in the environment makes them long; `SEED=…` repeats the choices of an earlier run.
"""

import os
import random
from functools import cache

TORTURE = os.environ.get("TORTURE", "") not in ("", "0")
"""Whether this is the long run."""

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
"""Of all random choices of this run."""

reports: list[str] = []
"""One line of each test, for the end of the run."""


def scale(ci, torture):
    """How many: the first in every run, the second in the long one."""
    return torture if TORTURE else ci


@cache
def seed():
    """The seed, which the end of the run names."""
    reports.insert(0, f"seed: SEED={SEED}" + (" TORTURE=1" if TORTURE else ""))
    print(reports[0])
    return SEED


def report(text):
    """Say in one line what a test did: seen with `-s`, and at the end of the run."""
    reports.append(text)
    print(text)
