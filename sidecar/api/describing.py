"""What a route says about itself, beside what its handler does: the words of the API's description."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec


class AnswerHeader(NamedTuple):
    """A header of an answer. `schema`: its JSON Schema."""

    name: str
    description: str
    schema: Mapping[str, Any]
    required: bool = True


class Reply(NamedTuple):
    """A good answer: the struct that its JSON is, or what it may be instead; JSON Schemas of other media types; headers."""

    description: str
    struct: type[msgspec.Struct] | None = None
    instead: type[msgspec.Struct] | None = None
    others: Mapping[str, Mapping[str, Any]] = {}
    headers: tuple[AnswerHeader, ...] = ()
