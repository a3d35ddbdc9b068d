"""`GET /v1/state` with `after` and `wait`: the answer comes when there is something new."""

import concurrent.futures
import contextlib
import http.client
import signal
import time

import pytest
from scraping import of
from sidecar_process import Client, eventually, on_disk, problem_of, running, written

EMPTY = {"fsm": {"initial": None}}


@pytest.fixture
def sidecar(start):
    return start()


@pytest.fixture
def meanwhile():
    """Calls something in a thread, and gives the future of its result."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        yield pool.submit


def put(sidecar, **content):
    return sidecar.api.put("/v1/state", {"state": "IDLE", **content}).json["revision"]


def waiting(sidecar, count):
    eventually(lambda: of(sidecar, "fsm_watchers", kind="poll") == count)


def test_the_answer_comes_with_the_next_revision(sidecar, meanwhile):
    """200 with the state and its ETag, the same as without waiting."""
    poll = meanwhile(sidecar.api.get, "/v1/state?after=1&wait=30s")
    waiting(sidecar, 1)
    put(sidecar)
    answer = poll.result()

    now = sidecar.api.get("/v1/state")
    assert (200, 2, now.body, now.etag) == (answer.status, answer.json["revision"], answer.body, answer.etag)
    waiting(sidecar, 0)


def test_a_header_that_cannot_be_read_is_refused_where_it_does_not_count(sidecar):
    """A wrong `If-None-Match` is a mistake of the caller, also beside `after`."""
    problem_of(sidecar.api.get("/v1/state?after=0", if_none_match="1"), 400, "malformed")


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_is_there_already_is_answered_at_once(sidecar, after):
    """The newest state, however many came after the one that is known."""
    put(sidecar)
    put(sidecar)

    assert 3 == sidecar.api.get(f"/v1/state?after={after}&wait=30s").json["revision"]


@pytest.mark.parametrize("wait", ["", "&wait=0s", "&wait=50ms"])
def test_when_nothing_came_it_is_not_modified(sidecar, wait):
    """304 with the ETag, once the time is over; without `wait` at once."""
    answer = sidecar.api.get(f"/v1/state?after=1{wait}")

    assert (304, sidecar.api.get("/v1/state").etag, b"") == (answer.status, answer.etag, answer.body)


@pytest.mark.parametrize("query", ["after=1&epoch=otherone", "after=99"])
def test_a_position_of_another_journal_is_answered_at_once(sidecar, query):
    """The state of this one: waiting for a revision of a journal that is lost would be in vain."""
    assert 1 == sidecar.api.get(f"/v1/state?{query}&wait=30s").json["revision"]


def test_the_epoch_of_this_journal_changes_nothing(sidecar, meanwhile):
    """It waits as without it."""
    epoch = sidecar.api.get("/v1/state").json["epoch"]
    poll = meanwhile(sidecar.api.get, f"/v1/state?after=1&epoch={epoch}&wait=30s")
    waiting(sidecar, 1)
    put(sidecar)

    assert 2 == poll.result().json["revision"]


def test_it_waits_for_another_etag_too(sidecar, meanwhile):
    """`If-None-Match` in place of `after`; one that does not match is answered at once."""
    etag = sidecar.api.get("/v1/state").etag
    poll = meanwhile(lambda: sidecar.api.get("/v1/state?wait=30s", if_none_match=etag))
    waiting(sidecar, 1)
    put(sidecar)

    assert 2 == poll.result().json["revision"]
    assert 2 == sidecar.api.get("/v1/state?wait=30s", if_none_match=etag).json["revision"]


def test_an_empty_store_is_waited_for(start, meanwhile):
    """`after=0`: the first state. When none comes there is still nothing to read."""
    sidecar = start(**EMPTY)
    problem_of(sidecar.api.get("/v1/state?after=0&wait=50ms"), 404, "no-state")
    poll = meanwhile(sidecar.api.get, "/v1/state?after=0&wait=30s")
    waiting(sidecar, 1)
    put(sidecar)

    assert 1 == poll.result().json["revision"]


def test_a_chain_of_polls_sees_a_rising_revision_and_the_last_one(sidecar, meanwhile):
    """Ten pollers while a hundred writes come: nobody sees one twice or goes back, and everybody has the last one."""

    def follow():
        seen = [1]
        while seen[-1] < 101:
            answer = sidecar.api.get(f"/v1/state?after={seen[-1]}&wait=10s")
            assert 200 == answer.status
            seen.append(answer.json["revision"])
        return seen

    polls = [meanwhile(follow) for _ in range(10)]
    for _ in range(100):
        put(sidecar)

    for poll in polls:
        seen = poll.result()
        assert sorted(set(seen)) == seen
        assert 101 == seen[-1]


def test_the_connection_stays(sidecar):
    """The next poll goes over the same one."""
    with contextlib.closing(connection_to(sidecar)) as connection:
        for expected in (304, 304):
            connection.request("GET", "/v1/state?after=1&wait=10ms")
            answer = connection.getresponse()
            assert (expected, b"") == (answer.status, answer.read())
            local = connection.sock.getsockname()
        assert local == connection.sock.getsockname()


def connection_to(sidecar):
    return http.client.HTTPConnection(sidecar.api.address, timeout=10)


@pytest.mark.parametrize(
    "query",
    [
        "wait=1s",
        "after=1&wait=61s",
        "after=1&wait=-1s",
        "after=1&wait=5",
        "after=1&wait=",
        "after=1&wait=1s&wait=2s",
        "after=x",
        "after=-1",
        f"after={2**53}",
        "epoch=k3f9",
        "revision=1",
    ],
)
def test_what_cannot_be_waited_for_is_refused(sidecar, query):
    """400, at once."""
    problem_of(sidecar.api.get(f"/v1/state?{query}"), 400, "malformed")


def test_who_goes_away_gives_the_place_back_at_once(sidecar):
    """Not only when the time is over."""
    connection = connection_to(sidecar)
    connection.request("GET", "/v1/state?after=1&wait=60s")
    waiting(sidecar, 1)
    connection.close()

    waiting(sidecar, 0)


def test_the_time_that_was_waited_is_nobodys_slowness(sidecar):
    """It is left out of the duration of requests."""
    sidecar.api.get("/v1/state?after=1&wait=400ms")

    assert 0.3 > of(sidecar, "fsm_http_request_duration_seconds_sum", method="GET")


def test_a_stop_answers_those_who_wait(tmp_path, meanwhile):
    """After the drain delay, at once: 304 and the end of the connection; the process waits for nobody, and ends with 0."""
    with running(written(tmp_path, journal=on_disk(tmp_path))) as sidecar:
        api = Client(sidecar.api.address)
        polls = [meanwhile(api.get, "/v1/state?after=1&wait=60s") for _ in range(10)]
        waiting(sidecar, 10)
        started = time.monotonic()
        sidecar.send(signal.SIGTERM)

        assert [(304, "close")] * 10 == [(poll.result().status, poll.result().headers["Connection"]) for poll in polls]
        assert 0 == sidecar.exit_code()
        assert 1.5 > time.monotonic() - started


def test_the_last_write_reaches_those_who_wait(tmp_path, meanwhile):
    """The agent's last state comes within the drain delay."""
    with running(written(tmp_path, shutdown={"drain_delay": "1s", "flush_timeout": "0s"})) as sidecar:
        poll = meanwhile(sidecar.api.get, "/v1/state?after=1&wait=60s")
        waiting(sidecar, 1)
        sidecar.send(signal.SIGTERM)
        sidecar.wait_for("stopping")
        put(sidecar, state="SHUTDOWN")

        assert (200, "SHUTDOWN") == (poll.result().status, poll.result().json["snapshot"]["state"])
        assert 0 == sidecar.exit_code()
