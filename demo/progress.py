"""A number that only grows, for others to wait for: how far the flight is, which revision has arrived."""

import asyncio
import math


class Progress:
    """How far something has got."""

    def __init__(self) -> None:
        self.value: float = -math.inf
        self._moved = asyncio.Event()

    def advance(self, value: float) -> None:
        """It has got as far as `value`."""
        self.value = max(self.value, value)
        self._moved.set()
        self._moved = asyncio.Event()

    async def reach(self, value: float) -> None:
        """Wait until it has got as far as `value`."""
        while self.value < value:
            await self._moved.wait()
