"""From a write to whoever listens: the sidecar's webhook beside etcd's watch and Redis' publish, on the same disk.

One program writes and listens, one write after the other: the time from sending a write until its event is here. The
sidecar's event is an HTTP POST, etcd's a line of its JSON gateway's stream, Redis' a message of its own protocol; each write
is on the disk before it is answered (Redis: `appendfsync always`; it publishes before it syncs, in the same step).
Needs etcd and redis-server. Usage: python -m benchmarks.push [--rounds 3] [--count 1000]
"""

import argparse
import asyncio
import statistics
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import aiohttp
import uvloop
from aiohttp import web

from benchmarks.peers import QUIET, etcd
from benchmarks.processes import Running, folder_on_disk, free_port, listening, sidecar
from benchmarks.wrk import BODY, needed

Write = Callable[[], Awaitable[None]]
JSON = {"Content-Type": "application/json"}


@contextmanager
def redis() -> Iterator[Running]:
    """Redis that syncs its log before each answer."""
    with folder_on_disk() as folder:
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        with listening(command, port, **QUIET) as running:
            yield running


@asynccontextmanager
async def of_sidecar(url: str, came: asyncio.Event) -> AsyncIterator[Write]:
    """A webhook subscriber in this program."""

    async def hook(request: web.BaseRequest) -> web.Response:
        await request.read()
        came.set()
        return web.Response(status=204)

    runner = web.ServerRunner(web.Server(hook, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", free_port())
    await site.start()
    async with aiohttp.ClientSession() as session:

        async def write() -> None:
            async with session.put(f"{url}/v1/state", data=BODY, headers=JSON) as response:
                await response.read()

        await write()
        async with session.put(f"{url}/v1/subscribers/push", json={"url": f"{site.name}/hook"}) as response:
            assert response.status == 201, await response.text()
        await came.wait()
        yield write
    await runner.cleanup()


@asynccontextmanager
async def of_etcd(url: str, came: asyncio.Event) -> AsyncIterator[Write]:
    """A watch over the JSON gateway."""
    key = b64encode(b"state").decode()
    value = b64encode(BODY if isinstance(BODY, bytes) else BODY.encode()).decode()
    async with aiohttp.ClientSession() as session:

        async def write() -> None:
            async with session.post(f"{url}/v3/kv/put", json={"key": key, "value": value}) as response:
                await response.read()

        async with session.post(f"{url}/v3/watch", json={"create_request": {"key": key}}) as stream:
            await stream.content.readline()  # it is there

            async def listen() -> None:
                while await stream.content.readline():
                    came.set()

            listening = asyncio.create_task(listen())
            yield write
            listening.cancel()


@asynccontextmanager
async def of_redis(url: str, came: asyncio.Event) -> AsyncIterator[Write]:
    """SET and PUBLISH in one step, and a subscription."""
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    events, subscription = await asyncio.open_connection("127.0.0.1", port)
    body = BODY if isinstance(BODY, bytes) else BODY.encode()
    words = [[b"MULTI"], [b"SET", b"state", body], [b"PUBLISH", b"states", body], [b"EXEC"]]
    command = b"".join(_resp(each) for each in words)
    subscription.write(_resp([b"SUBSCRIBE", b"states"]))
    for _ in range(6):
        await events.readline()

    async def listen() -> None:
        while await events.readexactly(_MESSAGE + len(body)):
            came.set()

    async def write() -> None:
        writer.write(command)
        for _ in range(6):  # OK, QUEUED, QUEUED, *2, OK, :1
            await reader.readline()

    listening = asyncio.create_task(listen())
    yield write
    listening.cancel()
    writer.close()
    subscription.close()


def _resp(words: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


_LENGTH = len(str(len(BODY)))
_MESSAGE = len(b"*3\r\n$7\r\nmessage\r\n$6\r\nstates\r\n$\r\n\r\n") + _LENGTH


async def delays(write: Write, came: asyncio.Event, count: int) -> list[float]:
    """Milliseconds, each from sending a write until its event is here."""
    found = []
    for _ in range(count):
        came.clear()
        sent = time.perf_counter()
        writing = asyncio.ensure_future(write())
        await came.wait()
        found.append((time.perf_counter() - sent) * 1000)
        await writing
    return found


async def measure(urls: dict[str, str], rounds: int, count: int) -> dict[str, list[list[float]]]:
    """All in turn, so that a noisy machine is noisy for everybody."""
    open_ = {"sidecar": of_sidecar, "etcd": of_etcd, "redis": of_redis}
    found: dict[str, list[list[float]]] = {name: [] for name in urls}
    async with AsyncExitStack() as stack:
        came = {name: asyncio.Event() for name in urls}
        writes = {name: await stack.enter_async_context(open_[name](url, came[name])) for name, url in urls.items()}
        for _ in range(rounds):
            for name, write in writes.items():
                await delays(write, came[name], 100)
                found[name].append(sorted(await delays(write, came[name], count)))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    needed("etcd", "redis-server")
    with sidecar() as ours, etcd() as theirs, redis() as other:
        found = uvloop.run(
            measure({"sidecar": ours.url, "etcd": theirs.url, "redis": other.url}, options.rounds, options.count)
        )
    for name, runs in found.items():
        p50, p99 = [statistics.median(run) for run in runs], [run[len(run) * 99 // 100] for run in runs]
        print(
            f"{name:8} p50 {statistics.median(p50):5.2f} ms ({min(p50):.2f} … {max(p50):.2f})"
            f"   p99 {statistics.median(p99):5.2f} ms ({min(p99):.2f} … {max(p99):.2f})"
        )


if __name__ == "__main__":
    main()
