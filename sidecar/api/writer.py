"""Who the writer is: the lease, and the token that its writes carry."""

from aiohttp import web

from sidecar.api import conditions, documents, wire
from sidecar.api.describing import Reply
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.errors import StorageFailedError, StorageFullError, StorageSlowError, WriterHeldError

routes = Routes()

_writer = wire.Body(wire.Writer)


@routes.post(
    "/v1/writer",
    Scope.WRITE,
    takes=(conditions.WRITER_TOKEN,),
    body=_writer,
    answers={200: Reply("The caller is the writer.", documents.Lease)},
    raises=(WriterHeldError, StorageFailedError, StorageSlowError, StorageFullError),
)
async def post_writer(request: Request) -> web.StreamResponse:
    """Become the writer, or stay it: the token that goes into `Writer-Token`."""
    claim = conditions.claim(request)
    wish: wire.Writer = await _writer.read(request)
    ttl = wire.ttl(wish.ttl, request.parts.store.fence.terms)
    token, holder = await request.parts.store.fence.grant(wish.name, ttl, claim, takeover=wish.takeover)
    return wire.answer(documents.Lease(holder.name, str(token), holder.expires_at))


@routes.get("/v1/writer", Scope.READ, answers={200: Reply("The holder.", documents.WriterView)})
async def get_writer(request: Request) -> web.StreamResponse:
    """Who has the lease, or null. Not its token: whoever could read that could write in its holder's place, by mistake."""
    fence = request.parts.store.fence
    return wire.answer(documents.WriterView("exclusive" if fence.exclusive else "any", fence.holder))
