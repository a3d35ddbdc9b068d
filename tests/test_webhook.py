"""One HTTP attempt at a webhook: what is sent, and the outcome that each answer, fault and absence has."""

import asyncio
import gzip
import json
import socket
import ssl
import subprocess
import time
from email.utils import formatdate

import aiohttp
import pytest
import uvloop
from receiver import PATIENCE_SECONDS, SECRET, TARGETS, Receiver, answer, endless, hang, partly, raw, reset
from standardwebhooks import Webhook
from yarl import URL

from sidecar.dispatch.connecting import client_session
from sidecar.dispatch.message import Message, ping
from sidecar.dispatch.secret import Secret
from sidecar.dispatch.webhook import ANSWER_BYTES, Outcome, attempt

MESSAGE = Message("k3f9_21_console", "fsm.state.changed", "2026-07-26T10:00:00.000Z", '{"reason": "Tür"}'.encode())
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


async def tried(url, *, secrets=(), timeout=20.0, connect_timeout=None, message=MESSAGE):
    """One attempt in a session of its own."""
    async with client_session(TARGETS) as session:
        return await attempt(
            session, URL(url), message, secrets, aiohttp.ClientTimeout(total=timeout, sock_connect=connect_timeout)
        )


async def tried_at(*answers, count=1, **settings):
    """Attempts one after the other, in one session, at a receiver that gives these answers. Also the receiver."""
    async with Receiver(*answers) as receiver, client_session(TARGETS) as session:
        timeout = aiohttp.ClientTimeout(total=settings.get("timeout", 20.0))
        url = URL(receiver.url)
        results = [await attempt(session, url, MESSAGE, settings.get("secrets", ()), timeout) for _ in range(count)]
        return results, receiver


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A TLS server with a certificate that nobody has signed."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=127.0.0.1"
    command += " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


# --- what is sent ---


async def test_the_message_is_posted_as_it_is():
    """The very bytes, as JSON, under Standard Webhooks headers and CloudEvents attributes, and nothing of the client's own."""
    before = int(time.time())
    _, receiver = await tried_at(secrets=[Secret.parse(SECRET)])
    [request] = receiver.requests
    headers = dict(request.headers)
    timestamp = int(headers.pop("webhook-timestamp"))

    assert "/hook" == request.target
    assert MESSAGE.body == request.body
    assert before <= timestamp <= int(time.time())
    assert {
        "host": f"127.0.0.1:{receiver.port}",
        "content-type": "application/json",
        "content-length": str(len(MESSAGE.body)),
        "user-agent": "fsm-sidecar",
        "webhook-id": "k3f9_21_console",
        "webhook-signature": Secret.parse(SECRET).sign("k3f9_21_console", timestamp, MESSAGE.body),
        "ce-specversion": "1.0",
        "ce-id": "k3f9_21_console",
        "ce-source": "/fsm-sidecar",
        "ce-type": "fsm.state.changed",
        "ce-time": "2026-07-26T10:00:00.000Z",
    } == headers


async def test_a_receiver_verifies_it_with_the_official_library():
    """Straight from the request's headers and body."""
    _, receiver = await tried_at(secrets=[Secret.parse(SECRET)])
    [request] = receiver.requests

    assert {"reason": "Tür"} == Webhook(SECRET).verify(request.body, request.headers)


async def test_without_a_secret_there_is_no_signature():
    """Rather none than one that proves nothing."""
    _, receiver = await tried_at()

    assert "webhook-signature" not in receiver.requests[0].headers


async def test_a_ping_carries_no_state():
    """Its type says so, in the body and the headers; its id is new each time."""
    first, second = (ping(epoch="k3f9", subscriber_id="console", now=1785060000.5) for _ in range(2))

    assert {"type": "fsm.ping", "timestamp": "2026-07-26T10:00:00.500Z", "data": {"epoch": "k3f9"}} == json.loads(first.body)
    assert ("fsm.ping", "2026-07-26T10:00:00.500Z") == (first.type, first.time)
    assert first.id != second.id
    assert "." not in first.id


async def test_the_query_of_the_endpoint_is_kept(opened):
    """It may tell the receiver whose hook it is."""
    receiver = await opened(Receiver())
    await tried(f"{receiver.url}/a%2Fb?for=agent%201&x")

    assert "/hook/a%2Fb?for=agent%201&x" == receiver.requests[0].target


async def test_no_cookie_is_kept():
    """What a receiver sets does not come back to it."""
    _, receiver = await tried_at(answer(200, Set_Cookie="session=1; Path=/"), count=2)

    assert ["cookie" in request.headers for request in receiver.requests] == [False, False]


async def test_no_proxy_is_taken_from_the_environment(opened, monkeypatch):
    """A webhook goes where its URL says."""
    proxy, receiver = await opened(Receiver()), await opened(Receiver())
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    await tried(receiver.url)

    assert (0, 1) == (proxy.connections, len(receiver.requests))


# --- answers ---


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(status, Outcome.DELIVERED) for status in (200, 201, 202, 204, 206, 226, 299)]
    + [(status, Outcome.REDIRECT) for status in (300, 301, 302, 303, 304, 307, 308)]
    + [(status, Outcome.CLIENT_ERROR) for status in (400, 401, 403, 404, 405, 409, 413, 422, 451, 499)]
    + [(status, Outcome.BUSY) for status in (408, 425, 429)]
    + [(status, Outcome.SERVER_ERROR) for status in (500, 501, 502, 503, 504, 507, 599)]
    + [(status, Outcome.PROTOCOL) for status in (101, 600, 999)]
    + [(410, Outcome.GONE)],
)
async def test_the_status_decides_the_outcome(status, outcome):
    """Each class has its own, and a few have one to themselves."""
    [result], _ = await tried_at(status, timeout=5.0)

    assert (outcome, status) == (result.outcome, result.status)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(status, opened):
    """Its target may be an address that nobody registered: it is never reached."""
    target = await opened(Receiver())
    [result], receiver = await tried_at(answer(status, Location=target.url))

    assert (Outcome.REDIRECT, status) == (result.outcome, result.status)
    assert (1, 0) == (len(receiver.requests), target.connections)


async def test_hints_before_the_answer_are_not_the_answer():
    """100 and 103 come first; the status that counts is the final one."""
    [result], _ = await tried_at(raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"ok"))

    assert (Outcome.DELIVERED, 200) == (result.outcome, result.status)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("0", 0, 0),
        ("120", 120, 120),
        ("9" * 400, 999999999, 999999999),
        (3600, 3500, 3601),
        (-3600, 0, 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9, 1e12),
        (None, 0, 0),
        *((text, 0, 0) for text in ("", "soon", "-5", "1.5", "5 seconds", "٣", "Wed,", "Mon, 99 Foo 2026 99:99:99 GMT")),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_read_as_seconds_or_as_a_date(status, value, least, most):
    """What cannot be read asks for nothing. (A number here: the date so many seconds from now.)"""
    if isinstance(value, int):
        value = formatdate(time.time() + value, usegmt=True)
    headers = {} if value is None else {"Retry_After": value}
    [result], _ = await tried_at(answer(status, **headers))

    assert status == result.status
    assert least <= result.retry_after_seconds <= most


# --- the body of an answer ---


@pytest.mark.parametrize(("size", "connections"), [(0, 1), (2, 1), (ANSWER_BYTES, 1), (1 << 20, 2), (10 << 20, 2)])
async def test_a_short_answer_is_read_and_a_long_one_costs_its_connection(size, connections):
    """Up to 4 KiB the connection is used again. Either way the answer is that of its status."""
    results, receiver = await tried_at(answer(200, bytes(size)), count=2)

    assert [Outcome.DELIVERED] * 2 == [result.outcome for result in results]
    assert connections == receiver.connections


@pytest.mark.parametrize(
    ("head", "block"),
    [
        (b"Content-Length: 99999999999", bytes(1 << 14)),
        (b"Transfer-Encoding: chunked", b"4000\r\n" + bytes(1 << 14) + b"\r\n"),
        (b"Connection: close", bytes(1 << 14)),
    ],
)
@pytest.mark.parametrize(("status", "outcome"), [(200, Outcome.DELIVERED), (500, Outcome.SERVER_ERROR)])
async def test_an_endless_answer_ends_with_what_is_read_of_it(head, block, status, outcome):
    """No memory and no time is lost to it."""
    head = b"HTTP/1.1 %d X\r\n%s\r\n\r\n" % (status, head)
    async with asyncio.timeout(PATIENCE_SECONDS):
        [result], _ = await tried_at(partly(head, endless(block, 0.001)), timeout=None)

    assert (outcome, status) == (result.outcome, result.status)


async def test_an_answer_is_not_decompressed():
    """A kilobyte that would unpack to a megabyte stays a kilobyte, so its connection is used again."""
    bomb = gzip.compress(bytes(1 << 20))
    results, receiver = await tried_at(answer(200, bomb, Content_Encoding="gzip"), count=2)

    assert [Outcome.DELIVERED] * 2 == [result.outcome for result in results]
    assert len(bomb) < ANSWER_BYTES
    assert 1 == receiver.connections


@pytest.mark.parametrize("rest", [hang, endless(b"x", 0.01), reset, raw(b"x")])
@pytest.mark.parametrize(("status", "outcome"), [(200, Outcome.DELIVERED), (503, Outcome.SERVER_ERROR)])
async def test_whatever_becomes_of_the_body_the_status_counts(rest, status, outcome):
    """It hangs, trickles, breaks or is too short: the receiver has answered."""
    [result], _ = await tried_at(partly(b"HTTP/1.1 %d X\r\nContent-Length: 999\r\n\r\n" % status, rest), timeout=0.3)

    assert (outcome, status) == (result.outcome, result.status)


async def test_what_comes_after_an_answer_does_not_answer_the_next_message():
    """A receiver cannot acknowledge what it has not been sent."""
    (first, second), receiver = await tried_at(raw(OK + b"ok" + OK + b"ok", close=False), 500, count=2)

    assert (200, 500) == (first.status, second.status)
    assert 2 == len(receiver.requests)


# --- faults ---


def unused_port():
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        return unbound.getsockname()[1]


async def at_a_closed_port(certificate):
    return await tried(f"http://127.0.0.1:{unused_port()}/")


async def at_a_name_that_is_not_there(certificate):
    return await tried("http://console.invalid/hook")


async def at_a_name_that_cannot_be(certificate):
    return await tried(f"http://{'a' * 64}.example/hook")


async def at_a_port_that_does_not_accept(certificate):
    """Its queue is full, so the kernel drops what knocks."""
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())
        return await tried(f"http://127.0.0.1:{full.getsockname()[1]}/", connect_timeout=0.2)


async def at_a_self_signed_certificate(certificate):
    async with Receiver(tls=certificate) as receiver:
        result = await tried(receiver.url)
        assert not receiver.requests
        return result


async def with_tls_at_a_plain_port(certificate):
    async with Receiver() as receiver:
        return await tried(receiver.url.replace("http:", "https:"))


async def with_tls_at_a_silent_port(certificate):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        return await tried(f"https://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2)


async def without_tls_at_a_tls_port(certificate):
    async with Receiver(tls=certificate) as receiver:
        return await tried(receiver.url.replace("https:", "http:"))


def answered(*answers):
    async def fault(certificate):
        [result], _ = await tried_at(*answers, timeout=0.3)
        return result

    return fault


FAULTS = {
    "nobody listens": (at_a_closed_port, {Outcome.CONNECT}),
    "nobody accepts": (at_a_port_that_does_not_accept, {Outcome.TIMEOUT}),
    "unknown name": (at_a_name_that_is_not_there, {Outcome.DNS}),
    "impossible name": (at_a_name_that_cannot_be, {Outcome.DNS, Outcome.PROTOCOL}),
    "self-signed certificate": (at_a_self_signed_certificate, {Outcome.TLS}),
    "TLS to a plain port": (with_tls_at_a_plain_port, {Outcome.TLS}),
    "silence instead of a handshake": (with_tls_at_a_silent_port, {Outcome.TIMEOUT}),
    "plain to a TLS port": (without_tls_at_a_tls_port, {Outcome.DISCONNECTED, Outcome.PROTOCOL}),
    "no answer": (answered(hang), {Outcome.TIMEOUT}),
    "trickled headers": (answered(partly(b"HTTP/1.1 200 OK\r\nA: ", endless(b"a", 0.01))), {Outcome.TIMEOUT}),
    "hints without an end": (answered(endless(b"HTTP/1.1 100 X\r\n\r\n", 0.01)), {Outcome.TIMEOUT}),
    "reset before the answer": (answered(reset), {Outcome.DISCONNECTED}),
    "reset in the headers": (answered(partly(b"HTTP/1.1 200 OK\r\nA: ", reset)), {Outcome.DISCONNECTED}),
    "closed before the answer": (answered(raw(b"")), {Outcome.DISCONNECTED}),
    "closed in the status line": (answered(raw(b"HTTP/1.1 2")), {Outcome.DISCONNECTED, Outcome.PROTOCOL}),
    "not HTTP": (answered(raw(b"220 smtp.example ESMTP\r\n")), {Outcome.PROTOCOL}),
    "not text": (answered(raw(bytes(range(256)) * 16)), {Outcome.PROTOCOL}),
    "no status": (answered(raw(b"HTTP/1.1 abc OK\r\n\r\n")), {Outcome.PROTOCOL}),
    "no length": (answered(raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n")), {Outcome.PROTOCOL}),
    "two lengths": (answered(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")), {Outcome.PROTOCOL}),
    "a header without an end": (answered(raw(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 99999)), {Outcome.PROTOCOL}),
}


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(("fault", "outcomes"), FAULTS.values(), ids=FAULTS)
def test_every_fault_is_an_outcome(fault, outcomes, certificate, loop):
    """Nothing is raised, whatever the network and the receiver do; no status was seen. On both event loops."""
    with asyncio.Runner(loop_factory=loop) as runner:
        result = runner.run(fault(certificate))

    assert result.outcome in outcomes
    assert result.status is None
    assert 0 < result.seconds < 10
