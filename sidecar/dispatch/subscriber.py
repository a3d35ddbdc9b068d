"""A subscriber: what it asks for, how far it got, and how well it goes."""

from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec

from sidecar.dispatch.secret import Secret


class Status(StrEnum):
    """A subscriber's life. One success makes it active again; an evicted one comes back when it is registered again."""

    ACTIVE = "active"
    DEGRADED = "degraded"
    SUSPENDED = "suspended"
    EVICTED = "evicted"


class Reason(StrEnum):
    """Why a subscriber was evicted."""

    FAILING = "failing"
    GONE = "gone"
    UNCONFIGURED = "unconfigured"


class Settings(msgspec.Struct, frozen=True):
    """What a subscriber asks for. `max_lag`, `max_batch` in revisions. None: the default of the configuration; all states."""

    url: str
    secret: str | None = None
    timeout_seconds: float | None = None
    max_lag: int | None = None
    on: tuple[Literal["transition", "update"], ...] = ("transition", "update")
    states: tuple[str, ...] | None = None
    max_batch: int = 1

    @property
    def takes_all(self) -> bool:
        """Whether no revision is filtered out."""
        return self.states is None and len(set(self.on)) == 2


class Start(NamedTuple):
    """Where a subscriber asks to begin: the first revision to deliver; None: the newest, as if it were new."""

    revision: int | None


class OldSecret(msgspec.Struct, frozen=True):
    """A secret that still signs beside the new one. `until`: seconds since the Unix epoch."""

    secret: str
    until: float


class Subscriber(msgspec.Struct):
    """One subscriber. `cursor`: it needs nothing up to this revision; None: it has got nothing yet. `delivered`: the last
    revision it acknowledged, where a filter has moved the cursor on.

    `failures` are consecutive, `failing_seconds` is the time since the first of them. `…_at`: seconds since the Unix epoch.
    """

    id: str
    settings: Settings
    configured: bool = False
    cursor: int | None = None
    delivered: int | None = None
    old_secrets: tuple[OldSecret, ...] = ()
    status: Status = Status.ACTIVE
    failures: int = 0
    failing_seconds: float = 0.0
    last_outcome: str | None = None
    last_http_status: int | None = None
    last_success_at: float = 0.0
    evicted_at: float = 0.0
    evicted_reason: Reason | None = None

    def lag(self, head: int) -> int:
        """Revisions still to come, up to `head`; for a new subscriber just the first one."""
        return min(head, 1) if self.cursor is None else head - self.cursor

    @property
    def acknowledged(self) -> int | None:
        """The last revision that was delivered, as far as is known; None: its first delivery is still to come."""
        return self.cursor if self.delivered is None else self.delivered

    def secrets(self, now: float) -> list[Secret]:
        """Those that sign at `now`, seconds since the Unix epoch: the newest first."""
        old = [each.secret for each in self.old_secrets if now < each.until]
        return [Secret.parse(text) for text in (self.settings.secret, *old) if text]
