"""Asks a sidecar over HTTP, for commands: bounded in time and size, without a proxy, and never sent elsewhere."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from sidecar.endpoint import Endpoint, Token, distrust

MAX_BYTES = 16 << 20
TIMEOUT_SECONDS = 10
_LEAST_SECONDS = 0.001  # 0 would not wait at all


class NoAnswerError(Exception):
    """Nobody answers there as a sidecar would. Says how it went.

    `reached`: somebody is there; `sent`: the request may have arrived all the same.
    """

    def __init__(self, detail: str, *, sent: bool = True, reached: bool = True) -> None:
        super().__init__(detail)
        self.sent = sent
        self.reached = reached


class _LateError(NoAnswerError):
    """It takes too long."""


class Answer(NamedTuple):
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The document in it. Raises `ValueError`."""
        return json.loads(self.body)


class Place:
    """Where a listener is: `http://host:port`, `https://…`, `host:port`, or `unix:/path`. Raises `ValueError` for what is none.

    `token` goes with every request. An answer may take `timeout_seconds` (10 s), and have `max_bytes` (16 MiB).
    """

    def __init__(
        self,
        where: str | Endpoint,
        *,
        token: Token | None = None,
        timeout_seconds: float | None = None,
        max_bytes: int = MAX_BYTES,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.endpoint = Endpoint.parse(where) if isinstance(where, str) else where
        self.url = str(self.endpoint)
        self.host = "" if self.endpoint.socket_path else self.endpoint.host
        self._token = token or Token()
        self._timeout_seconds = timeout_seconds or TIMEOUT_SECONDS
        self._max_bytes = max_bytes
        self._tls = tls

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """The answer. Headers as keywords: `if_match='"k3f9-1"'`. Raises `NoAnswerError`, and `ValueError` for what cannot be
        sent: a header of other characters, a token that cannot be read."""
        deadline = time.monotonic() + self._timeout_seconds
        connection = self._connected()
        try:
            response = self._asked(connection, method, path, body, headers)
            return Answer(response.status, _headers(response), self._whole(response, deadline))
        finally:
            connection.close()

    def stream(self, path: str, patience: Callable[[], float], **headers: str) -> "tuple[Answer, Iterator[bytes]]":
        """As `ask`, for what comes in pieces: before each, `patience` tells how many seconds it may take. Other answers than
        200 are whole, and nothing follows."""
        connection = self._connected()
        wire = connection.sock  # the connection lets it go, to the answer that ends with it
        try:
            response = self._asked(connection, "GET", path, None, headers)
            if response.status != 200:
                body = self._whole(response, time.monotonic() + self._timeout_seconds)
                connection.close()
                return Answer(response.status, _headers(response), body), iter(())
        except BaseException:
            connection.close()
            raise
        return Answer(200, _headers(response), b""), self._pieces(wire, response, patience)

    def _pieces(
        self, wire: socket.socket, response: http.client.HTTPResponse, patience: Callable[[], float]
    ) -> Iterator[bytes]:
        with wire, response:
            while True:
                seconds = max(patience(), _LEAST_SECONDS)
                wire.settimeout(seconds)
                try:
                    chunk = self._read(response)
                except _LateError:
                    raise NoAnswerError(f"has been silent for {seconds:g}s") from None
                if not chunk:
                    return
                yield chunk

    def _connected(self) -> http.client.HTTPConnection:
        endpoint, timeout = self.endpoint, self._timeout_seconds
        connection: http.client.HTTPConnection
        if endpoint.socket_path:
            connection = _UnixConnection(endpoint.socket_path, timeout)
        elif endpoint.secure:
            connection = http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=timeout, context=self._tls)
        else:
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)
        try:
            connection.connect()
        except TimeoutError:
            raise NoAnswerError(self._too_late(), sent=False, reached=False) from None
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise NoAnswerError(distrust(error, "--ca-file"), sent=False) from None
        except ssl.SSLError as error:
            connection.close()
            why = f"does not shake hands over TLS ({error.reason or error}); is it http://, or does it want your --cert-file?"
            raise NoAnswerError(why, sent=False) from None
        except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
            connection.close()
            why = f"cannot be reached ({getattr(error, 'strerror', None) or error})"
            raise NoAnswerError(why, sent=False, reached=False) from None
        return connection

    def _asked(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"Connection": "close", **self._token.headers()}
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, self.endpoint.prefix + path, body, sent)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None

    def _whole(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        body = bytearray()
        while chunk := self._read(response):
            body += chunk
            if len(body) > self._max_bytes:
                raise NoAnswerError(f"answers more than {self._max_bytes >> 20} MiB, which no sidecar does")
            if time.monotonic() > deadline:
                raise NoAnswerError(self._too_late())
        return bytes(body)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            chunk = response.read1(1 << 16)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        if not chunk and response.length:
            raise NoAnswerError("breaks off in the middle of its answer")
        return chunk

    def _lost(self, error: Exception) -> NoAnswerError:
        if isinstance(error, TimeoutError):
            return _LateError(self._too_late())
        if isinstance(error, ConnectionError | ssl.SSLError):  # also a RemoteDisconnected, which is an HTTPException as well
            hint = "; it may want a certificate of yours: --cert-file" if self.endpoint.secure else ""
            return NoAnswerError(f"closes the connection without an answer{hint}")
        if isinstance(error, http.client.HTTPException):
            return NoAnswerError("does not answer as HTTP")
        return NoAnswerError(f"breaks off ({getattr(error, 'strerror', None) or error})")

    def _too_late(self) -> str:
        return f"has not answered within {self._timeout_seconds:g}s"


def _headers(response: http.client.HTTPResponse) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)
