"""The agent says that it lives."""

from aiohttp import web

from sidecar.api import conditions, documents, wire
from sidecar.api.describing import Reply
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.errors import StorageFailedError, StorageFullError, StorageSlowError
from sidecar.units import Seconds

routes = Routes()

_heartbeat = wire.Body(wire.Heartbeat, optional=True)


@routes.post(
    "/v1/heartbeat",
    Scope.WRITE,
    takes=(conditions.WRITER_TOKEN,),
    body=_heartbeat,
    answers={200: Reply("It is heard.", documents.Beat)},
    raises=(StorageFailedError, StorageSlowError, StorageFullError),
)
async def post_heartbeat(request: Request) -> web.StreamResponse:
    """Expect the next one within `ttl`. A body is not needed. One with an old writer token is no sign of life of the writer."""
    store, heartbeat = request.parts.store, request.parts.heartbeat
    claim = conditions.claim(request)
    wish: wire.Heartbeat = await _heartbeat.read(request)
    ttl = wire.ttl(wish.ttl, heartbeat.terms)
    if fenced := store.fence.broken_by(claim):
        with request.at_disk():
            raise await store.fence.refusal(fenced)
    expires_at = heartbeat.beat(ttl)
    state = store.current.document.state if store.current else None
    return wire.answer(documents.Beat(expires_at, str(Seconds(ttl)), state))
