"""While a sync takes long: reads go on and show only what is durable, writes share the next sync, too many are refused."""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from racers import racers
from restarted import Restarted
from sidecar_process import eventually, problem_of
from torture import report
from wire import request

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed; it makes the disk slow here")

SYNC_SECONDS = 1.0
MANY = 64
REDUCED = {"max_queue": 8}


@contextlib.contextmanager
def slow_disk(sidecar, folder):
    """Every sync of the sidecar takes so much longer while the block runs. Gives a count of the syncs so far."""
    seen, said = folder / "syncs", folder / "strace"
    slower = f"inject=fdatasync:delay_enter={int(SYNC_SECONDS * 1e6)}"
    command = ["strace", "-f", "-p", str(sidecar.pid), "-o", seen, "-e", "trace=fdatasync", "-e", slower]
    with said.open("w") as errors:
        strace = subprocess.Popen(command, stderr=errors)
    try:
        eventually(lambda: "attached" in said.read_text() or strace.poll() is not None)
        if strace.poll() is not None:
            pytest.skip(f"strace may not attach: {said.read_text()}")
        yield lambda: sum("fdatasync(" in line for line in seen.read_text().splitlines())
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait()


def timed(ask, *arguments, **headers):
    """The answer, and when it was there."""
    return ask(*arguments, **headers), time.monotonic()


def test_reads_go_on_and_show_only_what_is_durable(tmp_path):
    """Until the sync has ended, reads are answered with the old state, and neither the writer nor who lost to it is told."""
    with Restarted(tmp_path) as sidecar, ThreadPoolExecutor() as pool, slow_disk(sidecar, tmp_path):
        before, read = sidecar.api.get("/v1/state"), []
        began = time.monotonic()
        write, rival = (
            pool.submit(timed, sidecar.api.put, "/v1/state", {"state": state}, if_match=before.etag)
            for state in ("IDLE", "ACTIVE")
        )
        while not (write.done() and rival.done()):
            read.append(timed(sidecar.api.get, "/v1/state"))
            assert 200 == sidecar.ops.get("/livez").status
        (won, won_at), (lost, lost_at) = sorted([write.result(), rival.result()], key=lambda pair: pair[0].status)
        after = sidecar.api.get("/v1/state")

    early = [answer for answer, at in read if at < began + SYNC_SECONDS]
    assert {before.etag} == {answer.etag for answer in early}
    assert {before.etag, won.etag} >= {answer.etag for answer, _ in read}
    assert (200, won.etag) == (won.status, after.etag)
    assert won.json["snapshot"]["version"] == problem_of(lost, 412, "version-conflict")["current"]["version"]
    assert min(won_at, lost_at) >= began + SYNC_SECONDS
    assert len(early) >= 5
    report(f"slow disk: {len(early)} reads during a sync of {SYNC_SECONDS:g} s, all of what was durable")


async def put_many(address):
    async with racers(address, MANY) as racing:
        return await racing.race([request("PUT", "/v1/state", {"state": "IDLE"})] * MANY)


def test_writes_that_wait_share_the_next_sync(tmp_path):
    """Many writers at once, and few syncs."""
    with Restarted(tmp_path) as sidecar, slow_disk(sidecar, tmp_path) as syncs:
        answers = asyncio.run(put_many(sidecar.api.address))
        shared = syncs()

    assert {200} == {status for status, _ in answers}
    assert list(range(2, MANY + 2)) == sorted(told["revision"] for _, told in answers)
    assert 1 <= shared <= MANY / 8
    report(f"slow disk: {MANY} writes in {shared} syncs")


def test_writes_beyond_the_queue_are_refused(tmp_path):
    """With 503 `overloaded`, and they are not applied; when the disk is quick again, so are they."""
    with Restarted(tmp_path, writes=REDUCED) as sidecar:
        with slow_disk(sidecar, tmp_path):
            answers = asyncio.run(put_many(sidecar.api.address))
        after = sidecar.api.put("/v1/state", {"state": "IDLE"})
        metrics = sidecar.ops.get("/metrics").body.decode()

    applied = [told["revision"] for status, told in answers if status == 200]
    refused = [told["type"] for status, told in answers if status == 503]
    assert MANY == len(applied) + len(refused)
    assert {"overloaded"} == set(refused)
    assert len(applied) >= REDUCED["max_queue"]
    assert (200, 1 + len(applied) + 1) == (after.status, after.json["revision"])
    assert f"fsm_writes_overloaded_total {len(refused)}.0" in metrics
    report(f"slow disk: {len(applied)} of {MANY} writes taken, {len(refused)} refused as too many")
