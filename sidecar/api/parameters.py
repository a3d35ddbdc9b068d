"""What a request says beside its body: each parameter is declared once, for reading it and for the API's description."""

import re
from typing import Any, ClassVar, Generic, TypeVar

from sidecar.api.request import Request
from sidecar.errors import InvalidError, MalformedError
from sidecar.units import Seconds

Default = TypeVar("Default")

DURATION = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"}
"""The JSON Schema of a duration."""


class Parameter:
    """One parameter of a request. `schema`: its JSON Schema; `raises`: the errors that come with it."""

    place: ClassVar[str]

    def __init__(
        self, name: str, description: str, schema: dict[str, Any], *, raises: tuple[type[Exception], ...] = ()
    ) -> None:
        self.name = name
        self.description = description
        self.schema = schema
        self.raises = raises


class InQuery(Parameter):
    """A query parameter, as text."""

    place = "query"

    def text(self, request: Request) -> str | None:
        if not request.rel_url.raw_query_string:  # most have none that had to be taken apart
            return None
        return request.query.get(self.name)

    def malformed(self, expected: str) -> MalformedError:
        return MalformedError(f"the query parameter {self.name} is {expected}")


class Flag(InQuery):
    """`true` or `false`, which is the default."""

    def __init__(self, name: str, description: str, *, raises: tuple[type[Exception], ...] = ()) -> None:
        super().__init__(name, description, {"type": "boolean", "default": False}, raises=raises)

    def read(self, request: Request) -> bool:
        """Raises `MalformedError`."""
        text = self.text(request)
        if text not in (None, "true", "false"):
            raise self.malformed("true or false")
        return text == "true"


class Integer(InQuery, Generic[Default]):
    """A number from `least` to `most`, in decimal digits."""

    def __init__(
        self,
        name: str,
        description: str,
        *,
        default: Default,
        least: int,
        most: int,
        raises: tuple[type[Exception], ...] = (),
    ) -> None:
        schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
        super().__init__(name, description, schema | ({} if default is None else {"default": default}), raises=raises)
        self._default, self._least, self._most = default, least, most

    def read(self, request: Request) -> int | Default:
        """Raises `MalformedError`."""
        text = self.text(request)
        if text is None:
            return self._default
        if not (text.isascii() and text.isdigit() and len(text) <= 16 and self._least <= int(text) <= self._most):
            raise self.malformed(f"a number from {self._least} to {self._most}")
        return int(text)


class Choice(InQuery):
    """One of some words; the first is the default."""

    def __init__(self, name: str, description: str, *words: str) -> None:
        super().__init__(name, description, {"type": "string", "enum": list(words), "default": words[0]})
        self._words = words

    def read(self, request: Request) -> str:
        """Raises `MalformedError`."""
        text = self.text(request)
        if text is None:
            return self._words[0]
        if text not in self._words:
            raise self.malformed(f"one of: {', '.join(self._words)}")
        return text


class Duration(InQuery):
    """A duration such as `30s`, from 0s to `most` seconds."""

    def __init__(self, name: str, description: str, *, most: float, raises: tuple[type[Exception], ...] = ()) -> None:
        super().__init__(name, description, DURATION, raises=raises)
        self._most = most

    def read(self, request: Request) -> float | None:
        """In seconds; None: not given. Raises `MalformedError`."""
        text = self.text(request)
        if text is None:
            return None
        try:
            seconds = float(Seconds.parse(text))
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= self._most:
            raise self.malformed(f"a duration such as 30s, at most {self._most:g}s")
        return seconds


class Header(Parameter):
    """A header of which there may be one."""

    place = "header"

    def read(self, request: Request) -> str | None:
        """Raises `MalformedError` where it is given twice."""
        values = request.headers.getall(self.name, ())
        if len(values) > 1:
            raise MalformedError(f"{self.name} is given twice")
        return values[0] if values else None


class InPath(Parameter):
    """What stands in the path. `expected`: what is told to who gives something else."""

    place = "path"

    def __init__(self, name: str, description: str, pattern: str, *, expected: str) -> None:
        super().__init__(name, description, {"type": "string", "pattern": pattern}, raises=(InvalidError,))
        self._fullmatch = re.compile(pattern).fullmatch
        self._expected = expected

    def read(self, request: Request) -> str:
        """Raises `InvalidError`."""
        text = request.placeholders[self.name]
        if not self._fullmatch(text):
            raise InvalidError(self._expected, path=self.name)
        return text


def refuse_unknown(request: Request, known: frozenset[str]) -> None:
    """Raise `MalformedError` for a query parameter that is not known, as it might have meant something, or is given twice."""
    values = request.query
    for name in values:
        if name not in known:
            raise MalformedError(f"unknown query parameter; known here: {', '.join(sorted(known)) or 'none'}")
        if len(values.getall(name)) > 1:
            raise MalformedError(f"the query parameter {name} is given twice")
