"""One connection: what may be awaited of the other side, and for how long.

aiohttp has no deadline for a head, a body, or a client that does not read its answer. A connection notes when its time is
over, which costs next to nothing; `Server.sweep` looks at all of them a few times a second.
"""

import math
from asyncio import BaseTransport, Transport
from enum import IntEnum
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiohttp import EMPTY_PAYLOAD, HttpVersion10, StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.serving.problem import last_words, problem

if TYPE_CHECKING:
    from sidecar.serving.server import Server

_log = structlog.get_logger("serving")

_LATE = last_words(408, "timeout", "Request Timeout", "the head of the request was not complete in time")


class Phase(IntEnum):
    """Where a connection stands."""

    SILENT = 0
    """Nothing has come yet."""
    IDLE = 1
    """Answered; another request may come."""
    HEAD = 2
    """A request has begun."""
    REQUEST = 3
    """It is being answered; perhaps its body is still coming."""
    ENDING = 4
    """Answered for the last time; what still comes is read so that the answer arrives."""


class Connection(web.RequestHandler):
    """What aiohttp does with a connection, within the limits of its server."""

    __slots__ = ("_body", "_due", "_phase", "_server", "_wire", "_write_due", "peer")

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._phase = Phase.SILENT
        self._body: StreamReader = EMPTY_PAYLOAD
        self._wire: Transport | None = None
        self._due = self._write_due = math.inf
        self.peer = ""

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self._phase <= Phase.HEAD

    def connection_made(self, transport: BaseTransport) -> None:
        self._wire = wire = cast(Transport, transport)
        self.peer = _address(wire.get_extra_info("peername"))
        if refusal := self._server.admit(self):
            self.force_close()  # so that nothing is read any more
            wire.write(refusal)
            wire.close()
            return
        super().connection_made(transport)
        self._due = self._server.clock() + self._server.limits.header_seconds

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.forget(self)
        self._wire = None
        for message, _ in self._messages:
            _let_go(getattr(message, "exc", None))
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._phase <= Phase.IDLE:
            if self._phase is Phase.IDLE:
                self._due = self._server.clock() + self._server.limits.header_seconds
            self._phase = Phase.HEAD
        super().data_received(data)
        if self._phase is Phase.REQUEST and self._messages and not self._body.is_eof():
            # behind a body that has not ended nothing can come but the parser's complaint about it
            self._server.tell_malformed("TransferEncodingError", self.peer)
            self._body.set_exception(_bad_body())

    def begin(self, message: RawRequestMessage, body: StreamReader) -> None:
        """A head is complete. Its body may take its time, but not forever."""
        self._phase = Phase.REQUEST
        self._body = body
        if message.chunked and message.version == HttpVersion10:  # RFC 9112, section 6.1: its end cannot be trusted
            self._server.tell_malformed("TransferEncodingError", self.peer)
            body.set_exception(_bad_body())
        self._due = math.inf if body.is_eof() else self._server.clock() + self._server.limits.request_seconds

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send what the handler answered; then the next request may come, if this one was read to its end."""
        finished = await super().finish_response(request, resp, start_time)
        if resp.keep_alive and request.content.is_eof():
            self._phase, self._due = Phase.IDLE, math.inf  # aiohttp closes what stays idle
        else:
            self._phase, self._due = Phase.ENDING, self._server.clock() + self._server.limits.header_seconds
        return finished

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
        if now < self._due:
            return None
        self._due = math.inf
        if self._phase is not Phase.REQUEST:
            return self._end_late_head(wire)
        if self._body.is_eof():
            return None
        self._body.set_exception(web.HTTPRequestTimeout())  # who reads it answers with that
        return "body"

    def _end_late_head(self, wire: Transport) -> str:
        if self._phase is Phase.HEAD:
            wire.write(_LATE)
        ending = self._phase is Phase.ENDING
        self.force_close()
        return "body" if ending else "headers"

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


def _bad_body() -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text="the body does not come in chunks as HTTP/1.1 has them")


def _address(peername: Any) -> str:
    """The other side's address without its port; empty for a Unix socket."""
    return str(peername[0]) if isinstance(peername, tuple) else ""
