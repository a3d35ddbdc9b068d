"""From one write to many webhooks: deliveries a second, and the time until each receiver has the state.

The receivers are one process, as cheap as can be. Beside it the limit: the bare aiohttp client, with as many connections and
attempts at once, posting the same bytes to the same receivers. Then what subscribers cost that get nothing, and 1000 dead ones.
Usage: python -m benchmarks.fanout [--rounds 3] [--deliveries 20000]
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.processes import Running, call, free_port, get, resident_mib, sidecar
from benchmarks.wrk import BODY

SUBSCRIBERS = (1, 10, 100, 1000)
IN_FLIGHT = 64
PATIENT = {"timeout": "30s"}  # nobody fails while the receivers are held
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Hooks:
    """What all receivers share. While held they answer nothing. `last`: the newest message as it came."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[int, float]] = []
        self.held: list[asyncio.Transport] | None = None
        self.last = b""


class Hook(asyncio.Protocol):
    """Answers each request; notes its revision, and when it came."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.index(b"content-length:") + 15
        if len(rest) < int(lower[at:].split(b"\r\n", 1)[0]):
            return
        self._hooks.last, self._data = self._data, b""
        at = rest.find(b'"revision":') + 11
        self._hooks.arrivals.append((int(rest[at : at + 12].split(b",", 1)[0]), time.monotonic()))
        if self._hooks.held is None:
            self._transport.write(OK)
        else:
            self._hooks.held.append(self._transport)


def receive(pipe: Connection) -> None:
    """The receivers' process. It is told to hold and to go on; asked for a count, it waits for so many, and hands them over."""
    hooks = Hooks()

    async def arrived(count: int) -> None:
        while len(hooks.arrivals) < count:  # noqa: ASYNC110  (costs the receivers nothing)
            await asyncio.sleep(0.002)
        pipe.send((list(hooks.arrivals), hooks.last))
        hooks.arrivals.clear()

    def go() -> None:
        held, hooks.held = hooks.held or [], None
        for transport in held:
            transport.write(OK)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Hook(hooks), "127.0.0.1", 0, backlog=2048)
        pipe.send(server.sockets[0].getsockname()[1])
        while True:
            while not pipe.poll():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            asked = pipe.recv()
            if asked == "hold":
                hooks.held = []
            elif asked == "go":
                go()
            else:
                await arrived(asked)

    uvloop.run(serve())


class Receivers:
    """The receivers, from the side of whoever measures."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=receive, args=(other,), daemon=True)
        self._process.start()
        self.url = f"http://127.0.0.1:{self._pipe.recv()}/hook"
        self.last = b""

    def arrived(self, count: int) -> list[tuple[int, float]]:
        """The revisions and times of the next `count` deliveries."""
        self._pipe.send(count)
        arrivals, self.last = self._pipe.recv()
        return arrivals

    def tell(self, word: str) -> None:
        """`hold` or `go`."""
        self._pipe.send(word)

    def close(self) -> None:
        self._process.terminate()


def subscribed(running: Running, count: int, url: str) -> None:
    """So many subscribers, all of whom may lag."""
    for n in range(count):
        call("PUT", f"{running.url}/v1/subscribers/s{n}", {"url": f"{url}/{n}", "max_lag": 100_000})


async def write(url: str, count: int, pause: float = 0.0) -> list[float]:
    """Write so often; gives the times of sending."""
    sent = []
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            sent.append(time.monotonic())
            async with session.put(f"{url}/v1/state", data=BODY, headers={"Content-Type": "application/json"}) as response:
                await response.read()
            await asyncio.sleep(pause)
    return sent


def rate(running: Running, receivers: Receivers, subscribers: int, deliveries: int) -> float:
    """Deliveries a second while a backlog is worked off, by all at once."""
    writes = max(2, deliveries // subscribers)
    receivers.tell("hold")
    asyncio.run(write(running.url, writes))
    started = time.monotonic()
    receivers.tell("go")
    arrivals = receivers.arrived(writes * subscribers)
    return len(arrivals) / (arrivals[-1][1] - started)


def propagation(running: Running, receivers: Receivers, subscribers: int) -> list[float]:
    """Milliseconds from sending a write until each receiver has it, one write after the other."""
    delays = []
    for _ in range(max(5, 1000 // subscribers)):
        (sent,) = asyncio.run(write(running.url, 1))
        delays += [(at - sent) * 1000 for _, at in receivers.arrived(subscribers)]
    return sorted(delays)


async def _post(url: str, subscribers: int, deliveries: int, body: bytes, headers: dict[str, str]) -> None:
    places = asyncio.Semaphore(IN_FLIGHT)
    timeout = aiohttp.ClientTimeout(total=5.0, sock_connect=2.0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:

        async def one(n: int) -> None:
            for _ in range(max(2, deliveries // subscribers)):
                async with (
                    places,
                    session.post(f"{url}/{n}", data=body, headers=headers, timeout=timeout, allow_redirects=False) as response,
                ):
                    await response.read()

        await asyncio.gather(*(one(n) for n in range(subscribers)))


def limit(receivers: Receivers, subscribers: int, deliveries: int) -> float:
    """The same number of the same bytes, by the client alone."""
    head, _, body = receivers.last.partition(b"\r\n\r\n")
    lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
    headers = {name: value for name, value in lines if name.lower() not in ("host", "content-length")}
    started = time.monotonic()
    uvloop.run(_post(receivers.url, subscribers, deliveries, body, headers))
    count = max(2, deliveries // subscribers) * subscribers
    return count / (receivers.arrived(count)[-1][1] - started)


def cpu_seconds(pid: int) -> float:
    """What the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def idle_and_dead(receivers: Receivers) -> None:
    """The memory of 1000 who get nothing more, and the CPU of 1000 that nobody answers for."""
    with sidecar(store={"max_subscribers": 1000}) as running:
        before = resident_mib(running.pid)
        subscribed(running, 1000, receivers.url)
        receivers.arrived(1000)
        time.sleep(20)  # their connections are given back after 15 s
        print(f"idle  1000 subscribers: {(resident_mib(running.pid) - before) * 1024 / 1000:.1f} KiB each")
    with sidecar(store={"max_subscribers": 1000}) as running:
        subscribed(running, 1000, f"http://127.0.0.1:{free_port()}")
        states: dict[str, int] = {}
        while states.get("suspended", 0) < 1000:
            time.sleep(5)
            listed = json.loads(get(f"{running.url}/v1/subscribers"))["subscribers"]
            states = {status: sum(each["status"] == status for each in listed) for status in {s["status"] for s in listed}}
        used = cpu_seconds(running.pid)
        time.sleep(30)
        print(f"dead  1000 subscribers: {(cpu_seconds(running.pid) - used) / 30 * 100:.1f} % of a core while suspended")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--still", action="store_true", help="also measure idle and dead subscribers, which takes minutes")
    options = parser.parse_args()
    receivers = Receivers()
    for subscribers in SUBSCRIBERS:
        with sidecar(store={"max_subscribers": 1000}, webhooks=PATIENT) as running:
            subscribed(running, subscribers, receivers.url)
            receivers.arrived(subscribers)
            rates, shares = [], []
            for _ in range(options.rounds):
                rates.append(rate(running, receivers, subscribers, options.deliveries))
                shares.append(rates[-1] / limit(receivers, subscribers, options.deliveries))
            delays = propagation(running, receivers, subscribers)
            p50, p99 = statistics.median(delays), delays[len(delays) * 99 // 100]
        print(
            f"{subscribers:5} subscribers  {statistics.median(rates):7.0f} deliveries/s,"
            f" {statistics.median(shares):.2f} of bare"
            f" ({min(shares):.2f} … {max(shares):.2f})   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms",
            flush=True,
        )
    if options.still:
        idle_and_dead(receivers)
    receivers.close()


if __name__ == "__main__":
    main()
