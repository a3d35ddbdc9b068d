"""Asks a sidecar over HTTP, for commands: bounded in time and size, without a proxy, and never sent elsewhere."""

import http.client
import re
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

MAX_BYTES = 16 << 20
TIMEOUT_SECONDS = 10

_PLAIN = re.compile("[!-~]+")


class NoAnswerError(Exception):
    """Nobody answers there as a sidecar would. Says how it went."""


class Answer(NamedTuple):
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Place:
    """Where a listener is: `http://host:port`, `https://…`, `host:port`, or `unix:/path`. Raises `ValueError` for what is none.

    `token` goes with every request.
    """

    def __init__(self, text: str, *, token: str | None = None) -> None:
        self.url = text if "://" in text or text.startswith("unix:") else f"http://{text}"
        self._token = token
        parts = urlsplit(self.url)
        self.host = parts.hostname or ""
        self._path, self._scheme, self._port = parts.path.rstrip("/"), parts.scheme, parts.port
        if (
            not _PLAIN.fullmatch(self.url)
            or "@" in parts.netloc
            or not (self.host if self._scheme in ("http", "https") else self._path)
        ):
            raise ValueError("expected http:// or https:// with a host and without a user, or unix: with the path of a socket")
        if self._scheme not in ("http", "https", "unix"):
            raise ValueError("expected http://, https:// or unix:")

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """The answer. Headers as keywords: `if_match='"k3f9-1"'`. Raises `NoAnswerError`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()} | {"Connection": "close"}
        if self._token is not None:
            sent["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = self._connection()
        deadline = time.monotonic() + TIMEOUT_SECONDS
        try:
            connection.request(method, path if self._scheme == "unix" else self._path + path, body, sent)
            response = connection.getresponse()
            received = _read(response, deadline)
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, received)
        except TimeoutError:
            raise NoAnswerError(f"has not answered within {TIMEOUT_SECONDS}s") from None
        except ConnectionResetError:
            raise NoAnswerError("closes the connection without an answer") from None
        except http.client.HTTPException:
            raise NoAnswerError("does not answer as HTTP") from None
        except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
            raise NoAnswerError(f"cannot be reached ({getattr(error, 'strerror', None) or error})") from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "unix":
            return _UnixConnection(self._path)
        kind = http.client.HTTPSConnection if self._scheme == "https" else http.client.HTTPConnection
        return kind(self.host, self._port, timeout=TIMEOUT_SECONDS)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self._socket_path)


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(1 << 16):
        body += chunk
        if len(body) > MAX_BYTES:
            raise NoAnswerError(f"answers more than {MAX_BYTES >> 20} MiB, which no sidecar does")
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:
        raise NoAnswerError("breaks off in the middle of its answer")
    return bytes(body)
