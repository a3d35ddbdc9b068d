"""What all writes of the state have in common: what may be asked of them beside their body, and how they are answered."""

import re
from typing import NamedTuple

import msgspec
from aiohttp import web

from sidecar.api import conditions, documents, wire
from sidecar.api.describing import Reply
from sidecar.api.parameters import Duration, Flag, InQuery
from sidecar.api.request import Request
from sidecar.conflicts import Expectation
from sidecar.errors import (
    IllegalTransitionError,
    MalformedError,
    OverloadedError,
    PreconditionRequiredError,
    StorageFailedError,
    StorageFullError,
    StorageSlowError,
)
from sidecar.store import Build, Stored

DEFAULT_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 2.0, 30.0
"""For acknowledgements."""

_SO_MANY = "all|[1-9][0-9]{0,5}"
_is_so_many = re.compile(_SO_MANY).fullmatch

_dry_run = Flag("dry_run", "Only tell what would be written. Without `wait_acks` and `Idempotency-Key`.")
_wait_acks = InQuery(
    "wait_acks",
    "Answer when so many subscribers have acknowledged the revision, or `all` of them.",
    {"type": "string", "pattern": f"^({_SO_MANY})$"},
)
_timeout = Duration("timeout", "How long `wait_acks` waits at most: 2s unless given.", most=LONGEST_WAIT_SECONDS)

WRITES = (_dry_run, _wait_acks, _timeout, *conditions.PRECONDITIONS, conditions.IDEMPOTENCY_KEY, conditions.WRITER_TOKEN)
"""What every write takes."""

RAISES = (
    IllegalTransitionError,
    PreconditionRequiredError,
    OverloadedError,
    StorageFailedError,
    StorageSlowError,
    StorageFullError,
)
"""What can go wrong with every write."""

_FIRST = Reply(
    "The state as it was stored, the journal's first.", documents.Written, headers=(conditions.ETAG, conditions.REPLAYED)
)
_NEXT = Reply(
    "The state as it was stored; or, of a dry run, as it would be, without an ETag.",
    documents.Written,
    documents.DryRun,
    headers=(conditions.ETAG._replace(required=False), conditions.REPLAYED),
)
WRITTEN = {200: _NEXT, 201: _FIRST}
"""What a write is answered."""


class Write:
    """One write as it is asked for. `expected`: what its headers expect; the handler adds what query and body do.

    Raises `MalformedError`.
    """

    def __init__(self, request: Request) -> None:
        self.expected = conditions.preconditions(request)
        self._claim = conditions.claim(request)
        self._request = request
        self._dry = _dry_run.read(request)
        self._awaited = _awaited(request)
        if self._dry and "Idempotency-Key" in request.headers:
            raise MalformedError("a dry run writes nothing that could come twice: send it without an Idempotency-Key")
        if self._dry and self._awaited:
            raise MalformedError("a dry run is sent to nobody: leave wait_acks out")

    def expect(self, expectation: Expectation) -> None:
        self.expected.append(expectation)

    async def answer(self, build: Build) -> web.StreamResponse:
        """Write what `build` makes, or tell what would be written."""
        request, store = self._request, self._request.parts.store
        if request.parts.require_precondition and not self.expected:
            raise PreconditionRequiredError(
                "say what the write expects: If-Match with the ETag of GET /v1/state, If-None-Match: *, or enforce_version=true"
            )
        if self._dry:
            document = msgspec.Raw(await store.forecast(build, *self.expected, claim=self._claim))
            return wire.answer({"epoch": store.journal.epoch, "dry_run": True, "snapshot": document})
        if self._awaited is None:
            return wire.answer_written(store.journal.epoch, await self._stored(build))
        dispatcher = request.parts.dispatcher
        with dispatcher.roster.waits.admitted() as wait:  # before the write: who finds no place has written nothing
            request.lost = wait.leave
            stored = await self._stored(build)
            with request.waiting():
                acks = await dispatcher.acks(wait, stored.entry, *self._awaited)
        return wire.answer_written(store.journal.epoch, stored, acks=acks)

    async def _stored(self, build: Build) -> Stored:
        request, in_flight = self._request, self._request.in_flight
        repeatable = await conditions.repeatable(request)
        in_flight.go_to_disk()
        try:
            return await request.parts.store.write(build, *self.expected, request=repeatable, claim=self._claim)
        finally:
            in_flight.come_from_disk()


class Awaited(NamedTuple):
    """How many acknowledgements to wait for, None: all; and how long at most."""

    least: int | None
    timeout_seconds: float


def _awaited(request: Request) -> Awaited | None:
    """What `wait_acks` and `timeout` ask for. Raises `MalformedError`."""
    asked, timeout = _wait_acks.text(request), _timeout.read(request)
    if asked is None:
        if timeout is not None:
            raise MalformedError("timeout is for wait_acks: how long to wait for acknowledgements")
        return None
    if not _is_so_many(asked):
        raise MalformedError("wait_acks is all, or a number of subscribers from 1 to 999999")
    return Awaited(None if asked == "all" else int(asked), DEFAULT_WAIT_SECONDS if timeout is None else timeout)
