"""The yardstick: a bare aiohttp handler that parses the body of a PUT and returns it. No state, no disk, no metrics.

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


async def put(request: web.Request) -> web.Response:
    """Parse and answer the same."""
    return web.Response(body=_encode(_decode(await request.read())), content_type="application/json")


async def serve(port: int) -> None:
    """Until killed."""
    app = web.Application()
    app.router.add_put("/v1/state", put)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
