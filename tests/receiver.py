"""Both ends of a delivery, for tests: a receiver that answers as it is told, and the sending side of a sidecar."""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from sidecar.audience import Audience
from sidecar.config.sections import TargetSettings
from sidecar.database import Database
from sidecar.dispatch.connecting import client_sessions
from sidecar.dispatch.delivery import Policy
from sidecar.dispatch.dispatcher import Dispatcher
from sidecar.dispatch.roster import Roster, Settings
from sidecar.dispatch.target import Targets
from sidecar.journal.sqlite import SqliteJournal
from sidecar.meters import DispatchMetrics
from sidecar.snapshot import FsmSnapshot, FsmState
from sidecar.store import AsyncStateStore

PATIENCE_SECONDS = 20.0
"""A test that waits longer than this for what should happen has failed."""

NEVER_SECONDS = 3600.0

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

TARGETS = Targets(TargetSettings())
"""This machine and private networks may be called, as by default."""

LONG_READ = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT count(*) FROM n"
"""Takes the database a moment."""

QUICK = Policy(
    timeout_seconds=NEVER_SECONDS,
    connect_timeout_seconds=NEVER_SECONDS,
    retry_seconds=(0.01, 0.01, 0.01),
    probe_interval_seconds=0.01,
    evict_seconds=NEVER_SECONDS,
)
"""Fails fast, never evicts: `msgspec.structs.replace` it for a test about one of its values."""


@dataclass(frozen=True)
class Request:
    """What arrived: header names in lower case, `at` on the monotonic clock, and the number of its connection."""

    target: str
    headers: dict[str, str]
    body: bytes
    at: float
    connection: int

    @property
    def data(self):
        return json.loads(self.body)["data"]

    @property
    def revision(self):
        return self.data["revision"]


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status=204, body=b"", **headers) -> Answer:
    """An ordinary answer; the connection stays open. `Retry_After="5"` is a header."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if status >= 200 and status != 204:
        fields.setdefault("Content-Length", len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return raw(f"HTTP/1.1 {status} Text\r\n{head}\r\n".encode() + body, close=False)


def raw(data: bytes, *, close=True) -> Answer:
    """These bytes, whatever they are."""

    async def give(reader, writer):
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return give


def held(gate: asyncio.Event | asyncio.Semaphore, then: Answer | None = None) -> Answer:
    """Nothing, until the gate lets it pass."""

    async def give(reader, writer):
        await (gate.wait() if isinstance(gate, asyncio.Event) else gate.acquire())
        await (then or answer())(reader, writer)

    return give


async def hang(reader, writer):
    """Nothing, until the sender gives up."""
    await reader.read()
    writer.close()


async def reset(reader, writer):
    """The connection breaks with an RST."""
    broken = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, broken)
    writer.transport.abort()


def partly(data: bytes, then: Answer) -> Answer:
    """These bytes, and then something else."""

    async def give(reader, writer):
        await raw(data, close=False)(reader, writer)
        await then(reader, writer)

    return give


def endless(data: bytes, pause_seconds=0.0) -> Answer:
    """The same bytes again and again, until the sender has had enough."""

    async def give(reader, writer):
        while True:
            await raw(data, close=False)(reader, writer)
            await asyncio.sleep(pause_seconds)

    return give


class Receiver:
    """A real HTTP server on a free port. It records each request, and gives the answers in order; the last one stays.

    `at_once` counts the requests that wait for an answer now, `most_at_once` the most there ever were.
    """

    def __init__(self, *answers: Answer | int, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.scheme = "https" if tls else "http"
        self._tls = tls
        self._arrived = asyncio.Condition()
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.answers(*answers)

    def answers(self, *answers: Answer | int) -> None:
        """From now on, these. A number is a status."""
        self._answers = [answer(each) if isinstance(each, int) else each for each in answers or (204,)]

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    @property
    def revisions(self) -> list[int]:
        return [request.revision for request in self.requests]

    async def arrived(self, count: int) -> list[Request]:
        """Wait until there were so many requests; gives the first so many."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)
        return self.requests[:count]

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await _turns()  # a connection that was just accepted is served by now; a closed server would forget it
        self._server.close()
        for task, writer in self._open.items():
            writer.transport.abort()
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)
        await _turns()  # and closed

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._open[task] = writer
        self.connections += 1
        number = self.connections
        try:
            while not writer.is_closing():
                await self._answer_one(number, reader, writer)
        except _TlsError:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the sender went, or the test is over
        finally:
            del self._open[task]
            writer.close()

    async def _answer_one(self, number, reader, writer):
        request = await _read(number, reader)
        give = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        try:
            await give(reader, writer)
        finally:  # in the step that wrote the answer, so before the sender can go on
            self.at_once -= 1


async def _turns():
    """Let the event loop turn a few times."""
    for _ in range(5):
        await asyncio.sleep(0)


class _TlsError(Exception):
    """A TLS handshake came to a plain port."""


async def _read(connection, reader) -> Request:
    head = await reader.readexactly(1)
    if head == b"\x16":
        raise _TlsError
    head += await reader.readuntil(b"\r\n\r\n")
    request, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(request.split(" ")[1], headers, body, time.monotonic(), connection)


@contextlib.asynccontextmanager
async def busy(database: Database):
    """The writer thread is busy in the block: what is handed over there waits, and shares one commit after it."""
    reading = asyncio.create_task(database.read(LONG_READ))
    await asyncio.sleep(0)
    while database.queue_length:  # noqa: ASYNC110  (until the thread has taken it)
        await asyncio.sleep(0)
    yield
    await reading


class Sender:
    """The sending side: journal, store, roster and a running dispatcher, put together as the service does it.

    A second one on the same file takes up what the first one left. When the dispatcher dies, leaving the block tells it.
    """

    def __init__(
        self,
        path: Path,
        *,
        policy: Policy = QUICK,
        limit: int = 100,
        max_in_flight: int = 64,
        tombstone_seconds: float = NEVER_SECONDS,
        configured: tuple[tuple[str, Settings], ...] = (),
    ) -> None:
        self.audience = Audience(limit)
        self.registry = CollectorRegistry()
        self._path = path
        self._policy = policy
        self._max_in_flight = max_in_flight
        self._tombstone_seconds = tombstone_seconds
        self._configured = configured
        self._death_told = False

    async def __aenter__(self):
        async with contextlib.AsyncExitStack() as stack:
            self.database = await stack.enter_async_context(Database(self._path))
            self.journal = SqliteJournal(self.database)
            self.store = AsyncStateStore(journal=self.journal, audience=self.audience)
            await self.store.recover()
            metrics = DispatchMetrics(self.registry)
            self.roster = Roster(self.database, self.audience, metrics, TARGETS, tombstone_seconds=self._tombstone_seconds)
            await self.roster.load()
            self.roster.configure(self._configured)
            self.dispatcher = Dispatcher(
                roster=self.roster,
                journal=self.journal,
                sessions=await stack.enter_async_context(client_sessions(TARGETS)),
                policy=self._policy,
                max_in_flight=self._max_in_flight,
                audience=self.audience,
                metrics=metrics,
            )
            stack.callback(self.roster.save_changed)
            self.running = asyncio.create_task(self.dispatcher.run())
            stack.push_async_callback(self._stop)
            await asyncio.sleep(0)  # the dispatcher has begun
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()

    async def _stop(self):
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            if not self._death_told:
                await self.running

    async def death(self) -> BaseException | None:
        """Wait until the dispatcher dies; gives the reason, which leaving the block does not tell again."""
        self._death_told = True
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait([self.running])
        return self.running.exception()

    async def register(self, subscriber_id: str, url: str, **settings):
        """The subscriber, registered with its receiver's secret known to the tests."""
        settings.setdefault("secret", SECRET)
        subscriber, *_ = await self.dispatcher.register(subscriber_id, Settings(url, **settings))
        return subscriber

    async def write(self, count: int = 1) -> None:
        """Write so many snapshots, one after the other: each makes a revision."""
        for _ in range(count):
            await self.store.set(FsmSnapshot(0, FsmState.IDLE, f"number {self.journal.head + 1}"))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                if self.running.done():
                    self.running.result()
                await asyncio.sleep(0.001)

    async def delivered(self, *subscriber_ids: str) -> None:
        """Wait until these have acknowledged the head."""
        await self.until(lambda: all(self.roster.get(each).cursor == self.journal.head for each in subscriber_ids))

    def count(self, name: str, **labels: str) -> float | None:
        """The value of a metric."""
        return self.registry.get_sample_value(name, labels)
