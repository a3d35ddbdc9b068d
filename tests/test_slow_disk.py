"""A disk that is slow or hangs: the loop stays free, writes share commits, the queue is bounded, nobody waits for ever."""

import asyncio
import http.client
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from receiver import busy
from sidecar_process import BASE, Process, eventually, on_disk, problem_of, written

from sidecar import AsyncStateStore, FsmSnapshot, FsmState
from sidecar.errors import OverloadedError, StorageSlowError
from sidecar.journal import Request
from sidecar.journal.sqlite import SqliteJournal

SYNC_SECONDS = 0.4
"""How long the disk takes to say that something is durable: an eternity for anything that does not wait for it."""

IDLE = {"state": "IDLE"}


def snap():
    return FsmSnapshot(0, FsmState.IDLE)


# --- the store ---


async def test_more_writes_than_may_wait_are_refused_at_once(database):
    """And not applied; when the disk has caught up, all goes on."""
    store = AsyncStateStore(journal=SqliteJournal(database), max_queue=3)
    async with busy(database):
        waiting = [asyncio.create_task(store.set(snap())) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(OverloadedError):
                await store.set(snap())
        with pytest.raises(OverloadedError):  # a forecast is refused as the write would be, and not counted
            await store.forecast(lambda tail: tail)
    assert [0, 1, 2] == [stored.version for stored in await asyncio.gather(*waiting)]
    assert 3 == (await store.set(snap())).version
    assert (4, 2) == (store.journal.head, store.overloads)


async def test_a_write_that_waits_too_long_is_answered_and_goes_on(database):
    """Its outcome is unknown, until it is there; its key gives the answer that it missed."""
    store, request = AsyncStateStore(journal=SqliteJournal(database)), Request("key", b"print")
    patience = asyncio.create_task(store.answer_overdue(0.001))
    async with busy(database):
        with pytest.raises(StorageSlowError):
            await store.transition(FsmState.IDLE, "go", request=request)
        assert 0 == store.journal.head
    patience.cancel()
    again = await store.transition(FsmState.IDLE, "go", request=request)

    assert (1, 1, True) == (again.entry.revision, store.journal.head, again.replayed)


async def test_each_write_has_the_same_time(database, monkeypatch):
    """From its own beginning: one that came later is answered later."""
    store, turn, looks = AsyncStateStore(journal=SqliteJournal(database)), asyncio.sleep, asyncio.Semaphore(0)

    async def look():
        looks.release()
        for _ in range(5):
            await turn(0)

    async with busy(database):
        monkeypatch.setattr(asyncio, "sleep", lambda seconds: looks.acquire())
        patience = asyncio.create_task(store.answer_overdue(10.0))
        early = asyncio.create_task(store.set(snap()))
        await turn(0)
        await look()
        late = asyncio.create_task(store.set(snap()))
        for _ in range(4):
            assert (False, False) == (early.done(), late.done())
            await look()
        assert (True, False) == (early.done(), late.done())
        monkeypatch.undo()
    assert isinstance(early.exception(), StorageSlowError)
    assert 1 == (await late).version
    patience.cancel()


# --- the process ---


def slowing(folder):
    """The command in front of a sidecar whose commits take long."""
    calls, log = "fsync,fdatasync", f"{on_disk(folder)['path']}-wal"
    delay = f"inject={calls}:delay_enter={int(SYNC_SECONDS * 1e6)}"
    return ["strace", "-D", "-f", "-q", "-o", "/dev/null", "--seccomp-bpf", "-P", log, "-e", f"trace={calls}", "-e", delay]


@pytest.fixture
def slow(tmp_path):
    """Starts a sidecar on a slow disk, with these limits of the API and settings for writes."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed; it makes the disk slow here")
    started = []

    def start(limits=None, **writes):
        api = BASE["api"] | {"limits": limits or {}}
        config = written(tmp_path, journal=on_disk(tmp_path), writes=writes, api=api)
        started.append(Process("run", "--config", config, before=slowing(tmp_path)))
        started[0].wait_for("ready")
        return started[0]

    yield start
    for sidecar in started:
        sidecar.kill()
        assert "Traceback" not in sidecar.stderr, sidecar.stderr


def number(sidecar, name):
    lines = sidecar.ops.get("/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def revision(sidecar):
    return sidecar.api.get("/v1/state").json["revision"]


def test_whoever_does_not_write_does_not_wait_for_the_disk(slow):
    """Reads and probes are answered while a write waits, many of them within one sync."""
    sidecar = slow()
    before = revision(sidecar)
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(sidecar.api.put, "/v1/state", IDLE) for _ in range(4)]
        eventually(lambda: number(sidecar, "fsm_writes_waiting") or any(write.done() for write in writes))
        answered = 0
        while not any(write.done() for write in writes):
            assert (200, 200) == (sidecar.ops.get("/livez").status, sidecar.api.get("/v1/state").status)
            answered += 1
    assert answered >= 5
    assert [before + n for n in range(1, 5)] == sorted(write.result().json["revision"] for write in writes)


def test_writes_that_wait_for_the_disk_keep_no_reader_out(slow):
    """They have places of their own, as many as the requests that are answered; a write beyond them is refused."""
    sidecar = slow(limits={"requests": 2})

    def meanwhile():
        """What a read and a third write are answered, if that was within one sync; else None."""
        with ThreadPoolExecutor(2) as pool:
            writes = [pool.submit(sidecar.api.put, "/v1/state", IDLE) for _ in range(2)]
            eventually(lambda: number(sidecar, "fsm_writes_waiting") == 2 or any(write.done() for write in writes))
            answers = sidecar.api.get("/v1/state"), sidecar.api.put("/v1/state", IDLE)
            return None if any(write.done() for write in writes) else answers

    read, further = eventually(meanwhile)
    assert 200 == read.status
    problem_of(further, 503, "overloaded")
    assert 0 == number(sidecar, "fsm_http_requests_in_flight")
    assert 200 == sidecar.api.put("/v1/state", IDLE).status


def test_whoever_changes_something_else_does_not_wait_for_ever_either(slow):
    """Leases and subscribers: within `writes.timeout` 503, the outcome unknown; and it counts when the disk is back."""
    api = slow(timeout="50ms").api
    lease, subscriber = {"name": "new", "takeover": True}, {"url": "http://127.0.0.1:9/"}
    for answer in api.post("/v1/writer", lease), api.put("/v1/subscribers/console", subscriber):
        assert "unknown" == problem_of(answer, 503, "storage-slow")["outcome"]
    assert 200 == api.get("/v1/state").status
    eventually(lambda: (holder := api.get("/v1/writer").json["holder"]) and holder["name"] == "new")
    eventually(lambda: api.get("/v1/subscribers").json["subscribers"])
    problem_of(api.delete("/v1/subscribers/console"), 503, "storage-slow")
    eventually(lambda: not api.get("/v1/subscribers").json["subscribers"])


def test_changes_that_wait_for_the_disk_keep_no_reader_out(slow):
    """They have places as writes have, also after their callers were answered; one beyond them is refused."""
    sidecar = slow(limits={"requests": 2}, timeout="20ms")
    change = {"url": "http://127.0.0.1:9/"}

    def meanwhile():
        """What a read and a third change are answered, if the others were waiting still; else None."""
        names = [f"r{time.monotonic_ns()}" for _ in range(3)]
        statuses = [sidecar.api.put(f"/v1/subscribers/{name}", change).status for name in names[:2]]
        answers = sidecar.api.get("/v1/state"), sidecar.api.put(f"/v1/subscribers/{names[2]}", change)
        return answers if [503, 503] == statuses and "storage-slow" not in answers[1].json["type"] else None

    read, further = eventually(meanwhile)
    assert 200 == read.status
    problem_of(further, 503, "overloaded")


def test_concurrent_writes_share_commits(slow):
    """All that wait while the disk is busy become durable together."""
    sidecar, writers = slow(), 32
    count, total = "fsm_journal_commit_writes_count", "fsm_journal_commit_writes_sum"
    before = number(sidecar, count), number(sidecar, total)
    with ThreadPoolExecutor(writers) as pool:
        answers = list(pool.map(lambda _: sidecar.api.put("/v1/state", IDLE), range(writers)))

    assert {200} == {answer.status for answer in answers}
    assert (writers, True) == (number(sidecar, total) - before[1], number(sidecar, count) - before[0] <= writers / 4)


def test_a_client_that_gave_up_does_not_cancel_its_write(slow):
    """It is there afterwards, once, and the same key gives its answer."""
    sidecar = slow()
    before, body, headers = revision(sidecar), json.dumps(IDLE), {"Content-Type": "application/json", "Idempotency-Key": "k"}
    connection = http.client.HTTPConnection(sidecar.api.address)
    connection.request("PUT", "/v1/state", body, headers)
    time.sleep(SYNC_SECONDS / 4)  # it has been read, and is on its way
    connection.close()
    answer = sidecar.api.put("/v1/state", body.encode(), idempotency_key="k")

    assert (before + 1, "true") == (answer.json["revision"], answer.headers["Idempotency-Replayed"])
    assert before + 1 == revision(sidecar)


def test_a_full_queue_is_told_as_an_overload(slow):
    """503 with Retry-After; what is refused is not applied, and counted; afterwards writes go on."""
    sidecar = slow(max_queue=3)
    before = revision(sidecar)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: sidecar.api.put("/v1/state", IDLE), range(12)))
    refused = [answer for answer in answers if answer.status != 200]
    for answer in refused:
        assert ("1", False) == (answer.headers["Retry-After"], "outcome" in problem_of(answer, 503, "overloaded"))

    assert (True, before + 12 - len(refused)) == (len(refused) > 0, revision(sidecar))
    assert len(refused) == number(sidecar, "fsm_writes_overloaded_total")
    assert 200 == sidecar.api.put("/v1/state", IDLE).status


def test_a_disk_that_hangs_keeps_nobody_waiting_for_ever(slow):
    """Within `writes.timeout` 503, the outcome unknown; the same key tells it."""
    sidecar = slow(timeout="50ms")
    before = revision(sidecar)
    problem = problem_of(sidecar.api.put("/v1/state", IDLE, idempotency_key="k"), 503, "storage-slow")
    assert ("unknown", before) == (problem["outcome"], revision(sidecar))

    answer = eventually(lambda: (told := sidecar.api.put("/v1/state", IDLE, idempotency_key="k")).status == 200 and told)
    assert (before + 1, "true") == (answer.json["revision"], answer.headers["Idempotency-Replayed"])
