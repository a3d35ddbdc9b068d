"""Crash after crash: a sidecar on one journal, killed while writers in other processes write, and what is left each time."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from judge import Write, faults, kept_in, writes_in
from sidecar_process import running, written
from writer import Ledger, has_key, request

import sidecar

HERE = Path(__file__).parent
ROOT = Path(sidecar.__file__).parent.parent
FEWEST_ACKS = 50
"""A kill in the middle of less than that proves little."""

ATTEMPTS = 20

OPENING_SECONDS = 0.04
"""From the opening of the journal until the sidecar is ready, about."""

KEEP_ALL = {"retention": {"revisions": 10_000_000, "bytes": "10GiB"}}
KEEP_ALL_KEYS = {"idempotency": {"ttl": "1h", "max_keys": 1_000_000}}


class Crew:
    """The writers: processes that write while the sidecar lives, each with its ledger in the folder."""

    def __init__(self, stack, folder, seed, size):
        self._processes = [stack.enter_context(self._writer(folder, f"w{n}", seed)) for n in range(size)]

    @staticmethod
    @contextmanager
    def _writer(folder, name, seed):
        command = [sys.executable, HERE / "writer.py", name, str(seed), folder / f"{name}.ledger"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def start(self, address):
        for process in self._processes:
            process.stdin.write(f"{address}\n")
            process.stdin.flush()

    def wait_until_cut(self):
        for process in self._processes:
            assert process.stdout.readline() == "cut\n", "a writer has died"


class Crashes:
    """A journal and its crashes. `count` says what there was of each kind."""

    def __init__(self, stack, folder, seed, *, writers=8, mistake=None):
        folder.mkdir()
        self.count = Counter()
        self._folder = folder
        self._chance = random.Random(seed)
        self._journal = folder / "journal.db"
        self._config = written(folder, journal={"path": str(self._journal)} | KEEP_ALL, writes=KEEP_ALL_KEYS)
        self._crew = Crew(stack, folder, seed, writers)
        self._mistake = mistake
        self._settled = Ledger(folder / "settled.ledger")
        self._writes = {}
        self._kept = None
        self._ever_unknown = set()
        self._start_seconds = 0.25

    def survive(self, kill):
        """Let it be killed this way, and see that nothing is wrong. A kill that missed is void, and repeated."""
        for _ in range(ATTEMPTS):
            worth = kill()
            found = self.check()
            assert not found, f"after a kill {kill.__name__}: {len(found)} faults, such as {found[:10]}"
            if worth:
                self.count[kill.__name__] += 1
                return
            self.count["void"] += 1
        raise AssertionError(f"{ATTEMPTS} times void: {kill.__name__}")

    # --- the kills: each returns whether it hit what it should, and whether there was enough to lose ---

    def while_writing(self):
        """20 to 400 ms after it is ready."""
        with self._started() as sidecar:
            self._begin(sidecar)
            time.sleep(self._chance.uniform(0.02, 0.4))
            sidecar.kill()
        return self._cut()

    def in_a_checkpoint(self):
        """Anywhere in a checkpoint, while it is written to."""
        with self._started("doomed", DOOM="checkpoint") as sidecar:
            self._begin(sidecar)
            assert sidecar.exit_code() == -signal.SIGKILL, sidecar.stderr
        return self._cut()

    def while_starting(self):
        """20 ms after the process was made, at the earliest, and before it is ready."""
        with self._started() as sidecar:
            time.sleep(self._chance.uniform(0.02, self._start_seconds))
            sidecar.kill()
        return not sidecar.events("ready")

    def while_opening(self):
        """After it has opened the journal's file, and before it is ready."""
        with self._started("doomed", DOOM="opening", DOOM_SECONDS=str(OPENING_SECONDS)) as sidecar:
            assert sidecar.exit_code() == -signal.SIGKILL, sidecar.stderr
        return not sidecar.events("ready")

    def _started(self, patch=None, **env):
        """The process, which reads the patch first: a folder with a `sitecustomize.py`."""
        path = [HERE / (patch or self._mistake)] if patch or self._mistake else []
        env["PYTHONPATH"] = os.pathsep.join(map(str, [*path, ROOT]))
        return running(self._config, env=env | {"DOOM_SEED": str(self._chance.random())})

    def _begin(self, sidecar):
        """Wait until it is ready, see that it goes on where the journal ends, settle what is open, and let them write."""
        started = time.monotonic()
        [ready] = sidecar.wait_for("ready")
        self._start_seconds = time.monotonic() - started
        if self._kept and self._kept.rows:
            end = self._kept.epoch, self._kept.rows[-1].revision
            assert end == (ready["epoch"], ready["revision"]), "it does not go on where the journal ended"
        for write in list(self._writes.values()):
            if write.unknown and has_key(write.token):
                self._settle(sidecar.api, write)
                self.count["unknown settled by a retry"] += 1
        self._crew.start(sidecar.api.address)

    def _cut(self):
        self._crew.wait_until_cut()
        acks = self.count["acknowledged"]
        self._writes = writes_in(self._folder)
        self.count["acknowledged"] = sum(write.acknowledged for write in self._writes.values())
        self.count["conflicts"] = sum(write.status == 412 for write in self._writes.values())
        return self.count["acknowledged"] - acks >= FEWEST_ACKS

    # --- what is left ---

    def check(self):
        """What is wrong with the journal now, while nobody has it."""
        self._kept = kept_in(self._journal, self._folder / "look")
        self._count_unknown()
        return faults(self._writes, self._kept)

    def _count_unknown(self):
        tokens = {row.token for row in self._kept.rows}
        for token, write in self._writes.items():
            if write.unknown and token not in self._ever_unknown:
                self._ever_unknown.add(token)
                self.count["unknown, applied" if token in tokens else "unknown, not applied"] += 1

    def _settle(self, api, write):
        """Send it again, twice: it is applied once in all, and both times told the same."""
        applied = write.acknowledged or write.token in {row.token for row in self._kept.rows}
        first, second = (self._ask(api, write) for _ in range(2))
        self._settled.told(write.token, first.status, first.json)
        if first.status < 300:
            assert (applied, True) == (replayed(first), replayed(second)), f"applied again, or not told that it was: {write}"
            assert first.body == second.body, f"the repetition was answered otherwise: {write}"
            assert write.revision in (None, first.json["revision"]), f"now it is another revision: {write}"
        else:  # it expects a version that is gone
            assert (False, 412, 412) == (applied, first.status, second.status), f"the key did not find it: {write}"

    def _ask(self, api, write):
        method, path, body, headers = request(write.token, write.etag)
        return api.exchange(method, path, body, list(headers.items()))

    def finish(self):
        """A last start: what was ever unknown is told again as it is, a last write is taken, and the end is clean."""
        with self._started() as sidecar:
            for token in self._ever_unknown:
                if has_key(token):
                    self._settle(sidecar.api, self._writes[token])
            last = Write("last-1")
            self._settled.sent(last.token, last.etag)
            answer = self._ask(sidecar.api, last)
            self._settled.told(last.token, answer.status, answer.json)
            assert 200 == answer.status
            assert 0 == sidecar.stop()
        self._writes = writes_in(self._folder)
        return self.check()


def replayed(answer):
    return answer.headers["Idempotency-Replayed"] == "true"
