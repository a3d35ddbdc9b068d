"""Who may do what: tokens, whose they are, and what their holders may do. Pure.

Tokens are kept as SHA-256. What is presented is hashed and compared with all of them, each in constant time: how long it
takes tells nothing about how near a guess came, nor whose token it was.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from sidecar.errors import ForbiddenError, TooManyFailuresError, UnauthorizedError


class Scope(StrEnum):
    """What a caller may do. Every route names the one that it needs; `admin` includes the others."""

    READ = "state:read"
    WRITE = "state:write"
    SUBSCRIBE = "subscribe"
    ADMIN = "admin"


EVERYTHING = frozenset(Scope)
MAX_PEERS = 1024


class Caller(NamedTuple):
    """Who asks. `name` None: nobody is told apart."""

    name: str | None
    scopes: frozenset[Scope]


ANYBODY = Caller(None, EVERYTHING)
"""Whoever can reach an API without tokens."""


class Holder(NamedTuple):
    """A caller and its tokens, as digests."""

    caller: Caller
    digests: tuple[bytes, ...]


def holder(name: str, scopes: Iterable[str], tokens: Iterable[bytes]) -> Holder:
    """The holder of these tokens."""
    named = frozenset(map(Scope, scopes))
    return Holder(Caller(name, EVERYTHING if Scope.ADMIN in named else named), tuple(map(_digest, tokens)))


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


class Pass(NamedTuple):
    """What a caller was let in with, whom that told, and the tokens that counted."""

    authorization: bytes
    caller: Caller
    known: object


class Door(Protocol):
    """A connection, as far as it matters here. Whoever is let in gets a pass, which is looked at first the next time."""

    peer: str
    shown: Pass | None


class Access:
    """Lets callers in. `guarded`: there are tokens, and nobody comes in without one. `holders` can be replaced at any time."""

    guarded: bool

    def __init__(
        self,
        holders: Sequence[Holder] = (),
        *,
        max_failures: int = 10,
        clock: Callable[[], float] = time.monotonic,
        revised: Callable[[], None] = lambda: None,
    ) -> None:
        """`max_failures`: so many requests without a valid token are answered per second and peer.

        `revised` is called when other tokens count than before: those who stay are to be judged again.
        """
        self.failures = Failures(max_failures, clock)
        self._revised = revised
        self.hold(holders)

    def hold(self, holders: Sequence[Holder]) -> None:
        """From now on these tokens count, and no others."""
        self._known = [(digest, each.caller) for each in holders for digest in each.digests]
        self.guarded = bool(self._known)
        self._revised()

    def admit(self, authorization: Sequence[str], scope: Scope | None, door: Door) -> Caller:
        """As `judge`, but who comes too often without a valid token gets `TooManyFailuresError`."""
        try:
            return self.judge(authorization, scope, door)
        except UnauthorizedError:
            if self.failures.too_many(door.peer):
                raise TooManyFailuresError from None
            raise

    def judge(self, authorization: Sequence[str], scope: Scope | None, door: Door) -> Caller:
        """Whose token the `Authorization` headers carry. `scope`: what the request needs; None: any token will do.

        What has let in the connection's last request is not hashed again. Raises `UnauthorizedError` or `ForbiddenError`.
        """
        presented = authorization[0].encode("utf-8", "surrogateescape") if len(authorization) == 1 else b""
        shown = door.shown
        if shown is None or shown.known is not self._known or not hmac.compare_digest(shown.authorization, presented):
            caller = self._caller_of(presented)
            if caller is None:
                raise UnauthorizedError("unknown" if authorization else "missing")
            door.shown = shown = Pass(presented, caller, self._known)
        if scope is not None and scope not in shown.caller.scopes:
            raise ForbiddenError(scope)
        return shown.caller

    def _caller_of(self, presented: bytes) -> Caller | None:
        digest, found = _digest(_bearer(presented)), None
        for known, caller in self._known:  # all of them, also after it was found
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def _bearer(authorization: bytes) -> bytes:
    """The token of `Authorization: Bearer …` (RFC 6750, section 2.1); empty: there is none."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


class Failures:
    """How often each peer came without a valid token in the running second. Beyond `MAX_PEERS` the oldest are forgotten."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._counts: dict[str, tuple[float, int]] = {}

    def too_many(self, peer: str) -> bool:
        """Count one more, and say whether it is beyond the limit."""
        now = self._clock()
        began, count = self._counts.pop(peer, (now, 0))  # popped: who fails now is the youngest
        if now - began >= 1.0:
            began, count = now, 0
        self._counts[peer] = began, count + 1
        if len(self._counts) > MAX_PEERS:
            del self._counts[next(iter(self._counts))]
        return count >= self._limit
