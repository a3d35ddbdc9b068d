"""Receivers that record all they get, each with its own manners, on an event loop of their own."""

import asyncio
import contextlib
import threading
import time
from collections import defaultdict

import uvloop
from delivery_rules import Got

_OK = b"HTTP/1.1 204 No Content\r\n\r\n"
_OK_AND_BYE = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
_BUSY = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
SLOW_SECONDS = 0.002

MANNERS = ("healthy", "flapping", "slow", "resetting", "closing", "batch")
"""What a receiver does: always answers; fails every 7th time; takes its time; breaks the connection every 50th time, before it
answers; closes it after each answer; takes batches."""


class Recorders:
    """`url(name, manner)` is a receiver; `recordings[name]` is what it got. `life`: set it before each start."""

    def __init__(self):
        self.recordings = defaultdict(list)
        self.life = 0
        self._connections = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=uvloop.run, args=(self._run(),), name="recorders")

    def url(self, name, manner):
        return f"http://127.0.0.1:{self._port}/{manner}/{name}"

    @property
    def quiet(self):
        """Whether nobody is connected: all that a killed sidecar sent has been read."""
        return not self._connections

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    async def _run(self):
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    await self._answer(reader, writer)
        finally:
            writer.close()
            self._connections.discard(task)

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body, at = await reader.readexactly(int(headers["content-length"])), time.time()
        _, manner, name = request.split(" ")[1].split("/")
        got = Got(headers, body, at, float("inf"), None, self.life)
        self.recordings[name].append(got)
        count = len(self.recordings[name])
        if manner == "resetting" and count % 50 == 0:
            got.until = time.time()
            writer.transport.abort()
            return
        if manner == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        got.status = 500 if manner == "flapping" and count % 7 == 0 else 204
        got.until = time.time()
        writer.write(_BUSY if got.status == 500 else _OK_AND_BYE if manner == "closing" else _OK)
        if manner == "closing":
            writer.close()
