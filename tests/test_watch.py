"""`GET /v1/watch`: who follows the state gets every revision in order, or is told what is missing."""

import concurrent.futures
import contextlib
import signal
import time

import pytest
from scraping import of
from sidecar_process import BASE, eventually, on_disk, problem_of, running, written
from watching import watching

EMPTY = {"fsm": {"initial": None}}
QUICK = {"heartbeat": "100ms"}


@pytest.fixture
def sidecar(start):
    return start()


def put(sidecar, **content):
    answer = sidecar.api.put("/v1/state", {"state": "IDLE", **content})
    assert answer.status in (200, 201), answer
    return answer.json["revision"]


def revisions(events):
    return [event.data["revision"] for event in events]


def history(sidecar):
    return {entry["revision"]: entry["snapshot"] for entry in sidecar.api.get("/v1/history?limit=1000").json["entries"]}


def watchers(sidecar):
    return of(sidecar, "fsm_watchers", kind="stream")


# --- what comes ---


def test_the_first_event_is_the_state_now(sidecar):
    """Whatever came before it: one event, `initial`, with nothing skipped; before it a hint when to come back."""
    put(sidecar)
    with watching(sidecar.api) as stream:
        assert (200, "text/event-stream", "no-store") == (
            stream.status,
            *map(stream.headers.get, ("content-type", "cache-control")),
        )
        assert ["retry: 1000"] == stream.block()
        event = stream.event()

    now = sidecar.api.get("/v1/state").json
    assert ("state", f"{now['epoch']}-2") == (event.kind, event.id)
    assert {**now, "previous_revision": 0, "skipped": 0, "initial": True} == event.data


def test_each_revision_comes_in_order_as_the_history_has_it(sidecar):
    """Each once, linked to the one before it, its snapshot equal to that of `/v1/history`."""
    with watching(sidecar.api) as stream:
        for number in range(20):
            put(sidecar, state=("IDLE", "ACTIVE")[number % 2], context_data={"number": number})
        events = stream.events(21)

    assert list(range(1, 22)) == revisions(events)
    assert history(sidecar) == {event.data["revision"]: event.data["snapshot"] for event in events}
    assert [(n, 0, n == 0) for n in range(21)] == [
        tuple(event.data[key] for key in ("previous_revision", "skipped", "initial")) for event in events
    ]


def test_a_watcher_gets_byte_for_byte_what_a_webhook_gets(start, hook):
    """`data` of both is the same."""
    sidecar = start(subscribers=[{"id": "hook", "url": hook.url}])
    with watching(sidecar.api) as stream:
        stream.event()
        put(sidecar, context_data={"a": [1, "ü"]})
        event = stream.event()

    assert hook.wait_for_revision(2).data == event.data


def test_many_watchers_get_the_same_while_many_write(sidecar):
    """Fifty watchers and four writers: all see one order, without a hole, and it is the history."""
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(watching(sidecar.api)) for _ in range(50)]
        with concurrent.futures.ThreadPoolExecutor(4) as writers:
            list(writers.map(lambda number: put(sidecar, context_data={"number": number}), range(100)))
        seen = [stream.events(101) for stream in streams]

    told = history(sidecar)
    for events in seen:
        assert told == {event.data["revision"]: event.data["snapshot"] for event in events}
        assert list(range(1, 102)) == revisions(events)


def test_who_watches_an_empty_store_waits_for_the_first_state(start):
    """Nothing is sent until there is one; then it is the initial one."""
    sidecar = start(**EMPTY, watch=QUICK)
    with watching(sidecar.api) as stream:
        stream.block()
        assert [": heartbeat"] == stream.block()
        put(sidecar)
        event = stream.event()

    assert (1, 0, True) == tuple(event.data[key] for key in ("revision", "previous_revision", "initial"))


def test_a_stream_on_which_nothing_happens_gives_signs_of_life(start):
    """A comment each `watch.heartbeat`."""
    with watching(start(watch=QUICK).api) as stream:
        stream.event()

        assert [[": heartbeat"]] * 3 == [stream.block() for _ in range(3)]


# --- going on ---


@pytest.mark.parametrize("way", ["header", "query", "query with epoch", "both"])
def test_a_watcher_goes_on_exactly_after_the_revision_it_names(sidecar, way):
    """By the header or by the query; the header counts, because a browser repeats the query of its first request."""
    for _ in range(5):
        put(sidecar)
    epoch = sidecar.api.get("/v1/state").json["epoch"]
    query, headers = {
        "header": ("", {"Last-Event-ID": f"{epoch}-3"}),
        "query": ("?after=3", {}),
        "query with epoch": (f"?after=3&epoch={epoch}", {}),
        "both": ("?after=1", {"Last-Event-ID": f"{epoch}-3"}),
    }[way]
    with watching(sidecar.api, query, headers=headers) as stream:
        put(sidecar)
        events = stream.events(4)

    assert [4, 5, 6, 7] == revisions(events)
    assert [(3, False), (4, False)] == [(event.data["previous_revision"], event.data["initial"]) for event in events[:2]]


def test_a_watcher_that_has_everything_gets_only_what_is_new(start):
    """Not the state that it has."""
    sidecar = start(watch=QUICK)
    with watching(sidecar.api, "?after=1") as stream:
        stream.block()
        assert [": heartbeat"] == stream.block()
        put(sidecar)

        assert [2] == revisions([stream.event()])


def test_nothing_is_lost_over_restarts(tmp_path):
    """Three processes on one journal, written to all the time, and a watcher that only follows ids: every revision, once."""
    config, seen, last = written(tmp_path, journal=on_disk(tmp_path)), [], {}
    for round_ in range(3):
        with running(config) as sidecar:
            with watching(sidecar.api, headers=last) as stream:
                for _ in range(10):
                    put(sidecar)
                got = stream.events(10 if round_ else 11)
            for _ in range(5):
                put(sidecar)  # while nobody watches
            sidecar.kill()
        seen += got
        last = {"Last-Event-ID": got[-1].id}

    assert list(range(1, 32)) == revisions(seen)
    assert ["state"] * 31 == [event.kind for event in seen]


@pytest.mark.parametrize("query", ["?after=3&epoch=otherone", "?after=99"])
def test_a_position_of_another_journal_is_a_gap(sidecar, query):
    """Told with its reason; then the newest state comes, as the first one of this journal."""
    for _ in range(4):
        put(sidecar)
    with watching(sidecar.api, query) as stream:
        gap, state = stream.events(2)

    told = {"revision": 5, "previous_revision": 0, "skipped": 4}
    assert ("gap", None, {**told, "epoch": state.data["epoch"], "reason": "epoch"}) == (gap.kind, gap.id, gap.data)
    assert told.items() <= state.data.items()
    assert state.data["initial"]
    assert 1 == of(sidecar, "fsm_watch_gaps_total", reason="epoch")


def test_a_position_that_is_no_longer_kept_is_a_gap(start):
    """Told with what is passed over."""
    sidecar = start(journal={"backend": "memory", "retention": {"revisions": 2}}, webhooks={"max_lag": 2})
    for _ in range(9):
        put(sidecar)
    eventually(lambda: sidecar.api.get("/v1/history").json["oldest"] > 5)
    with watching(sidecar.api, "?after=3") as stream:
        gap, state = stream.events(2)

    told = {"revision": 10, "previous_revision": 3, "skipped": 6}
    assert ("gap", {**told, "epoch": state.data["epoch"], "reason": "compacted"}) == (gap.kind, gap.data)
    assert ({**told, "initial": False}).items() <= state.data.items()


def test_a_position_too_far_back_is_a_gap(start):
    """More than `watch.max_lag` behind; up to there everything comes."""
    sidecar = start(watch={"max_lag": 3})
    for _ in range(9):
        put(sidecar)
    with watching(sidecar.api, "?after=7") as stream:
        assert [8, 9, 10] == revisions(stream.events(3))
    with watching(sidecar.api, "?after=6") as stream:
        gap, state = stream.events(2)

    assert ("slow", 3, 10) == tuple(gap.data[key] for key in ("reason", "skipped", "revision"))
    assert (10, 6, 3) == tuple(state.data[key] for key in ("revision", "previous_revision", "skipped"))


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"Last-Event-ID": "17"}),
        ("", {"Last-Event-ID": "k3f9-"}),
        ("", {"Last-Event-ID": "k3f9-017"}),
        ("", {"Last-Event-ID": "K3F9-1"}),
        ("", {"Last-Event-ID": f"k3f9-{2**53}"}),
        ("", {"Last-Event-ID": "k3f9-1, k3f9-2"}),
        ("", {"Last-Event-ID": ["k3f9-1", "k3f9-2"]}),
        ("?after=-1", {}),
        ("?after=x", {}),
        ("?after=1&after=2", {}),
        ("?epoch=k3f9", {}),
        ("?since=1", {}),
    ],
)
def test_a_malformed_position_is_refused(sidecar, query, headers):
    """400, and no stream."""
    answer = sidecar.api.get("/v1/watch" + query, **headers)

    problem_of(answer, 400, "malformed")


# --- bounds ---


def test_a_slow_reader_is_told_what_it_missed(start):
    """It reads nothing while far more is written than fits into any buffer: then what was on its way, a gap, and the newest."""
    sidecar = start(watch={"max_lag": 5})
    with watching(sidecar.api, receive_buffer=4096) as stream:
        for _ in range(60):
            put(sidecar, context_data={"x": "x" * 50_000})
        before = stream.until("gap")
        gap, state = before.pop(), stream.event()

    assert list(range(1, len(before) + 1)) == revisions(before)
    assert len(before) * 50_000 < 400_000, "that much was kept for one reader"
    last = before[-1].data["revision"]
    assert {"revision": 61, "previous_revision": last, "skipped": 60 - last, "reason": "slow"}.items() <= gap.data.items()
    assert (61, last, 60 - last) == tuple(state.data[key] for key in ("revision", "previous_revision", "skipped"))
    assert 1 == of(sidecar, "fsm_watch_gaps_total", reason="slow")


def test_a_reader_that_takes_nothing_is_cut_off(start):
    """After `api.limits.write_timeout`, with what was kept for it; the others notice nothing, and its place is free again."""
    sidecar = start(watch={"max_lag": 100}, api=BASE["api"] | {"limits": {"write_timeout": "200ms"}})
    with watching(sidecar.api, receive_buffer=4096) as stalled, watching(sidecar.api) as healthy:
        for _ in range(60):
            put(sidecar, context_data={"x": "x" * 50_000})
        assert list(range(1, 62)) == revisions(healthy.events(61))
        eventually(lambda: of(sidecar, "fsm_http_timeouts_total", listener="api", phase="write") == 1)
        assert 1 == watchers(sidecar)
        assert not stalled.rest().endswith(b"\n\n")  # cut in the middle of an event: what was still kept for it is dropped


def test_places_are_limited(start):
    """Beyond `watch.max_watchers`: 503 with Retry-After. A place that is given back is taken by the next."""
    sidecar = start(watch={"max_watchers": 2})
    with watching(sidecar.api) as first:
        with watching(sidecar.api) as second:
            first.event(), second.event()
            refused = sidecar.api.get("/v1/watch")
            assert 2 == problem_of(refused, 503, "too-many-watchers")["limit"]
            assert "1" == refused.headers["Retry-After"]
            problem_of(sidecar.api.get("/v1/state?after=1&wait=10s"), 503, "too-many-watchers")
        eventually(lambda: watchers(sidecar) == 1)
        with watching(sidecar.api) as third:
            assert [1] == revisions([third.event()])
    assert 2 == of(sidecar, "fsm_watchers_refused_total")


def test_a_watcher_that_goes_is_gone_at_once(sidecar):
    """Not only when the next event or heartbeat is due."""
    with watching(sidecar.api) as stream:
        stream.event()
        assert 1 == watchers(sidecar)
    eventually(lambda: watchers(sidecar) == 0)


# --- other ways to ask ---


def test_the_same_bytes_come_over_the_oldest_http(sidecar):
    """HTTP/1.0 has no chunks: the stream ends with its connection, and is the same."""
    with watching(sidecar.api, version="1.0") as old, watching(sidecar.api) as new:
        for stream in (old, new):
            assert "close" == stream.headers["connection"]
            assert "transfer-encoding" not in stream.headers
        assert old.event() == new.event()


def test_head_answers_the_head_of_the_stream(sidecar):
    """Without a body, and without taking a place."""
    with watching(sidecar.api, method="HEAD") as stream:
        assert (200, "text/event-stream", b"") == (stream.status, stream.headers["content-type"], stream.rest())
    problem_of(sidecar.api.post("/v1/watch", {}), 405, "method-not-allowed")


def test_a_stream_goes_over_a_unix_socket(tmp_path, start):
    """As over TCP."""
    sidecar = start(api={"listen": f"unix:{tmp_path}/api.sock"})
    with watching(sidecar.api) as stream:
        put(sidecar)

        assert [1, 2] == revisions(stream.events(2))


def test_the_time_that_a_stream_is_open_is_nobodys_slowness(start):
    """Its request is counted when it ends, with the time that it took to answer."""
    sidecar = start(watch=QUICK)
    with watching(sidecar.api) as stream:
        stream.event()
        for _ in range(6):
            stream.block()
    eventually(lambda: of(sidecar, "fsm_http_requests_total", route="/v1/watch", method="GET", code="200") == 1)

    assert 0.3 > of(sidecar, "fsm_http_request_duration_seconds_sum", method="GET")


# --- the end ---


def test_the_last_write_arrives_and_then_the_end_is_told(tmp_path):
    """SIGTERM, a write within the drain delay: the stream has it, then `end`; the process waits for nobody, and ends with 0."""
    with running(written(tmp_path, shutdown={"drain_delay": "1s", "flush_timeout": "0s"})) as sidecar:
        with watching(sidecar.api) as stream:
            stream.event()
            sidecar.send(signal.SIGTERM)
            sidecar.wait_for("stopping")
            last = put(sidecar, state="SHUTDOWN")
            state, end = stream.events(2)
            assert b"" == stream.rest()
        assert 0 == sidecar.exit_code()

    assert (last, "SHUTDOWN") == (state.data["revision"], state.data["snapshot"]["state"])
    assert ("end", None, {"reason": "draining"}) == (end.kind, end.id, end.data)


def test_watchers_that_do_not_read_do_not_hold_up_the_end(tmp_path):
    """Ten of them with full buffers: the process ends well before the time that open requests have."""
    with running(written(tmp_path)) as sidecar, contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(watching(sidecar.api, receive_buffer=4096))
        for _ in range(20):
            put(sidecar, context_data={"x": "x" * 200_000})
        started = time.monotonic()
        sidecar.send(signal.SIGTERM)

        assert 0 == sidecar.exit_code()
        assert 1.5 > time.monotonic() - started
