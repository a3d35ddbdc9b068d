"""Reads server-sent events from an answer (https://html.spec.whatwg.org/multipage/server-sent-events.html). Pure."""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_EVENT_BYTES = 16 << 20
"""An event may be this large: a snapshot with all that a sidecar takes is far smaller."""

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a \r at the very end may be half of \r\n


class Event(NamedTuple):
    """One event. `id`: the last one that was sent, perhaps with an earlier event."""

    kind: str
    data: str
    id: str


class Parser:
    """Takes the bytes of one connection in pieces. `retry_seconds`: how long the server asks to wait before the next one."""

    def __init__(self) -> None:
        self.retry_seconds: float | None = None
        self._rest = b""
        self._size = 0
        self._id = ""
        self._kind = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are whole now. Raises `ValueError` for one that is larger than `MAX_EVENT_BYTES`."""
        self._size += len(chunk)
        if self._size > MAX_EVENT_BYTES:
            raise ValueError(f"an event is larger than {MAX_EVENT_BYTES >> 20} MiB")
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._take(line.decode("utf-8", "replace"))
            elif event := self._finish():
                yield event
        if not (self._data or self._kind):
            self._size = len(self._rest)

    def _take(self, line: str) -> None:
        name, _, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_seconds = int(value[:9]) / 1000

    def _finish(self) -> Event | None:
        kind, data = self._kind or "message", self._data
        self._kind, self._data = "", []
        return Event(kind, "\n".join(data), self._id) if data else None
