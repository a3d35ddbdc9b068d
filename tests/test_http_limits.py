"""Each limit of the listeners: what is within it is served; what is beyond gets the documented answer, and is counted."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from aiohttp import web
from rawhttp import BODY, GET, PUT, SLOW_BODY, connected, exchange, many, metric, said
from sidecar_process import eventually, on_disk, problem_of, running, written


def api(**limits):
    return {"listen": "127.0.0.1:0", "limits": limits}


def refused(sidecar, reason, listener="api"):
    return metric(sidecar, f'fsm_http_connections_refused_total{{listener="{listener}",reason="{reason}"}}')


def late(sidecar, phase, listener="api"):
    return metric(sidecar, f'fsm_http_timeouts_total{{listener="{listener}",phase="{phase}"}}')


def open_now(sidecar, listener="api"):
    return metric(sidecar, f'fsm_http_connections{{listener="{listener}"}}')


# --- connections ---


def test_connections_beyond_the_limit_are_refused_until_one_is_closed(start):
    """503 with Retry-After, before anything was asked, while something is asked on all of them; those are served."""
    sidecar = start(api=api(connections=3, request_timeout="1m"))
    with many(sidecar.api.address, 3, SLOW_BODY) as held:
        eventually(lambda: open_now(sidecar) == 3)
        late_comer = exchange(sidecar.api.address)
        for connection in held:
            connection.sendall(BODY[1:])
        served = [connection.recv(1 << 16)[:12] for connection in held]
        told = open_now(sidecar), refused(sidecar, "full"), metric(sidecar, 'fsm_http_connections_limit{listener="api"}')

    assert [b"HTTP/1.1 200"] * 3 == served
    assert ([503], True) == (late_comer.statuses, b"\r\nRetry-After: 1\r\n" in late_comer.raw)
    assert b'"type":"overloaded"' in late_comer.raw
    assert (3, 1, 3) == told
    eventually(lambda: open_now(sidecar) == 0)
    assert 200 == sidecar.api.get("/v1/machine").status


def test_one_address_cannot_take_all_connections(start):
    """It gets the same answer at its own limit, while others are served."""
    sidecar = start(api=api(connections=10, connections_per_peer=2, request_timeout="1m"))
    with many(sidecar.api.address, 2, SLOW_BODY):
        eventually(lambda: open_now(sidecar) == 2)
        with connected(sidecar.api.address, "127.0.0.2") as third:
            assert [503] == said(third).statuses
        assert 200 == sidecar.api.get("/v1/machine").status
        assert (1, 0) == (refused(sidecar, "peer"), refused(sidecar, "full"))


def test_a_unix_socket_has_no_peers_but_a_total(start, tmp_path):
    """Who is on the other side has no address."""
    path = f"unix:{tmp_path}/api.sock"
    limits = {"connections": 3, "connections_per_peer": 1, "request_timeout": "1m"}
    sidecar = start(api={"listen": path, "limits": limits})
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(path)).sendall(SLOW_BODY)
        eventually(lambda: open_now(sidecar) == 3)

        assert [503] == exchange(path).statuses
        assert (0, 1) == (refused(sidecar, "peer"), refused(sidecar, "full"))


FILLED = {"in all": {"connections": 4}, "by one address": {"connections_per_peer": 4}}


@pytest.mark.parametrize("limits", FILLED.values(), ids=FILLED)
def test_a_connection_on_which_nothing_is_asked_makes_room(start, limits):
    """So that a neighbour cannot lock the agent out: first one that was silent for a second, then one between two requests."""
    sidecar = start(api=api(keep_alive="1m", header_timeout="1m", request_timeout="1m", **limits))
    with many(sidecar.api.address, 2, GET + b"\r\n") as kept, many(sidecar.api.address, 2) as silent:
        for connection in kept:
            assert b"HTTP/1.1 200" == connection.recv(1 << 16)[:12]
        silent_since = time.monotonic()
        eventually(lambda: time.monotonic() > silent_since + 1)
        with many(sidecar.api.address, 3, SLOW_BODY) as asking:
            assert [[], [], []] == [said(each).statuses for each in (*silent, kept[0])]
            kept[1].sendall(GET + b"\r\n")
            assert b"HTTP/1.1 200" == kept[1].recv(1 << 16)[:12]
            for connection in asking:
                connection.sendall(BODY[1:])
                assert b"HTTP/1.1 200" == connection.recv(1 << 16)[:12]
    assert 3 == refused(sidecar, "displaced")


def test_a_request_that_has_come_is_answered_however_many_come_with_it(tmp_path):
    """Its connection makes no room for others, also before aiohttp turns to it."""
    with running(written(tmp_path, api=api(connections=20, request_timeout="1s"))) as sidecar:
        address = sidecar.api.address
        os.kill(sidecar.pid, signal.SIGSTOP)  # so that they come at once
        with many(address, 100, SLOW_BODY) as asking:
            os.kill(sidecar.pid, signal.SIGCONT)
            answers = [said(connection).statuses for connection in asking]

        assert (20, 80) == (answers.count([408]), answers.count([503]))


def test_a_new_connection_has_time_to_ask(start):
    """In a burst it is rather told that all are taken than cut off before it could ask."""
    sidecar = start(api=api(connections=2, header_timeout="1m"))

    def fill():
        """Whether all that was quick enough, and what became of the one too many."""
        began = time.monotonic()
        with many(sidecar.api.address, 2) as silent:
            late_comer = exchange(sidecar.api.address, GET, b"\r\n").statuses
            if time.monotonic() - began > 0.9:
                return None
            for connection in silent:
                connection.sendall(GET + b"\r\n")
            return late_comer, [connection.recv(1 << 16)[:12] for connection in silent]

    assert ([503], [b"HTTP/1.1 200"] * 2) == eventually(fill)


def test_the_ops_listener_has_room_for_a_probe_whoever_fills_it(start):
    """The oldest connection that waits goes; a probe that was not answered would end the pod."""
    sidecar = start(ops={"listen": "127.0.0.1:0", "connections": 4})
    with many(sidecar.ops.address, 20, b"GET /liv") as held:
        assert 200 == sidecar.ops.get("/livez").status
        assert [] == said(held[0]).statuses
        assert refused(sidecar, "displaced", "ops") >= 17
        assert open_now(sidecar, "ops") <= 4


# --- requests at once ---


def test_requests_beyond_the_limit_are_refused_while_others_are_answered(start, tmp_path):
    """503 overloaded; the one place is taken by a backup that its reader does not read on."""
    sidecar = start(api=api(requests=1), journal=on_disk(tmp_path))
    for _ in range(60):
        sidecar.api.put("/v1/state", {"state": "IDLE", "context_data": {"x": "x" * 250_000}})
    with connected(sidecar.api.address) as reader:
        reader.sendall(b"GET /v1/journal/backup HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" == reader.recv(12)
        answer = sidecar.api.get("/v1/machine")

        assert "1" == answer.headers["Retry-After"]
        problem_of(answer, 503, "overloaded")
        assert 1 == metric(sidecar, "fsm_http_requests_in_flight_limit")


def test_bodies_that_still_come_take_no_place(start):
    """Otherwise a few slow clients would keep all others out."""
    sidecar = start(api=api(requests=1, request_timeout="1m"))
    with many(sidecar.api.address, 5, SLOW_BODY) as slow:
        eventually(lambda: open_now(sidecar) == 5)

        assert 200 == sidecar.api.put("/v1/state", {"state": "IDLE"}).status
        for connection in slow:
            connection.sendall(b'"state":"IDLE"}')
            assert b"HTTP/1.1 200" == connection.recv(1 << 16)[:12]
    assert 0 == metric(sidecar, "fsm_http_requests_in_flight")


# --- time ---

PHASES = ("headers", "body", "write")
LATE = {
    "silent": (b"", [], "headers"),
    "half a head": (GET, [408], "headers"),
    "half a line": (b"GET /v1/st", [408], "headers"),
    "half a body": (SLOW_BODY, [408], "body"),
    "half a chunk": (PUT + b"Transfer-Encoding: chunked\r\n\r\n10\r\n{", [408], "body"),
    "half a body that nobody wants": (SLOW_BODY.replace(b"state", b"other"), [404], None),
    "a body that waits to be invited": (PUT + b"Expect: 100-continue\r\nContent-Length: 16\r\n\r\n", [100, 408], "body"),
}


@pytest.mark.parametrize(("data", "statuses", "phase"), LATE.values(), ids=LATE)
def test_who_is_late_is_not_waited_for(start, data, statuses, phase):
    """408 and the end; who said nothing, or has its answer, just sees its end. Counted by what was awaited."""
    sidecar = start(api=api(header_timeout="200ms", request_timeout="200ms"))
    answer = exchange(sidecar.api.address, data)

    assert statuses == answer.statuses
    assert (b'"type":"timeout"' in answer.raw) == (408 in statuses)
    assert {each: each == phase for each in PHASES} == {each: late(sidecar, each) for each in PHASES}
    assert "BOOTING" == sidecar.api.get("/v1/state").json["snapshot"]["state"]


def test_a_trickle_does_not_extend_the_time(start):
    """It is that of the whole head, and of the whole body."""
    sidecar = start(api=api(header_timeout="500ms", request_timeout="1s"))
    with connected(sidecar.api.address, timeout=0.05) as head, connected(sidecar.api.address, timeout=0.05) as body:
        head.sendall(GET)
        body.sendall(SLOW_BODY)

        assert [b"HTTP/1.1 408"] * 2 == [trickled(head, b"X: y\r\n")[:12], trickled(body, b" ")[:12]]


def trickled(connection, data):
    """What comes back while this is sent again and again."""

    def look():
        try:
            connection.sendall(data)
            return connection.recv(1 << 16)
        except TimeoutError:
            return b""

    return eventually(look)


KEPT = {
    "after a read": GET + b"\r\n",
    "after a write": PUT + b'Content-Length: 16\r\n\r\n{"state":"IDLE"}',
    "after a write in two chunks": PUT + b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"state"\r\n8\r\n:"IDLE"}\r\n0\r\n\r\n',
}


@pytest.mark.parametrize("request_bytes", KEPT.values(), ids=KEPT)
def test_a_connection_is_kept_for_a_while_between_requests(start, request_bytes):
    """For longer than a head may take, as none has begun. Then it is closed without a word: that counts as no timeout."""
    sidecar = start(api=api(header_timeout="200ms", keep_alive="800ms"))
    with connected(sidecar.api.address) as connection:
        for _ in range(3):
            connection.sendall(request_bytes)
            assert b"HTTP/1.1 200" == connection.recv(1 << 16)[:12]

        assert [] == said(connection).statuses
    assert 0 == sum(late(sidecar, phase) for phase in PHASES)


def test_a_second_request_has_its_own_time(start):
    """It begins with its first byte."""
    sidecar = start(api=api(header_timeout="300ms", keep_alive="1m"))
    with connected(sidecar.api.address) as connection:
        connection.sendall(GET + b"\r\n")
        connection.recv(1 << 16)
        connection.sendall(b"GET /v1/st")

        assert [408] == said(connection).statuses


# --- what it runs on ---


def leave_descriptors(sidecar, count):
    """It may have so many more than it has now."""
    allowed = len(os.listdir(f"/proc/{sidecar.pid}/fd")) + count
    resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE, (allowed, allowed))


def test_unready_before_the_file_descriptors_are_used_up(tmp_path):
    """At 90 % the sidecar is unready, and comes back; each is a line in the log."""
    with running(written(tmp_path)) as sidecar:
        assert 200 == sidecar.ops.get("/readyz").status
        leave_descriptors(sidecar, 20)
        with many(sidecar.api.address, 18):
            eventually(lambda: sidecar.ops.get("/readyz").status == 503)
            failing = [check["name"] for check in sidecar.ops.get("/healthz").json["checks"] if not check["ok"]]

            assert (["descriptors"], 200) == (failing, sidecar.ops.get("/livez").status)
            sidecar.wait_for("descriptors_scarce")
        eventually(lambda: sidecar.ops.get("/readyz").status == 200)
        sidecar.wait_for("descriptors_free_again")
        assert [1, 1] == [len(sidecar.events(event)) for event in ("descriptors_scarce", "descriptors_free_again")]


def test_with_no_file_descriptor_left_it_waits_for_one(tmp_path):
    """It neither turns in circles nor fills its log; it serves those who are there, and others as soon as there are some."""
    with running(written(tmp_path)) as sidecar, connected(sidecar.ops.address) as probe:
        probe.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" == probe.recv(1 << 16)[:12]
        leave_descriptors(sidecar, 5)
        with many(sidecar.api.address, 60) as held:
            asked, began = seconds_of_cpu(sidecar), time.monotonic()
            eventually(lambda: time.monotonic() > began + 2.5)  # asyncio tries once a second
            assert seconds_of_cpu(sidecar) - asked < 0.5
            held[0].sendall(GET + b"\r\n")
            assert b"HTTP/1.1 200" == held[0].recv(1 << 16)[:12]
            probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP/1.1 503" == probe.recv(1 << 16)[:12]
            sidecar.wait_for("descriptors_scarce")
        eventually(lambda: serves(sidecar))
        assert ["ready", "api_open", "descriptors_scarce"] == [line["event"] for line in sidecar.log]


def serves(sidecar):
    """Whether a new connection is answered; uvloop closes one for which there is no descriptor."""
    with contextlib.suppress(ConnectionError):
        return 200 == sidecar.api.get("/v1/machine").status


def seconds_of_cpu(sidecar):
    """What it has used until now."""
    with open(f"/proc/{sidecar.pid}/stat") as stat:
        user, system = stat.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def limited(number, hard=None):
    return ["prlimit", f"--nofile={number}:{hard or number}"]


def few(tmp_path, **sections):
    """A configuration for which a hundred descriptors are enough, but for its connections."""
    return written(tmp_path, ops={"listen": "127.0.0.1:0", "connections": 4}, webhooks={"max_in_flight": 4}, **sections)


def test_few_descriptors_mean_few_connections(tmp_path):
    """So many that the rest of the sidecar still works; what is beyond is refused, not left hanging. It is said at start."""
    with running(few(tmp_path, store={"max_subscribers": 1}), before=limited(100)) as sidecar:
        sidecar.wait_for("ready")
        (warned,) = sidecar.events("few_descriptors")
        with many(sidecar.api.address, 60) as held:
            assert [503] == said(held[-1]).statuses
            assert 200 == sidecar.ops.get("/livez").status

        assert (27, 100, 1024 + 4 + 4 + 1 + 64) == (warned["connections"], warned["limit"], warned["needed"])
        assert 27 == metric(sidecar, 'fsm_http_connections_limit{listener="api"}')


def test_connections_have_a_quarter_of_the_descriptors_at_least(tmp_path):
    """However many subscribers there may be, each with a connection that is kept."""
    with running(few(tmp_path), before=limited(100)) as sidecar:
        sidecar.wait_for("ready")

        assert [25] == [warned["connections"] for warned in sidecar.events("few_descriptors")]


def test_the_soft_limit_of_descriptors_is_raised_where_it_may_be(tmp_path):
    """To the hard one, without a word."""
    with running(written(tmp_path), before=limited(256, 4096)) as sidecar:
        sidecar.wait_for("ready")

        assert 4096 == resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE)[0]
        assert [] == sidecar.events("few_descriptors")


def test_aiohttp_is_as_we_know_it():
    """What `sidecar/serving/connection.py` reads of it is private there: with a new release, look at what became of it."""
    assert {"_current_request", "_messages", "_request_count", "_waiter"} <= {*web.RequestHandler.__slots__}


UNFIT = {"python -O": (["-O"], {}, "python -O"), "the parser in Python": ([], {"AIOHTTP_NO_EXTENSIONS": "1"}, "C extension")}


@pytest.mark.parametrize(("options", "env", "said"), UNFIT.values(), ids=UNFIT)
def test_an_unfit_interpreter_is_refused(tmp_path, options, env, said):
    """Exit 64, and a sentence that says why."""
    command = [sys.executable, *options, "-m", "sidecar", "run", "--config", str(written(tmp_path))]
    ended = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=20, check=False)

    assert (64, True, 1) == (ended.returncode, said in ended.stderr, len(ended.stderr.splitlines()))
