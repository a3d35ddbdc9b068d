"""What a value of the file must be, beyond its type: the rules, and the types that have them.

A rule is called with the value and raises `ValueError` saying what is expected.
"""

import re
from collections.abc import Callable, Collection
from ipaddress import AddressValueError, IPv6Address, ip_network
from typing import Annotated, Any, Literal

from sidecar.config.problems import NOUNS, misfit
from sidecar.units import Bytes, Seconds

Rule = Callable[[Any], None]


def between(low: float, high: float | None = None) -> Rule:
    noun = NOUNS[type(low)]
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"

    def check(value: float) -> None:
        if value < low or (high is not None and value > high):
            raise ValueError(f"expected {noun} {bounds}, got {value}")

    return check


def length(low: int, high: int | None = None) -> Rule:
    bounds = f"{low} or more" if high is None else f"{low} to {high}"

    def check(items: Collection[Any]) -> None:
        if len(items) < low or (high is not None and len(items) > high):
            raise ValueError(f"expected {bounds} entries, got {len(items) or 'none'}")

    return check


def _state_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise misfit("a name of letters, digits and _, at most 64, not a digit first", name)
    if name == "mro" or name.startswith("_FsmState__") or (len(name) > 2 and name[0] == name[-1] == "_"):
        raise ValueError(f"{name} has a meaning of its own in Python; choose another name")


def _subscriber_id(text: str) -> None:
    if not _ID.fullmatch(text):
        raise misfit("an id of letters, digits, _ and -, at most 63, a letter or digit first", text)


def _url(url: str) -> None:
    match = _URL.fullmatch(url) if len(url) <= 2048 else None
    if not match or not 0 < int(match["port"] or 80) < 65536 or not _is_host(match["host"]):
        raise ValueError(  # without the URL, for it can hold a password
            "expected an http:// or https:// URL with a host, and without user, password and fragment,"
            " in at most 2048 ASCII characters"
        )


def _is_host(host: str) -> bool:
    try:
        return not host.startswith("[") or bool(IPv6Address(host[1:-1]))
    except AddressValueError:
        return False


def _label_value(text: str) -> None:
    if not (0 < len(text) <= 128 and text.isprintable()):
        raise misfit("a name of 1 to 128 printable characters", text)


def _network(text: str) -> None:
    try:
        ip_network(text)
    except ValueError:
        raise misfit("an address or a network such as 10.1.2.3 or 10.1.0.0/16", text) from None


def _host_name(text: str) -> None:
    if not _HOST_NAME.fullmatch(text):
        raise misfit("a host's name, without a port", text)


def _origin(text: str) -> None:
    if not _ORIGIN.fullmatch(text):
        raise ValueError("expected an origin as browsers send it, such as https://console.example.org: no path, no *")


def _mode(text: str) -> None:
    if not _MODE.fullmatch(text):
        raise misfit('a mode in octal digits, in quotes, such as "0660"', text)


def _journal_path(path: str) -> None:
    if path in ("", ":memory:"):
        raise ValueError("expected the path of a file; to keep nothing across a restart write `backend: memory`")


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_URL = re.compile(
    r"(?i:https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?][!\"$-\[\]-~]*)?"
)
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_ORIGIN = re.compile(r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?)(?::[0-9]{1,5})?")
_MODE = re.compile(r"0[0-7]{3}")
MAX_STATES = 256
_SHORTEST, _LONGEST = Seconds(0.001), Seconds(365 * 86400)

Amount = Annotated[int, between(0)]
Count = Annotated[int, between(1)]
Duration = Annotated[Seconds, between(_SHORTEST, _LONGEST)]
Pause = Annotated[Seconds, between(Seconds(0), _LONGEST)]
Interval = Annotated[Seconds, between(Seconds(0.1), Seconds(30))]
Timeout = Annotated[Seconds, between(_SHORTEST, Seconds(30))]
HeaderSize = Annotated[Bytes, between(Bytes(1 << 10), Bytes(64 << 10))]
BodySize = Annotated[Bytes, between(Bytes(1 << 10), Bytes(16 << 20))]
JournalSize = Annotated[Bytes, between(Bytes(64 << 10))]
Reserve = Annotated[Bytes, between(Bytes(0))]
State = Annotated[str, _state_name]
Targets = Annotated[tuple[str, ...], length(0, MAX_STATES)]
Transitions = Annotated[dict[str, Targets], length(0, MAX_STATES)]
Dwells = Annotated[dict[str, Duration], length(0, MAX_STATES)]
LabelValue = Annotated[str, _label_value]
Mode = Annotated[str, _mode]
Url = Annotated[str, _url]
HostName = Annotated[str, _host_name]
Origin = Annotated[str, _origin]
JournalPath = Annotated[str, _journal_path]
SubscriberId = Annotated[str, _subscriber_id]
Networks = Annotated[tuple[Annotated[str, _network], ...], length(0, 256)]
Changes = Annotated[tuple[Literal["transition", "update"], ...], length(1)]
Scopes = Annotated[tuple[Literal["state:read", "state:write", "subscribe", "admin"], ...], length(1, 4)]
MAX_BATCH = 100
