"""First on PYTHONPATH, it makes Python kill itself with SIGKILL at a moment that nobody can hit from outside.

DOOM=checkpoint  in the middle of a checkpoint, once it has something to do
DOOM=opening     some time between the opening of the journal and DOOM_SECONDS later
"""

import os
import random
import signal
import sqlite3
import threading
import time

CHANCE = random.Random(os.environ["DOOM_SEED"])
CHECKPOINT = "PRAGMA wal_checkpoint"
FEWEST_CHANGES = 200


def kill_after(seconds):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()
    return timer


class KilledInCheckpoint(sqlite3.Connection):
    """Dies at a random moment of a checkpoint. When it ends first, the next one is tried."""

    seconds = 0.005  # what the longest one took, so far as is known

    def execute(self, sql, *parameters):
        if not sql.startswith(CHECKPOINT) or self.total_changes < FEWEST_CHANGES:
            return super().execute(sql, *parameters)
        timer = kill_after(CHANCE.uniform(0, self.seconds))
        started = time.perf_counter()
        done = super().execute(sql, *parameters)
        timer.cancel()
        self.seconds = max(self.seconds, time.perf_counter() - started)
        return done


class KilledWhileOpening(sqlite3.Connection):
    """Dies soon after it was opened."""

    def __init__(self, *arguments, **options):
        kill_after(CHANCE.uniform(0, float(os.environ["DOOM_SECONDS"])))
        super().__init__(*arguments, **options)


def doomed(connect, kind):
    return lambda *arguments, **options: connect(*arguments, factory=kind, **options)


sqlite3.connect = doomed(sqlite3.connect, {"checkpoint": KilledInCheckpoint, "opening": KilledWhileOpening}[os.environ["DOOM"]])
