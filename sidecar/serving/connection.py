"""One connection: what may be awaited of the other side, and for how long.

aiohttp has no deadline for a head, a body, or a client that does not read its answer. `Server.sweep` looks at all connections
a few times a second, at what aiohttp knows of each: a request pays nothing for it.
"""

import math
import socket
import sys
from asyncio import BaseTransport, Task, Transport
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.access import Pass
from sidecar.serving.problem import last_words, problem

if TYPE_CHECKING:
    from sidecar.serving.server import Server

_log = structlog.get_logger("serving")

_LATE = last_words(408, "timeout", "Request Timeout", "the head of the request was not complete in time")

_received = web.RequestHandler.data_received


class Connection(web.RequestHandler):
    """What aiohttp does with a connection, within the limits of its server.

    aiohttp waits for a request while there is a `_waiter`; it has put whole heads, and the parser's complaints, into
    `_messages`, counts them in `_request_count`, and has the request whose handler runs in `_current_request`.
    """

    __slots__ = (
        "_asked",
        "_begun_after",
        "_broken",
        "_head_due",
        "_request_due",
        "_server",
        "_wire",
        "_write_due",
        "handshake",
        "lost",
        "opened_at",
        "peer",
        "shown",
    )

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._wire: Transport | None = None
        self.opened_at = self._head_due = self._request_due = self._write_due = math.inf
        self._begun_after = -1  # so many requests: then a head began that is not complete
        self._asked: web.BaseRequest | None = None
        self._broken = False
        self.handshake: Task[None] | None = None  # the connection has its place already, and holds it
        self.lost = False
        self.peer = ""
        self.shown: Pass | None = None

    @property
    def silent(self) -> bool:
        """Whether there was no request yet."""
        return not self._request_count

    @property
    def _awaits_head(self) -> bool:
        """Whether the next one is not complete. Where it just is, aiohttp only has to turn to it."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered, nor an answer on its way still."""
        return self.silent or (self._awaits_head and not (self._wire and self._wire.get_write_buffer_size()))

    def enter(self, transport: Transport) -> bytes | None:
        """Take a place among the server's connections; or the answer that it gets instead."""
        self._wire = transport
        self.peer = _address(transport.get_extra_info("peername"))
        self.opened_at = self._server.clock()
        self._find_out_the_dead(transport.get_extra_info("socket"))
        return self._server.admit(self)

    def _find_out_the_dead(self, wire: socket.socket) -> None:
        """Of one that is not there any more, the kernel would wait a quarter of an hour for an acknowledgement."""
        if sys.platform == "linux" and wire.family != socket.AF_UNIX:
            milliseconds = min(int(self._server.limits.write_seconds * 1000), 2**31 - 1)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def leave(self) -> None:
        """Give the place back."""
        self._server.forget(self)
        self._wire = self._asked = None
        self.lost = True

    def connection_made(self, transport: BaseTransport) -> None:
        wire = cast(Transport, transport)
        if self._wire is None and (refusal := self.enter(wire)):
            self.force_close()  # so that nothing is read any more
            wire.write(refusal)
            wire.close()
            return
        self._wire = wire
        self._head_due = self._server.clock() + self._server.limits.header_seconds
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.leave()
        for message, _ in self._messages:
            _let_go(getattr(message, "exc", None))
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._current_request is not None or self._messages or self._broken:
            self._receive_behind(data)
            return
        _received(self, data)
        if data and not self._messages:
            self._head_begins()

    def _head_begins(self) -> None:
        if self._begun_after != self._request_count:
            self._begun_after = self._request_count
            if self._request_count:  # the first head has its time from the start of the connection
                self._head_due = self._server.clock() + self._server.limits.header_seconds

    def _receive_behind(self, data: bytes) -> None:
        """What comes while a request is being answered: more of its body, or what is behind it.

        It may be nothing: so aiohttp tells its parser to go on, after each body that was read.
        """
        if self._broken or (self._messages and hasattr(self._messages[-1][0], "exc")):
            self._broken = True
            return  # after its complaint, the parser would only make more of them, each with all that has come
        request = self._current_request
        body = None if request is None or request.content.is_eof() else request.content
        _received(self, data)
        if not self._messages:
            if data and body is None:
                self._head_begins()
        elif body is not None and not body.is_eof():  # it has not ended: this is the parser's complaint about it
            self._server.tell_malformed("TransferEncodingError", self.peer)
            body.set_exception(web.HTTPBadRequest(text="the body does not come in chunks as HTTP/1.1 has them"))

    def pause_writing(self) -> None:
        """The client takes nothing, and what waits for it is as much as may wait."""
        super().pause_writing()
        self._write_due = self._server.clock() + self._server.limits.write_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_due = math.inf

    def look(self, now: float) -> str | None:
        """End what has waited for too long, and tell what was awaited: headers, body or write."""
        wire = self._wire
        if wire is None:
            return None
        if now >= self._write_due:
            wire.abort()
            return "write"
        if wire.is_closing():  # with the rest of an answer that is not taken
            if self._write_due == math.inf:
                self._write_due = now + self._server.limits.write_seconds
            return None
        if self._awaits_head:
            return self._look_at_head(wire, now)
        return self._look_at_body(now)

    def _look_at_head(self, wire: Transport, now: float) -> str | None:
        self._asked = None
        begun = self._begun_after == self._request_count
        if now < self._head_due or (self._request_count and not begun):  # aiohttp closes what stays idle
            return None
        if begun:
            wire.write(_LATE)
        self.force_close()
        return "headers"

    def _look_at_body(self, now: float) -> str | None:
        request = self._current_request
        if request is not self._asked:
            self._asked = request
            self._request_due = now + self._server.limits.request_seconds
        elif request is not None and now >= self._request_due and not request.content.is_eof():
            self._request_due = math.inf
            request.content.set_exception(web.HTTPRequestTimeout())  # who reads it answers with that
            return "body"
        return None

    def make_room(self) -> None:
        """Close it now, for another one."""
        if self._wire:
            self._wire.abort()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what is no HTTP: without a byte of it. Everything else is a fault of ours."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        _let_go(exc)
        if isinstance(exc, HttpProcessingError):
            self._broken = True
            self._server.tell_malformed(type(exc).__name__, self.peer)
            response = problem(400, "malformed", "The request cannot be read", "this is not HTTP/1.1 as we take it")
        else:
            _log.error("request_failed", method=request.method, exc_info=exc)
            response = problem(500, "internal", "A fault of the sidecar", "its log has the cause; please report it")
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """aiohttp's own lines quote the other side; what happened to a request is told and counted where it is answered."""


def _let_go(complaint: BaseException | None) -> None:
    """The parser's complaint and where it was raised hold each other, and all that had come: hundreds of KiB until the next
    collection."""
    if isinstance(complaint, HttpProcessingError):
        complaint.__traceback__ = None


def _address(peername: Any) -> str:
    """The other side's address without its port; empty for a Unix socket."""
    return str(peername[0]) if isinstance(peername, tuple) else ""
