"""What all writes of the state have in common: what may be asked of them beside their body, and how they are answered."""

import msgspec
from aiohttp import web

from sidecar.api import wire
from sidecar.api.request import Request
from sidecar.conflicts import Expectation
from sidecar.errors import MalformedError, PreconditionRequiredError
from sidecar.store import Build


class Write:
    """One write as it is asked for. `expected`: what its headers expect; the handler adds what query and body do.

    `known`: query parameters of the route's own. Raises `MalformedError`.
    """

    def __init__(self, request: Request, *known: str) -> None:
        self.query = wire.Query(request, "dry_run", *known)
        self.expected = wire.preconditions(request)
        self._request = request
        self._dry = self.query.flag("dry_run")
        if self._dry and "Idempotency-Key" in request.headers:
            raise MalformedError("a dry run writes nothing that could come twice: send it without an Idempotency-Key")

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
            document = msgspec.Raw(await store.forecast(build, *self.expected))
            return wire.answer({"epoch": store.journal.epoch, "dry_run": True, "snapshot": document})
        stored = await store.write(build, *self.expected, request=await wire.repeatable(request))
        return wire.answer_state(store.journal.epoch, stored, status=201 if stored.entry.revision == 1 else 200)
