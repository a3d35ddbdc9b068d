"""Makes a journal for `tests/test_migration.py`, by a real sidecar of the version whose schema it shall have.

    git archive VERSION | tar -x -C OLD
    cd OLD && PYTHONPATH=.:tests python NEW/tests/journals/make.py NEW/tests/journals/schema-N.db

schema-1.db was made so by e5764a6, the last commit before schema 2; schema-2.db by 092087d, the last one before
schema 3. A fixture never changes: it is what is out there.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from sidecar_process import on_disk, receiving, running, written

SIZES = [10, 10, 20_000, 10, 60_000, 10, 5_000, 10]
"""Characters in the context of each state; the large ones need pages of their own."""
SECRET = "whsec_" + "fixture/" * 4


def make(folder):
    """A closed journal: transitions, states small and large, and a subscriber that has them all."""
    with receiving() as hook, running(written(folder, journal=on_disk(folder))) as sidecar:
        sidecar.api.put("/v1/subscribers/console", {"url": hook.url, "secret": SECRET})
        for n, size in enumerate(SIZES):
            state = ("IDLE", "ACTIVE")[n % 2]
            set_to = sidecar.api.put("/v1/state", {"state": state, "context_data": {"n": n, "x": "x" * size}})
            moved = sidecar.api.post("/v1/transitions", {"to": "ERROR_STATE", "reason": f"round {n}"})
            assert (200, 200) == (set_to.status, moved.status)
        hook.wait_for_revision(1 + 2 * len(SIZES))
        assert sidecar.stop() == 0


with tempfile.TemporaryDirectory() as name:
    make(Path(name))
    shutil.copyfile(f"{name}/journal.db", sys.argv[1])
