"""Who the writer is: the lease, and the token that its writes carry."""

from aiohttp import web

from sidecar.api import conditions, documents, wire
from sidecar.api.describing import Reply
from sidecar.api.parameters import Header
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope
from sidecar.errors import FencedError, StorageFailedError, StorageFullError, StorageSlowError, WriterHeldError

routes = Routes()

_writer = wire.Body(wire.Writer)
_KEY = Header(
    conditions.IDEMPOTENCY_KEY.name,
    "Makes it safe to send a takeover again: it takes nothing from a writer that came in between. New for every one.",
    conditions.IDEMPOTENCY_KEY.schema,
    raises=(FencedError,),
)


@routes.post(
    "/v1/writer",
    Scope.WRITE,
    takes=(conditions.WRITER_TOKEN, _KEY),
    body=_writer,
    answers={200: Reply("The caller is the writer.", documents.Lease)},
    raises=(WriterHeldError, StorageFailedError, StorageSlowError, StorageFullError),
)
async def post_writer(request: Request) -> web.StreamResponse:
    """Become the writer, or stay it: the token that goes into `Writer-Token`."""
    claim, key = conditions.claim(request), conditions.repeat_key(request)
    wish: wire.Writer = await _writer.read(request)
    ttl = wire.ttl(wish.ttl, request.parts.store.fence.terms)
    with request.at_disk():
        token, holder = await request.parts.store.fence.grant(wish.name, ttl, claim, takeover=wish.takeover, key=key)
    return wire.answer(documents.Lease(holder.name, str(token), holder.expires_at))


@routes.get("/v1/writer", Scope.READ, answers={200: Reply("The holder.", documents.WriterView)})
async def get_writer(request: Request) -> web.StreamResponse:
    """Who has the lease, or null. Not its token: whoever could read that could write in its holder's place, by mistake."""
    fence = request.parts.store.fence
    return wire.answer(documents.WriterView("exclusive" if fence.exclusive else "any", fence.holder))
