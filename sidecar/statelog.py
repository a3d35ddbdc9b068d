"""Follows the journal, and writes one log line for each change of state. A write never waits for it."""

import asyncio
from contextlib import suppress

import msgspec
import structlog

from sidecar.errors import CompactedError, StorageError
from sidecar.journal import Entry, Journal
from sidecar.logs import Summarised

_log = structlog.get_logger("state")

_PAGE = 1024
_PAUSE_SECONDS = 0.02
"""Between two looks, so that a burst of writes wakes this task once, not once for each."""


class _Line(msgspec.Struct, frozen=True):
    version: int
    state: str
    reason: str
    source_module: str


_decode = msgspec.json.Decoder(_Line).decode


class StateLog:
    """The log lines of a journal's changes of state, after its head, beginning in `state`."""

    def __init__(self, journal: Journal, state: str | None) -> None:
        self._journal = journal
        self._state = state
        self._after = journal.head
        self._tell = Summarised(_log.info)

    async def run(self) -> None:
        """The core task; runs until cancelled, and then tells what it has not told yet."""
        try:
            while True:
                await self._journal.beyond(self._after)
                await self._catch_up()
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            with suppress(StorageError):
                await self._catch_up()
            self._tell.flush()

    async def _catch_up(self) -> None:
        while self._after < self._journal.head:
            try:
                entries = await self._journal.read(self._after, _PAGE)
            except CompactedError as error:
                self._after = error.oldest - 1
                continue
            for entry in entries:
                self._state = _tell_change(self._tell, entry, self._state)
            self._after = entries[-1].revision


def _tell_change(tell: Summarised, entry: Entry, state: str | None) -> str:
    line = _decode(entry.document)
    if line.state != state:
        tell(
            "state_changed",
            state=line.state,
            before=state,
            version=line.version,
            revision=entry.revision,
            reason=line.reason,
            source_module=line.source_module,
        )
    return line.state
