"""The agent: PX4's commander, which keeps the sidecar informed of everything it publishes."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from demo.api import Api, ConflictError, IllegalTransitionError
from demo.progress import Progress
from demo.story import Story
from demo.trace import Message

NAME = "commander"


class Commander:
    """One write a message, each with the ETag of the last one: it notices when somebody else has written meanwhile."""

    def __init__(self, api: Api, story: Story, flight: Progress) -> None:
        self._api = api
        self._story = story
        self._flight = flight
        self._etag: str | None = None

    async def fly(self, messages: Sequence[Message], speed: float) -> None:
        """Replay the messages at their times, `speed` times as fast. `flight` follows what is acknowledged."""
        clock = asyncio.get_running_loop().time
        takes_off_at = clock() - messages[0].seconds / speed
        for message in messages:
            await asyncio.sleep(takes_off_at + message.seconds / speed - clock())
            await self._publish(message)
            self._flight.advance(message.seconds)

    async def _publish(self, message: Message) -> None:
        """Write until it is accepted: after a lost race on what is current now."""
        while True:
            snapshot = _snapshot(message)
            try:
                stored = await self._api.put_state(snapshot, if_match=self._etag)
            except ConflictError as conflict:
                self._story.conflict(snapshot, conflict.problem)
                self._etag = conflict.etag
            except IllegalTransitionError as illegal:
                self._story.illegal(NAME, illegal.problem)
                return
            else:
                self._etag = stored.etag
                return


def _snapshot(message: Message) -> dict[str, Any]:
    """State and data in one write, so that nobody ever sees the one without the other."""
    return {
        "state": message.nav_state,
        "reason": f"{message.topic}: {', '.join(message.changed)}" if message.changed else message.topic,
        "source_module": NAME,
        "ts_wall": time.time(),
        "context_data": {
            "arming_state": message.arming_state,
            "landed": message.landed,
            "failsafe": message.failsafe,
        },
    }
