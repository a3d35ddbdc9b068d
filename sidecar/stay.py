"""Since when the agent is in its state, as the journal tells it."""

from collections.abc import Sequence
from typing import NamedTuple

from sidecar.document import state_of
from sidecar.journal import Entry, Journal

_WINDOW = 256
_WINDOWS = 64


class _Step(NamedTuple):
    revision: int
    at: float
    state: str


async def entered_at(journal: Journal, newest: Entry) -> float:
    """When the state of the newest revision was entered, in seconds since the Unix epoch.

    At most 16 384 revisions are looked at, so that a start does not take longer with the stay; and none beyond a hole.
    """
    first = _step(newest)
    for _ in range(_WINDOWS):
        steps = await _before(journal, first.revision)
        for step in reversed(steps):
            if step.state != first.state or step.revision != first.revision - 1:
                return first.at
            first = step
        if not steps:
            break
    return first.at


async def _before(journal: Journal, revision: int) -> Sequence[_Step]:
    """Some of what came right before, oldest first. Large documents come in several pages."""
    steps: list[_Step] = []
    after = max(revision - _WINDOW, journal.oldest) - 1
    while after < revision - 1:
        page = await journal.read(after, revision - 1 - after)
        steps += [_step(entry) for entry in page if entry.revision < revision]
        after = page[-1].revision
    return steps


def _step(entry: Entry) -> _Step:
    return _Step(entry.revision, entry.appended_at, state_of(entry.document))
