"""One sidecar's API, asked from the command line: blocking, with nothing slow to import."""

import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from sidecar.commands.outcomes import ProblemError, UnreachableError
from sidecar.endpoint import DEFAULT_URL, Endpoint, Token
from sidecar.errors import ConfigError
from sidecar.units import Seconds

if TYPE_CHECKING:
    from argparse import Namespace

MAX_ANSWER_BYTES = 256 << 20

_URL, _TOKEN_FILE = "FSM_SIDECAR_URL", "FSM_SIDECAR_TOKEN_FILE"


class Answer(NamedTuple):
    """What came back, and is no problem."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """Asks the sidecar at `endpoint`. Nothing takes longer than `timeout` seconds, but for streams."""

    def __init__(self, endpoint: Endpoint, token: Token, timeout: float, tls: ssl.SSLContext | None = None) -> None:
        self.endpoint = endpoint
        self._token = token
        self._timeout = timeout
        self._tls = tls

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """The answer. Raises `ProblemError` and `UnreachableError`."""
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        target = f"{path}?{urlencode(query)}" if query else path
        deadline = time.monotonic() + self._timeout
        connection, response = self._begin(method, target, content, headers or {}, self._timeout)
        try:
            received = self._whole(response, deadline)
        finally:
            connection.close()
        if response.status < 300:
            return Answer(response.status, response.headers, received)
        raise ProblemError(response.status, _problem(received))

    def stream(self, path: str, headers: Mapping[str, str], silence_seconds: float) -> Iterator[bytes]:
        """The answer's body as it comes. Raises as `ask` does, also when nothing has come for `silence_seconds`."""
        connection, response = self._begin("GET", path, None, headers, self._timeout)
        try:
            if response.status != 200:
                raise ProblemError(response.status, _problem(self._whole(response, time.monotonic() + self._timeout)))
            if connection.sock:
                connection.sock.settimeout(silence_seconds)
            while chunk := self._read(response):
                yield chunk
        finally:
            connection.close()

    def _begin(
        self, method: str, target: str, content: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        try:
            all_headers = {**headers, **self._token.headers()}
        except ValueError as wrong:
            raise ConfigError([str(wrong)]) from None
        if content is not None:
            all_headers["Content-Type"] = "application/json"
        connection = self._connection(timeout)
        try:
            connection.connect()
        except OSError as error:
            raise UnreachableError(f"{self.endpoint} cannot be reached ({error.strerror or error})", sent=False) from None
        try:
            connection.request(method, target, content, all_headers)
            return connection, connection.getresponse()
        except ValueError:
            raise ConfigError(["a key or an ETag has characters that cannot be sent"]) from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._lost(error) from None

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        endpoint = self.endpoint
        if endpoint.socket_path:
            return _UnixConnection(endpoint.socket_path, timeout)
        if endpoint.secure:
            return http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)

    def _whole(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        body = bytearray()
        while chunk := self._read(response):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise UnreachableError(f"{self.endpoint} answers more than {MAX_ANSWER_BYTES >> 20} MiB", sent=True)
            if time.monotonic() > deadline:
                raise self._lost(TimeoutError())
        return bytes(body)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            chunk = response.read1(1 << 16)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        if not chunk and response.length:
            raise self._lost(http.client.IncompleteRead(b""))
        return chunk

    def _lost(self, error: Exception) -> UnreachableError:
        if isinstance(error, TimeoutError):
            return UnreachableError(f"{self.endpoint} does not answer in time", sent=True)
        return UnreachableError(f"{self.endpoint} breaks off ({error or type(error).__name__})", sent=True)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        return problem
    return {"title": "This is no sidecar", "detail": "it answers, but not as a sidecar does; is this the API's listener?"}


# --- where it is ---


def api_of(options: "Namespace") -> Api:
    """The API that the flags name, or the environment, or the config file. Raises `ConfigError`."""
    try:
        timeout = Seconds.parse(options.timeout)
    except ValueError as wrong:
        raise ConfigError([f"--timeout: {wrong}"]) from None
    token_file = options.token_file or os.environ.get(_TOKEN_FILE) or None
    return Api(_endpoint(options), Token(file=token_file), timeout, _tls(options))


def _endpoint(options: "Namespace") -> Endpoint:
    if options.config and not options.url:
        return _configured(options.config)
    text, name = (options.url, "--url") if options.url else (os.environ.get(_URL) or DEFAULT_URL, _URL)
    try:
        return Endpoint.parse(text)
    except ValueError as wrong:
        raise ConfigError([f"{name}: {wrong}"]) from None


def _configured(path: str) -> Endpoint:
    from sidecar import config

    listen = config.load(path).api.listen
    if listen.socket_path:
        return Endpoint.parse(f"unix:{listen.socket_path}")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104  (where to call, not to listen)
    return Endpoint(False, host, listen.port)


def _tls(options: "Namespace") -> ssl.SSLContext | None:
    if not (options.ca_file or options.cert_file):
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
        if options.cert_file:
            context.load_cert_chain(options.cert_file, options.key_file)
    except OSError as error:  # also what is no certificate
        raise ConfigError([f"{options.ca_file or options.cert_file}: {error.strerror or error}"]) from None
    return context
