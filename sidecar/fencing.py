"""Who may write: one writer has the lease and its token, and a writer that was replaced cannot overwrite its successor.

The token decides, by its number: only the newest one counts. Time only decides who may take the lease without being told to
take it over; so a lease that has expired, or a clock that jumps, lets nobody in who was fenced out.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import msgspec

from sidecar.conflicts import FENCED, Reason, tag
from sidecar.errors import (
    FencedError,
    Holder,
    JournalDamagedError,
    OverloadedError,
    StorageError,
    StorageSlowError,
    WriterHeldError,
)
from sidecar.journal import Journal
from sidecar.units import Terms

TERMS = Terms(30.0, 3600.0)

_NOTE = "writer"
_REQUESTS = 64
"""So many are known again when they are repeated."""


class Token(NamedTuple):
    """What a writer shows. It is of one journal: tokens of a lost one are of another epoch."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return tag(self.epoch, self.number)


class Claim(NamedTuple):
    """What a write says of its writer: its token, or None."""

    token: Token | None


class Grant(msgspec.Struct, frozen=True):
    """A lease as it was given out, and as the journal keeps it. `granted_at`: seconds since the Unix epoch.

    `requests`: those that were answered by taking the lease, each as its key and its name, the newest last.
    """

    number: int
    name: str
    ttl_seconds: float
    granted_at: float
    requests: tuple[str, ...] = ()


class _Lease:
    __slots__ = ("expires_at", "grant")

    def __init__(self, grant: Grant, expires_at: float) -> None:
        self.grant = grant
        self.expires_at = expires_at


Settling: TypeAlias = "asyncio.Future[StorageError | None]"
"""A grant on its way to the disk, and what became of it."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Grant).decode


class Fence:
    """The lease of one journal. `exclusive`: a write without a token is refused too. Await `recover` before it is asked.

    A takeover fences at once: the journal keeps the grant behind all writes that were accepted before, so that none of them
    is on its way any more when it is answered. `clock` is monotonic.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        exclusive: bool = False,
        terms: Terms = TERMS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.exclusive = exclusive
        self.terms = terms
        self._journal = journal
        self._clock = clock
        self._newest: _Lease | None = None
        self._durable: _Lease | None = None
        self._settling: deque[Settling] = deque()

    async def recover(self) -> None:
        """Take up the newest grant. Its holder has its whole time again: nobody could renew it while nobody ran.

        Raises `JournalDamagedError`.
        """
        note = await self._journal.noted(_NOTE)
        if note is not None:
            try:
                grant = _decode(note)
            except msgspec.DecodeError as error:
                raise JournalDamagedError(f"what the journal notes of its writer cannot be read: {error}") from error
            self._newest = self._durable = _Lease(grant, self._clock() + grant.ttl_seconds)

    @property
    def number(self) -> int:
        """That of the newest durable token; 0: there is none."""
        return self._durable.grant.number if self._durable else 0

    @property
    def holder(self) -> Holder | None:
        """Who has the newest durable token."""
        return self._told(self._durable) if self._durable else None

    def broken_by(self, claim: Claim) -> Reason | None:
        """Why a write with this claim may not be made, or None. Without awaiting: part of the decision."""
        token, newest = claim.token, self._newest.grant.number if self._newest else 0
        if token is None:
            return Reason.MISSING if self.exclusive else None
        if token.epoch != self._journal.epoch:
            return Reason.EPOCH
        if token.number == newest:
            return None
        return Reason.STALE if token.number < newest else Reason.AHEAD

    async def grant(
        self, name: str, ttl_seconds: float, claim: Claim, *, takeover: bool = False, key: str | None = None
    ) -> tuple[Token, Holder]:
        """Give the lease to `name`: renewed, with the token it has, where it is the holder; otherwise with a new token.

        `key`: a request that is repeated with the same one takes nothing from who came in between. Raises `FencedError` for
        that, and for a claim that is not the newest, `WriterHeldError` while another one holds the lease, unless that is to be
        taken over, and a `StorageError` where the grant cannot be kept.
        """
        if claim.token is not None and (broken := self.broken_by(claim)):
            raise await self.refusal(broken)
        lease, now = self._newest, self._clock()
        request = None if key is None else f"{key}\n{name}"
        own = lease is not None and lease.grant.name == name
        repeated = lease is not None and request in lease.grant.requests
        if repeated and not own:
            raise await self.refusal(Reason.STALE)
        if lease and not (own or takeover) and now < lease.expires_at:
            await self.settled()
            raise WriterHeldError(self._told(lease))
        fresh = None if repeated or (own and not takeover) else request
        if lease and own and fresh is None and lease.grant.ttl_seconds == ttl_seconds:
            lease.expires_at = now + ttl_seconds
            await self.settled()
        else:  # the holder's own takeover too: it is to be known again when another one has taken over since
            self._refuse_overload()
            lease = _Lease(_next(lease.grant if lease else None, name, ttl_seconds, fresh), now + ttl_seconds)
            await _outcome(self._keep(lease))
        return Token(self._journal.epoch, lease.grant.number), self._told(lease)

    async def settled(self) -> None:
        """Wait until the newest grant is durable. Raises a `StorageError` when it cannot be."""
        if self._settling:
            await _outcome(self._settling[-1])

    @property
    def settling(self) -> "Settling | None":
        """The newest grant on its way to the disk."""
        return self._settling[-1] if self._settling else None

    def answer_overdue(self, last: "Settling", error: StorageSlowError) -> None:
        """Answer those who wait for this grant or an earlier one. The grants go on: they will count, or not."""
        if last in self._settling:
            for settling in self._settling:
                if not settling.done():
                    settling.set_result(error)
                if settling is last:
                    return

    def _refuse_overload(self) -> None:
        if self._settling and self._settling[0].done():  # nobody waits for it any more, so they would pile up
            raise OverloadedError("an earlier change of the writer waits for the disk still; try again in a moment")

    async def refusal(self, reason: Reason) -> FencedError:
        """The error for a claim that was broken so; it names no holder that a crash could take back."""
        await self.settled()
        return FencedError(FENCED[reason], self.holder)

    def _keep(self, lease: _Lease) -> "Settling":
        settling: Settling = asyncio.get_running_loop().create_future()
        self._settling.append(settling)
        self._newest = lease

        def noted(error: StorageError | None) -> None:
            if error:  # and all those behind it fail as well
                self._newest = self._durable
            else:
                self._durable = lease
            self._settling.remove(settling)
            if not settling.done():
                settling.set_result(error)

        self._journal.note(_NOTE, _encode(lease.grant), noted)
        return settling

    def _told(self, lease: _Lease) -> Holder:
        expires_at = time.time() + lease.expires_at - self._clock()
        return Holder(lease.grant.name, lease.grant.granted_at, round(expires_at, 3))


def _next(before: Grant | None, name: str, ttl_seconds: float, request: str | None) -> Grant:
    """What is granted after `before`: a new number, but to its own holder. `request`: one that is to be known again."""
    requests = () if request is None else (request,)
    if before is None:
        return Grant(1, name, ttl_seconds, time.time(), requests)
    requests = (*before.requests, *requests)[-_REQUESTS:]
    if before.name == name:
        return Grant(before.number, name, ttl_seconds, before.granted_at, requests)
    return Grant(before.number + 1, name, ttl_seconds, time.time(), requests)


async def _outcome(settling: "Settling") -> None:
    error = await asyncio.shield(settling)
    if error:
        raise error
