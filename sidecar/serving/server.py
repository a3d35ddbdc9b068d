"""The server of one listener: how many connections it takes, and from whom; and the sweep that ends those that are late."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import structlog
from aiohttp import web

from sidecar.logs import Summarised
from sidecar.meters import ListenerMetrics
from sidecar.serving.connection import Connection
from sidecar.serving.problem import last_words
from sidecar.serving.request import Request

_log = structlog.get_logger("serving")

SWEEP_SECONDS = 0.25
"""A deadline is noticed so much later at most."""

_FULL = last_words(503, "overloaded", "Service Unavailable", "all connections are taken; close those that you do not need")
_PEER_FULL = last_words(
    503, "overloaded", "Service Unavailable", "too many connections from your address; close those that you do not need"
)


class Limits(NamedTuple):
    """What one listener allows. When it is full, a connection on which nothing is asked makes room for a new one.

    `grace_seconds`: only once it is so old.
    """

    connections: int = 1024
    per_peer: int = 256
    header_seconds: float = 5.0
    request_seconds: float = 15.0
    write_seconds: float = 30.0
    keep_alive_seconds: float = 15.0
    headers: int = 64
    header_bytes: int = 4096
    grace_seconds: float = 1.0


class Server(web.Server):
    """Makes a `Connection` of what is accepted, and counts them. On the running loop."""

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[web.StreamResponse]],
        limits: Limits,
        metrics: ListenerMetrics,
        *,
        make_request: Callable[..., Request] | None = None,
    ) -> None:
        """`make_request`: what the handler gets, where a plain one is not enough."""
        super().__init__(handler, request_factory=make_request or partial(Request, loop=asyncio.get_running_loop()))
        self._metrics = metrics
        self._malformed = Summarised(_log.warning, per_second=1)
        self._open: dict[Connection, None] = {}  # in the order in which they came
        self._by_peer: Counter[str] = Counter()
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.clock = self.loop.time

    def __call__(self) -> Connection:
        """The protocol of a new connection; called by the event loop."""
        limits = self.limits
        return Connection(
            self,
            loop=self.loop,
            keepalive_timeout=limits.keep_alive_seconds,
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
            max_headers=limits.headers,
            auto_decompress=False,
            lingering_time=limits.header_seconds,
            access_log=None,
        )

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def admit(self, connection: Connection) -> bytes | None:
        """Take the connection; or the answer that it gets instead."""
        peer, limits = connection.peer, self.limits
        if peer and self._by_peer[peer] >= limits.per_peer and not self._make_room(peer):
            self._metrics.refused("peer")
            return _PEER_FULL
        if len(self._open) >= limits.connections and not self._make_room():
            self._metrics.refused("full")
            return _FULL
        self._open[connection] = None
        self._by_peer[peer] += 1
        return None

    def _make_room(self, peer: str | None = None) -> bool:
        """Close a connection, of this peer: the oldest that has never asked for anything, or else the oldest idle one."""
        one = self._idle(peer)
        if one is None:
            return False
        self.forget(one)
        one.make_room()
        self._metrics.refused("displaced")
        return True

    def _idle(self, peer: str | None) -> Connection | None:
        begun, idle = self.clock() - self.limits.grace_seconds, None
        for each in self._open:
            if each.opened_at > begun:  # and so are all behind it: a flood of new ones costs one look
                break
            if each.idle and peer in (None, each.peer):
                if each.silent:
                    return each
                idle = idle or each
        return idle

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        if connection not in self._open:
            return
        del self._open[connection]
        self._by_peer[connection.peer] -= 1
        if not self._by_peer[connection.peer]:
            del self._by_peer[connection.peer]

    def tell_malformed(self, reason: str, peer: str) -> None:
        """Count what is no HTTP, and say so once a second at most: where it comes from, and nothing of what it was."""
        self._metrics.malformed.inc()
        self._malformed("request_malformed", listener=self._metrics.listener, reason=reason, peer=peer)

    def flush(self) -> None:
        """Write the summary that is still owed."""
        self._malformed.flush()

    async def sweep(self) -> None:
        """The core task; runs until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self.clock()
            for connection in list(self._open):
                if phase := connection.look(now):
                    self._metrics.late(phase)
