"""The agent says that it lives."""

from aiohttp import web

from sidecar.api import wire
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.units import Seconds

routes = Routes()

_heartbeat = wire.Body(wire.Heartbeat)


@routes.post("/v1/heartbeat", Scope.WRITE)
async def post_heartbeat(request: Request) -> web.StreamResponse:
    """Expect the next one within `ttl`. A body is not needed. One with an old writer token is no sign of life of the writer."""
    wire.Query(request)
    store, heartbeat = request.parts.store, request.parts.heartbeat
    claim = wire.claim(request)
    wish: wire.Heartbeat = await _heartbeat.read(request) if await request.read() else wire.Heartbeat()
    ttl = wire.ttl(wish.ttl, heartbeat.terms)
    if fenced := store.fence.broken_by(claim):
        raise await store.fence.refusal(fenced)
    expires_at = heartbeat.beat(ttl)
    state = store.current.document.state if store.current else None
    return wire.answer({"expires_at": expires_at, "ttl": str(Seconds(ttl)), "state": state})
