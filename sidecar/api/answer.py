"""An answer whose head and body are one piece of bytes: what most requests get."""

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import ClientConnectionResetError, HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter

NO_HEADERS: Mapping[str, str] = {}
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class Answer(web.StreamResponse):
    """JSON, known as a whole.

    aiohttp's `Response` can be changed until it is sent, which costs as much as reading the request. This one overrides the
    two steps that the server takes with a response, and sends as the request's writer does.
    """

    def __init__(self, body: bytes, *, status: int = 200, lines: str = "") -> None:
        """`lines`: more of the head, as `header_lines` makes them."""
        super().__init__(status=status)
        self._bytes = body
        self._head = f"{_STATUS_LINES[status]}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{lines}"
        self._keeps = True

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays."""
        return self._keeps

    def force_close(self) -> None:
        """Close the connection afterwards."""
        self._keeps = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send it."""
        writer, transport = request.writer, request.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the caller has gone")
        self._keeps = self._keeps and request.keep_alive
        if not self._keeps:
            connection = "Connection: close\r\n"
        else:
            connection = "Connection: keep-alive\r\n" if request.version == HttpVersion10 else ""
        head = f"{self._head}{_crossing(request)}{connection}Date: {_date()}\r\n\r\n".encode("ascii")
        piece = head if request.method == "HEAD" else head + self._bytes
        writer.output_size += len(piece)  # so much of an answer has begun, as the writer's own `write` would count it
        transport.write(piece)
        if request.protocol.writing_paused:  # many small answers that nobody reads would pile up
            await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """All is sent already."""


class Stream(web.StreamResponse):
    """A body that comes bit by bit, and ends with the connection: the same bytes for every version of HTTP."""

    def __init__(self, content_type: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        super().__init__()
        self._lines = f"Content-Type: {content_type}\r\n{header_lines(headers)}"
        self._begun = False

    @property
    def keep_alive(self) -> bool:
        """Never: its end is the body's."""
        return False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send the head, once. The rest goes through the writer."""
        writer = request.writer
        if not self._begun:
            self._begun = True
            head = f"{_STATUS_LINES[self.status]}{self._lines}{_crossing(request)}Connection: close\r\nDate: {_date()}\r\n\r\n"
            await writer.write(head.encode("ascii"))
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """The connection's end is the body's."""


def header_lines(headers: Mapping[str, str]) -> str:
    """As they stand in a head."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def _crossing(request: web.BaseRequest) -> str:
    """What is to be said to a page of another origin: one of our requests knows it."""
    crossing: Mapping[str, str] = getattr(request, "crossing", NO_HEADERS)
    return header_lines(crossing) if crossing else ""


def _date() -> str:
    return _date_of(int(time.time()))


@lru_cache(maxsize=1)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)
