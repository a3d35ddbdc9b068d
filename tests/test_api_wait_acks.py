"""`?wait_acks`: a write is answered when subscribers have acknowledged it, and says who has not. It counts in any case."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rawhttp import PUT, connected
from receiver import held
from scraping import of
from sidecar_process import BASE, eventually, free_port, problem_of, receiving, running, written

from sidecar.alerts.scrape import Scrape
from sidecar.dispatch.acks import Ending

LONG = "&timeout=30s"
SHORT = "&timeout=300ms"
WRITES = {
    "PUT": ("PUT", "/v1/state", {"state": "IDLE"}, "application/json"),
    "PATCH": ("PATCH", "/v1/state", {"context_data": {"a": 1}}, "application/merge-patch+json"),
    "POST": ("POST", "/v1/transitions", {"to": "IDLE"}, "application/json"),
}


@pytest.fixture
def other_hook():
    """A second receiver."""
    with receiving() as hook:
        yield hook


@pytest.fixture
def aside():
    """Runs a function beside the test: its future."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def subscribe(api, name, url, **settings):
    """A subscriber that has got its first delivery."""
    api.put(f"/v1/subscribers/{name}", {"url": url} | settings)
    eventually(lambda: api.get(f"/v1/subscribers/{name}").json["cursor"])


def put(api, query, state="IDLE", **headers):
    return api.put(f"/v1/state?wait_acks={query}", {"state": state}, **headers)


def acks(wanted, acknowledged, *waiting_for, complete=False):
    return {"wanted": wanted, "acknowledged": acknowledged, "complete": complete, "waiting_for": list(waiting_for)}


@pytest.mark.parametrize(("method", "path", "body", "media_type"), WRITES.values(), ids=WRITES)
def test_a_write_is_answered_when_all_have_acknowledged_it(start, hook, other_hook, aside, method, path, body, media_type):
    """Not before; beside the snapshot it says how many. The answer is as ever but for that."""
    api, gate = start().api, asyncio.Event()
    subscribe(api, "a", hook.url)
    subscribe(api, "b", other_hook.url)
    other_hook.answers(held(gate))
    writing = aside(api.ask, method, f"{path}?wait_acks=all{LONG}", body, content_type=media_type)
    hook.wait_for_revision(2)
    other_hook.wait_for_revision(2)
    assert not writing.done()
    other_hook.call(gate.set)
    answer = writing.result()

    assert (200, 2) == (answer.status, answer.json["revision"])
    assert ["epoch", "revision", "snapshot", "acks"] == list(answer.json)
    assert acks(2, 2, complete=True) == answer.json["acks"]
    state = api.get("/v1/state")
    assert (state.etag, state.json["snapshot"]) == (answer.etag, answer.json["snapshot"])


def test_when_the_time_is_over_it_says_who_is_missing(start, hook, other_hook):
    """200 and complete false: the write counts, whoever has seen it."""
    api = start().api
    subscribe(api, "b", hook.url)
    subscribe(api, "a", other_hook.url)
    other_hook.answers(held(asyncio.Event()))
    answer = put(api, "all" + SHORT)

    assert (200, acks(2, 1, "a")) == (answer.status, answer.json["acks"])
    assert ("IDLE", 2) == (api.get("/v1/state").json["snapshot"]["state"], api.get("/v1/state").json["revision"])


def test_the_time_that_was_asked_for_is_nobodys_slowness(start, hook):
    """It is left out of how long requests take."""
    sidecar = start()
    subscribe(sidecar.api, "a", hook.url)
    hook.answers(held(asyncio.Event()))
    put(sidecar.api, "all" + SHORT)
    scrape = Scrape.parse(sidecar.ops.get("/metrics").body.decode(), 0.0)
    seconds = scrape.samples["fsm_http_request_duration_seconds_sum"][(("method", "PUT"),)]

    assert 0 < seconds < 0.3


def test_so_many_are_enough(start, hook, other_hook):
    """It does not wait for the others."""
    api = start().api
    subscribe(api, "a", hook.url)
    subscribe(api, "b", other_hook.url)
    other_hook.answers(held(asyncio.Event()))

    assert acks(1, 1, complete=True) == put(api, "1" + LONG).json["acks"]
    assert acks(2, 1, "b") == put(api, "2" + SHORT).json["acks"]


def test_more_than_there_are_is_never_complete(start, hook):
    """It waits for those that there are, and no longer."""
    api = start().api
    subscribe(api, "a", hook.url)

    assert acks(3, 1) == put(api, "3" + LONG).json["acks"]
    assert acks(1, 0) == put(start(fsm={"initial": "IDLE"}).api, "1" + LONG).json["acks"]


def test_without_a_subscriber_there_is_nobody_to_wait_for(start):
    """All of none have acknowledged; the first state is 201 as ever."""
    answer = put(start(fsm={"initial": None}).api, "all" + LONG)

    assert (201, acks(0, 0, complete=True)) == (answer.status, answer.json["acks"])


def test_who_does_not_want_the_change_is_not_waited_for(start, hook, other_hook):
    """Nor does it count: a filter that leaves the revision out is no acknowledgement."""
    api = start().api
    subscribe(api, "moves", hook.url, on=["transition"])
    subscribe(api, "active", other_hook.url, states=["ACTIVE"])

    assert acks(1, 1, complete=True) == put(api, "all" + LONG, "IDLE").json["acks"]
    assert acks(0, 0, complete=True) == put(api, "all" + LONG, "IDLE").json["acks"]
    assert acks(1, 0) == put(api, "1" + LONG, "IDLE").json["acks"]
    assert acks(2, 2, complete=True) == put(api, "all" + LONG, "ACTIVE").json["acks"]


def test_a_later_revision_acknowledges_an_earlier_one(start, hook):
    """Who takes only the latest has seen that there is a newer one."""
    api, gate = start().api, asyncio.Event()
    subscribe(api, "a", hook.url, max_lag=0)
    hook.answers(held(gate), 204)
    put(api, "1" + SHORT, "ACTIVE")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(put, api, "all" + LONG, "IDLE")
        eventually(lambda: api.get("/v1/state").json["revision"] == 3)
        api.put("/v1/state", {"state": "SHUTDOWN"})
        hook.call(gate.set)

        assert acks(1, 1, complete=True) == writing.result().json["acks"]


@pytest.mark.parametrize("leave", ["evicted", "removed"])
def test_who_leaves_meanwhile_is_not_waited_for(start, hook, other_hook, aside, leave):
    """All that are left have acknowledged."""
    api, gate = start().api, asyncio.Event()
    subscribe(api, "stays", hook.url)
    subscribe(api, "leaves", other_hook.url)
    other_hook.answers(held(gate, None if leave == "removed" else _gone))
    writing = aside(put, api, "all" + LONG)
    other_hook.wait_for_revision(2)
    hook.wait_for_revision(2)
    if leave == "removed":
        api.delete("/v1/subscribers/leaves")
    else:
        other_hook.call(gate.set)

    assert acks(1, 1, complete=True) == writing.result().json["acks"]


async def _gone(reader, writer):
    writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")


def test_a_suspended_subscriber_is_waited_for(start, hook):
    """It is still one, and has not seen it: whoever asks for all is told so."""
    api = start(webhooks={"retry": ["1ms"], "probe_interval": "1h"}).api
    subscribe(api, "a", hook.url)
    api.put("/v1/subscribers/dead", {"url": f"http://127.0.0.1:{free_port()}/"})
    eventually(lambda: api.get("/v1/subscribers/dead").json["status"] == "suspended")

    assert acks(2, 1, "dead") == put(api, "all" + SHORT).json["acks"]


def test_a_repeated_write_waits_too(start, hook, aside):
    """The first answer again, with the acknowledgements of now: who lost the first answer learns the same."""
    api, gate = start().api, asyncio.Event()
    subscribe(api, "a", hook.url)
    hook.answers(held(gate))
    query = "all&timeout=300ms"
    first = put(api, query, idempotency_key="k")
    again = aside(put, api, query, idempotency_key="k")
    hook.call(gate.set)
    again = again.result()

    assert [acks(1, 0, "a"), acks(1, 1, complete=True)] == [each.json["acks"] for each in (first, again)]
    assert ("true", first.etag, 2) == (again.headers["Idempotency-Replayed"], again.etag, again.json["revision"])
    assert first.json["snapshot"] == again.json["snapshot"]


def test_a_refused_write_waits_for_nobody(start, hook):
    """It is answered as ever."""
    api = start().api
    subscribe(api, "a", hook.url)
    hook.answers(held(asyncio.Event()))

    assert "acks" not in problem_of(put(api, "all" + LONG, if_match='"lost-1"'), 412, "version-conflict")


def test_many_who_wait_are_each_told_of_their_own_revision(start, hook):
    """Twenty writers at once, each until all have its revision."""
    api = start().api
    subscribe(api, "a", hook.url)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: put(api, "all" + LONG), range(20)))

    assert [acks(1, 1, complete=True)] * 20 == [answer.json["acks"] for answer in answers]
    assert set(range(2, 22)) == {answer.json["revision"] for answer in answers}


def test_at_most_a_hundred_are_named(start):
    """An answer has its bounds; how many are missing, the numbers tell."""
    api = start(webhooks={"probe_interval": "1h", "retry": ["1h"]}).api
    url = f"http://127.0.0.1:{free_port()}/"
    for n in range(101):
        api.put(f"/v1/subscribers/s{n:03}", {"url": url})
    told = put(api, "all" + SHORT).json["acks"]

    assert (101, 0, [f"s{n:03}" for n in range(100)]) == (told["wanted"], told["acknowledged"], told["waiting_for"])


def waits(sidecar):
    """How many wait now, and how those that are over have ended."""
    endings = {each: of(sidecar, "fsm_ack_waits_total", ending=each) for each in Ending}
    return of(sidecar, "fsm_ack_waiting"), {ending: count for ending, count in endings.items() if count}


def test_who_hangs_up_gives_its_place_back_and_its_write_counts(start, hook):
    """At once, not when its time is over."""
    sidecar, gate = start(), asyncio.Event()
    subscribe(sidecar.api, "a", hook.url)
    hook.answers(held(gate))
    with connected(sidecar.api.address) as connection:
        body = b'{"state":"IDLE"}'
        connection.sendall(PUT.replace(b"state ", b"state?wait_acks=all&timeout=30s ") + b"Content-Length: 16\r\n\r\n" + body)
        eventually(lambda: waits(sidecar)[0] == 1)

    eventually(lambda: waits(sidecar) == (0, {"gone": 1}))
    assert "IDLE" == sidecar.api.get("/v1/state").json["snapshot"]["state"]


def test_so_many_wait_at_once_and_a_further_one_is_not_written(start, hook, aside):
    """It is told so before its write; without `wait_acks` it is written, and once a place is free with it too."""
    sidecar, gate = start(api=BASE["api"] | {"limits": {"ack_waits": 2}}), asyncio.Event()
    api = sidecar.api
    subscribe(api, "a", hook.url)
    hook.answers(held(gate))
    waiting = [aside(put, api, f"all{LONG}") for _ in range(2)]
    eventually(lambda: waits(sidecar)[0] == 2)
    refused = put(api, "1", "ACTIVE")

    problem_of(refused, 503, "overloaded")
    assert "IDLE" == api.get("/v1/state").json["snapshot"]["state"]
    assert 200 == api.put("/v1/state", {"state": "ACTIVE"}).status
    hook.call(gate.set)
    assert [True, True] == [each.result().json["acks"]["complete"] for each in waiting]
    assert put(api, f"all{LONG}").json["acks"]["complete"]
    assert (0, {"complete": 3, "refused": 1}) == waits(sidecar)


def test_a_stopping_sidecar_keeps_nobody_waiting(tmp_path, hook, aside):
    """Whoever waits is answered in time: the write counts, the acknowledgement is missing."""
    with running(written(tmp_path)) as sidecar:
        api = sidecar.api
        subscribe(api, "a", hook.url)
        hook.answers(held(asyncio.Event()))
        writing = aside(put, api, "all" + LONG)
        hook.wait_for_revision(2)
        began = time.monotonic()
        assert 0 == sidecar.stop()
        answer = writing.result()

        assert (200, acks(1, 0, "a")) == (answer.status, answer.json["acks"])
        assert time.monotonic() - began < 5


QUERIES = [
    *("wait_acks=", "wait_acks=0", "wait_acks=-1", "wait_acks=some", "wait_acks=1.5", "wait_acks=01", "wait_acks=%C2%B2"),
    "wait_acks=9999999",
    *("wait_acks=all&timeout=", "wait_acks=all&timeout=31s", "wait_acks=all&timeout=2"),
    *("timeout=2s", "wait_acks=all&wait_acks=1", "wait_acks=all&dry_run=true"),
]


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_asked_for_has_to_make_sense(start, query):
    """400, and nothing is written."""
    api = start().api
    problem_of(api.put(f"/v1/state?{query}", {"state": "IDLE"}), 400, "malformed")

    assert 1 == api.get("/v1/state").json["revision"]
