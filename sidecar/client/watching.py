"""A watch that goes on over lost connections and restarts: what it sees, what it is told that it missed."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from enum import IntEnum

import aiohttp

from sidecar.client.problems import UnavailableError, error_of, problem_in
from sidecar.client.states import Change, ChangeData, Gap, Position, decoded
from sidecar.client.transport import FAILURES, Transport, pause_seconds
from sidecar.sse import Event, Parser

SILENCE_SECONDS = 45.0
"""A connection that is silent for this long is lost: a heartbeat comes every 15 s."""

_LONGEST_PAUSE_SECONDS = 10.0
_TELLING = 5
_AGAIN = frozenset((429, 502, 503, 504))

_log = logging.getLogger(__name__)

Typing = Callable[[Callable[[type[IntEnum]], Change]], Awaitable[Change]]
"""Builds a change with the machine's states."""


class _EndedError(Exception):
    """The connection is over, and a new one is to go on."""


class Watch:
    """What a watch sees from `position` on, or with the current state first where there is none."""

    def __init__(self, transport: Transport, typed: Typing, position: Position | None) -> None:
        self._transport = transport
        self._typed = typed
        self._position = position
        self._told = False
        self._retry_seconds = 0.0

    async def events(self) -> AsyncGenerator[Change | Gap]:
        """Until the client is closed. Raises the store's errors for a refusal that no later try will change."""
        failures, begun = 0, self._transport.closings
        while self._transport.closings == begun:
            try:
                async with aclosing(self._connection()) as events:
                    async for event in events:
                        failures = 0
                        for seen in await self._seen(event):
                            yield seen
            except (_EndedError, *FAILURES) as lost:
                if self._transport.closings != begun:
                    return
                tell = _log.warning if failures == _TELLING else _log.info  # a restart takes fewer, a wrong address goes on so
                tell("watch: %s: %s; goes on after %s", self._transport.endpoint, lost, self._position)
            except RuntimeError:  # so aiohttp tells whoever reads a connection that is closed
                if self._transport.closings == begun:
                    raise
                return
            await asyncio.sleep(max(pause_seconds(failures, _LONGEST_PAUSE_SECONDS), self._retry_seconds if failures else 0.0))
            failures += 1

    async def _connection(self) -> AsyncGenerator[Event]:
        transport = self._transport
        headers = {"Accept": "text/event-stream", **transport.authorization()}
        if self._position:
            headers["Last-Event-ID"] = str(self._position)
        timeout = aiohttp.ClientTimeout(total=None, connect=transport.timeout, sock_read=SILENCE_SECONDS)
        async with transport.session().get(
            f"{transport.endpoint.prefix}/v1/watch", headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            if response.status != 200:
                problem = problem_in(response.status, await response.content.read(1 << 16))
                if response.status in _AGAIN:
                    raise _EndedError(problem.detail)
                raise error_of(response.status, problem)
            parser = Parser()
            async for chunk in response.content.iter_any():
                for event in _parsed(parser, chunk):
                    yield event
                self._retry_seconds = min(parser.retry_seconds or 0.0, _LONGEST_PAUSE_SECONDS)
        raise _EndedError("the connection was closed")

    async def _seen(self, event: Event) -> list[Change | Gap]:
        if event.kind == "gap":
            self._told = True
            return [decoded(event.data, Gap)]
        if event.kind == "end":
            raise _EndedError("the sidecar ends it")
        if event.kind != "state":  # of a later version
            return []
        data = decoded(event.data, ChangeData)
        at = self._position
        if at and not self._told and data.epoch == at.epoch and data.revision <= at.revision:
            return []
        try:
            change = await self._typed(data.change)
        except UnavailableError as lost:  # as its states were asked for
            raise _EndedError(str(lost)) from None
        self._position = Position(data.epoch, data.revision)
        told, self._told = self._told, False
        missed = at and (data.epoch != at.epoch or data.revision > at.revision + 1)
        return [_unseen(change, at), change] if at and missed and not told else [change]


def _parsed(parser: Parser, chunk: bytes) -> list[Event]:
    try:
        return list(parser.feed(chunk))
    except ValueError as wrong:
        raise UnavailableError(f"the watch is not that of a sidecar: {wrong}", outcome="not-applied") from None


def _unseen(change: Change, at: Position) -> Gap:
    """A gap that the sidecar has not told, because it does not know what this watch saw last."""
    if change.epoch != at.epoch:
        return Gap(change.epoch, change.revision, at.revision, change.skipped, "epoch")
    return Gap(change.epoch, change.revision, at.revision, change.revision - at.revision - 1, "unseen")
