"""Who the writer is: the lease, and the token that its writes carry."""

from aiohttp import web

from sidecar.api import wire
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope

routes = Routes()

_writer = wire.Body(wire.Writer)


@routes.post("/v1/writer", Scope.WRITE)
async def post_writer(request: Request) -> web.StreamResponse:
    """Become the writer, or stay it: the token that goes into `Writer-Token`."""
    wire.Query(request)
    claim = wire.claim(request)
    wish: wire.Writer = await _writer.read(request)
    ttl = wire.ttl(wish.ttl, request.parts.store.fence.terms)
    token, holder = await request.parts.store.fence.grant(wish.name, ttl, claim, takeover=wish.takeover)
    return wire.answer({"name": holder.name, "token": str(token), "expires_at": holder.expires_at})


@routes.get("/v1/writer", Scope.READ)
async def get_writer(request: Request) -> web.StreamResponse:
    """Who has the lease, or null. Not its token: whoever could read that could write in its holder's place, by mistake."""
    wire.Query(request)
    fence = request.parts.store.fence
    return wire.answer({"writers": "exclusive" if fence.exclusive else "any", "holder": fence.holder})
