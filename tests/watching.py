"""Reads streams of server-sent events as a browser does, on a socket of its own."""

import contextlib
import json
import socket
from typing import NamedTuple

from sidecar_process import PATIENCE_SECONDS


class Event(NamedTuple):
    """One event. `id`: None where it has none."""

    kind: str
    data: object
    id: str | None = None


class Stream:
    """An open stream. `status` and `headers`: of its head, the names in lower case. Reads only when it is asked to."""

    def __init__(self, connection):
        self.connection = connection
        self._lines = connection.makefile("rb")
        self.status = int(self._lines.readline().split()[1])
        head = iter(lambda: self._lines.readline().decode().rstrip("\r\n"), "")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}

    def block(self):
        """The lines up to the next empty one; none at the end of the stream."""
        return list(iter(lambda: self._lines.readline().decode().rstrip("\n"), ""))

    def event(self):
        """The next event, by https://html.spec.whatwg.org/multipage/server-sent-events.html; None: the stream has ended."""
        while block := self.block():
            fields = dict(line.split(": ", 1) for line in block if not line.startswith(":"))
            if "data" in fields:
                return Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
        return None

    def events(self, count):
        return [self.event() for _ in range(count)]

    def until(self, kind):
        """The events up to the first one of this kind, that included."""
        events = [self.event()]
        while events[-1].kind != kind:
            events.append(self.event())
        return events

    def rest(self):
        """All that is still to come, as bytes."""
        return self._lines.read()

    def close(self):
        self._lines.close()
        self.connection.close()


def connect(address, *, receive_buffer=None):
    """A connection to a listener; with a small receive buffer for a reader that is to be slow."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        target = address.removeprefix("unix:")
    else:
        connection = socket.socket()
        host, port = address.rsplit(":", 1)
        target = host, int(port)
    connection.settimeout(PATIENCE_SECONDS)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(target)
    return connection


def asked(connection, path="/v1/watch", *, method="GET", version="1.1", headers=None):
    """Ask on the connection, without reading the answer."""
    lines = [f"{name}: {text}" for name, text in {"Host": "localhost", **(headers or {})}.items()]
    connection.sendall("\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode())
    return connection


@contextlib.contextmanager
def watching(client, query="", *, receive_buffer=None, **options):
    """A stream of `/v1/watch`, its head read."""
    connection = connect(client.address, receive_buffer=receive_buffer)
    stream = Stream(asked(connection, "/v1/watch" + query, **options))
    try:
        yield stream
    finally:
        stream.close()
