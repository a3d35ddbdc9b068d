"""The API as one callable: finds the handler, makes errors problems, and counts each request.

It stands on aiohttp's low-level server (https://docs.aiohttp.org/en/stable/web_lowlevel.html): see `routing` for the reason.
"""

import asyncio
import time
from collections.abc import Callable
from functools import cache

import msgspec
import structlog
from aiohttp import HttpVersion10, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from sidecar.access import Access
from sidecar.api import description, history, journal, page, state, subscribers, watch, writer
from sidecar.api import heartbeat as heartbeats
from sidecar.api.browsers import Browsers, preflight
from sidecar.api.openapi import openapi
from sidecar.api.problems import problem_of, problem_of_http
from sidecar.api.request import About, InFlight, Parts, Request
from sidecar.api.routing import Table
from sidecar.backup import Backups
from sidecar.dispatch.dispatcher import Dispatcher
from sidecar.errors import AccessError, DrainingError, StateStoreError
from sidecar.heartbeat import Heartbeat
from sidecar.meters import HttpMetrics
from sidecar.serving.problem import problem
from sidecar.store import AsyncStateStore
from sidecar.watchers import Watchers

_TABLE = Table(
    state.routes,
    history.routes,
    watch.routes,
    writer.routes,
    heartbeats.routes,
    subscribers.routes,
    journal.routes,
    description.routes,
    page.routes,
)
ROUTES = _TABLE.methods
"""Every template with each of its methods."""
DEFINITIONS = _TABLE.definitions
"""All of them, with what they say of themselves."""

SCOPES = _TABLE.scopes
"""What each of them needs."""

PUBLIC_ROUTES = _TABLE.public
"""Those that need nothing."""

_log = structlog.get_logger("api")


class Api:
    """Answers the requests of one listener. `stopping`: connections are not kept any more; `draining`: requests are refused."""

    def __init__(
        self,
        parts: Parts,
        metrics: HttpMetrics,
        access: Access,
        browsers: Browsers,
        *,
        draining: Callable[[], bool],
        stopping: Callable[[], bool],
        max_body_bytes: int,
        max_requests: int,
    ) -> None:
        self._parts = parts
        self._access = access
        self._browsers = browsers
        self._metrics = metrics
        self._draining = draining
        self._stopping = stopping
        self._max_body_bytes = max_body_bytes
        self.in_flight = InFlight(max_requests)

    def request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> Request:
        """The request that a handler gets; called by the server."""
        if message.chunked and message.version == HttpVersion10:  # RFC 9112, section 6.1: its end cannot be trusted
            payload.set_exception(web.HTTPBadRequest(text="HTTP/1.0 has no chunks"))
        loop = asyncio.get_running_loop()
        request = Request(message, payload, protocol, writer, task, loop, client_max_size=self._max_body_bytes)
        request.parts = self._parts
        request.access = self._access
        request.in_flight = self.in_flight
        return request

    async def __call__(self, request: Request) -> web.StreamResponse:
        """Answer one request."""
        started = time.perf_counter()
        route, handler = _TABLE.find(request)
        response: web.StreamResponse
        in_flight = self.in_flight
        in_flight.now += 1
        try:
            request.crossing = self._browsers.check(request.method, request.headers)
            if request.crossing and request.method == "OPTIONS":  # the page's question, which never has a token
                handler = _preflight
            elif self._access.guarded:
                self._admit(request, (route, request.method))
            if self._draining():
                raise _drained()
            if in_flight.now > in_flight.limit:
                in_flight.refuse()
            response = await handler(request)
        except AccessError as error:
            self._metrics.refused(error.reason)
            response = problem_of(error)
        except StateStoreError as error:
            response = problem_of(error)
        except web.HTTPException as error:
            response = problem_of_http(error)
        except (ConnectionError, web.RequestPayloadError):  # the caller went away in the middle of its body, or we do
            if self._draining():
                response = problem_of(_drained())
            else:
                _log.debug("request_cut", route=route, method=request.method)
                response = problem(499, "malformed", "The request ended early", "its body is not complete")
        except Exception:
            _log.exception("request_failed", route=route, method=request.method)
            response = problem(500, "internal", "A fault of the sidecar", "its log has the cause; please report it")
        finally:
            in_flight.now -= 1
        if self._stopping():
            response.force_close()
        seconds = time.perf_counter() - started - request.waited_seconds
        self._metrics.observe(route, request.method, response.status, seconds)
        return response

    def _admit(self, request: Request, route: tuple[str, str]) -> None:
        """Let the caller in. Without a valid token nobody learns what there is, and what not."""
        needed = SCOPES.get(route)
        if needed or route not in PUBLIC_ROUTES:
            request.caller = self._access.admit(request.headers.getall("Authorization", ()), needed, request.door)


async def _preflight(request: Request) -> web.StreamResponse:
    return web.Response(status=204, headers=preflight(_TABLE.methods_of(request)))


def build_api(
    store: AsyncStateStore,
    dispatcher: Dispatcher,
    backups: Backups,
    watchers: Watchers,
    heartbeat: Heartbeat,
    metrics: HttpMetrics,
    access: Access,
    browsers: Browsers,
    *,
    about: About,
    draining: Callable[[], bool],
    stopping: Callable[[], bool],
    max_body_bytes: int,
    max_requests: int,
    require_precondition: bool,
    write_seconds: float,
) -> Api:
    """The API over these parts."""
    states = list(store.machine.states.__members__)
    description = cache(lambda guarded: msgspec.json.encode(openapi(DEFINITIONS, states, guarded=guarded)))
    parts = Parts(
        store,
        dispatcher,
        backups,
        watchers,
        heartbeat,
        about,
        lambda: description(access.guarded),
        require_precondition,
        write_seconds,
    )
    limits = {"max_body_bytes": max_body_bytes, "max_requests": max_requests}
    return Api(parts, metrics, access, browsers, draining=draining, stopping=stopping, **limits)


def _drained() -> DrainingError:
    return DrainingError("the sidecar is stopping; its next instance will answer")
