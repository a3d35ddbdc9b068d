"""Follows the journal, and writes one log line for each change of state. A write never waits for it."""

import asyncio

import msgspec
import structlog

from sidecar.errors import CompactedError
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


async def log_state_changes(journal: Journal, state: str | None) -> None:
    """Log every change of state after the head, beginning in `state`. Runs until cancelled."""
    tell = Summarised(_log.info)
    after = journal.head
    while True:
        try:
            entries = await journal.follow(after, _PAGE)
        except CompactedError as error:
            after = error.oldest - 1
            continue
        for entry in entries:
            state = _tell_change(tell, entry, state)
        after = entries[-1].revision
        await asyncio.sleep(_PAUSE_SECONDS)


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
