"""The API's description of itself."""

from aiohttp import web

from sidecar.api.answer import Answer
from sidecar.api.describing import Reply
from sidecar.api.request import Request
from sidecar.api.routing import Routes, Scope

routes = Routes()


@routes.get(
    "/v1/openapi.json",
    Scope.READ,
    answers={200: Reply("OpenAPI 3.1.", others={"application/json": {"type": "object"}})},
)
async def get_openapi(request: Request) -> web.StreamResponse:
    """This description, in OpenAPI 3.1, with the states of this sidecar's machine."""
    return Answer(request.parts.description())
