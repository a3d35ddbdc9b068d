"""Everybody who listens to the agent's state: in-process readers and webhook subscribers share one limit and one count."""

from sidecar.errors import SubscriberLimitError


class Seat:
    """One listener's place. `active`: it is being served, not suspended. `attempts` to reach it since it sits there."""

    __slots__ = ("active", "attempts", "attempts_failed", "audience", "subscriber_id")

    def __init__(self, audience: "Audience", subscriber_id: str) -> None:
        self.audience = audience
        self.subscriber_id = subscriber_id
        self.active = True
        self.attempts = 0
        self.attempts_failed = 0

    def leave(self) -> None:
        """Give the place back. A second call does nothing."""
        self.audience.seats.pop(self, None)


class Audience:
    """The listeners, at most `limit` of them, and what became of the notifications sent to them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seats: dict[Seat, None] = {}
        self.notifications_sent = 0
        self.notifications_failed = 0
        self.dead_removed = 0

    def join(self, subscriber_id: str) -> Seat:
        """Take a place. Raises `SubscriberLimitError` when all are taken: checked and taken in one step."""
        if len(self.seats) >= self.limit:
            raise SubscriberLimitError(self.limit)
        return self.admit(subscriber_id)

    def admit(self, subscriber_id: str) -> Seat:
        """Give a place to one who had one before the restart, even if the limit is lower now."""
        seat = Seat(self, subscriber_id)
        self.seats[seat] = None
        return seat

    @property
    def active(self) -> int:
        return sum(seat.active for seat in self.seats)

    @property
    def subscriber_ids(self) -> list[str]:
        return [seat.subscriber_id for seat in self.seats]

    def __len__(self) -> int:
        return len(self.seats)
