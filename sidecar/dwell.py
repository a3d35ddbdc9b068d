"""How long the agent may stay in a state. A longer stay is a stall, told once: to the log, the metrics and the subscribers."""

import time
from collections.abc import Callable, Mapping

import structlog

from sidecar.checks import Check
from sidecar.dispatch.message import Stall
from sidecar.store import AsyncStateStore

_log = structlog.get_logger("dwell")


class Dwell:
    """Judges the current stay by `limits`, seconds by state; a state without one may be kept for ever.

    `tell` gets each stall once. `stopping`: nothing is told any more. `clock` is monotonic: one that is set stalls nobody, but
    for the part of a stay that was before the start. Call `look` a few times a second.
    """

    def __init__(
        self,
        store: AsyncStateStore,
        limits: Mapping[str, float],
        tell: Callable[[Stall], None],
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._limits = limits
        self._tell = tell
        self._stopping = stopping
        self._clock = clock
        self._stay: tuple[str, float] | None = None
        self._since = 0.0
        self._told = False

    @property
    def stalled(self) -> bool:
        """Whether the agent is in its state for longer than that allows."""
        limit = self._limit_of_now()
        return limit is not None and self._clock() - self._since >= limit

    def _limit_of_now(self) -> float | None:
        """The limit of the current state; a stay that is new begins now."""
        current = self._store.current
        if current is None:
            return None
        stay = current.document.state, self._store.state_entered_ts
        if stay != self._stay:
            before_the_start = 0.0 if self._stay else max(0.0, time.time() - stay[1])
            self._stay, self._since, self._told = stay, self._clock() - before_the_start, False
        return self._limits.get(stay[0])

    async def look(self) -> None:
        """Tell the current stay if it is too long, and was not told yet."""
        if not self.stalled or self._told or self._stopping() or self._stay is None:
            return
        self._told = True
        state, since = self._stay
        stall = Stall(self._store.journal.head, state, since, self._limits[state])
        _log.warning("state_stalled", state=state, max_dwell=stall.max_dwell_seconds, revision=stall.revision)
        self._tell(stall)

    def check(self) -> Check:
        """Whether the agent moves on, as part of the store's health."""
        stalled = self.stalled
        state, limit = (self._stay[0], self._limits[self._stay[0]]) if stalled and self._stay else ("", 0.0)
        return Check("dwell", "warning", not stalled, f"the agent is in {state} for longer than {limit:g} s")
