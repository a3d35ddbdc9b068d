"""Holds answers of the API against its description of itself: all that the tests' client gets goes through here."""

import functools
import json
import re

import jsonschema
import msgspec

from sidecar.api.app import DEFINITIONS
from sidecar.api.openapi import openapi

DOCUMENT = json.loads(msgspec.json.encode(openapi(DEFINITIONS)))
LARGE_BYTES = 64 << 10
"""What is larger is as its smaller likes are, and takes long to look through."""

_PATTERNS = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", template)), template) for template in DOCUMENT["paths"]]
_ELSEWHERE = {404: "not-found", 405: "method-not-allowed"}


def resolved(part):
    """The part of the document, or what its `$ref` names."""
    while "$ref" in part:
        part = functools.reduce(dict.__getitem__, part["$ref"].removeprefix("#/").split("/"), DOCUMENT)
    return part


@functools.cache
def _validator(template, method, status, media):
    content = resolved(DOCUMENT["paths"][template][method]["responses"][status])["content"]
    return validator(content[media]["schema"])


def validator(schema):
    """Of values that the document's schema describes."""
    kind = jsonschema.Draft202012Validator
    return kind(schema | {"components": DOCUMENT["components"]}, format_checker=kind.FORMAT_CHECKER)


def check(method, path, answer):
    """Whether the description has this answer: its status, headers and media type, and a body of its schema."""
    told = f"{method} {path} answered {answer.status}"
    plain = path.partition("?")[0]
    template = next((template for pattern, template in _PATTERNS if pattern.fullmatch(plain)), None)
    operation = DOCUMENT["paths"].get(template, {}).get(method.lower())
    if operation is None:
        if answer.status == 204:
            assert "OPTIONS" == method, told
        elif answer.status >= 400 and method != "HEAD":
            assert answer.json["type"] == _ELSEWHERE.get(answer.status, answer.json["type"]), told
        return
    assert str(answer.status) in operation["responses"], f"{told}, which its description does not have: {answer.body[:200]}"
    response = resolved(operation["responses"][str(answer.status)])
    required = [name for name, header in response.get("headers", {}).items() if header["required"]]
    assert [] == [name for name in required if name not in answer.headers], told
    if method == "HEAD" or "content" not in response:
        assert b"" == answer.body, told
        return
    media = answer.headers["Content-Type"].partition(";")[0]
    assert media in response["content"], f"{told} as {media}"
    if media.endswith("json") and len(answer.body) <= LARGE_BYTES:
        _validator(template, method.lower(), str(answer.status), media).validate(answer.json)
