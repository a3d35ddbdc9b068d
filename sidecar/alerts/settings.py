"""`thresholds.yaml`, and a file of somebody else with what differs from it."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from sidecar import yamlfile
from sidecar.config.problems import Problem, misfit, nearest
from sidecar.errors import ConfigError
from sidecar.units import Seconds

DEFAULTS = Path(__file__).with_name("thresholds.yaml")

Severity = Literal["critical", "warning", "info"]

_LABEL = r'[A-Za-z_]\w*(?:=|!=|=~|!~)"(?:[^"\\\n]|\\.)*"'
_MATCHERS = re.compile(rf"{_LABEL}(?:, ?{_LABEL})*", re.ASCII)
_PATTERN = re.compile(r'~"((?:[^"\\\n]|\\.)*)"')
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}|\$[A-Za-z_][A-Za-z0-9_]*")
_BASE_URL = re.compile(r"https?://[!-z|~]+")  # braces would be a template of Prometheus
_PREFIX = "FsmSidecar"
_LONGEST_SECONDS = 365 * 86400


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one alert. An alert has those keys that `thresholds.yaml` gives it, and `enabled`."""

    severity: Severity
    for_seconds: Seconds
    above: float = math.nan
    below: float = math.nan
    at_least: float = 0
    window_seconds: Seconds = Seconds(0)
    short_seconds: Seconds = Seconds(0)
    long_seconds: Seconds = Seconds(0)
    enabled: bool = True


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. `alerts` by their names."""

    runbooks: str
    grafana: str
    datasource: str
    target: str
    interval_seconds: Seconds
    alerts: Mapping[str, Limits]


def load(path: str | None = None) -> Settings:
    """Those of the package, changed by what the file says. Raises `ConfigError` with all the file's problems."""
    tree, _ = yamlfile.read(str(DEFAULTS))
    return _settings(tree if path is None else _changed(tree, path))


def _changed(tree: dict[str, Any], path: str) -> dict[str, Any]:
    try:
        given, lines = yamlfile.read(path)
    except yamlfile.YamlError as error:
        raise ConfigError(error.problems) from None
    given = {} if given is None else given
    problems = list(_misfits(given, tree, ()))
    merged = tree if problems else _merged(tree, given)
    problems = problems or list(_disordered(merged["alerts"]))
    if problems:
        raise ConfigError([f"{path}:{_line(place, lines)}: {Problem(place, text)}" for place, text in problems])
    return merged


def _settings(tree: dict[str, Any]) -> Settings:
    alerts = {name: Limits(**_fields(limits)) for name, limits in tree["alerts"].items()}
    return Settings(**_fields(tree) | {"alerts": alerts})


def _fields(tree: dict[str, Any]) -> dict[str, Any]:
    """Python names put the unit last."""
    taken = {key: _TAKERS[key](value) for key, value in tree.items() if key != "alerts"}
    return {f"{key}_seconds" if isinstance(value, Seconds) else key: value for key, value in taken.items()}


def _misfits(given: Any, known: dict[str, Any], place: yamlfile.Path) -> Iterator[tuple[yamlfile.Path, str]]:
    if not isinstance(given, dict):
        yield place, str(misfit("keys and values", given))
        return
    keys = [*known, "enabled"] if len(place) == 2 else list(known)
    for key, value in given.items():
        here = (*place, key)
        if key not in keys:
            yield here, f"unknown key; {_meant(key, keys)}"
        elif isinstance(known.get(key), dict):
            yield from _misfits(value, known[key], here)
        else:
            try:
                _TAKERS[key](value)
            except ValueError as wrong:
                yield here, str(wrong)


def _meant(key: Any, keys: list[str]) -> str:
    bare = str(key).removeprefix(_PREFIX)
    return f"here it is {bare}, without {_PREFIX}" if bare != key and bare in keys else nearest(key, keys)


def _merged(tree: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    return tree | {key: _merged(tree[key], value) if isinstance(value, dict) else value for key, value in given.items()}


def _disordered(alerts: dict[str, dict[str, Any]]) -> Iterator[tuple[yamlfile.Path, str]]:
    for name, limits in alerts.items():
        if "long" in limits and Seconds.parse(limits["short"]) >= Seconds.parse(limits["long"]):
            yield ("alerts", name, "short"), f"{limits['short']} is not shorter than long, {limits['long']}"


def _line(place: yamlfile.Path, lines: dict[yamlfile.Path, int]) -> int:
    """Of the key, or of the section that it would be in."""
    return next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), 1)


# --- what a value must be ---


def _duration(value: Any) -> Seconds:
    try:
        return Seconds.parse(value)
    except ValueError as wrong:
        raise misfit(str(wrong).removeprefix("expected "), value) from None


def _pause(value: Any) -> Seconds:
    pause = _duration(value)
    if pause % 1 or pause > _LONGEST_SECONDS:
        raise misfit(f"whole seconds, at most {Seconds(_LONGEST_SECONDS)}", value)
    return pause


def _window(value: Any) -> Seconds:
    window = _pause(value)
    if window < 1:
        raise misfit("whole seconds, at least 1s", value)
    return window


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise misfit("a number of at least 0", value)
    return float(value)


def _severity(value: Any) -> Severity:
    if value not in ("critical", "warning", "info"):
        raise misfit("one of critical, warning, info", value)
    return cast(Severity, value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise misfit("true or false", value)
    return value


def _optional_base(value: Any) -> str:
    return "" if value == "" else _base(value)


def _base(value: Any) -> str:
    if not isinstance(value, str) or not _BASE_URL.fullmatch(value):
        raise misfit("an http:// or https:// URL", value)
    return value.rstrip("/") + "/"


def _datasource(value: Any) -> str:
    if not isinstance(value, str) or not _UID.fullmatch(value):
        raise misfit("the uid of a data source, or an environment variable of Grafana with a $ before it", value)
    return value


def _matchers(value: Any) -> str:
    if not isinstance(value, str) or not _MATCHERS.fullmatch(value):
        raise misfit("""what goes between braces in PromQL, such as 'job="agents"'""", value)
    for pattern in _PATTERN.findall(value):
        try:
            re.compile(pattern)
        except re.error as wrong:
            raise misfit(f"a regular expression after ~ ({wrong})", value) from None
    return value


_TAKERS: dict[str, Callable[[Any], Any]] = {
    "runbooks": _base,
    "grafana": _optional_base,
    "datasource": _datasource,
    "target": _matchers,
    "interval": _window,
    "severity": _severity,
    "for": _pause,
    "above": _number,
    "below": _number,
    "at_least": _number,
    "window": _window,
    "short": _window,
    "long": _window,
    "enabled": _flag,
}
