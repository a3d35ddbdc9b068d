"""The webhook subscribers of a sidecar: `StateClient.subscribers`."""

from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

import msgspec

from sidecar.client.states import decoded
from sidecar.client.transport import Transport
from sidecar.errors import UnknownSubscriberError
from sidecar.units import Seconds

_LONGEST_PING_SECONDS = 30.0
"""So long may a receiver take to answer."""

_encode = msgspec.json.Encoder().encode


class Eviction(msgspec.Struct, frozen=True):
    """When a subscriber was evicted, in seconds since the Unix epoch, and why."""

    at: float
    reason: str | None


class Subscriber(msgspec.Struct, frozen=True):
    """A subscriber: its settings, its status, how far it got. None: the configuration's default; nothing yet.

    `secret` is there once: when it was made by this call. It is not shown by `repr`.
    """

    id: str
    url: str
    max_lag: int | None
    on: tuple[str, ...]
    states: tuple[str, ...] | None
    max_batch: int
    source: str
    status: str
    cursor: int | None
    lag: int
    failures: int
    last_outcome: str | None
    last_http_status: int | None
    last_success_at: float | None
    evicted: Eviction | None
    patience: str | None = msgspec.field(name="timeout")
    secret: str | None = None

    @property
    def timeout(self) -> float | None:
        """How long it may take to answer, in seconds."""
        return None if self.patience is None else float(Seconds.parse(self.patience))

    def __repr__(self) -> str:
        return f"Subscriber(id={self.id!r}, status={self.status!r}, cursor={self.cursor}, lag={self.lag})"


class Ping(msgspec.Struct, frozen=True):
    """How one message went: `outcome` is `delivered`, or what was in the way; the HTTP status, if there was one."""

    outcome: str
    status: int | None
    seconds: float


class Rotation(msgspec.Struct, frozen=True):
    """The new secret, and until when the one before signs too, in seconds since the Unix epoch. None: there was none.

    The secret is not shown by `repr`.
    """

    id: str
    secret: str
    previous_valid_until: float | None

    def __repr__(self) -> str:
        return f"Rotation(id={self.id!r}, previous_valid_until={self.previous_valid_until})"


class _Listed(msgspec.Struct, frozen=True):
    subscribers: list[Subscriber]


class Subscribers:
    """Those of one sidecar. All raise as `StateClient` does, and `UnknownSubscriberError` for an id that nobody has."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def all(self) -> list[Subscriber]:
        """Everybody: also the evicted, as long as they are remembered."""
        return decoded((await self._transport.ask("GET", "/v1/subscribers")).body, _Listed).subscribers

    async def get(self, subscriber_id: str) -> Subscriber:
        """One subscriber."""
        return decoded((await self._transport.ask("GET", _path(subscriber_id))).body, Subscriber)

    async def add(
        self,
        subscriber_id: str,
        url: str,
        *,
        secret: str | None = None,
        timeout: float | None = None,
        max_lag: int | None = None,
        on: Sequence[Literal["transition", "update"]] = ("transition", "update"),
        states: Sequence[str] | None = None,
        max_batch: int = 1,
        begin: int | Literal["latest"] | None = None,
    ) -> Subscriber:
        """Register a webhook with these settings, change it to them, or resume it. To be called at each start.

        Without a `secret` the first call makes one, and only its answer has it; when that may have been lost, `rotate`.
        `timeout` in seconds. `begin`: the revision where deliveries begin; without it they go on where they stood. Raises
        `SubscriberLimitError`, `EndpointRefusedError`, `ConfiguredSubscriberError`, `CompactedError`.
        """
        settings = {
            "url": url,
            "secret": secret,
            "timeout": None if timeout is None else str(Seconds(timeout)),
            "max_lag": max_lag,
            "on": on,
            "states": states,
            "max_batch": max_batch,
        }
        query = {} if begin is None else {"from": str(begin)}
        answer = await self._transport.ask("PUT", _path(subscriber_id), query=query, body=_encode(settings))
        return decoded(answer.body, Subscriber)

    async def remove(self, subscriber_id: str) -> bool:
        """Remove a subscriber, and forget how far it got. True if it was there.

        False also where an earlier try, whose answer was lost, has removed it.
        """
        try:
            await self._transport.ask("DELETE", _path(subscriber_id))
        except UnknownSubscriberError:
            return False
        return True

    async def ping(self, subscriber_id: str) -> Ping:
        """Send it a message without a state, and tell how that went."""
        path = _path(subscriber_id, "ping")
        answer = await self._transport.ask("POST", path, longer_seconds=_LONGEST_PING_SECONDS, once=True)
        return decoded(answer.body, Ping)

    async def rotate(self, subscriber_id: str) -> Rotation:
        """Make a new secret; the one before signs beside it for a while.

        When the answer is lost it is not sent again: of many secrets that nobody has got, only the last three sign beside the
        newest. `UnavailableError` says `unknown` then; once more gives one that is known.
        """
        answer = await self._transport.ask("POST", _path(subscriber_id, "rotate"), once=True)
        return decoded(answer.body, Rotation)


def _path(subscriber_id: str, *more: str) -> str:
    return "/".join(("/v1/subscribers", quote(subscriber_id, safe=""), *more))
