"""Many kept connections on one event loop, to ask many things at the same moment."""

import asyncio
import contextlib
import json

from wire import status_and_length


class Racers:
    """Open connections, one for each who takes part."""

    def __init__(self, streams):
        self._streams = streams

    async def race(self, requests):
        """All requests at once, each on a connection of its own; the answers' status and JSON."""
        for (_, writer), data in zip(self._streams, requests, strict=True):
            writer.write(data)
        return await asyncio.gather(*(answer(reader) for reader, _ in self._streams))


async def answer(reader):
    """Status and JSON of the next answer."""
    status, length = status_and_length(await reader.readuntil(b"\r\n\r\n"))
    return status, json.loads(await reader.readexactly(length))


@contextlib.asynccontextmanager
async def racers(address, count):
    """So many connections, open while the block runs."""
    host, port = address.rsplit(":", 1)
    streams = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    try:
        yield Racers(streams)
    finally:
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)
