"""What the handlers find in the application."""

from aiohttp import web

from sidecar.dispatch.dispatcher import Dispatcher
from sidecar.store import AsyncStateStore

STORE = web.AppKey("store", AsyncStateStore)
DISPATCHER = web.AppKey("dispatcher", Dispatcher)
REQUIRE_PRECONDITION = web.AppKey("require_precondition", bool)
