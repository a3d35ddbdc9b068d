"""Writes that may come twice: a repetition with the same key gets the first answer again, and is not applied again."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from sidecar.errors import KeyReusedError
from sidecar.journal import Answered, Request

DEFAULT_TTL_SECONDS = 600.0
DEFAULT_MAX_KEYS = 10_000

Pending = TypeVar("Pending")


class _Known(Generic[Pending]):
    __slots__ = ("expires_at", "fingerprint", "place")

    def __init__(self, fingerprint: bytes, place: Pending | int, expires_at: float) -> None:
        self.fingerprint = fingerprint
        self.place = place
        self.expires_at = expires_at


class Requests(Generic[Pending]):
    """The keys of the last `ttl_seconds`, at most `limit`: then the oldest are forgotten early. Times are monotonic.

    A request is first known by its pending write, then by the revision that answered it.
    """

    def __init__(self, *, ttl_seconds: float, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_seconds = ttl_seconds
        self.limit = limit
        self._clock = clock
        self._known: OrderedDict[str, _Known[Pending]] = OrderedDict()
        self.forgotten = 0
        """All answers up to this revision are forgotten."""
        self.forgotten_early = 0
        """Keys forgotten before their time, for want of room."""

    def __len__(self) -> int:
        return len(self._known)

    def restore(self, answers: Iterable[Answered], now_wall: float) -> None:
        """Take up what an earlier process answered, oldest first. A clock that went back makes nothing live longer."""
        for answer in answers:
            age = min(max(0.0, now_wall - answer.answered_at), self._ttl_seconds)
            known = _Known[Pending](answer.request.fingerprint, answer.revision, self._clock() + self._ttl_seconds - age)
            self._known[answer.request.key] = known
            self._known.move_to_end(answer.request.key)  # it may have been used before, and forgotten

    def find(self, request: Request) -> Pending | int | None:
        """What became of an earlier request with this key: its pending write, or its revision. Raises `KeyReusedError`."""
        self.expire()
        known = self._known.get(request.key)
        if known is None:
            return None
        if known.fingerprint != request.fingerprint:
            raise KeyReusedError("the Idempotency-Key was used for another write; give every write a key of its own")
        return known.place

    def begin(self, request: Request, pending: Pending) -> None:
        """The request is on its way to the journal."""
        self._known[request.key] = _Known(request.fingerprint, pending, self._clock() + self._ttl_seconds)
        if len(self._known) > self.limit:
            self.forgotten_early += self._drop_oldest()

    def settle(self, request: Request, revision: int) -> None:
        """The request has become this revision."""
        known = self._known.get(request.key)
        if known:
            known.place = revision

    def withdraw(self, request: Request, place: Pending | int) -> None:
        """The request came to nothing there, and may be made again."""
        known = self._known.get(request.key)
        if known and known.place is place:
            del self._known[request.key]

    def expire(self) -> None:
        """Forget the keys whose time is over."""
        now = self._clock()
        while self._known and next(iter(self._known.values())).expires_at <= now and self._drop_oldest():
            pass

    def give_up(self, before: int) -> None:
        """Forget the keys that were answered before a revision, early: there is no room for their answers."""
        for key in [key for key, known in self._known.items() if isinstance(known.place, int) and known.place < before]:
            del self._known[key]
            self.forgotten_early += 1

    def _drop_oldest(self) -> bool:
        """Forget the oldest key, unless it is on its way still."""
        key, known = next(iter(self._known.items()))
        if not isinstance(known.place, int):
            return False
        del self._known[key]
        self.forgotten = max(self.forgotten, known.place)
        return True
