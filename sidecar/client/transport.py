"""Requests over aiohttp: one is repeated only where that is safe, and its caller gets the true outcome."""

import asyncio
import random
import ssl as tls
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp

from sidecar.client.problems import Problem, UnavailableError, error_of, problem_in
from sidecar.endpoint import Endpoint, Token, distrust
from sidecar.errors import StateStoreError, StorageFailedError, StorageSlowError

MAX_ANSWER_BYTES = 256 << 20

_AS_JSON = {"Content-Type": "application/json"}

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_AGAIN = frozenset((429, 502, 503, 504))
_BEFORE_THE_STORE = frozenset((401, 403, 408, 421, 429))
_NOT_TAKEN = frozenset(("overloaded", "draining"))


class Answer(NamedTuple):
    """What came back, if it is no problem."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TriedError(Exception):
    """A try failed. Not what aiohttp would repeat by itself: that would hide that an earlier try may count."""

    def __init__(self, cause: aiohttp.ClientError) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.sent = not isinstance(cause, aiohttp.ClientConnectorError)
        self.refused = cause.certificate_error if isinstance(cause, aiohttp.ClientConnectorCertificateError) else None


async def _once_only(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as failure:
        raise TriedError(failure) from failure


FAILURES = TriedError, aiohttp.ClientError, OSError


def pause_seconds(failures: int, longest: float = _LONGEST_PAUSE_SECONDS) -> float:
    """How long to wait after so many failures in a row: twice as long each time, a random half of it less."""
    pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 16), longest)
    return pause * random.uniform(0.5, 1.0)  # noqa: S311  (to spread clients, not to keep a secret)


class Transport:
    """The way to one sidecar. A try takes up to `timeout` seconds; a request is repeated for up to `retry_for` seconds.

    Connections are made when they are needed, and kept until `close`; it can be used again afterwards.
    """

    def __init__(
        self, endpoint: Endpoint, token: Token, *, timeout: float, retry_for: float, ssl: tls.SSLContext | None
    ) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._token = token
        self._retry_for = retry_for
        self._ssl = ssl
        self._session: aiohttp.ClientSession | None = None
        self.closings = 0

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        longer_seconds: float = 0.0,
        once: bool = False,
    ) -> Answer:
        """The answer to a request that may be repeated: a read, or a write with its key. A try may take so much longer.

        `once`: it must not be repeated where an earlier try may count. Raises the store's errors, and `UnavailableError`.
        """
        loop, is_write = asyncio.get_running_loop(), method != "GET"
        deadline, failures, unknown = loop.time() + self._retry_for, 0, False
        while True:
            pause = pause_seconds(failures)
            failures += 1
            error: StateStoreError
            try:
                answer = await self._once(method, path, query, headers, body, self.timeout + longer_seconds)
            except FAILURES as failure:
                unknown |= is_write and not (isinstance(failure, TriedError) and not failure.sent)
                error = self._unavailable(failure, unknown=unknown)
            else:
                if answer.status < 300:
                    return answer
                problem = problem_in(answer.status, answer.body)
                error = error_of(answer.status, problem)
                unknown |= is_write and _leaves_open(answer.status, problem)
                if answer.status not in _AGAIN:
                    raise self._settled(error, answer.status, unknown=unknown)
                pause = max(pause, _retry_after(answer.headers))
                error = self._settled(error, answer.status, unknown=unknown)
            if loop.time() + pause > deadline or (once and unknown):
                raise error
            await asyncio.sleep(pause)

    def _settled(self, error: StateStoreError, status: int, *, unknown: bool) -> StateStoreError:
        """The error; or that nothing is known, when an earlier try may count and this one was not decided by the store."""
        undecided = status in _BEFORE_THE_STORE or (status >= 500 and status != 507)
        if unknown and undecided and not isinstance(error, StorageFailedError | StorageSlowError):  # these say so themselves
            lost = UnavailableError(f"{self.endpoint}: {error}; whether the write counts is unknown", outcome="unknown")
            lost.__cause__ = error
            return lost
        return error

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        timeout: float,
    ) -> Answer:
        all_headers = {**({} if body is None else _AS_JSON), **(headers or {}), **self.authorization()}
        async with self.session().request(
            method,
            self.endpoint.prefix + path,
            params=query,
            headers=all_headers,
            data=body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout),
        ) as response:
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise aiohttp.ClientPayloadError(f"answers more than {MAX_ANSWER_BYTES >> 20} MiB")
            return Answer(response.status, response.headers, bytes(content))

    def authorization(self) -> dict[str, str]:
        """The headers that carry the token. Raises `StateStoreError` when its file cannot be read."""
        try:
            return self._token.headers()
        except ValueError as wrong:
            raise StateStoreError(str(wrong)) from None

    def session(self) -> aiohttp.ClientSession:
        """The connections, on the running loop."""
        if self._session is None or self._session.closed:
            connector: aiohttp.BaseConnector
            if self.endpoint.socket_path:
                connector = aiohttp.UnixConnector(self.endpoint.socket_path)
            else:
                connector = aiohttp.TCPConnector(ssl=self._ssl or True)
            self._session = aiohttp.ClientSession(
                self.endpoint.url,
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self.timeout),
                auto_decompress=False,
                middlewares=(_once_only,),
            )
        return self._session

    def _unavailable(self, failure: Exception, *, unknown: bool) -> UnavailableError:
        if isinstance(failure, TimeoutError):
            why = f"has not answered within {self.timeout:g} s"
        elif isinstance(failure, TriedError) and isinstance(failure.refused, tls.SSLCertVerificationError):
            why = distrust(failure.refused, "ssl=")
        elif isinstance(failure, TriedError) and not failure.sent:
            why = f"cannot be reached ({failure})"
        else:
            hint = "; it may want a certificate of yours, by ssl=" if self.endpoint.secure else ""
            why = f"breaks off ({failure or type(failure).__name__}){hint}"
        return UnavailableError(f"{self.endpoint}: {why}", outcome="unknown" if unknown else "not-applied")

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        self.closings += 1
        if session:
            await session.close()


def _leaves_open(status: int, problem: Problem) -> bool:
    """Whether a write that is answered so may count all the same."""
    return status >= 500 and status != 507 and problem.type not in _NOT_TAKEN


def _retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that the server asks to wait, as far as we follow it."""
    text = headers.get("Retry-After", "")
    return min(float(text), _LONGEST_PAUSE_SECONDS) if text.isascii() and text.isdigit() else 0.0
