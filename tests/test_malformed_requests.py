"""What is no HTTP/1.1 as it is taken here: one answer of ours, and no two readings of where a request ends."""

import json

import pytest
import secrecy
from rawhttp import BODY, CHUNKED, GET, PUT, Said, connected, exchange, metric, said
from sidecar_process import running, written

CANARY = secrecy.CANARY.encode()
QUICK = {"listen": "127.0.0.1:0", "limits": {"header_timeout": "1s", "request_timeout": "1s", "keep_alive": "100ms"}}


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory):
    """One sidecar for all that is sent here: nothing of it may harm the next."""
    with running(written(tmp_path_factory.mktemp("malformed"), api=QUICK)) as sidecar:
        yield sidecar


def smuggled(*lines, body=BODY):
    return PUT + b"".join(line + b"\r\n" for line in lines) + b"X: " + CANARY + b"\r\n\r\n" + body


def chunks(text):
    return CHUNKED + text


WHOLE = b"10\r\n" + BODY + b"\r\n0\r\n\r\n"
MALFORMED = {
    "length and chunks": smuggled(b"Content-Length: 16", b"Transfer-Encoding: chunked", body=WHOLE),
    "chunks and length": smuggled(b"Transfer-Encoding: chunked", b"Content-Length: 16"),
    "the same length twice": smuggled(b"Content-Length: 16", b"Content-Length: 16"),
    "two lengths": smuggled(b"Content-Length: 16", b"Content-Length: 17"),
    "a list of lengths": smuggled(b"Content-Length: 16, 16"),
    "a negative length": smuggled(b"Content-Length: -16"),
    "a length with a plus": smuggled(b"Content-Length: +16"),
    "a hexadecimal length": smuggled(b"Content-Length: 0x10"),
    "a length with an underscore": smuggled(b"Content-Length: 1_6"),
    "a length in Arabic digits": smuggled("Content-Length: ١٦".encode()),
    "a length beyond 64 bits": smuggled(b"Content-Length: 99999999999999999999999"),
    "another coding": smuggled(b"Transfer-Encoding: xchunked", body=WHOLE),
    "chunked, and then another coding": smuggled(b"Transfer-Encoding: chunked, identity", body=WHOLE),
    "chunked twice": smuggled(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=WHOLE),
    "chunked behind a control character": smuggled(b"Transfer-Encoding: \x0bchunked", body=WHOLE),
    "a negative chunk": chunks(b"-" + WHOLE),
    "a chunk with a plus": chunks(b"+" + WHOLE),
    "a chunk with 0x": chunks(b"0x" + WHOLE),
    "a chunk with a space": chunks(WHOLE.replace(b"10\r\n", b"10 \r\n")),
    "chunks on bare line feeds": chunks(WHOLE.replace(b"\r\n", b"\n")),
    "a chunk longer than its size": chunks(WHOLE.replace(b"}\r\n", b"}XX")),
    "a chunk beyond 64 bits": chunks(b"f" * 17 + b"\r\n" + BODY),
    "a line feed in a chunk's extension": chunks(WHOLE.replace(b"10\r\n", b"10;a\nb\r\n")),
    "thousands of trailers": chunks(WHOLE[:-2] + b"X: y\r\n" * 5000 + b"\r\n"),
    "bare line feeds": b"GET /v1/machine HTTP/1.1\nHost: a\nX: " + CANARY + b"\n\n",
    "one bare line feed": GET + b"X: " + CANARY + b"\nY: b\r\n\r\n",
    "a bare carriage return": GET + b"X: " + CANARY + b"\rY: b\r\n\r\n",
    "a folded header": GET + b"X: a\r\n " + CANARY + b"\r\n\r\n",
    "a space before the colon": GET + b"X : " + CANARY + b"\r\n\r\n",
    "NUL in a header": GET + b"X: " + CANARY + b"\0\r\n\r\n",
    "NUL in the path": b"GET /v1/" + CANARY + b"\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no Host": b"GET /v1/machine HTTP/1.1\r\nX: " + CANARY + b"\r\n\r\n",
    "two Hosts": GET + b"Host: " + CANARY + b"\r\n\r\n",
    "a target that is no URL": b"GET http://[::1/" + CANARY + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": GET.replace(b"1.1", b"1.2") + b"\r\n",
    "HTTP/3": GET.replace(b"1.1", b"3.0") + b"\r\n",
    "an unknown method": b"CANARY /" + CANARY + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method in small letters": GET.replace(b"GET", b"get") + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CANARY * 20,
    "a header beyond 4 KiB": GET + b"X: " + b"a" * 4096 + CANARY + b"\r\n\r\n",
    "the name of a header beyond 4 KiB": GET + b"X" * 4096 + b": " + CANARY + b"\r\n\r\n",
    "a header without an end": GET + b"X: " + CANARY + b"a" * 500_000,
    "a target beyond 4 KiB": b"GET /v1/machine?" + b"a" * 4096 + CANARY + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "65 headers": GET + b"".join(b"X%d: y\r\n" % n for n in range(64)) + b"\r\n",
    "100000 headers": GET + b"".join(b"X%d: y\r\n" % n for n in range(100_000)),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_http_gets_one_answer_and_the_connection_ends(sidecar, data):
    """400 with our problem, at once, without a byte of what came, and without a name of the server; nothing is written."""
    before, counted = sidecar.api.get("/v1/state").body, metric(sidecar, 'fsm_http_malformed_total{listener="api"}')
    answer = exchange(sidecar.api.address, data)
    head, _, body = answer.raw.partition(b"\r\n\r\n")

    assert [400] == answer.statuses
    assert {"type": "malformed", "status": 400} == {key: json.loads(body)[key] for key in ("type", "status")}
    assert b"Content-Type: application/problem+json" in head.split(b"\r\n")
    assert b"Server:" not in head
    assert CANARY not in answer.raw
    assert before == sidecar.api.get("/v1/state").body
    assert counted + 1 == metric(sidecar, 'fsm_http_malformed_total{listener="api"}')


def test_a_body_that_goes_wrong_later_is_answered_at_once(sidecar):
    """Its handler waits for it already."""
    before = sidecar.api.get("/v1/state").body
    with connected(sidecar.api.address) as connection:
        connection.sendall(CHUNKED.replace(b"Host", b"Expect: 100-continue\r\nHost"))
        invited = connection.recv(1 << 16)
        connection.sendall(b'5\r\n{"sta\r\nzz\r\n' + CANARY)
        answer = said(connection)

    assert [100, 400] == Said(invited).statuses + answer.statuses
    assert CANARY not in answer.raw
    assert before == sidecar.api.get("/v1/state").body


def test_chunks_are_not_for_http_1_0(sidecar):
    """Where such a body ends others may see differently: RFC 9112, section 6.1."""
    before = sidecar.api.get("/v1/state").body
    answer = exchange(sidecar.api.address, chunks(WHOLE).replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n"))

    assert [400] == answer.statuses
    assert before == sidecar.api.get("/v1/state").body


PIPELINE = b"".join(b"GET /v1/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in (b"state", b"x", b"machine")) * 50
TAKEN = {
    "chunks": (chunks(WHOLE), [200]),
    "a long extension of a chunk": (chunks(WHOLE.replace(b"10\r\n", b"10;a=" + b"b" * 100_000 + b"\r\n")), [200]),
    "a trailer": (chunks(WHOLE[:-2] + b"X: y\r\n\r\n"), [200]),
    "64 headers": (GET + b"".join(b"X%d: y\r\n" % n for n in range(63)) + b"\r\n", [200]),
    "an empty line before it": (b"\r\n" + GET + b"\r\n", [200]),
    "a body that nobody asked for": (GET + b"Content-Length: 16\r\n\r\n" + BODY, [200]),
    "a whole URL": (b"GET http://elsewhere:99/v1/machine HTTP/1.1\r\nHost: localhost\r\n\r\n", [200]),
    "an upgrade to WebSocket": (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + GET + b"\r\n", [200, 200]),
    "an upgrade to HTTP/2": (GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n", [200]),
    "a write that would upgrade": (PUT + b"Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 16\r\n\r\n" + BODY, [200]),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET + b"\r\n", [404, 200]),
    "CONNECT to a path": (b"CONNECT /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
    "OPTIONS of everything": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
    "TRACE": (GET.replace(b"GET", b"TRACE") + b"\r\n", [405]),
    "an unknown expectation": (PUT + b"Expect: 200-ok\r\nContent-Length: 16\r\n\r\n", [417]),
    "a packed body": (PUT + b"Content-Encoding: gzip\r\nContent-Length: 16\r\n\r\n" + BODY, [415]),
    "pipelined": (PIPELINE, [200, 404, 200] * 50),
}


@pytest.mark.parametrize(("data", "statuses"), TAKEN.values(), ids=TAKEN)
def test_what_is_http_has_its_answers_in_order(sidecar, data, statuses):
    """An upgrade is not taken up: the request is answered as it is. No answer has a banner."""
    answer = exchange(sidecar.api.address, data)

    assert statuses == answer.statuses
    assert b"\r\nServer:" not in answer.raw


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/nowhere"])
def test_the_ops_listener_has_no_banner_and_the_same_answer(sidecar, path):
    """It is the one that the cluster sees."""
    well = exchange(sidecar.ops.address, b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
    bad = exchange(sidecar.ops.address, b"GET / HTTP/1.1\r\nHost : " + CANARY + b"\r\n\r\n")

    assert [404 if path == "/nowhere" else 200, 400] == well.statuses + bad.statuses
    assert b"Server:" not in well.raw + bad.raw
    assert CANARY not in bad.raw
