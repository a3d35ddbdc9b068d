"""The agent's heartbeat, and its last will: what the sidecar writes in its place when it goes silent.

Only heartbeats are signs of life: a write may come from anybody. An agent that never sent one is never lost.
"""

import time
from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import NamedTuple

import structlog

from sidecar.checks import Check
from sidecar.conflicts import Expectation
from sidecar.errors import IllegalTransitionError, InvalidSnapshotError, OverloadedError, StateVersionError, StorageError
from sidecar.store import AsyncStateStore, Stored
from sidecar.units import Terms

TERMS = Terms(15.0, 3600.0)
SOURCE_MODULE = "sidecar"

_NOTE = "heartbeat"
_log = structlog.get_logger("heartbeat")


class Will(NamedTuple):
    """Where the agent goes when it is lost, and why; but not from one of the states in `unless`."""

    state: IntEnum
    reason: str
    unless: frozenset[str] = frozenset()


class Outcome(StrEnum):
    """What became of a last will."""

    EXECUTED = "executed"
    UNNEEDED = "unneeded"
    OVERTAKEN = "overtaken"
    REFUSED = "refused"
    FAILED = "failed"


_AGAIN = (Outcome.OVERTAKEN, Outcome.FAILED)
"""Then it is judged anew, if the silence goes on for another time to live."""


class Heartbeat:
    """Judges whether the agent is silent. `stopping`: nothing is judged any more. `clock` is monotonic.

    Await `recover` first, then `look` a few times a second.
    """

    def __init__(
        self,
        store: AsyncStateStore,
        will: Will | None = None,
        *,
        terms: Terms = TERMS,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.terms = terms
        self._store = store
        self._will = will
        self._stopping = stopping
        self._clock = clock
        self._ttl_seconds = 0.0
        self._expires_at: float | None = None
        self._judge_at: float | None = None
        self._noted: float | None = None
        self._noting = False

    async def recover(self) -> None:
        """An agent that has ever sent a heartbeat gets the whole time of its last one: nobody could hear it meanwhile."""
        note = await self._store.journal.noted(_NOTE)
        if note is not None:
            self._noted = float(note)
            self._expect(self._noted)

    def beat(self, ttl_seconds: float) -> float:
        """The agent lives, and will say so again within `ttl_seconds`. Returns until when, in seconds since the Unix epoch."""
        if self.silent:
            _log.info("agent_back", ttl=ttl_seconds)
        self._expect(ttl_seconds)
        self._note()
        return self.expires_ts

    def _note(self) -> None:
        """Keep the newest time to live. One note at a time: agents that change it do not pile up before a slow disk."""
        if self._noting or self._ttl_seconds == self._noted:
            return
        self._noting, self._noted = True, self._ttl_seconds
        self._store.journal.note(_NOTE, str(float(self._ttl_seconds)).encode(), self._after_note)

    def _expect(self, ttl_seconds: float) -> None:
        self._ttl_seconds = ttl_seconds
        self._expires_at = self._judge_at = self._clock() + ttl_seconds

    def _after_note(self, error: StorageError | None) -> None:
        self._noting = False
        if error:  # the next heartbeat tries again
            self._noted = None
        else:
            self._note()

    @property
    def silent(self) -> bool:
        """Whether a heartbeat is overdue."""
        return self._expires_at is not None and self._clock() >= self._expires_at

    @property
    def expires_ts(self) -> float:
        """When the next heartbeat is due, or was: seconds since the Unix epoch. 0: there was none yet."""
        return 0.0 if self._expires_at is None else round(time.time() + self._expires_at - self._clock(), 3)

    def check(self) -> Check:
        """Whether the agent is heard, as part of the store's health."""
        late = 0.0 if self._expires_at is None else max(0.0, self._clock() - self._expires_at)
        return Check("heartbeat", "warning", not self.silent, f"the agent's heartbeat is overdue for {late:.0f} s")

    async def look(self) -> None:
        """Judge, once for each silence, and execute the will."""
        if self._judge_at is None or self._clock() < self._judge_at or self._stopping():
            return
        self._judge_at = None
        current = self._store.current
        state = current.document.state if current else None
        _log.warning("agent_silent", ttl=self._ttl_seconds, state=state)
        if self._will is None:
            return
        outcome = await self._execute(self._will, current)
        self.outcomes[outcome] += 1
        _log.warning("last_will", outcome=str(outcome), state=state, will=self._will.state.name)
        if outcome in _AGAIN and self._judge_at is None:  # or there was a heartbeat meanwhile
            self._judge_at = self._clock() + self._ttl_seconds

    async def _execute(self, will: Will, judged: Stored | None) -> Outcome:
        """Go to the will's state from the one that was judged, and from no other."""
        if judged is None or judged.document.state in will.unless or judged.document.state == will.state.name:
            return Outcome.UNNEEDED
        expected = Expectation(version=judged.document.version, epoch=self._store.journal.epoch)
        try:
            await self._store.transition(will.state, will.reason, expected, source_module=SOURCE_MODULE)
        except StateVersionError:
            return Outcome.OVERTAKEN
        except (IllegalTransitionError, InvalidSnapshotError):  # or the versions are used up
            return Outcome.REFUSED
        except (StorageError, OverloadedError):
            return Outcome.FAILED
        return Outcome.EXECUTED
