"""One watch that serves all queues of a client."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from sidecar.client.problems import UnavailableError
from sidecar.client.states import Change, Gap, Position
from sidecar.errors import StateStoreError
from sidecar.readers import Readers
from sidecar.snapshot import FsmSnapshot

_PAUSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Feed:
    """Runs from the first queue to the last. `watch` begins behind a position; it is begun again whatever ends it."""

    def __init__(self, watch: Callable[[Position | None], AsyncGenerator[Change | Gap]], readers: Readers) -> None:
        self.newest: FsmSnapshot | None = None
        self._watch = watch
        self._readers = readers
        self._position = Position("", 0)
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def reach(self, position: Position, snapshot: FsmSnapshot | None, timeout_seconds: float) -> None:
        """Run, and be at least as far as `position`. Raises `UnavailableError` when that takes too long."""
        try:
            async with asyncio.timeout(timeout_seconds), self._moved:
                await self._moved.wait_for(lambda: self._task is None or self._is_at(position))
        except TimeoutError:
            raise UnavailableError(f"the watch has not reached {position} in time", outcome="not-applied") from None
        if self._task is None:
            self._position, self.newest = position, snapshot
            self._task = asyncio.create_task(self._run(), name="state client's watch")

    def _is_at(self, position: Position) -> bool:
        return self._position.epoch == position.epoch and self._position.revision >= position.revision

    async def _run(self) -> None:
        while True:
            try:
                async with aclosing(self._watch(self._position if self._position.revision else None)) as events:
                    async for event in events:
                        await self._take(event)
            except StateStoreError as error:
                _log.warning("state client: the watch ended, and is begun again: %s", error)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _take(self, event: Change | Gap) -> None:
        if isinstance(event, Gap):
            _log.warning("state client: %d revisions before %d were missed (%s)", event.skipped, event.revision, event.reason)
            return
        async with self._moved:
            self._position, self.newest = event.position, event.snapshot
            self._readers.show(event.snapshot)
            self._moved.notify_all()

    async def end(self) -> None:
        """Stop it. A later `reach` begins it anew."""
        task, self._task = self._task, None
        if task:
            task.cancel()
            await asyncio.wait([task])
            async with self._moved:
                self._moved.notify_all()
