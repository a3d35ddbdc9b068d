"""The process's own health: which phase of its life it is in, whether its loops turn, whether its storage takes writes."""

import time
from collections.abc import Callable
from enum import StrEnum

import msgspec

from sidecar.serving.descriptors import MOST

LOOP_DEADLINE_SECONDS = 10.0
"""A core loop that has not stamped itself for so long is dead or stuck."""


class Phase(StrEnum):
    """Where the process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Probe(msgspec.Struct, frozen=True):
    """The answer to one question."""

    name: str
    ok: bool
    detail: str


class Health:
    """Answers the probes. Never asks the disk, a subscriber or a peer: it reads what others have noted."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self._loops: dict[str, Callable[[], float]] = {}
        self._storage_error: Callable[[], Exception | None] = lambda: None
        self._descriptors: Callable[[], float] = lambda: 0.0

    def watch_loop(self, name: str, stamped_at: Callable[[], float]) -> None:
        """Count a core loop as alive while `stamped_at` (monotonic seconds) is recent."""
        self._loops[name] = stamped_at

    def watch_storage(self, error: Callable[[], Exception | None]) -> None:
        """Count the storage as well while `error` gives None."""
        self._storage_error = error

    def watch_descriptors(self, share: Callable[[], float]) -> None:
        """Count as ready while there are file descriptors left: `share` gives how many of them are used, 0 to 1."""
        self._descriptors = share

    def live(self) -> list[Probe]:
        """Whether every core loop turns. A restart helps if not."""
        now = time.monotonic()
        ages = {name: now - stamped_at() for name, stamped_at in self._loops.items()}
        return [Probe(f"loop {name}", age < LOOP_DEADLINE_SECONDS, f"turned {age:.1f} s ago") for name, age in ages.items()]

    def started(self) -> list[Probe]:
        """Whether the journal is replayed and the listeners are bound."""
        return [Probe("started", self.phase is not Phase.STARTING, self.phase)]

    def ready(self) -> list[Probe]:
        """Whether to send requests here: started, not stopping, the storage takes writes, and there is room for connections."""
        error, descriptors = self._storage_error(), self._descriptors()
        return [
            Probe("phase", self.phase is Phase.READY, self.phase),
            Probe("storage", error is None, str(error) if error else "the last append worked"),
            Probe("descriptors", descriptors < MOST, f"{descriptors:.0%} used"),
        ]
