"""The API's description of itself: OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1), from the table of routes."""

import inspect
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from sidecar import errors
from sidecar.api.describing import AnswerHeader, Reply
from sidecar.api.documents import SPARSE, Problem
from sidecar.api.examples import EXAMPLES
from sidecar.api.parameters import Parameter
from sidecar.api.problems import HTTP_TYPES, MEANINGS
from sidecar.api.routing import Definition
from sidecar.api.wire import STATE_NAME
from sidecar.serving.problem import RETRY_AFTER

Json = dict[str, Any]

ANYWHERE: tuple[type[Exception], ...] = (
    errors.MalformedError,
    errors.UnauthorizedError,
    errors.ForbiddenError,
    errors.OriginRefusedError,
    errors.MisdirectedError,
    errors.TooManyFailuresError,
    errors.OverloadedError,
    errors.DrainingError,
)
"""What any request can be answered."""

WITH_BODY: tuple[type[Exception], ...] = (errors.MediaTypeError, errors.InvalidError, errors.TooLargeError)
"""What a request with a body can be answered."""

_INTERNAL = 500, "internal", "A fault of the sidecar"
_RETRY = AnswerHeader("Retry-After", "After so many seconds it may go better.", {"type": "string", "pattern": "^[0-9]+$"})
_AUTHENTICATE = AnswerHeader("WWW-Authenticate", "How to show who you are.", {"type": "string"})
_UNAUTHORIZED = 401
_TIMEOUT = 408
_SCHEMAS = "#/components/schemas/{name}"
_INTRODUCTION = """\
The single source of truth of an agent's state. What it guarantees, and what may change within v1: docs/api.md.

Errors are `application/problem+json` (RFC 9457): tell them by `type`. Ignore fields of answers that you do not know."""


def openapi(definitions: Sequence[Definition], states: Sequence[str] = (), *, guarded: bool = True) -> Json:
    """The document. `states`: the machine's, where it is known. `guarded`: whether there are tokens."""
    shown = [definition for definition in definitions if definition.template.startswith("/v1/")]
    responses: Json = {}
    paths: Json = {}
    for definition in shown:
        operation = _operation(definition, responses)
        operation["security"] = [{"token": [definition.scope]}] if guarded else []
        paths.setdefault(definition.template, {})[definition.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fsm-sidecar",
            "version": version("fsm-sidecar"),
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": text} for tag, text in _tags(shown).items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(shown, states),
            "responses": dict(sorted(responses.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _tags(definitions: Iterable[Definition]) -> dict[str, str]:
    """A tag for each module of handlers."""
    return {_tag(each): (sys.modules[each.handler.__module__].__doc__ or "").partition("\n")[0] for each in definitions}


def _tag(definition: Definition) -> str:
    return definition.handler.__module__.rpartition(".")[2]


def _operation(definition: Definition, responses: Json) -> Json:
    name, text = definition.handler.__name__, inspect.getdoc(definition.handler) or ""
    head = definition.method == "HEAD"
    operation: Json = {
        "operationId": name.replace("get_", "head_", 1) if head else name,
        "summary": text.partition("\n")[0],
        "description": " ".join(text.split()),
        "tags": [_tag(definition)],
        "parameters": [_parameter(each) for each in definition.takes],
    }
    if body := definition.described.get("body"):
        operation["requestBody"] = {"required": not body.optional, "content": {body.media_type: _content(body.kind)}}
    answers = {str(status): _reply(reply, head=head) for status, reply in definition.described.get("answers", {}).items()}
    operation["responses"] = answers | _problems(definition, responses)
    return operation


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _content(*structs: type[msgspec.Struct]) -> Json:
    schemas = [{"$ref": _SCHEMAS.format(name=struct.__name__)} for struct in structs]
    content: Json = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    examples = {name: {"value": value} for struct in structs for name, value in EXAMPLES.get(struct, {}).items()}
    return content | ({"examples": examples} if examples else {})


def _reply(reply: Reply, *, head: bool) -> Json:
    answer: Json = {"description": reply.description}
    if reply.headers:
        answer["headers"] = {header.name: _header(header) for header in reply.headers}
    structs = _structs(reply)
    content: Json = {"application/json": _content(*structs)} if structs else {}
    content |= {media: {"schema": schema} for media, schema in reply.others.items()}
    if content and not head:
        answer["content"] = content
    return answer


def _structs(reply: Reply) -> list[type[msgspec.Struct]]:
    return [struct for struct in (reply.struct, reply.instead) if struct]


def _header(header: AnswerHeader) -> Json:
    return {"description": header.description, "required": header.required, "schema": header.schema}


# --- problems ---


def raised(definition: Definition) -> set[type[Exception]]:
    """All errors that a request of this route can be answered."""
    kinds = {*ANYWHERE, *definition.described.get("raises", ()), *(each for one in definition.takes for each in one.raises)}
    return kinds | {*WITH_BODY} if "body" in definition.described else kinds


def _problems(definition: Definition, responses: Json) -> Json:
    """The references to the answers for problems, by status; each that is not among `responses` yet is added."""
    kinds = [(each.status, each.type, each.title) for each in (MEANINGS[kind] for kind in raised(definition))]
    kinds.append(_INTERNAL)
    if "body" in definition.described:
        kinds.append((_TIMEOUT, HTTP_TYPES[_TIMEOUT], "The body did not come in time"))
    by_status: dict[int, dict[str, str]] = {}
    for status, kind, title in sorted(kinds):
        by_status.setdefault(status, {})[kind] = title
    references = {}
    for status, titles in by_status.items():
        name = ".".join(titles)
        responses[name] = _problem(status, titles)
        references[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return references


def _problem(status: int, titles: dict[str, str]) -> Json:
    members = {"type": {"enum": list(titles)}, "status": {"const": status}}
    schema = {"allOf": [{"$ref": _SCHEMAS.format(name=Problem.__name__)}], "properties": members}
    answer: Json = {
        "description": "; ".join(f"`{kind}`: {title}" for kind, title in titles.items()),
        "content": {"application/problem+json": {"schema": schema}},
    }
    if status in RETRY_AFTER:
        header = AnswerHeader(
            "Retry-After", "After so many seconds it may go better.", {"type": "string", "pattern": "^[0-9]+$"}
        )
        answer["headers"] = {header.name: _header(header)}
    return answer


# --- schemas ---


def _schemas(definitions: Iterable[Definition], states: Sequence[str]) -> Json:
    """Those of bodies and answers. An answer has all its fields, but for those that may be unset."""
    bodies = {each.described["body"].kind for each in definitions if "body" in each.described}
    replies = [reply for each in definitions for reply in each.described.get("answers", {}).values()]
    answers = _components({struct for reply in replies for struct in _structs(reply)} | {Problem})
    for name, schema in answers.items():
        if "properties" in schema and name not in {struct.__name__ for struct in SPARSE}:
            schema["required"] = [
                field for field, its in schema["properties"].items() if field in schema["required"] or "default" in its
            ]
            for its in schema["properties"].values():
                its.pop("default", None)
    names: Json = {"type": "string", "description": "One of the machine's states."}
    if states:
        names["enum"] = list(states)
    return dict(sorted({STATE_NAME: names, **_components(bodies), **answers}.items()))


def _components(structs: Iterable[type[msgspec.Struct]]) -> Json:
    _, components = msgspec.json.schema_components(sorted(structs, key=lambda struct: struct.__name__), ref_template=_SCHEMAS)
    return components
