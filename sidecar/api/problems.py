"""What errors are over HTTP: problem+json (RFC 9457), by one table."""

from typing import NamedTuple

from aiohttp import web

from sidecar import errors
from sidecar.serving.problem import problem


class Meaning(NamedTuple):
    """What an error is over HTTP. `carries`: the error's attributes that join the problem."""

    status: int
    type: str
    title: str
    carries: tuple[str, ...] = ()


MEANINGS: dict[type[Exception], Meaning] = {
    errors.MalformedError: Meaning(400, "malformed", "The request cannot be read"),
    errors.UnauthorizedError: Meaning(401, "unauthorized", "A valid token is needed"),
    errors.ForbiddenError: Meaning(403, "forbidden", "The token is not for this", ("scope",)),
    errors.OriginRefusedError: Meaning(403, "origin-refused", "Pages of this origin may not do this"),
    errors.NoStateError: Meaning(404, "no-state", "There is no state yet"),
    errors.UnknownSubscriberError: Meaning(404, "unknown-subscriber", "There is no such subscriber"),
    errors.NoJournalFileError: Meaning(404, "no-journal-file", "The journal is in memory"),
    errors.BackupRunningError: Meaning(409, "backup-running", "A backup is on its way already"),
    errors.FencedError: Meaning(409, "fenced", "Another writer writes", ("holder",)),
    errors.WriterHeldError: Meaning(409, "writer-held", "Another writer has the lease", ("holder",)),
    errors.IllegalTransitionError: Meaning(
        409, "illegal-transition", "The machine does not allow it", ("state", "to", "allowed")
    ),
    errors.SubscriberLimitError: Meaning(409, "subscriber-limit", "All subscriber places are taken", ("limit",)),
    errors.ConfiguredSubscriberError: Meaning(409, "configured-subscriber", "The config file owns this subscriber"),
    errors.CompactedError: Meaning(410, "compacted", "These revisions are no longer kept", ("oldest",)),
    errors.StateExistsError: Meaning(412, "already-exists", "There is a state already", ("expected", "current")),
    errors.StateVersionError: Meaning(412, "version-conflict", "Another write came first", ("expected", "current")),
    errors.TooLargeError: Meaning(413, "too-large", "The body, or what it would make of the state, is too large"),
    errors.MediaTypeError: Meaning(415, "unsupported-media-type", "The body is not JSON as we take it"),
    errors.MisdirectedError: Meaning(421, "misdirected", "The API is not called by this name"),
    errors.InvalidError: Meaning(422, "invalid", "A value is not what is expected", ("path",)),
    errors.EndpointRefusedError: Meaning(422, "endpoint-refused", "This endpoint may not be called", ("rule",)),
    errors.KeyReusedError: Meaning(422, "idempotency-key-reused", "The Idempotency-Key was used for another write"),
    errors.PreconditionRequiredError: Meaning(428, "precondition-required", "Writes have to say what they expect"),
    errors.TooManyFailuresError: Meaning(429, "too-many-failures", "Too many requests without a valid token"),
    errors.OverloadedError: Meaning(503, "overloaded", "Too much at once"),
    errors.TooManyWatchersError: Meaning(503, "too-many-watchers", "All watcher places are taken", ("limit",)),
    errors.DrainingError: Meaning(503, "draining", "The sidecar is stopping"),
    errors.StorageFailedError: Meaning(503, "storage-failed", "The write may or may not be durable"),
    errors.StorageSlowError: Meaning(503, "storage-slow", "The disk did not answer in time"),
    errors.StorageFullError: Meaning(507, "storage-full", "The disk is full"),
}

HTTP_TYPES = {404: "not-found", 405: "method-not-allowed", 408: "timeout", 413: "too-large"}


def problem_of(error: errors.StateStoreError) -> web.Response:
    meaning = next((MEANINGS[kind] for kind in type(error).__mro__ if kind in MEANINGS), None)
    if meaning is None:
        return problem(503, "storage-failed", "The storage failed", str(error), outcome="unknown")
    members = {name: getattr(error, name) for name in meaning.carries}
    if isinstance(error, errors.StorageFailedError | errors.StorageSlowError):
        members["outcome"] = "unknown"
    response = problem(meaning.status, meaning.type, meaning.title, str(error), **members)
    if isinstance(error, errors.MediaTypeError):  # RFC 9110, section 15.5.16, and RFC 5789, section 2.2
        response.headers["Accept-Patch" if "patch" in error.wanted else "Accept"] = error.wanted
    elif isinstance(error, errors.UnauthorizedError):
        response.headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, errors.ForbiddenError):
        response.headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    return response


def problem_of_http(error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals: unknown path, wrong method, body beyond the limit or its time."""
    kind = HTTP_TYPES.get(error.status, "malformed")
    detail = _HTTP_DETAILS.get(error.status, error.text or error.reason)
    response = problem(error.status, kind, error.reason, detail)
    if error.status in (400, 408):  # where the next request begins is not known
        response.force_close()
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    return response


_HTTP_DETAILS = {
    404: "there is nothing at this path; the routes begin with /v1/",
    405: "the header Allow names the methods of this path",
    408: "the body was not complete in time",
}
