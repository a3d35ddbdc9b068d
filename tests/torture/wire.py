"""HTTP by hand on one kept connection: a request is bytes, so that it can be made before it is sent, and be cut off."""

import contextlib
import json
import random
import re
import socket

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def request(method, path, body=None, **headers):
    """The bytes of a request. Header names as keywords: `If_Match='"k3f9-1"'`; None: without it."""
    content = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": "localhost"} | {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": len(content)}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content


def status_and_length(head):
    """Of an answer, from its first lines up to the empty one."""
    length = _LENGTH.search(head)
    return int(head[9:12]), int(length[1]) if length else 0


class Wire:
    """A connection that blocks, made when it is first used. Whatever goes wrong is an OSError, and ends it."""

    def __init__(self, host, port, patience):
        self._at = host, port
        self._patience = patience
        self._socket = None

    def connect(self):
        if self._socket is None:
            self._socket = socket.create_connection(self._at, timeout=self._patience)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, data):
        """Send, and the status and the JSON of the answer."""
        try:
            self._socket.sendall(data)
            received = b""
            while (end := received.find(b"\r\n\r\n")) < 0:
                received += self._more()
            status, length = status_and_length(received[:end])
            while len(received) < end + 4 + length:
                received += self._more()
            return status, json.loads(received[end + 4 :])
        except OSError:
            self.close()
            raise

    def cut(self, data):
        """Send, and close without reading."""
        with contextlib.suppress(OSError):
            self._socket.sendall(data)
        self.close()

    def close(self):
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _more(self):
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("it was closed in the middle")
        return data


def fixed_port():
    """A free port outside the range from which connections get theirs: a client that asks again and again while nobody
    listens could otherwise end up connected to itself."""
    while True:
        port = random.randint(10_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
