"""The table of routes: which handler a request gets. aiohttp's own router can do more, and costs more than a small request."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypedDict, Unpack

from aiohttp import web

from sidecar.access import Scope
from sidecar.api.describing import Reply
from sidecar.api.parameters import Parameter, refuse_unknown
from sidecar.api.request import Handler, Request
from sidecar.api.wire import Body

__all__ = ["PUBLIC", "Definition", "Routes", "Scope", "Table"]

Methods = dict[str, Handler]


PUBLIC = None
"""The scope of a route that anybody may call: what it answers holds no data."""


class Described(TypedDict, total=False):
    """What a route takes and answers: all that the API's description says of it beside the handler's name and docstring.

    `takes`: its parameters, without which a query parameter is refused. `body`: how that is read. `answers`: each good one by
    its status. `raises`: what can go wrong, but for what comes with a parameter, with a body, or with any request.
    """

    takes: tuple[Parameter, ...]
    body: Body
    answers: Mapping[int, Reply]
    raises: tuple[type[Exception], ...]


class Definition(NamedTuple):
    method: str
    template: str
    scope: Scope | None
    handler: Handler
    described: Described

    @property
    def takes(self) -> tuple[Parameter, ...]:
        return self.described.get("takes", ())


class Routes(list[Definition]):
    """What a module of handlers answers: `@routes.get("/v1/state", Scope.READ, answers={200: …})`.

    A GET is for HEAD too, unless it makes what it answers.
    """

    def get(
        self, template: str, scope: Scope | None, *, head: bool = True, **described: Unpack[Described]
    ) -> Callable[[Handler], Handler]:
        return self._define(template, scope, described, "GET", *(("HEAD",) if head else ()))

    def put(self, template: str, scope: Scope, **described: Unpack[Described]) -> Callable[[Handler], Handler]:
        return self._define(template, scope, described, "PUT")

    def patch(self, template: str, scope: Scope, **described: Unpack[Described]) -> Callable[[Handler], Handler]:
        return self._define(template, scope, described, "PATCH")

    def post(self, template: str, scope: Scope, **described: Unpack[Described]) -> Callable[[Handler], Handler]:
        return self._define(template, scope, described, "POST")

    def delete(self, template: str, scope: Scope, **described: Unpack[Described]) -> Callable[[Handler], Handler]:
        return self._define(template, scope, described, "DELETE")

    def _define(self, template: str, scope: Scope | None, described: Described, *methods: str) -> Callable[[Handler], Handler]:
        def define(handler: Handler) -> Handler:
            self.extend(Definition(method, template, scope, handler, described) for method in methods)
            return handler

        return define


class Table:
    """All routes; `methods`: each template with each method, but for HEAD; `scopes`: what each of them needs, HEAD too;
    `public`: those that need nothing.

    A path without placeholders is found by one look. Every path takes OPTIONS too, which tells its methods.
    """

    def __init__(self, *modules: Routes) -> None:
        routes: dict[str, Methods] = {}
        self.definitions = [definition for definitions in modules for definition in definitions]
        for each in self.definitions:
            routes.setdefault(each.template, {})[each.method] = _checked(each)
        self.methods = [(template, method) for template, methods in routes.items() for method in methods if method != "HEAD"]
        self.scopes = {(each.template, each.method): each.scope for each in self.definitions if each.scope is not PUBLIC}
        self.public = {(each.template, each.method) for each in self.definitions if each.scope is PUBLIC}
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
        if not methods:
            return "other", _not_found
        allowed = sorted({*methods, "OPTIONS"})
        return "other", _told(allowed) if request.method == "OPTIONS" else _refused(request.method, allowed)

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


def _checked(definition: Definition) -> Handler:
    """The handler, for requests without a query parameter that the route does not take. What is public is not so strict."""
    handler = definition.handler
    if definition.scope is PUBLIC:
        return handler
    known = frozenset(parameter.name for parameter in definition.takes if parameter.place == "query")

    def check(request: Request) -> Awaitable[web.StreamResponse]:
        if request.rel_url.raw_query_string:
            refuse_unknown(request, known)
        return handler(request)

    return check


async def _not_found(request: Request) -> web.StreamResponse:
    raise web.HTTPNotFound


def _told(allowed: list[str]) -> Handler:
    async def tell(request: Request) -> web.StreamResponse:
        return web.Response(status=204, headers={"Allow": ", ".join(allowed)})

    return tell


def _refused(method: str, allowed: list[str]) -> Handler:
    async def refuse(request: Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed(method, allowed)

    return refuse
