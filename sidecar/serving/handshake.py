"""TLS before a connection, within the limits of its server.

asyncio's own listener would tell of a connection only once it has shaken hands: whoever does not would be counted nowhere.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, cast

from sidecar.serving.connection import Connection

Secured = asyncio.Transport | None


class Handshake(asyncio.Protocol):
    """Stands before the connection that `serve` makes, which has its place from the start. What is refused is closed unread."""

    def __init__(self, context: Callable[[], ssl.SSLContext], seconds: float, serve: Callable[[], asyncio.Protocol]) -> None:
        """`context` gives that of now; `seconds`: how long it may take."""
        self._context = context
        self._seconds = seconds
        self._serve = serve

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # all of ours are such
        """The first thing that happens on a connection."""
        connection = cast(Connection, self._serve())
        if connection.enter(transport):
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        shaken = _Begun(
            loop.start_tls(transport, connection, self._context(), server_side=True, ssl_handshake_timeout=self._seconds)
        )
        connection.handshake = loop.create_task(_shake(shaken, transport, connection), name="handshake")


async def _shake(shaken: Awaitable[Secured], transport: asyncio.Transport, connection: Connection) -> None:
    try:
        secured = await shaken
    except OSError:  # it goes, or speaks something else, or nothing, or shows no certificate that we take
        secured = None
    if secured is None or connection.lost or transport.is_closing():  # uvloop takes one that is cut for one that is ready
        connection.leave()
        transport.abort()
    else:
        connection.connection_made(secured)


class _Begun:
    """A coroutine that has run up to its first wait: before the transport reads anything, which would be for nobody."""

    def __init__(self, coroutine: Coroutine[Any, Any, Secured]) -> None:
        self._coroutine = coroutine
        self._awaited = coroutine.send(None)

    def __await__(self) -> Generator[Any, Any, Secured]:
        yield self._awaited
        return (yield from self._coroutine.__await__())
