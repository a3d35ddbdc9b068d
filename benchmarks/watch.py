"""From one write to many watchers of GET /v1/watch: the time until each has the state, and what they cost everybody else.

The watchers are one process, as cheap as can be. For each number of them: the memory that one takes; the time from sending a
write until a watcher has it, with one write at a time and with writers that do not wait; the writers' own latency meanwhile,
which without watchers is the measure; and the longest time that the event loop was busy.
Usage: python -m benchmarks.watch [--watchers 0 1 100 1000] [--writes 100]
"""

import argparse
import asyncio
import multiprocessing
import re
import resource
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

import aiohttp
import uvloop

from benchmarks.fanout import write
from benchmarks.processes import Running, get, resident_mib, sidecar
from benchmarks.wrk import BODY

ASK = b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n"
WRITERS = 4
_LAG = re.compile(rb"^fsm_event_loop_lag_seconds ([0-9.e-]+)$", re.MULTILINE)
_ID = re.compile(rb"^id: [a-z0-9]+-(\d+)$", re.MULTILINE)


class Watcher(asyncio.Protocol):
    """Notes the revision of each event, and when it came. Events come whole, or nearly so: an id is never cut in this test."""

    def __init__(self, arrivals: list[tuple[int, float]]) -> None:
        self._arrivals = arrivals
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(ASK)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            if match := _ID.search(event):
                self._arrivals.append((int(match[1]), now))


def watch(pipe: Connection, host: str, port: int, count: int) -> None:
    """The watchers' process. Asked for a number of arrivals, it waits for so many, and hands them over."""
    arrivals: list[tuple[int, float]] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            await loop.create_connection(lambda: Watcher(arrivals), host, port)
        while True:
            while not pipe.poll():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            wanted = pipe.recv()
            while len(arrivals) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            pipe.send(list(arrivals))
            arrivals.clear()

    uvloop.run(serve())


class Watchers:
    """The watchers, from the side of whoever measures."""

    def __init__(self, running: Running, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        host, port = running.url.removeprefix("http://").split(":")
        self._process = context.Process(target=watch, args=(other, host, int(port), count), daemon=True)
        self._process.start()

    def arrived(self, count: int) -> list[tuple[int, float]]:
        self._pipe.send(count)
        return self._pipe.recv()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


class Writes(NamedTuple):
    """When each revision was sent, and how long each write took, in milliseconds."""

    sent: dict[int, float]
    took: list[float]


async def writes(url: str, count: int, writers: int) -> Writes:
    """Write so often, each writer one after the other."""
    sent, took = {}, []
    async with aiohttp.ClientSession() as session:

        async def one() -> None:
            for _ in range(count // writers):
                begun = time.monotonic()
                async with session.put(f"{url}/v1/state", data=BODY, headers={"Content-Type": "application/json"}) as answer:
                    revision = (await answer.json())["revision"]
                took.append((time.monotonic() - begun) * 1000)
                sent[revision] = begun

        await asyncio.gather(*(one() for _ in range(writers)))
    return Writes(sent, took)


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    return "p50 {:6.2f} p99 {:6.2f} ms".format(*(ordered[len(ordered) * percent // 100] for percent in (50, 99)))


def measured(running: Running, watchers: Watchers | None, each: int, count: int, writers: int) -> str:
    """Writes by so many writers: what they took, and when the watchers had them."""
    done = uvloop.run(writes(running.url, count, writers))
    told = f"PUT {percentiles(done.took)}"
    if watchers:
        arrivals = watchers.arrived(len(done.sent) * each)
        told += f", seen {percentiles([(at - done.sent[revision]) * 1000 for revision, at in arrivals])}"
    return told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, nargs="+", default=[0, 1, 100, 1000])
    parser.add_argument("--writes", type=int, default=100)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for count in options.watchers:
        with sidecar(watch={"max_lag": 100_000}) as running:
            uvloop.run(write(running.url, 200))  # warm
            before = resident_mib(running.pid)
            watchers = Watchers(running, count) if count else None
            if watchers:
                watchers.arrived(count)
            grown = f"{(resident_mib(running.pid) - before) * 1024 / count:5.1f} KiB each" if count else ""
            print(f"{count:5} watchers {grown}")
            print(f"      one writer:    {measured(running, watchers, count, options.writes, 1)}")
            print(f"      {WRITERS} writers:     {measured(running, watchers, count, options.writes, WRITERS)}")
            (lag,) = _LAG.findall(get(f"{running.ops_url}/metrics"))
            print(f"      event loop busy for at most {float(lag) * 1000:.1f} ms", flush=True)
            if watchers:
                watchers.close()


if __name__ == "__main__":
    main()
