"""The yardstick: bare aiohttp handlers. PUT parses the body and returns it, GET gives the last one. No disk, no metrics.

Usage: python -m benchmarks.bare PORT
"""

import asyncio
import gc
import sys

import msgspec
import uvloop
from aiohttp import web

from sidecar.api.wire import StateWrite

_decode = msgspec.json.Decoder(StateWrite).decode
_encode = msgspec.json.Encoder().encode


class Bare:
    """One body."""

    body = b""

    async def put(self, request: web.Request) -> web.Response:
        """Parse and answer the same."""
        self.body = _encode(_decode(await request.read()))
        return web.Response(body=self.body, content_type="application/json")

    async def get(self, request: web.Request) -> web.Response:
        """What came last."""
        return web.Response(body=self.body, content_type="application/json")


async def serve(port: int) -> None:
    """Until killed."""
    app, handlers = web.Application(), Bare()
    app.router.add_put("/v1/state", handlers.put)
    app.router.add_get("/v1/state", handlers.get)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
