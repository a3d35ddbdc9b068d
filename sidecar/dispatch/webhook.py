"""One HTTP attempt at a webhook. It never sleeps and never retries: `delivery.py` decides what follows from the outcome."""

import io
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from enum import StrEnum
from types import SimpleNamespace

import aiohttp
import msgspec
from yarl import URL

from sidecar.dispatch.message import Message
from sidecar.dispatch.secret import Secret
from sidecar.errors import EndpointRefusedError

ANSWER_BYTES = 4096
"""So much of an answer is read, so that its connection can be used again. A longer answer costs its connection."""


_ONE_WRITE = 512 << 10
"""A larger body goes out in pieces, so that the loop can turn meanwhile."""


class Outcome(StrEnum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    GONE = "gone"
    TIMEOUT = "timeout"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    DISCONNECTED = "disconnected"
    REDIRECT = "redirect"
    BUSY = "busy"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    PROTOCOL = "protocol"
    REFUSED = "refused"


class Attempt(msgspec.Struct, frozen=True):
    """One attempt: its outcome, the HTTP status if there was one, its duration, and how long the receiver asked to wait.

    `rule`: what forbids to call its address, where the outcome is `refused`.
    """

    outcome: Outcome
    status: int | None
    seconds: float
    retry_after_seconds: float = 0.0
    rule: str | None = None


async def attempt(
    session: aiohttp.ClientSession, url: URL, message: Message, secrets: Sequence[Secret], timeout: aiohttp.ClientTimeout
) -> Attempt:
    """POST the message once, signed with each of the secrets.

    Every fault of the receiver and of the network is an outcome; nothing is raised for them. A kept connection that turns
    out to be closed is no fault: the receiver had closed it before the message came, and gets it over a new one.
    """
    started = time.perf_counter()
    connection = Connection()
    result = await _post(session, url, message, secrets, timeout, connection)
    if connection.reused and result.outcome is Outcome.DISCONNECTED:
        result = await _post(session, url, message, secrets, timeout, connection)
    return msgspec.structs.replace(result, seconds=time.perf_counter() - started)


class Connection:
    """What became known of a request's connection."""

    __slots__ = ("reused",)

    def __init__(self) -> None:
        self.reused = False


def connections_noted() -> aiohttp.TraceConfig:
    """For a session: tells each request's `Connection` whether it is one that was kept."""

    async def note(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
        context.trace_request_ctx.reused = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(note)
    return config


async def _post(
    session: aiohttp.ClientSession,
    url: URL,
    message: Message,
    secrets: Sequence[Secret],
    timeout: aiohttp.ClientTimeout,
    connection: Connection,
) -> Attempt:
    status: int | None = None
    outcome, rule, retry_after = Outcome.PROTOCOL, None, 0.0
    try:
        async with session.post(
            url,
            data=message.body if len(message.body) <= _ONE_WRITE else io.BytesIO(message.body),
            headers=_headers(message, secrets),
            timeout=timeout,
            allow_redirects=False,
            trace_request_ctx=connection,
        ) as response:
            status, outcome = response.status, _outcome_of(response.status)
            retry_after = _retry_after(response.headers.get("Retry-After"))
            await _drain(response)
    except EndpointRefusedError as error:
        outcome, rule = Outcome.REFUSED, error.rule
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        if status is None:  # with a status the receiver has answered, whatever became of the rest
            outcome = _fault(error)
    return Attempt(outcome, status, 0.0, retry_after, rule)


def _headers(message: Message, secrets: Sequence[Secret]) -> dict[str, str]:
    """Standard Webhooks headers, and CloudEvents attributes beside them (CloudEvents HTTP binding, binary mode)."""
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "fsm-sidecar",
        "webhook-id": message.id,
        "webhook-timestamp": str(timestamp),
        "ce-specversion": "1.0",
        "ce-id": message.id,
        "ce-source": "/fsm-sidecar",
        "ce-type": message.type,
        "ce-time": message.time,
    }
    if secrets:
        headers["webhook-signature"] = " ".join(secret.sign(message.id, timestamp, message.body) for secret in secrets)
    return headers


async def _drain(response: aiohttp.ClientResponse) -> None:
    left = ANSWER_BYTES
    while not response.content.at_eof():
        chunk = await response.content.read(left + 1)
        left -= len(chunk)
        if left < 0:
            response.close()
            return


def _outcome_of(status: int) -> Outcome:
    if status == 410:
        return Outcome.GONE
    if status in (408, 425, 429):
        return Outcome.BUSY
    by_class = {2: Outcome.DELIVERED, 3: Outcome.REDIRECT, 4: Outcome.CLIENT_ERROR, 5: Outcome.SERVER_ERROR}
    return by_class.get(status // 100, Outcome.PROTOCOL)


def _fault(error: Exception) -> Outcome:
    if isinstance(error, TimeoutError):  # first: it is an OSError too, and aiohttp's timeouts are both
        return Outcome.TIMEOUT
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Outcome.DNS
    if isinstance(error, aiohttp.ClientSSLError):
        return Outcome.TLS
    if isinstance(error, aiohttp.ClientConnectorError):
        return Outcome.CONNECT
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError):
        return Outcome.DISCONNECTED
    return Outcome.PROTOCOL


def _retry_after(value: str | None) -> float:
    """Seconds to wait (RFC 9110, section 10.2.3), 0 for none and for what cannot be read."""
    if value is None:
        return 0.0
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
