"""From one write to many watchers of GET /v1/watch: the time until each has the state, and what they cost everybody else.

The watchers are one process that does nothing but receive, and looks at what came afterwards. For each number of them: the
memory that one takes; the time from sending a write until a watcher has it, with one write at a time and with writers that do
not wait; the writers' own latency meanwhile, which without watchers is the measure; the sidecar's processor time; and the
longest time that the event loop was busy. With `--against`, all of it beside another version in its own folder, in turn.
Usage: python -m benchmarks.watch [--watchers 0 1 100 1000] [--writes 100] [--rounds 1] [--against FOLDER]
"""

import argparse
import asyncio
import multiprocessing
import re
import resource
import select
import socket
import sys
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import aiohttp
import uvloop

from benchmarks.fanout import write
from benchmarks.processes import Running, cpu_seconds, get, resident_mib, sidecar
from benchmarks.wrk import BODY, spread

ASK = b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n"
STATE = b"\nevent: state\n"
WRITERS = (1, 4)
PATIENCE_SECONDS = 30
READ_BYTES = 64 << 10
MANY = {"listen": "127.0.0.1:0", "limits": {"connections": 4096, "connections_per_peer": 4096}}
_LAG = re.compile(rb"^fsm_event_loop_lag_seconds ([0-9.e-]+)$", re.MULTILINE)
_ID = re.compile(rb"^id: [a-z0-9]+-(\d+)$", re.MULTILINE)  # events come whole: none is larger than what is read at once


def watch(pipe: Connection, host: str, port: int, count: int) -> None:
    """The watchers' process. Asked for a number of arrivals, it waits for so many, and hands them over."""
    connections: dict[int, socket.socket] = {}
    poll = select.epoll()
    for _ in range(count):
        connection = socket.create_connection((host, port), PATIENCE_SECONDS)
        connection.sendall(ASK)
        connections[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    poll.register(pipe, select.EPOLLIN)
    buffer = memoryview(bytearray(READ_BYTES))
    received: list[tuple[float, bytes]] = []
    wanted, came = 0, 0
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == pipe.fileno():
                wanted = pipe.recv()
            else:
                data = bytes(
                    buffer[: connections[descriptor].recv_into(buffer)]
                )  # a new one each time would cost more than all else
                received.append((time.monotonic(), data))
                came += data.count(STATE)
        if wanted and came >= wanted:
            pipe.send([(int(each[1]), at) for at, data in received for each in _ID.finditer(data)])
            received.clear()
            wanted, came = 0, came - wanted


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
        if not self._pipe.poll(PATIENCE_SECONDS):
            sys.exit(f"{count} events have not come in {PATIENCE_SECONDS} s")
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


class Figures(NamedTuple):
    """Of one run, in milliseconds; `cpu`: what one write costs the sidecar, its events included."""

    put50: float
    put99: float
    seen50: float
    seen99: float
    cpu: float


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100] if values else 0.0


def run(running: Running, watchers: Watchers | None, each: int, count: int, writers: int) -> Figures:
    """Writes by so many writers: what they took, and when the watchers had them."""
    before = cpu_seconds(running.pid)
    done = uvloop.run(writes(running.url, count, writers))
    arrivals = watchers.arrived(len(done.sent) * each) if watchers else []
    cpu = (cpu_seconds(running.pid) - before) / len(done.sent) * 1000
    seen = [(at - done.sent[revision]) * 1000 for revision, at in arrivals]
    return Figures(*(percentile(values, percent) for values in (done.took, seen) for percent in (50, 99)), cpu)


def measure(count: int, options: argparse.Namespace) -> None:
    """So many watchers, of each version: the one that is measured, and the one beside it."""
    versions = {"this": None, "other": options.against} if options.against else {"this": None}
    with ExitStack() as stack:
        sides = {}
        for name, checkout in versions.items():
            running = stack.enter_context(sidecar(checkout=checkout, watch={"max_lag": 100_000}, api=MANY))
            uvloop.run(write(running.url, 200))  # warm
            before = resident_mib(running.pid)
            watchers = Watchers(running, count) if count else None
            if watchers:
                stack.callback(watchers.close)
                watchers.arrived(count)
                each = (resident_mib(running.pid) - before) * 1024 / count
                print(f"{count} watchers, {name}: {each:.1f} KiB each")
            sides[name] = running, watchers
        for writers in WRITERS:
            runs: dict[str, list[Figures]] = {name: [] for name in sides}
            for n in range(options.rounds):
                for name, (running, watchers) in list(sides.items())[:: 1 if n % 2 else -1]:
                    runs[name].append(run(running, watchers, count, options.writes, writers))
            show(f"{count} watchers, {writers} writers", runs)
        for name, (running, _) in sides.items():
            (lag,) = _LAG.findall(get(f"{running.ops_url}/metrics"))
            print(f"{count} watchers, {name}: event loop busy for at most {float(lag) * 1000:.1f} ms", flush=True)


def show(title: str, runs: dict[str, list[Figures]]) -> None:
    """The medians, with their ranges; then how much less this version takes."""
    for name, rows in runs.items():
        columns = ", ".join(
            f"{field} {spread(column, '.1f')}" for field, column in zip(Figures._fields, zip(*rows, strict=True), strict=True)
        )
        print(f"{title}, {name}: {columns}")
    if "other" in runs:
        pairs = [
            [theirs / mine if mine else 1.0 for mine, theirs in zip(*pair, strict=True)]
            for pair in zip(runs["this"], runs["other"], strict=True)
        ]
        columns = ", ".join(
            f"{field} {spread(column, '.2f')}" for field, column in zip(Figures._fields, zip(*pairs, strict=True), strict=True)
        )
        print(f"{title}, other / this: {columns}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, nargs="+", default=[0, 1, 100, 1000])
    parser.add_argument("--writes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for count in options.watchers:
        measure(count, options)


if __name__ == "__main__":
    main()
