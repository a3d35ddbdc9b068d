"""Watches over the agent: looks again and again whether it has gone silent, or stays too long where it should not."""

import asyncio
from collections.abc import Awaitable, Callable

LOOK_SECONDS = 0.25


async def watch_over(*looks: Callable[[], Awaitable[None]]) -> None:
    """The core task; runs until cancelled."""
    while True:
        for look in looks:
            await look()
        await asyncio.sleep(LOOK_SECONDS)
