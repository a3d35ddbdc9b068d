"""From a write to its webhook: the time from sending a PUT until a receiver has the state.

The receiver is a process of its own. `back to back`: the next write follows the last arrival at once; `paced`: 3 ms later,
as from an agent that does something else meanwhile. Usage: python -m benchmarks.webhook [--count 2000]
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time

import aiohttp
import uvloop
from aiohttp import web

from benchmarks.processes import call, sidecar
from benchmarks.wrk import BODY


def receive(port: "multiprocessing.Queue[int]", arrivals: "multiprocessing.Queue[tuple[int, float]]") -> None:
    """The receiver: notes when each revision came. Both processes read the same monotonic clock."""

    async def hook(request: web.Request) -> web.Response:
        body = await request.read()
        now = time.monotonic()
        arrivals.put((json.loads(body)["data"]["revision"], now))
        return web.Response(status=204)

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/hook", hook)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    uvloop.run(serve())


async def write(url: str, count: int, pause: float, arrivals: "multiprocessing.Queue[tuple[int, float]]") -> list[float]:
    """Milliseconds from each PUT to its arrival."""
    delays = []
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            sent = time.monotonic()
            async with session.put(f"{url}/v1/state", data=BODY, headers=headers) as response:
                revision = (await response.json())["revision"]
            while (arrival := arrivals.get())[0] != revision:
                pass
            delays.append((arrival[1] - sent) * 1000)
            await asyncio.sleep(pause)
    return delays


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    port, arrivals = context.Queue(), context.Queue()
    receiver = context.Process(target=receive, args=(port, arrivals), daemon=True)
    receiver.start()
    hook = f"http://127.0.0.1:{port.get()}/hook"
    for backend in ("sqlite", "memory"):
        with sidecar(backend) as running:
            call("PUT", f"{running.url}/v1/subscribers/bench", {"url": hook})
            asyncio.run(write(running.url, 100, 0.0, arrivals))
            for name, pause in (("back to back", 0.0), ("paced", 0.003)):
                delays = sorted(asyncio.run(write(running.url, options.count, pause, arrivals)))
                p99 = delays[len(delays) * 99 // 100]
                print(f"{backend:7} {name:13} p50 {statistics.median(delays):6.2f} ms   p99 {p99:6.2f} ms")
    receiver.terminate()


if __name__ == "__main__":
    main()
