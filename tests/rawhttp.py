"""Clients on raw sockets: they send what they like, in the pieces that they like."""

import contextlib
import re
import socket
from typing import NamedTuple

from secrecy import keeps_tokens

BODY = b'{"state":"IDLE"}'
GET = b"GET /v1/machine HTTP/1.1\r\nHost: localhost\r\n"
PUT = b"PUT /v1/state HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW_BODY = PUT + b"Content-Length: 16\r\n\r\n{"


class Said(NamedTuple):
    """What came until the other side closed."""

    raw: bytes

    @property
    def statuses(self):
        """Of all answers, in their order."""
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", self.raw)]


def connected(address, source="127.0.0.1", timeout=10):
    """A connection to a listener, from this address."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout, (source, 0))


def said(connection):
    """Everything that comes until the end; a reset is one too."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    whole = b"".join(pieces)
    assert keeps_tokens(whole.decode("latin-1"))
    return Said(whole)


def exchange(address, *pieces):
    """Send the pieces, one after the other, and give what comes back."""
    with connected(address) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
        return said(connection)


@contextlib.contextmanager
def many(address, count, first=b"", per_source=200):
    """So many connections at once, each of which has sent `first`; from 127.0.0.1, 127.0.0.2 and so on, by 200."""
    with contextlib.ExitStack() as stack:
        opened = []
        for n in range(count):
            opened.append(
                stack.enter_context(connected(address, f"127.0.{n // per_source // 250}.{n // per_source % 250 + 2}"))
            )
            if first:
                opened[-1].sendall(first)
        yield opened


def metric(sidecar, name):
    """The value of a sample in the scrape, named with its labels as it is written there."""
    lines = sidecar.ops.get("/metrics").body.decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)
