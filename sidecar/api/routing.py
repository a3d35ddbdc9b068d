"""The table of routes: which handler a request gets. aiohttp's own router can do more, and costs more than a small request."""

import re
from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web

from sidecar.access import Scope
from sidecar.api.request import Handler, Request

__all__ = ["PUBLIC", "Definition", "Routes", "Scope", "Table"]

Methods = dict[str, Handler]


PUBLIC = None
"""The scope of a route that anybody may call: what it answers holds no data."""


class Definition(NamedTuple):
    method: str
    template: str
    scope: Scope | None
    handler: Handler


class Routes(list[Definition]):
    """What a module of handlers answers: `@routes.get("/v1/state", Scope.READ)`.

    A GET is for HEAD too, unless it makes what it answers.
    """

    def get(self, template: str, scope: Scope | None, *, head: bool = True) -> Callable[[Handler], Handler]:
        return self._define(template, scope, "GET", *(("HEAD",) if head else ()))

    def put(self, template: str, scope: Scope) -> Callable[[Handler], Handler]:
        return self._define(template, scope, "PUT")

    def patch(self, template: str, scope: Scope) -> Callable[[Handler], Handler]:
        return self._define(template, scope, "PATCH")

    def post(self, template: str, scope: Scope) -> Callable[[Handler], Handler]:
        return self._define(template, scope, "POST")

    def delete(self, template: str, scope: Scope) -> Callable[[Handler], Handler]:
        return self._define(template, scope, "DELETE")

    def _define(self, template: str, scope: Scope | None, *methods: str) -> Callable[[Handler], Handler]:
        def define(handler: Handler) -> Handler:
            self.extend(Definition(method, template, scope, handler) for method in methods)
            return handler

        return define


class Table:
    """All routes; `methods`: each template with each method, but for HEAD; `scopes`: what each of them needs, HEAD too;
    `public`: those that need nothing.

    A path without placeholders is found by one look.
    """

    def __init__(self, *modules: Routes) -> None:
        routes: dict[str, Methods] = {}
        for definitions in modules:
            for method, template, _, handler in definitions:
                routes.setdefault(template, {})[method] = handler
        self.methods = [(template, method) for template, methods in routes.items() for method in methods if method != "HEAD"]
        all_of_them = [each for definitions in modules for each in definitions]
        self.scopes = {(each.template, each.method): each.scope for each in all_of_them if each.scope is not PUBLIC}
        self.public = {(each.template, each.method) for each in all_of_them if each.scope is PUBLIC}
        self._plain = {template: methods for template, methods in routes.items() if "{" not in template}
        self._patterns = [(_pattern(template), template, methods) for template, methods in routes.items() if "{" in template]

    def find(self, request: Request) -> tuple[str, Handler]:
        """The route's template and its handler: a closed set, unlike the paths that are asked for. `other`: there is none."""
        path = request.rel_url.path_safe
        template, methods = path, self._plain.get(path)
        if methods is None:
            template, methods = self._match(request, path)
        handler = methods.get(request.method)
        if handler:
            return template, handler
        return "other", _method_not_allowed(request.method, methods) if methods else _not_found

    def methods_of(self, request: Request) -> Methods:
        """What may be asked of the path; empty: there is nothing."""
        path = request.rel_url.path_safe
        return self._plain.get(path) or self._match(request, path)[1]

    def _match(self, request: Request, path: str) -> tuple[str, Methods]:
        for pattern, template, methods in self._patterns:
            if match := pattern.fullmatch(path):
                request.placeholders = match.groupdict()
                return template, methods
        return "other", {}


def _pattern(template: str) -> re.Pattern[str]:
    """`/v1/subscribers/{id}` as an expression."""
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^{}/]+)", template))


async def _not_found(request: Request) -> web.StreamResponse:
    raise web.HTTPNotFound


def _method_not_allowed(method: str, allowed: Methods) -> Handler:
    async def refuse(request: Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed(method, allowed)

    return refuse
