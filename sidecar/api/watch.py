"""Following the state without polling: `GET /v1/watch`, a stream of server-sent events.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache, partial

import msgspec
from aiohttp import web

from sidecar.api import conditions
from sidecar.api.answer import Stream
from sidecar.api.describing import Reply
from sidecar.api.parameters import Header
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.decision import MAX_VERSION
from sidecar.dispatch import message
from sidecar.errors import MalformedError, TooManyWatchersError
from sidecar.journal import Entry, Journal
from sidecar.watchers import Due, Gap, Kind, Watcher

routes = Routes()

_ID = "([a-z0-9]{1,32})-(0|[1-9][0-9]{0,15})"
_RETRY = b"retry: 1000\n\n"
_HEARTBEAT = b": heartbeat\n\n"
_END = b'event: end\ndata: {"reason":"draining"}\n\n'
_REVOKED = b'event: end\ndata: {"reason":"revoked"}\n\n'

_UNTAKEN_BYTES = 16 << 10
"""With more than this in the process's own buffer, a watcher gets nothing more until it takes some."""

_SOCKET_BYTES = 64 << 10


_last_event_id = Header(
    "Last-Event-ID",
    "The id of the last event that you have: the stream goes on after it.",
    {"type": "string", "pattern": f"^{_ID}$"},
)


@routes.get(
    "/v1/watch",
    Scope.READ,
    takes=(conditions.AFTER, conditions.EPOCH, _last_event_id),
    answers={200: Reply("A stream of server-sent events.", others={"text/event-stream": {"type": "string"}})},
    raises=(TooManyWatchersError,),
)
async def get_watch(request: Request) -> web.StreamResponse:
    """The state now, and then each new one, until the caller goes; after `Last-Event-ID` or `after`, what it has missed."""
    watchers = request.parts.watchers
    cursor, gap = _position(request, watchers.journal)
    stream = Stream("text/event-stream", {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    if request.method == "HEAD":
        return stream
    with watchers.admitted(Kind.STREAM, cursor, gap, judge=request.judge_reader) as watcher:
        request.lost = watcher.leave
        with request.waiting(), suppress(ConnectionError):  # it goes away, which is how most streams end
            _bound(request)
            await stream.prepare(request)
            try:
                await _follow(request, watcher)
            except Exception:  # the answer has begun: nothing else can be said on this connection
                if request.transport:
                    request.transport.abort()
                raise
    return stream


def _position(request: Request, journal: Journal) -> tuple[int | None, Gap | None]:
    """Where the caller stands. A browser that reconnects sends `Last-Event-ID` with the query of its first request."""
    after, epoch = conditions.after(request)
    last = _last_event_id.read(request)
    if last is not None:
        match = re.fullmatch(_ID, last)
        if not match or int(match[2]) > MAX_VERSION:
            raise MalformedError("Last-Event-ID is the id of an event of this stream, such as k3f9-17")
        epoch, after = match[1], int(match[2])
    if after is None:
        return None, None
    if epoch not in (None, journal.epoch) or after > journal.head:
        return None, Gap.EPOCH
    return after, None


def _bound(request: Request) -> None:
    """Little is kept for a caller that does not read, here and in the kernel."""
    transport = request.transport
    if transport is None:
        return
    transport.set_write_buffer_limits(high=_UNTAKEN_BYTES)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)


async def _follow(request: Request, watcher: Watcher) -> None:
    """Send what is due, until the caller is gone, or the sidecar stops and all is sent."""
    watchers = request.parts.watchers
    epoch = watchers.journal.epoch
    _send(request, _RETRY)
    watcher.take = partial(_take, request, epoch)
    while True:
        if request.protocol.writing_paused:
            await _taken(request, watcher)
        await watcher.wait(watchers.heartbeat_seconds)
        if watcher.gone:
            return
        if watcher.revoked:
            _send(request, _REVOKED)
            return
        if request.protocol.writing_paused:
            continue
        if watcher.behind:
            _send(request, b"".join([_events(epoch, due) for due in await watcher.due()]))
        elif watchers.closed:
            _send(request, _END)
            return
        else:
            _send(request, _HEARTBEAT)


def _take(request: Request, epoch: str, entries: Sequence[Entry]) -> bool:
    """Send the next revisions to a watcher that waits, without a task's turn. Gives whether it takes more."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return False
    transport.write(_next_states(epoch, entries))
    return not request.protocol.writing_paused


def _send(request: Request, data: bytes) -> None:
    """Not through aiohttp's writer: that waits by itself when there is much to send, and for as long as it takes."""
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the watcher went away")
    request.transport.write(data)


async def _taken(request: Request, watcher: Watcher) -> None:
    """Wait until the caller has taken most of it. One that does not is cut off by its connection; or here, by the end."""
    try:
        async with watcher.patience():
            await request.writer.drain()
    except TimeoutError:
        if request.transport:
            request.transport.abort()
        raise ConnectionAbortedError("the watcher took nothing, and the sidecar stops") from None


def _events(epoch: str, due: Due) -> bytes:
    if due.previous is not None and not due.gap:
        return _next_state(epoch, due.entry)
    state = _state(epoch, due.entry, due.previous, due.skipped)
    return _gap(epoch, due, due.gap) + state if due.gap else state


@lru_cache(maxsize=4)
def _next_states(epoch: str, entries: Sequence[Entry]) -> bytes:
    """Some of them together, for all who stand at the same place."""
    return b"".join([_next_state(epoch, entry) for entry in entries])


@lru_cache(maxsize=4)
def _next_state(epoch: str, entry: Entry) -> bytes:
    """The revision after the one before: the same bytes for all."""
    return _state(epoch, entry, entry.revision - 1, 0)


def _state(epoch: str, entry: Entry, previous: int | None, skipped: int) -> bytes:
    data = message.data(entry, epoch=epoch, previous=previous, skipped=skipped)
    return b"id: %b-%d\nevent: state\ndata: %b\n\n" % (epoch.encode(), entry.revision, data)


def _gap(epoch: str, due: Due, reason: Gap) -> bytes:
    """Without an id: who goes away before the state has come is told again."""
    told = {
        "epoch": epoch,
        "revision": due.entry.revision,
        "previous_revision": due.previous or 0,
        "skipped": due.skipped,
        "reason": reason,
    }
    return b"event: gap\ndata: %b\n\n" % msgspec.json.encode(told)
