"""The status page: what a browser gets at `/`.

Its files hold no data, so anybody may have them. All that it shows it asks the API for, with the reader's token where one is
needed; it never writes.
"""

import hashlib
from importlib.resources import files
from typing import NamedTuple

from aiohttp import web

from sidecar.api import conditions
from sidecar.api.request import Request
from sidecar.api.routing import PUBLIC, Routes

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

routes = Routes()


class _File(NamedTuple):
    content: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, name: str, content: bytes) -> "_File":
        kind = _TYPES[name.rpartition(".")[2]]
        tag = hashlib.sha256(content).hexdigest()[:32]
        return cls(content, {"Content-Type": f"{kind}; charset=utf-8", "ETag": f'"{tag}"', **_HEADERS})


_FILES = {
    file.name: _File.of(file.name, file.read_bytes())
    for file in files(__package__).iterdir()
    if file.name.rpartition(".")[2] in _TYPES
}


@routes.get("/", PUBLIC)
async def get_page(request: Request) -> web.StreamResponse:
    """The page."""
    return _answer(request, "index.html")


@routes.get("/page/{file}", PUBLIC)
async def get_file(request: Request) -> web.StreamResponse:
    """One of its files."""
    return _answer(request, request.placeholders["file"])


def _answer(request: Request, name: str) -> web.StreamResponse:
    """The file, or 304 when the browser has it: with `no-cache` it asks each time, so that no two versions are mixed."""
    file = _FILES.get(name)
    if file is None:
        raise web.HTTPNotFound
    if conditions.not_modified(request, file.headers["ETag"]):
        return web.Response(status=304, headers=file.headers)
    return web.Response(body=file.content, headers=file.headers)
