"""Error answers (RFC 9457), as a response and as bytes for a connection that has no request yet."""

import msgspec
from aiohttp import web

RETRY_AFTER = {429: "1", 503: "1", 507: "10"}


def problem(status: int, kind: str, title: str, detail: str, **members: object) -> web.Response:
    """An error answer. `type` is relative to the documentation of the API."""
    body = _body(status, kind, title, detail, **members)
    response = web.Response(body=body, status=status, content_type="application/problem+json")
    if status in RETRY_AFTER:
        response.headers["Retry-After"] = RETRY_AFTER[status]
    return response


def last_words(status: int, kind: str, title: str, detail: str) -> bytes:
    """The same as the whole answer, after which the connection is closed."""
    body = _body(status, kind, title, detail)
    lines = [
        f"HTTP/1.1 {status} {title}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        *([f"Retry-After: {RETRY_AFTER[status]}"] if status in RETRY_AFTER else []),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _body(status: int, kind: str, title: str, detail: str, **members: object) -> bytes:
    return msgspec.json.encode({"type": kind, "title": title, "status": status, "detail": detail, **members})
