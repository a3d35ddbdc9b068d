"""What surrounds every handler: errors become problem+json (RFC 9457) by one table, and each request is counted."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import structlog
from aiohttp import web

from sidecar import errors
from sidecar.logs import Summarised
from sidecar.metrics import HttpMetrics

_log = structlog.get_logger("api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Meaning(NamedTuple):
    """What an error is over HTTP. `carries`: the error's attributes that join the problem."""

    status: int
    type: str
    title: str
    carries: tuple[str, ...] = ()


MEANINGS: dict[type[Exception], Meaning] = {
    errors.MalformedError: Meaning(400, "malformed", "The request cannot be read"),
    errors.NoStateError: Meaning(404, "no-state", "There is no state yet"),
    errors.UnknownSubscriberError: Meaning(404, "unknown-subscriber", "There is no such subscriber"),
    errors.IllegalTransitionError: Meaning(
        409, "illegal-transition", "The machine does not allow it", ("state", "to", "allowed")
    ),
    errors.SubscriberLimitError: Meaning(409, "subscriber-limit", "All subscriber places are taken", ("limit",)),
    errors.ConfiguredSubscriberError: Meaning(409, "configured-subscriber", "The config file owns this subscriber"),
    errors.CompactedError: Meaning(410, "compacted", "These revisions are no longer kept", ("oldest",)),
    errors.StateExistsError: Meaning(412, "already-exists", "There is a state already", ("expected", "current")),
    errors.StateVersionError: Meaning(412, "version-conflict", "Another write came first", ("expected", "current")),
    errors.MediaTypeError: Meaning(415, "unsupported-media-type", "The body is not JSON as we take it"),
    errors.InvalidError: Meaning(422, "invalid", "A value is not what is expected", ("path",)),
    errors.EndpointRefusedError: Meaning(422, "endpoint-refused", "This endpoint may not be called", ("rule",)),
    errors.KeyReusedError: Meaning(422, "idempotency-key-reused", "The Idempotency-Key was used for another write"),
    errors.PreconditionRequiredError: Meaning(428, "precondition-required", "Writes have to say what they expect"),
    errors.OverloadedError: Meaning(503, "overloaded", "Too many writes wait for the disk"),
    errors.DrainingError: Meaning(503, "draining", "The sidecar is stopping"),
    errors.StorageFailedError: Meaning(503, "storage-failed", "The write may or may not be durable"),
    errors.StorageFullError: Meaning(507, "storage-full", "The disk is full"),
}

HTTP_TYPES = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
_RETRY_AFTER = {503: "1", 507: "10"}


def answer_and_count(
    app: web.Application, metrics: HttpMetrics, draining: Callable[[], bool], stopping: Callable[[], bool]
) -> Any:
    """The middleware of `app`. `stopping`: connections are not kept any more; `draining`: requests are refused."""
    rejected = Summarised(_log.warning)

    async def flush(app: web.Application) -> None:
        rejected.flush()

    app.on_cleanup.append(flush)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        response: web.StreamResponse
        try:
            if draining():
                raise errors.DrainingError("the sidecar is stopping; its next instance will answer")
            response = await handler(request)
        except errors.StateStoreError as error:
            response = _problem_of(error)
            if isinstance(error, errors.StateVersionError | errors.IllegalTransitionError):
                rejected("write_rejected", detail=str(error), **_attempted(error))
        except web.HTTPException as error:
            response = _problem_of_http(error)
        except (ConnectionError, web.RequestPayloadError):  # the caller went away in the middle of its body, or we do
            if draining():
                response = _problem_of(errors.DrainingError("the sidecar is stopping; its next instance will answer"))
            else:
                response = problem(499, "malformed", "The request ended early", "its body is not complete")
        except Exception:
            _log.exception("request_failed", route=_route(request), method=request.method)
            response = problem(500, "internal", "A fault of the sidecar", "its log has the cause; please report it")
        if stopping():
            response.force_close()
        metrics.observe(_route(request), request.method, response.status, time.perf_counter() - started)
        return response

    return middleware


def problem(status: int, kind: str, title: str, detail: str, **members: object) -> web.Response:
    """An error answer (RFC 9457). `type` is relative to the documentation of the API."""
    body = {"type": kind, "title": title, "status": status, "detail": detail, **members}
    response = web.Response(body=msgspec.json.encode(body), status=status, content_type="application/problem+json")
    if status in _RETRY_AFTER:
        response.headers["Retry-After"] = _RETRY_AFTER[status]
    return response


def _problem_of(error: errors.StateStoreError) -> web.Response:
    meaning = next((MEANINGS[kind] for kind in type(error).__mro__ if kind in MEANINGS), None)
    if meaning is None:
        return problem(503, "storage-failed", "The storage failed", str(error), outcome="unknown")
    members = {name: getattr(error, name) for name in meaning.carries}
    if isinstance(error, errors.StorageFailedError):
        members["outcome"] = "unknown"
    return problem(meaning.status, meaning.type, meaning.title, str(error), **members)


def _problem_of_http(error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals: unknown path, wrong method, body beyond the limit."""
    kind = HTTP_TYPES.get(error.status, "malformed")
    detail = _HTTP_DETAILS.get(error.status, error.text or error.reason)
    response = problem(error.status, kind, error.reason, detail)
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    return response


_HTTP_DETAILS = {
    404: "there is nothing at this path; the routes begin with /v1/",
    405: "the header Allow names the methods of this path",
}


def _attempted(error: errors.StateVersionError | errors.IllegalTransitionError) -> dict[str, Any]:
    attempted = msgspec.to_builtins(error.attempted)
    return {key: attempted[key] for key in ("source_module", "state", "version", "reason")}


def _route(request: web.Request) -> str:
    """The route's template: a closed set, unlike the paths that are asked for."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "other"
