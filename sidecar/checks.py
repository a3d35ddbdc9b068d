"""The store's health: which checks pass, judged over a window of time. Pure, but for the clock it is given."""

import time
from collections.abc import Callable

import msgspec


class Thresholds(msgspec.Struct, frozen=True):
    """When a check fails. `conflict_ratio`: conflicts per accepted write within the window."""

    conflict_ratio: float = 0.10
    window_seconds: float = 300.0
    stale_after_seconds: float = 60.0
    subscriber_share: float = 0.80


class Check(msgspec.Struct, frozen=True):
    """One check. `level` is `issue` (unhealthy when it fails) or `warning`."""

    name: str
    level: str
    ok: bool
    message: str


class RollingCount:
    """Events within the last `window_seconds`, forgotten in steps of a thirtieth of the window."""

    _SLOTS = 30

    def __init__(self, window_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slot_seconds = window_seconds / self._SLOTS
        self._counts = [0] * self._SLOTS
        self._newest = int(clock() / self._slot_seconds)

    def add(self) -> None:
        self._forget()
        self._counts[self._newest % self._SLOTS] += 1

    def total(self) -> int:
        self._forget()
        return sum(self._counts)

    def _forget(self) -> None:
        now = int(self._clock() / self._slot_seconds)
        if now != self._newest:
            for slot in range(self._newest + 1, min(now, self._newest + self._SLOTS) + 1):
                self._counts[slot % self._SLOTS] = 0
            self._newest = now


def check_all(
    thresholds: Thresholds,
    *,
    sets: int,
    conflicts: int,
    initialised: bool,
    subscribers: int,
    max_subscribers: int,
    seconds_since_update: float,
) -> tuple[Check, ...]:
    """The four checks of the store, always in the same order. `sets` and `conflicts` are those of the window."""
    most = thresholds.subscriber_share * max_subscribers
    return (
        Check(
            "version_conflicts",
            "issue",
            conflicts <= thresholds.conflict_ratio * sets,
            f"high version conflict rate: {conflicts} conflicts and {sets} writes within {thresholds.window_seconds:g} s",
        ),
        Check("initialised", "issue", initialised, "store not initialised: no state has been written yet"),
        Check(
            "subscribers",
            "warning",
            subscribers <= most,
            f"{subscribers} of {max_subscribers} subscriber places are taken",
        ),
        Check(
            "freshness",
            "warning",
            seconds_since_update <= thresholds.stale_after_seconds,
            f"no update for {seconds_since_update:.0f} s",
        ),
    )
