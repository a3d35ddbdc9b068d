"""The configuration: one YAML file, decoded into frozen structs. Every key has a default that suits a first try.

`load` gathers every problem of a file before it gives up, each with its place and its mend.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from sidecar import yamlfile
from sidecar.config.problems import Problem
from sidecar.config.reader import MAX_PROBLEMS, Reader
from sidecar.config.rules import REQUEST_LINGER_SECONDS, rules
from sidecar.config.secretfile import read_secret, read_tokens
from sidecar.config.sections import Config, Struct, Subscriber, Webhooks
from sidecar.errors import ConfigError
from sidecar.units import Bytes, Listen, Seconds
from sidecar.yamlfile import Path

__all__ = [
    "REQUEST_LINGER_SECONDS",
    "Config",
    "Subscriber",
    "Webhooks",
    "check",
    "differences",
    "effective",
    "load",
    "read_secret",
    "read_tokens",
]


def load(path: str | None) -> Config:
    """The configuration in the file, or the defaults without one. Raises `ConfigError` with all its problems."""
    if path is None:
        return Config()
    try:
        tree, lines = yamlfile.read(path)
    except yamlfile.YamlError as error:
        raise _refusal(path, error.problems) from None
    reader = Reader()
    config = reader.config(tree)
    if reader.problems:
        placed = sorted(((_line(problem, lines), problem) for problem in reader.problems), key=itemgetter(0))
        raise _refusal(path, [f"{path}:{line}: {problem}" for line, problem in placed])
    return config


def _refusal(path: str, problems: Sequence[str]) -> ConfigError:
    more = [f"{path}: these are the first {MAX_PROBLEMS} problems; mend them to see the others"]
    return ConfigError([*problems[:MAX_PROBLEMS], *more] if len(problems) >= MAX_PROBLEMS else problems)


def check(config: Config) -> list[str]:
    """The rules across keys that `config` breaks. Pure: secret files are looked at by `load` only."""
    return [str(problem) for problem in rules(config)]


def effective(config: Config) -> str:
    """The whole configuration as YAML, as people write it. Loaded again, it gives an equal one."""
    return yamlfile.dump(_plain(config))


def differences(one: Config, other: Config) -> tuple[str, ...]:
    """The keys whose values differ, such as `health.window`; `subscribers` is one of them."""
    return tuple(_differing(_plain(one), _plain(other)))


def _differing(one: dict[str, Any], other: dict[str, Any], section: str = "") -> Iterator[str]:
    for key, value in one.items():
        if isinstance(value, dict) and isinstance(other[key], dict) and key not in ("transitions", "max_dwell"):
            yield from _differing(value, other[key], f"{section}{key}.")
        elif value != other[key]:
            yield f"{section}{key}"


def _line(problem: Problem, lines: dict[Path, int]) -> int:
    """Where the problem is written: its key, what it was compared with, or the section that lacks the key."""
    for path in (problem.path, *problem.others):
        if path in lines:
            return lines[path]
    return next((lines[problem.path[:n]] for n in range(len(problem.path), 0, -1) if problem.path[:n] in lines), 1)


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return {field.encode_name: _plain(getattr(value, field.name)) for field in msgspec.structs.fields(value)}
    if isinstance(value, Seconds | Bytes | Listen):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
