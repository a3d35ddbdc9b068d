"""How long the event loop was busy at a time: while it is, nothing is answered, also no probe."""

import asyncio
import time
from collections import deque

_LOOK_SECONDS = 0.25
_KEPT = 11
"""Seconds, the one under way included."""


class LoopLag:
    """The lateness of a task that wants to run four times a second."""

    def __init__(self) -> None:
        self._worst: deque[float] = deque([0.0], maxlen=_KEPT)
        self._second = int(time.monotonic())

    @property
    def seconds(self) -> float:
        """The longest time in the last 10 to 11 s that nothing else could run."""
        return max(self._worst)

    async def run(self) -> None:
        """The core task; runs until cancelled."""
        while True:
            asked = time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            for _ in range(min(int(now) - self._second, _KEPT)):
                self._worst.append(0.0)
            self._second = int(now)
            self._worst[-1] = max(self._worst[-1], now - asked - _LOOK_SECONDS)
