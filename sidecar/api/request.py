"""A request as the handlers get it: with the parts of the sidecar that answer it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, TypeVar

import structlog
from aiohttp import web

from sidecar.access import ANYBODY, Access, Caller, Door, Scope
from sidecar.api.answer import NO_HEADERS
from sidecar.backup import Backups
from sidecar.dispatch.dispatcher import Dispatcher
from sidecar.errors import OverloadedError, StorageSlowError
from sidecar.heartbeat import Heartbeat
from sidecar.serving.request import Request as BareRequest
from sidecar.store import AsyncStateStore
from sidecar.watchers import Watchers

Changed = TypeVar("Changed")

_log = structlog.get_logger("api")


class About(NamedTuple):
    """Whose state it is: the agent's and its machine's name, and the states in which it needs help."""

    agent: str
    machine: str
    fault_states: tuple[str, ...]


class Parts(NamedTuple):
    """What the handlers work with."""

    store: AsyncStateStore
    dispatcher: Dispatcher
    backups: Backups
    watchers: Watchers
    heartbeat: Heartbeat
    about: About
    description: Callable[[], bytes]
    require_precondition: bool
    write_seconds: float


class InFlight:
    """How many requests are being answered, and how many may be.

    As many writes may wait for the disk besides: so one that hangs keeps no reader out.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now = 0
        self._at_disk = 0
        self._overdue: set[asyncio.Task[Any]] = set()

    def go_to_disk(self) -> None:
        """One of those that are answered waits for the disk from now on. Raises `OverloadedError`."""
        if self._at_disk + len(self._overdue) >= self.limit:
            self.refuse()
        self._at_disk += 1
        self.now -= 1

    def come_from_disk(self) -> None:
        """It is back."""
        self._at_disk -= 1
        self.now += 1

    def leave_at_disk(self, task: "asyncio.Task[Any]") -> None:
        """Its caller has been answered, and it goes on in the place that it has."""
        self._overdue.add(task)
        task.add_done_callback(self._come_late)

    def _come_late(self, task: "asyncio.Task[Any]") -> None:
        self._overdue.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.warning("late_change_failed", error=str(error))

    def refuse(self) -> NoReturn:
        """There are more than may be."""
        raise OverloadedError(f"{self.limit} requests are being answered already; try again in a moment")


class Request(BareRequest):
    """One request."""

    parts: Parts
    access: Access
    in_flight: InFlight
    placeholders: Mapping[str, str]
    """What stands in the path where the route's template has a name."""

    lost: Callable[[], None] | None = None
    """Called when the connection is lost while the request is being answered."""

    waited_seconds = 0.0
    """Time that was spent waiting for the caller, or as it wanted: nobody's slowness."""

    caller: Caller = ANYBODY
    """Who asks, and what they may do. Without tokens: anybody, everything."""

    crossing: Mapping[str, str] = NO_HEADERS
    """What every answer has to say to the page that asks, where its origin is allowed."""

    _body: bytes | None = None

    def _cancel(self, exc: BaseException) -> None:
        """aiohttp tells of a lost connection only whoever reads the body."""
        super()._cancel(exc)
        if self.lost:
            self.lost()

    @property
    def door(self) -> Door:
        """The connection, as it is known to who lets callers in."""
        return self._protocol  # type: ignore[return-value]  # our server makes no other

    def judge_reader(self) -> None:
        """Raises `AccessError` once the caller may not read any more. For those who stay while tokens come and go."""
        if self.access.guarded:
            self.access.judge(self.headers.getall("Authorization", ()), Scope.READ, self.door)

    @contextmanager
    def at_disk(self) -> Iterator[None]:
        """The block waits for the disk. Raises `OverloadedError`."""
        self.in_flight.go_to_disk()
        try:
            yield
        finally:
            self.in_flight.come_from_disk()

    async def carried_out(self, change: Callable[[], Coroutine[Any, Any, Changed]]) -> Changed:
        """What a change gives that waits for the disk. It goes on when that takes too long: it will count, or not.

        Raises `StorageSlowError` then, and `OverloadedError`.
        """
        with self.at_disk():
            task = asyncio.create_task(change())
            await asyncio.wait([task], timeout=self.parts.write_seconds)
        if task.done():
            return task.result()
        self.in_flight.leave_at_disk(task)
        raise StorageSlowError(f"the disk has not answered for {self.parts.write_seconds:g} s; the change may or may not count")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block waits for the caller, or because it wants to: meanwhile this is not one of the requests in flight."""
        begun = time.perf_counter()
        self.in_flight.now -= 1
        try:
            yield
        finally:
            self.in_flight.now += 1
            self.waited_seconds += time.perf_counter() - begun

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Called by aiohttp before the head of a response is sent; `Answer` looks at `crossing` itself."""
        await super()._prepare_hook(response)
        response.headers.update(self.crossing)

    async def read(self) -> bytes:
        """The whole body; most have come together with their head. Raises aiohttp's 413 beyond the limit, and 417."""
        if self._body is None:
            if not self.content.is_eof():
                await self._invite()
                with self.waiting():
                    self._body = await super().read()
                if self.in_flight.now > self.in_flight.limit:
                    self.in_flight.refuse()
            else:
                self._body = self.content.read_nowait()
                if len(self._body) > self.client_max_size:
                    raise web.HTTPRequestEntityTooLarge(self.client_max_size, len(self._body))
        return self._body

    async def _invite(self) -> None:
        """Answer `Expect: 100-continue`: the caller waits for it before it sends the body (RFC 9110, section 10.1.1)."""
        expectation = self.headers.get("Expect")
        if expectation is None:
            return
        if expectation.lower() != "100-continue":
            raise web.HTTPExpectationFailed
        await self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.writer.output_size = 0  # the answer itself has not begun


Handler = Callable[[Request], Awaitable[web.StreamResponse]]
