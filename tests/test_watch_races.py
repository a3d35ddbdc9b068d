"""`GET /v1/watch` when much happens at once: stops, retention, resets, watchers that do not read, disks that fail."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from held_journal import HeldJournal
from networks import POD, missing, node_and_pod
from rawhttp import many
from scraping import of
from sidecar_process import BASE, eventually, running, written
from watching import watching

from sidecar.errors import AccessError, StorageFailedError
from sidecar.watchers import Kind, Watchers

WATCH = b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n"
BIG = {"x": "x" * 50_000}


def put(sidecar, **content):
    answer = sidecar.api.put("/v1/state", {"state": "IDLE", **content})
    assert answer.status in (200, 201), answer
    return answer.json["revision"]


def put_often(sidecar, count, **content):
    """So many writes on one connection."""
    body = json.dumps({"state": "IDLE", **content})
    with contextlib.closing(http.client.HTTPConnection(sidecar.api.address)) as connection:
        for _ in range(count):
            connection.request("PUT", "/v1/state", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert 200 == answer.status, answer.read()
            answer.read()


def resident_bytes(sidecar):
    return int(Path(f"/proc/{sidecar.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def revisions(events):
    return [event.data["revision"] for event in events]


# --- what bounds a watcher ---


def test_those_who_do_not_read_cost_little_however_much_is_written(tmp_path):
    """Twenty of them while 10 000 revisions pass, 10 MB to each: no more than a few MiB are kept for all; then each is told."""
    journal = {"backend": "memory", "retention": {"revisions": 1024}}
    config = written(tmp_path, journal=journal, api=BASE["api"] | {"limits": {"write_timeout": "5m"}})
    with running(config) as sidecar, contextlib.ExitStack() as stack:
        streams = [stack.enter_context(watching(sidecar.api, receive_buffer=4096)) for _ in range(20)]
        put_often(sidecar, 2000, context_data={"x": "x" * 700})  # the journal is as full as it gets
        before = resident_bytes(sidecar)
        put_often(sidecar, 8000, context_data={"x": "x" * 700})
        grown = resident_bytes(sidecar) - before
        for stream in streams:
            *seen, gap = stream.until("gap")
            state = stream.event()
            assert list(range(1, len(seen) + 1)) == revisions(seen)
            assert (len(seen), 10_000 - len(seen)) == tuple(gap.data[key] for key in ("previous_revision", "skipped"))
            assert 10_001 == state.data["revision"]

    assert 16 << 20 > grown


@pytest.mark.skipif(bool(missing()), reason=f"needs {', '.join(missing())}, and may make network namespaces")
def test_a_watcher_whose_host_is_gone_gives_its_place_back(tmp_path):
    """Only silence tells: nothing that is sent to it is acknowledged any more. After `write_timeout` that is enough."""
    api = {"listen": f"{POD}:8470", "auth": "none", "limits": {"write_timeout": "1s"}}
    config = written(tmp_path, api=api, ops={"listen": "127.0.0.1:8471"}, watch={"heartbeat": "100ms"})
    with node_and_pod() as (node, pod), running(config, before=pod.enter) as sidecar:
        sidecar.wait_for("ready")

        def watchers(count):
            return f'fsm_watchers{{kind="stream"}} {count}.0\n' in pod.ask("http://127.0.0.1:8471/metrics").body

        with node.running(["curl", "--silent", "--no-buffer", f"http://{POD}:8470/v1/watch"], stdout=subprocess.DEVNULL):
            eventually(lambda: watchers(1))
            node.ip("link set pod down")
            eventually(lambda: watchers(0))


def test_retention_may_pass_a_slow_reader(start):
    """It is told with the reason, and goes on with the newest state, although it was not too far behind."""
    retention = {"backend": "memory", "retention": {"revisions": 2}}
    sidecar = start(journal=retention, webhooks={"max_lag": 2}, watch={"max_lag": 1000})
    with watching(sidecar.api, receive_buffer=4096) as stream:
        for _ in range(60):
            put(sidecar, context_data=BIG)
        eventually(lambda: sidecar.api.get("/v1/history").json["oldest"] > 50)
        *seen, gap = stream.until("gap")
        state = stream.event()

    assert list(range(1, len(seen) + 1)) == revisions(seen)
    assert ("compacted", len(seen), 61) == tuple(gap.data[key] for key in ("reason", "previous_revision", "revision"))
    assert (61, 60 - len(seen)) == tuple(state.data[key] for key in ("revision", "skipped"))


def test_a_reader_that_catches_up_is_served_as_before(start):
    """It was full, has read all of it, and misses nothing of what comes then."""
    sidecar = start()
    with watching(sidecar.api, receive_buffer=4096) as stream:
        for _ in range(40):
            put(sidecar, context_data=BIG)
        assert list(range(1, 42)) == revisions(stream.events(41))
        for _ in range(3):
            put(sidecar)

        assert [42, 43, 44] == revisions(stream.events(3))


def test_signs_of_life_come_between_events(start):
    """Also after what was sent while it waited."""
    sidecar = start(watch={"heartbeat": "100ms"})
    with watching(sidecar.api) as stream:
        stream.event()
        for revision in (2, 3):
            assert [": heartbeat"] == stream.block()
            put(sidecar)
            assert revision == stream.event().data["revision"]


# --- coming and going ---


@pytest.mark.parametrize("place", ["{epoch}-99", "otherone-1", "otherone-99"])
def test_an_id_that_this_journal_never_gave_is_a_gap(start, place):
    """As after a restored backup: of another journal, or of a future that is lost. The newest state comes, as the first one."""
    sidecar = start()
    put(sidecar)
    epoch = sidecar.api.get("/v1/state").json["epoch"]
    with watching(sidecar.api, headers={"Last-Event-ID": place.format(epoch=epoch)}) as stream:
        gap, state = stream.events(2)

    assert ("gap", "epoch", None) == (gap.kind, gap.data["reason"], gap.id)
    assert (f"{epoch}-2", 0, True) == (state.id, state.data["previous_revision"], state.data["initial"])


def test_who_comes_while_it_stops_has_the_state_and_the_end(tmp_path):
    """Until the drain delay is over it is let in, as writers are."""
    with running(written(tmp_path, shutdown={"drain_delay": "1s", "flush_timeout": "0s"})) as sidecar:
        api = sidecar.api
        sidecar.send(signal.SIGTERM)
        sidecar.wait_for("stopping")
        with watching(api) as stream:
            state, end = stream.events(2)
            assert b"" == stream.rest()
        assert 0 == sidecar.exit_code()

    assert (1, {"reason": "draining"}) == (state.data["revision"], end.data)


def test_a_thousand_that_leave_at_once_hold_nobody_up(tmp_path):
    """Reset in the middle of what is sent to them: each write is answered, who stays has them all, no place stays taken."""
    with running(written(tmp_path)) as sidecar, watching(sidecar.api) as stays:
        with many(sidecar.api.address, 999, WATCH) as connections:
            eventually(lambda: 1000 == of(sidecar, "fsm_watchers", kind="stream"))
            put_often(sidecar, 3)
            for connection in connections:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            put_often(sidecar, 3)
            assert list(range(1, 8)) == revisions(stays.events(7))
        eventually(lambda: 1 == of(sidecar, "fsm_watchers", kind="stream"))
        assert [] == [line for line in sidecar.log if line["level"] == "error"]


# --- who serves them ---


class FailingJournal(HeldJournal):
    """Its next read fails."""

    fails = False

    async def read(self, after, limit):
        if self.fails:
            self.fails = False
            raise StorageFailedError("a read failed")
        return await super().read(after, limit)


def appended(journal, document=b"{}"):
    journal.append(document, lambda entry, error: None)
    journal.settle()


@contextlib.asynccontextmanager
async def served(journal, judge=lambda: None):
    """The watchers of a journal, served; and one of them, which has revision 0, with what it is sent while it waits."""
    watchers, taken = Watchers(journal), []
    task = asyncio.create_task(watchers.run())
    with watchers.admitted(Kind.STREAM, journal.head, judge=judge) as watcher:
        watcher.take = lambda entries: taken.extend(entry.revision for entry in entries) or True
        async with asyncio.timeout(5):
            yield watchers, watcher, taken
    assert not task.done()
    task.cancel()


async def waiting(watcher):
    task = asyncio.create_task(watcher.wait(60))
    await asyncio.sleep(0)
    return task


async def test_a_read_that_fails_ends_nobodys_watch():
    """Who waits is woken, and reads for itself; the next one is sent as ever."""
    journal = FailingJournal()
    async with served(journal) as (_, watcher, taken):
        wait = await waiting(watcher)
        journal.fails = True
        appended(journal)
        await wait
        assert [1] == [due.entry.revision for due in await watcher.due()]
        wait = await waiting(watcher)
        appended(journal)
        while not taken:  # noqa: ASYNC110
            await asyncio.sleep(0)
        watcher.leave()
        await wait

    assert [2] == taken


async def test_more_than_is_sent_at_once_is_sent_all_the_same():
    """Five large revisions that come together: each once, in order, without another one to push them."""
    journal = HeldJournal()
    async with served(journal) as (_, watcher, taken):
        wait = await waiting(watcher)
        for _ in range(5):
            appended(journal, b"x" * 10_000)
        while len(taken) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
        watcher.leave()
        await wait

    assert [1, 2, 3, 4, 5] == taken


async def test_what_is_revoked_before_the_first_event_is_not_sent():
    """Tokens that are taken back right after the place was given: it does not wait, and nothing is sent to it any more."""
    journal = HeldJournal()
    appended(journal)

    def no():
        raise AccessError("the token does not count any more")

    async with served(journal, judge=no) as (watchers, watcher, taken):
        watchers.revise()
        await watcher.wait(60)
        appended(journal)
        for _ in range(5):
            await asyncio.sleep(0)
        assert watcher.revoked

    assert [] == taken
