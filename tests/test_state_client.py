"""`StateClient` where the network and the sidecar fail: a write counts once, a watch goes on, and the caller gets the truth."""

import asyncio
import contextlib
import json
import subprocess
import sys

import pytest
from receiver import Receiver, answer, hang, partly, raw, reset
from sidecar_process import free_port, on_disk, running, served, written

from sidecar import (
    FencedError,
    FsmSnapshot,
    FsmState,
    IllegalTransitionError,
    InvalidSnapshotError,
    StateStoreError,
    StateVersionError,
    StorageError,
)
from sidecar.api.problems import MEANINGS
from sidecar.client import Change, Gap, Position, RefusedError, StateClient, UnavailableError
from sidecar.client.problems import Problem, error_of
from sidecar.errors import InvalidError, OverloadedError, StorageFullError

PATIENCE_SECONDS = 20
STATE = {"epoch": "k3f9", "revision": 7, "snapshot": {"version": 6, "state": "IDLE"}}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def snap(version, state=FsmState.IDLE, **fields):
    return FsmSnapshot(version, state, **fields)


def client_of(remote, **options):
    """A client of a sidecar or of a receiver, which knows the states."""
    address = remote.api.address if hasattr(remote, "api") else f"127.0.0.1:{remote.port}"
    return StateClient(f"http://{address}", **({"states": FsmState} | options))


def good(state=STATE, **headers):
    return answer(200, json.dumps(state).encode(), **headers)


def problem(status, kind, **headers):
    return answer(status, json.dumps({"type": kind, "title": kind, "status": status, "detail": kind}).encode(), **headers)


def event(revision, *, epoch="k3f9", kind="state", initial=False, skipped=0, **more):
    data = {"epoch": epoch, "revision": revision, "previous_revision": revision - 1 - skipped, "skipped": skipped} | more
    if kind == "state":
        data |= {"initial": initial, "snapshot": {"version": revision, "state": "IDLE"}}
    return f"id: {epoch}-{revision}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


async def seen(events, count):
    """The next so many events."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [await anext(events) for _ in range(count)]


# --- writes and reads ---


class Cutter:
    """A proxy before a sidecar that cuts the next `cuts` connections when their answer has come, instead of passing it on.

    `before_cut` is awaited then.
    """

    def __init__(self, address, cuts, before_cut=lambda: asyncio.sleep(0)):
        self._host, _, self._port = address.partition(":")
        self._before_cut = before_cut
        self.cuts = cuts
        self._serving = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _serve(self, reader, writer):
        self._serving.add(asyncio.current_task())
        upstream_reader, upstream = await asyncio.open_connection(self._host, int(self._port))
        asking = asyncio.create_task(self._pass_on(reader, upstream))
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while chunk := await upstream_reader.read(1 << 16):
                if self.cuts:
                    self.cuts -= 1
                    await self._before_cut()
                    break
                writer.write(chunk)
        asking.cancel()
        await asyncio.wait([asking])
        for each in (upstream, writer):
            each.transport.abort()

    async def _pass_on(self, reader, upstream):
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                upstream.write(chunk)


@pytest.mark.parametrize("cuts", [1, 3])
async def test_a_write_whose_answer_is_cut_off_counts_once(start, cuts):
    """The caller gets the outcome of the first try, also though its condition does not hold any more."""
    sidecar = start()
    async with Cutter(sidecar.api.address, cuts) as proxy, client_of(proxy) as store, client_of(sidecar) as direct:
        written = await store.set(snap(5), enforce_version=True)
        proxy.cuts = cuts
        moved = await store.transition(FsmState.ACTIVE, "go")

        assert (5, 6, True) == (written.version, moved.snapshot.version, moved.replayed)
        assert [1, 2, 3] == [state.revision async for state in direct.history()]


@pytest.mark.parametrize("holds_it_already", [False, True])
async def test_a_takeover_whose_answer_is_cut_off_fences_nobody_newer(start, holds_it_already):
    """It is sent again when another one has taken over meanwhile, and told who that is; so is the holder that starts again."""
    sidecar = start(writes={"writers": "exclusive"})
    async with contextlib.AsyncExitStack() as stack:
        new = await stack.enter_async_context(client_of(sidecar))
        proxy = await stack.enter_async_context(Cutter(sidecar.api.address, 0, lambda: new.become_writer("new", takeover=True)))
        if holds_it_already:
            await (await stack.enter_async_context(client_of(sidecar))).become_writer("old", takeover=True)
        old, proxy.cuts = await stack.enter_async_context(client_of(proxy)), 1
        with pytest.raises(FencedError) as refused:
            await old.become_writer("old", takeover=True)

        assert ("new", 0) == (refused.value.holder.name, proxy.cuts)
        assert FsmState.ACTIVE is (await new.transition(FsmState.ACTIVE, "mine still")).snapshot.state


@pytest.mark.parametrize("call", ["transition", "patch"])
async def test_a_write_that_counts_is_never_told_not_to(call):
    """Neither when the client does not know the states yet, nor when they are others when the answer comes."""
    machine = answer(200, b'{"states": ["A"], "initial": "A"}')
    async with Receiver(answer(503, b""), good()) as remote, client_of(remote, states=None, retry_for=0) as store:
        with pytest.raises(StateStoreError):
            await write_by(store, call)
        assert ["/v1/machine"] == [request.target for request in remote.requests]
    async with Receiver(machine, good(), answer(503, b"")) as remote, client_of(remote, states=None, retry_for=0) as store:
        with pytest.raises(UnavailableError) as lost:
            await write_by(store, call)
        assert "unknown" == lost.value.outcome


async def write_by(store, call):
    if call == "patch":
        return await store.patch(context_data={"a": 1})
    return await store.transition(FsmState.IDLE, "go")


async def test_what_is_no_state_is_refused_as_the_class_does():
    """Before anything is sent."""
    async with Receiver() as remote, client_of(remote) as store:
        with pytest.raises(InvalidSnapshotError):
            await store.transition("IDLE", "go")
        assert [] == remote.requests


@pytest.mark.parametrize("call", ["rotate", "ping"])
async def test_what_has_no_key_is_not_sent_again_once_it_may_have_arrived(start, hook, call):
    """A secret that is rotated at each try would soon be one that nobody has."""
    sidecar = start()
    async with client_of(sidecar) as direct, Cutter(sidecar.api.address, 1) as proxy, client_of(proxy) as store:
        await direct.subscribers.add("console", hook.url)
        with pytest.raises(UnavailableError) as lost:
            await getattr(store.subscribers, call)("console")

        assert ("unknown", 0) == (lost.value.outcome, proxy.cuts)
        await getattr(store.subscribers, call)("console")


async def test_a_watch_ends_with_its_client(start):
    """Whoever is in the middle of it is not served on by connections that nobody closes."""
    sidecar = start()
    store = client_of(sidecar)
    async with contextlib.aclosing(store.watch()) as events:
        await seen(events, 1)
        rest = asyncio.ensure_future(anext(events, "the end"))
        await store.aclose()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert "the end" == await rest
        await store.transition(FsmState.IDLE, "it can be used again")
        assert "the end" == await anext(events, "the end")
    await store.aclose()


async def test_a_history_of_large_states_is_read_to_its_end(start):
    """A page of them has fewer than were asked for, and is not the last one for that."""
    async with client_of(start()) as store:
        for n in range(5):
            await store.set(snap(n + 1, context_data={"x": "x" * 250_000}))

        assert [1, 2, 3, 4, 5, 6] == [state.revision async for state in store.history()]


async def test_what_cannot_be_repeated_in_time_is_unknown(start):
    """It may have counted, and the error says so; a read tells."""
    sidecar = start()
    async with Cutter(sidecar.api.address, 1) as proxy, client_of(proxy, retry_for=0) as store:
        with pytest.raises(UnavailableError) as lost:
            await store.set(snap(5))

        assert "unknown" == lost.value.outcome
        assert isinstance(lost.value, StateStoreError)
        assert 5 == (await store.get()).version


async def test_who_cannot_be_reached_has_not_written():
    """Nothing was sent; the error names the address."""
    port = free_port()
    async with StateClient(f"http://127.0.0.1:{port}", retry_for=0.2, states=FsmState) as store:
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}: cannot be reached") as lost:
            await store.set(snap(5))

    assert "not-applied" == lost.value.outcome


BUSY = [problem(503, "overloaded"), problem(503, "storage-slow"), problem(429, "busy"), answer(502), reset, raw(b"")]


@pytest.mark.parametrize("busy", BUSY, ids=["overloaded", "storage-slow", "429", "502", "reset", "closed"])
async def test_a_write_is_repeated_with_its_key(busy):
    """The same key and the same body each time, a new key for the next write."""
    async with Receiver(busy, busy, good(), good()) as remote, client_of(remote) as store:
        await store.set(snap(6))
        await store.set(snap(7))
    *tries, other = remote.requests

    assert (1, 1) == (len({each.headers["idempotency-key"] for each in tries}), len({each.body for each in tries}))
    assert 3 == len(tries)
    assert tries[0].headers["idempotency-key"] != other.headers["idempotency-key"]


async def test_a_read_waits_for_a_restart(tmp_path):
    """Not longer than `retry_for`."""
    config = written(tmp_path, api={"listen": f"127.0.0.1:{free_port()}"}, journal=on_disk(tmp_path))
    address = json.loads(config.read_text())["api"]["listen"]
    async with StateClient(f"http://{address}") as store:
        with running(config) as process:
            await asyncio.to_thread(process.wait_for, "ready")
            await store.set(snap(5))
        reading = asyncio.create_task(store.get())
        with running(config):
            assert 5 == (await reading).version


OUTCOMES = [
    (problem(503, "overloaded"), OverloadedError),
    (problem(503, "storage-failed"), StorageError),
    (problem(507, "storage-full"), StorageFullError),
    (problem(422, "invalid"), InvalidSnapshotError),
    (problem(401, "unauthorized"), StateStoreError),
    (problem(418, "of-a-later-version"), RefusedError),
    (answer(404, b"<html>"), RefusedError),
    (answer(302, Location="http://127.0.0.1:9/"), RefusedError),
    (answer(200, b"<html>"), UnavailableError),
    (answer(200, b'{"epoch": 5}'), UnavailableError),
    (problem(500, "internal"), UnavailableError),
]


@pytest.mark.parametrize(("given", "error"), OUTCOMES, ids=lambda value: getattr(value, "__name__", None))
async def test_a_refusal_is_an_error_of_the_store(given, error):
    """Whatever is answered, and by whom."""
    async with Receiver(given) as remote, client_of(remote, retry_for=0) as store:
        with pytest.raises(error):
            await store.set(snap(6))


@pytest.mark.parametrize("then", [problem(401, "unauthorized"), problem(503, "draining"), problem(429, "busy")])
async def test_a_refusal_before_the_store_does_not_hide_that_an_earlier_try_may_count(then):
    """It was not decided there."""
    async with Receiver(partly(b"HTTP/1.1 200 OK\r\n", reset), then) as remote, client_of(remote, retry_for=0.3) as store:
        with pytest.raises(UnavailableError) as lost:
            await store.set(snap(6))

    assert "unknown" == lost.value.outcome


async def test_a_refusal_by_the_store_settles_it():
    """An earlier try that counted would have been answered by its key."""
    async with Receiver(reset, problem(412, "version-conflict")) as remote, client_of(remote) as store:
        with pytest.raises(StateVersionError):
            await store.set(snap(6), enforce_version=True)


async def test_a_try_has_an_end():
    """A sidecar that hangs is as good as none."""
    async with Receiver(hang) as remote, client_of(remote, timeout=0.1, retry_for=0) as store:
        with pytest.raises(UnavailableError, match=r"has not answered within 0\.1 s"):
            await store.get()


@pytest.mark.parametrize("kind", MEANINGS, ids=lambda kind: kind.__name__)
def test_each_problem_of_the_api_is_its_error_again(kind):
    """Of the same class, with the same words; `invalid` is what a snapshot was."""
    meaning = MEANINGS[kind]
    error = error_of(meaning.status, Problem(meaning.type, meaning.title, meaning.status, "the detail", limit=3, oldest=4))

    assert (InvalidSnapshotError if kind is InvalidError else kind) is type(error)
    assert kind is IllegalTransitionError or "the detail" == str(error)
    assert all(hasattr(error, name) for name in meaning.carries)
    assert (getattr(error, "limit", 3), getattr(error, "oldest", 4)) == (3, 4)


# --- who, and where ---


async def test_a_token_comes_from_a_file_that_may_change(tmp_path):
    """Each request carries the one in its first line then, also while a newer one is below it."""
    file = tmp_path / "token"
    async with Receiver(good()) as remote, client_of(remote, token_file=str(file)) as store:
        with pytest.raises(StateStoreError, match="cannot be read"):
            await store.get()
        for content in ("first\n", "first\nsecond\n", "second\n"):
            file.write_text(content)
            await store.get()

    assert ["Bearer first", "Bearer first", "Bearer second"] == [each.headers["authorization"] for each in remote.requests]


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ü"])
async def test_a_token_that_cannot_be_sent_is_refused(token):
    """Before anything is sent, without repeating it."""
    async with Receiver(good()) as remote, client_of(remote, token=token) as store:
        with pytest.raises(StateStoreError, match="visible ASCII") as refused:
            await store.get()

    assert ([], False) == (remote.requests, bool(token) and token in str(refused.value))


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://u:p@x", "http://x/?q=1", "http://x:99999", "unix:here"])
def test_a_url_that_is_none_is_refused(url):
    """At once, saying what is expected."""
    with pytest.raises(ValueError, match="expected http://host:port"):
        StateClient(url)


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_try_that_could_take_for_ever_is_refused(timeout):
    """So aiohttp would read a 0."""
    with pytest.raises(ValueError, match="more than 0"):
        StateClient(timeout=timeout)


async def test_it_speaks_over_a_unix_socket(tmp_path):
    """Reading, writing and watching."""
    with served(written(tmp_path, api={"listen": f"unix:{tmp_path}/api.sock"})):
        async with StateClient(f"unix:{tmp_path}/api.sock") as store, contextlib.aclosing(store.watch()) as events:
            [first] = await seen(events, 1)
            await store.set(snap(1))
            [second] = await seen(events, 1)

    assert [(True, 0), (False, 1)] == [(each.initial, each.snapshot.version) for each in (first, second)]


async def test_a_proxy_may_have_it_below_a_path():
    """Before each route."""
    async with Receiver(good()) as remote, StateClient(f"http://127.0.0.1:{remote.port}/fsm/", states=FsmState) as store:
        await store.get()

    assert ["/fsm/v1/state"] == [each.target for each in remote.requests]


def test_it_imports_only_what_it_needs():
    """No store, no journal, no service, no metrics."""
    heavy = ("service", "store", "database", "dispatch", "journal", "meters", "config")
    code = f"import sidecar.client, sys; print([name for name in {heavy} if f'sidecar.{{name}}' in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == ran.stdout.strip()


# --- watching ---


async def test_a_watch_survives_restarts_without_loss(tmp_path):
    """Killed or stopped in the middle: every revision once, in order, no gap."""
    config = written(tmp_path, api={"listen": f"127.0.0.1:{free_port()}"}, journal=on_disk(tmp_path))
    address = json.loads(config.read_text())["api"]["listen"]
    async with StateClient(f"http://{address}") as store, contextlib.aclosing(store.watch()) as events:
        got = []
        for end in ("kill", "stop", "kill"):
            with running(config) as process:
                got += await seen(events, 1)  # it is there, and what was written before it went has come
                for _ in range(5):
                    await store.transition(FsmState.IDLE, "on")
                got += await seen(events, 2)
                await asyncio.to_thread(getattr(process, end))
        with running(config):
            got += await seen(events, 16 - len(got))

    assert [(Change, revision) for revision in range(1, 17)] == [(type(each), each.revision) for each in got]


async def test_another_journal_is_told_as_a_gap(tmp_path):
    """A sidecar in memory begins anew: what was between is not known."""
    config = written(tmp_path, api={"listen": f"127.0.0.1:{free_port()}"})
    address = json.loads(config.read_text())["api"]["listen"]
    async with StateClient(f"http://{address}") as store, contextlib.aclosing(store.watch()) as events:
        with running(config):
            [before] = await seen(events, 1)
        with running(config):
            gap, after = await seen(events, 2)

    assert (Change, Gap, Change) == (type(before), type(gap), type(after))
    assert before.epoch != after.epoch == gap.epoch
    assert (after.revision, "epoch", True) == (gap.revision, gap.reason, after.initial)


async def test_a_watch_goes_on_where_it_was():
    """After its last event, and after a position that its caller kept; what it had seen does not come again."""
    first = partly(HEAD + event(7, initial=True) + event(8) + event(9)[:40], reset)
    second = raw(HEAD + event(8) + event(9) + b'event: end\ndata: {"reason":"draining"}\n\n', close=False)
    async with Receiver(first, second, hang) as remote, client_of(remote) as store:
        async with contextlib.aclosing(store.watch()) as events:
            got = await seen(events, 3)
            again = asyncio.ensure_future(anext(events))
            requests = await remote.arrived(3)
            again.cancel()
            await asyncio.wait([again])
        async with contextlib.aclosing(store.watch(Position("k3f9", 5))) as events:
            again = asyncio.ensure_future(anext(events))
            requests += (await remote.arrived(4))[3:]
            again.cancel()
            await asyncio.wait([again])

    assert [7, 8, 9] == [each.revision for each in got]
    assert [None, "k3f9-8", "k3f9-9", "k3f9-5"] == [each.headers.get("last-event-id") for each in requests]


GAPS = [
    (event(12, kind="gap", skipped=4, reason="slow") + event(12, skipped=4), "slow", 4),
    (event(12, skipped=4), "unseen", 4),
    (event(3, epoch="z9", initial=True), "epoch", 0),
    (event(3, kind="gap", reason="epoch") + event(3), "epoch", 0),  # the volume went back
]


@pytest.mark.parametrize(("told", "reason", "skipped"), GAPS, ids=[reason for _, reason, _ in GAPS])
async def test_a_gap_comes_before_the_state_behind_it(told, reason, skipped):
    """Once, as the sidecar tells it, or as the client notices it; what is of a later version is passed over."""
    later = b"event: novelty\ndata: {}\n\n"
    script = partly(HEAD + event(7, initial=True) + later + told, hang)
    async with Receiver(script) as remote, client_of(remote) as store, contextlib.aclosing(store.watch()) as events:
        _, gap, change = await seen(events, 3)

    assert (Gap, reason, skipped) == (type(gap), gap.reason, gap.skipped)
    assert (Change, gap.revision, gap.epoch) == (type(change), change.revision, change.epoch)


@pytest.mark.parametrize("refusal", [problem(401, "unauthorized"), problem(404, "not-found"), problem(400, "malformed")])
async def test_a_watch_that_is_refused_ends(refusal):
    """No later try would change it."""
    async with Receiver(refusal) as remote, client_of(remote) as store:
        with pytest.raises(StateStoreError):
            await anext(store.watch())


async def test_a_watch_waits_for_a_sidecar_that_is_busy():
    """Too many watchers, stopping, not there yet: it tries again."""
    ready = partly(HEAD + event(7, initial=True), hang)
    script = problem(503, "draining"), reset, problem(429, "busy"), ready
    async with Receiver(*script) as remote, client_of(remote) as store, contextlib.aclosing(store.watch()) as events:
        assert [7] == [each.revision for each in await seen(events, 1)]


async def test_a_sidecar_may_come_back_with_another_machine(tmp_path):
    """A client that was not told the states asks for them again: it reads, watches and feeds its queues on."""
    api = {"listen": f"127.0.0.1:{free_port()}"}

    def machine(*states):
        fsm = {"states": ["BOOTING", *states], "initial": "BOOTING"}
        return written(tmp_path, api=api, journal=on_disk(tmp_path), fsm=fsm)

    async with StateClient(f"http://{api['listen']}") as store, contextlib.aclosing(store.watch()) as events:
        with running(machine("IDLE")):
            queue = await store.subscribe("reader")
            await seen(events, 1)
        with running(machine("IDLE", "CHARGING")) as process:
            await asyncio.to_thread(process.api.put, "/v1/state", {"state": "CHARGING"})
            states = [(await seen(events, 1))[0].snapshot.state.name, (await store.get()).state.name]
            async with asyncio.timeout(PATIENCE_SECONDS):
                states += [(await queue.get()).state.name for _ in range(2)]
            states += [each.snapshot.state.name async for each in store.history()]

    assert ["CHARGING", "CHARGING", "BOOTING", "CHARGING", "BOOTING", "CHARGING"] == states


async def test_a_queue_is_fed_over_a_restart(tmp_path):
    """Readers notice nothing but the time."""
    config = written(tmp_path, api={"listen": f"127.0.0.1:{free_port()}"}, journal=on_disk(tmp_path))
    address = json.loads(config.read_text())["api"]["listen"]
    async with StateClient(f"http://{address}") as store:
        with running(config) as process:
            await asyncio.to_thread(process.wait_for, "ready")
            queue = await store.subscribe("reader")
        with running(config) as process:
            await asyncio.to_thread(process.wait_for, "ready")
            await store.set(snap(1))
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert [0, 1] == [(await queue.get()).version for _ in range(2)]
