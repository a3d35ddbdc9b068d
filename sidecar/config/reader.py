"""From a plain tree to the sections: everything is read, and everything that does not fit is noted."""

from contextlib import suppress
from itertools import chain, islice
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from sidecar.config.problems import NOUNS, Problem, misfit, nearest
from sidecar.config.rules import rules, secret_rules
from sidecar.config.sections import Config, Struct
from sidecar.yamlfile import Path

MAX_PROBLEMS = 100


class EnoughError(Exception):
    """There are as many problems as anybody wants to read at once."""


class Reader:
    """Turns a plain tree into structs. What does not fit is noted, and its default goes in, so that the rest is read too."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def config(self, tree: Any) -> Config:
        config = Config()
        with suppress(EnoughError):
            config = self._take(Config, tree, (), config)
            misread = [problem.path for problem in self.problems]
            for problem in chain(islice(rules(config), MAX_PROBLEMS), secret_rules(config)):
                if not touches(problem, misread):
                    self._note(problem)
        return config

    def _note(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            raise EnoughError

    def _take(self, kind: Any, tree: Any, path: Path, stand_in: Any) -> Any:
        try:
            return self._convert(kind, tree, path)
        except ValueError as wrong:
            self._note(Problem(path, str(wrong)))
            return stand_in

    def _convert(self, kind: Any, tree: Any, path: Path) -> Any:
        origin = get_origin(kind)
        if origin is Annotated:
            inner, *rules = get_args(kind)
            value = self._convert(inner, tree, path)
            for rule in rules:
                rule(value)
            return value
        if origin in (Union, UnionType):
            return None if tree is None else self._convert(get_args(kind)[0], tree, path)
        if origin is tuple:
            return self._items(get_args(kind)[0], tree, path)
        if origin is dict:
            return self._mapping(get_args(kind)[1], tree, path)
        if isinstance(kind, type) and issubclass(kind, Struct):
            return self._section(kind, tree, path)
        return _leaf(kind, tree)

    def _section(self, kind: type[Struct], tree: Any, path: Path) -> Struct:
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        given = {} if tree is None else tree
        if not isinstance(given, dict):
            raise misfit(f"the keys {', '.join(fields)}", tree)
        for key in given:
            if key not in fields:
                self._note(Problem((*path, key), f"unknown key; {nearest(key, fields)}"))
        return kind(**{field.name: self._field(field, given, path) for field in fields.values()})

    def _field(self, field: msgspec.structs.FieldInfo, given: dict[str, Any], path: Path) -> Any:
        here = (*path, field.encode_name)
        stand_in = "" if field.required else field.default
        if field.encode_name in given:
            return self._take(field.type, given[field.encode_name], here, stand_in)
        if field.required:
            self._note(Problem(here, f"missing; write `{field.encode_name}: …`"))
        return stand_in

    def _items(self, kind: Any, tree: Any, path: Path) -> tuple[Any, ...]:
        if tree is None and isinstance(kind, type) and issubclass(kind, Struct):
            return ()
        if not isinstance(tree, list):
            raise misfit("a list", tree)
        return tuple(self._take(kind, item, (*path, n), _stand_in(kind)) for n, item in enumerate(tree))

    def _mapping(self, kind: Any, tree: Any, path: Path) -> dict[str, Any]:
        if not isinstance(tree, dict):
            raise misfit("keys and values", tree)
        return {key: self._take(kind, item, (*path, key), ()) for key, item in tree.items()}


def _stand_in(kind: Any) -> Any:
    """For an item that could not be read, so that those behind it keep their places."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind(**{field.name: "" for field in msgspec.structs.fields(kind) if field.required})
    return ""


def _leaf(kind: Any, tree: Any) -> Any:
    parse = getattr(kind, "parse", None)  # what is written with a unit
    if parse:
        try:
            return parse(tree)
        except ValueError as wrong:
            raise misfit(str(wrong).removeprefix("expected "), tree) from None
    try:
        return msgspec.convert(tree, kind, strict=True)
    except msgspec.ValidationError:
        raise misfit(NOUNS.get(kind) or f"one of {', '.join(get_args(kind))}", tree, _mend(kind, tree)) from None


def _mend(kind: Any, tree: Any) -> str:
    """Text was wanted and looks like something else; also what a YAML 1.1 tool such as Helm made of `off`."""
    unquoted = isinstance(tree, int | float) if kind is str else tree is False and "off" in get_args(kind)
    return "; put it in quotes" if unquoted else ""


def touches(problem: Problem, misread: list[Path]) -> bool:
    """Whether the problem may only follow from a value that could not be read."""
    paths = (problem.path, *problem.others)
    return any(path[: len(bad)] == bad or bad[: len(path)] == path for path in paths for bad in misread)
