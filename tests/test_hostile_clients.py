"""Hostile clients, against a real process: a healthy client and the probes are answered meanwhile, memory stays bounded, no
state is changed by them."""

import contextlib
import gzip
import http.client
import itertools
import os
import resource
import threading
import time
from pathlib import Path

import pytest
from rawhttp import CHUNKED, GET, PUT, connected, exchange, many, metric, said
from sidecar_process import eventually, running, written

QUICK = {
    "connections": 1200,
    "requests": 64,
    "header_timeout": "2s",
    "request_timeout": "2s",
    "write_timeout": "1s",
    "keep_alive": "2s",
}
SECONDS = 1.5
PATIENCE_SECONDS = 1.0
GROWTH_BYTES = 48 << 20


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory):
    """One sidecar for all attacks: what one leaves behind, the next one finds."""
    with running(written(tmp_path_factory.mktemp("hostile"), api={"listen": "127.0.0.1:0", "limits": QUICK})) as sidecar:
        yield sidecar


def resident(pid):
    """Bytes of memory that a process has now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(pid):
    """Bytes of memory that a process has had at most."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


# --- the attacks: each goes on until `done` is set ---

ATTACK = b'{"state":"ERROR_STATE","reason":"hostile"}'
GETS = (GET + b"\r\n") * 1000


def holding(count, first=b"", trickle=b""):
    """So many connections that have sent `first`, and send `trickle` again and again; those that were closed come again."""

    def attack(address, done):
        while not done.is_set():
            with contextlib.suppress(OSError), many(address, count, first) as held:
                while not done.wait(0.1):
                    for connection in held:
                        connection.sendall(trickle)

    return attack


def repeating(*pieces):
    """One connection after the other, with these pieces, as fast as it can; it leaves without an answer every second time."""

    def attack(address, done):
        for turn in itertools.count():
            if done.is_set():
                return
            if turn % 2:
                exchange(address, *pieces)
            else:
                with contextlib.suppress(OSError), connected(address) as connection:
                    connection.sendall(pieces[0])

    return attack


def never_reading(address, done):
    """Ten connections that ask and ask, and read nothing."""

    def ask(connection):
        with contextlib.suppress(OSError):
            while not done.is_set():
                connection.sendall(GETS)

    with many(address, 10) as held:
        askers = [threading.Thread(target=ask, args=(connection,)) for connection in held]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()


def pipelining(address, done):
    """Thousands of requests at once, their answers read."""
    with connected(address) as connection:
        while not done.is_set():
            connection.sendall(GETS)
            got = 0
            while got < 1000:
                got += connection.recv(1 << 20).count(b"HTTP/1.1 200")


ENDLESS_EXTENSION = CHUNKED + b"2a;" + b"a" * (1 << 20)
GZIPPED = gzip.compress(bytes(64 << 20))
ATTACKS = {
    "silent": holding(1000),
    "slow heads": holding(500, GET, b"X: y\r\n"),
    "slow bodies": holding(500, PUT + b"Content-Length: 9999\r\n\r\n{", b" "),
    "an endless header": repeating(GET + b"X: " + b"a" * (1 << 20)),
    "header bombs": repeating(GET + b"".join(b"X%d: y\r\n" % n for n in range(20_000))),
    "endless extensions of chunks": repeating(ENDLESS_EXTENSION),
    "gzip bombs": repeating(PUT + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(GZIPPED) + GZIPPED),
    "bodies beyond the limit": repeating(PUT + b"Content-Length: 10000000\r\n\r\n" + b" " * 10_000_000),
    "cut bodies": repeating(PUT + b"Content-Length: 99\r\nConnection: close\r\n\r\n" + ATTACK),
    "smuggling": repeating(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n0\r\n\r\n") + PUT + ATTACK),
    "wrong methods": repeating((GET.replace(b"GET", b"DELETE") + b"\r\n") * 20 + b"BREW / HTTP/1.1\r\n\r\n"),
    "never reading": never_reading,
    "pipelining": pipelining,
}


def asked(sidecar, seconds):
    """Seconds that each request of a healthy client took meanwhile: writes and reads on one connection, and a probe."""
    took, until = [], time.monotonic() + seconds
    with contextlib.closing(http.client.HTTPConnection(sidecar.api.address, timeout=10)) as connection:
        while time.monotonic() < until:
            for method, body in (("PUT", b'{"state":"IDLE"}'), ("GET", None)):
                started = time.monotonic()
                connection.request(method, "/v1/state", body, {"Content-Type": "application/json"} if body else {})
                response = connection.getresponse()
                state = b'"state":"IDLE"' in response.read()
                took.append(time.monotonic() - started)
                assert (200, True) == (response.status, state)
            started = time.monotonic()
            assert 200 == sidecar.ops.get("/livez").status
            took.append(time.monotonic() - started)
    return took


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_healthy_client_is_served_meanwhile(sidecar, attack):
    """Each of its requests and each probe within a second; memory does not grow with the attack; its state stays."""
    sidecar.api.put("/v1/state", {"state": "IDLE"})
    eventually(lambda: metric(sidecar, 'fsm_http_connections{listener="api"}') == 0)
    before, done = resident(sidecar.pid), threading.Event()
    attacker = threading.Thread(target=attack, args=(sidecar.api.address, done))
    attacker.start()
    try:
        took, grown = asked(sidecar, SECONDS), resident(sidecar.pid) - before
    finally:
        done.set()
        attacker.join()

    assert max(took) < PATIENCE_SECONDS
    assert grown < GROWTH_BYTES
    assert 0 == metric(sidecar, 'fsm_transitions_total{from_state="IDLE",to_state="ERROR_STATE"}')


def test_who_never_reads_is_cut_off(sidecar):
    """So long may an answer wait for him."""
    with connected(sidecar.api.address) as connection:
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                connection.sendall(GETS)
        eventually(lambda: metric(sidecar, 'fsm_http_connections{listener="api"}') == 0)

    assert metric(sidecar, 'fsm_http_timeouts_total{listener="api",phase="write"}') >= 1


def test_answers_that_are_not_read_do_not_pile_up(tmp_path):
    """Not even many small ones: then no more requests are answered."""
    ask = b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running(written(tmp_path, api={"listen": "127.0.0.1:0", "limits": QUICK})) as sidecar:
        sidecar.api.put("/v1/state", {"state": "IDLE", "context_data": {"x": "x" * (30 << 10)}})
        before = resident(sidecar.pid)
        with connected(sidecar.api.address, timeout=0.5) as connection, contextlib.suppress(TimeoutError):
            connection.sendall(ask * 5000)
            eventually(lambda: metric(sidecar, 'fsm_http_timeouts_total{listener="api",phase="write"}') == 1)

        assert peak(sidecar.pid) - before < 32 << 20


def test_the_rest_of_an_answer_does_not_keep_a_connection(tmp_path):
    """All is said and the connection closed, but for the end, which fits into no buffer of the kernel: it is cut."""
    path = f"unix:{tmp_path}/api.sock"
    with running(written(tmp_path, api={"listen": path, "limits": QUICK})) as sidecar:
        sidecar.api.put("/v1/state", {"state": "IDLE", "context_data": {"x": "x" * (240 << 10)}})
        with connected(path) as connection:
            connection.sendall(b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            eventually(lambda: metric(sidecar, 'fsm_http_timeouts_total{listener="api",phase="write"}') == 1)

            assert 0 == metric(sidecar, 'fsm_http_connections{listener="api"}')
            assert 100 < len(said(connection).raw) < 240 << 10


def test_ten_thousand_idle_connections(tmp_path):
    """Where as many are allowed: each takes a few KiB, and nobody else waits for them."""
    limits = {"connections": 11_000, "header_timeout": "1m", "keep_alive": "1m"}
    with running(written(tmp_path, api={"listen": "127.0.0.1:0", "limits": limits})) as sidecar:
        sidecar.api.put("/v1/state", {"state": "IDLE"})
        before, started = resident(sidecar.pid), time.monotonic()
        with raised_descriptors(11_000), many(sidecar.api.address, 10_000, per_source=250):
            eventually(lambda: metric(sidecar, 'fsm_http_connections{listener="api"}') == 10_000)
            each = (resident(sidecar.pid) - before) / 10_000
            took = asked(sidecar, 0.5)

    assert max(took) < PATIENCE_SECONDS
    assert each < 16 << 10
    assert time.monotonic() - started < 30


@contextlib.contextmanager
def raised_descriptors(count):
    """This process may have so many open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
