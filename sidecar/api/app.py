"""The API's application."""

from collections.abc import Callable

from aiohttp import web

from sidecar.api import state, subscribers
from sidecar.api.keys import DISPATCHER, REQUIRE_PRECONDITION, STORE
from sidecar.api.middleware import answer_and_count
from sidecar.dispatch.dispatcher import Dispatcher
from sidecar.metrics import HttpMetrics
from sidecar.store import AsyncStateStore


def build_api(
    store: AsyncStateStore,
    dispatcher: Dispatcher,
    metrics: HttpMetrics,
    *,
    draining: Callable[[], bool],
    stopping: Callable[[], bool],
    max_body_bytes: int,
    require_precondition: bool,
) -> web.Application:
    """The application on the API's listener. Once `stopping`, connections are not kept; once `draining`, all is refused."""
    app = web.Application(client_max_size=max_body_bytes)
    app.middlewares.append(answer_and_count(app, metrics, draining, stopping))
    app[STORE] = store
    app[DISPATCHER] = dispatcher
    app[REQUIRE_PRECONDITION] = require_precondition
    app.add_routes(state.routes)
    app.add_routes(subscribers.routes)
    return app
