"""What a page in somebody's browser may do: nothing, unless its origin is allowed.

A browser sits inside networks and on loopback, and runs pages of strangers. By DNS rebinding such a page calls the API under a
name of its own, which the `Host` tells; across origins it can send requests blindly, which the `Origin` tells.
"""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address

from sidecar.api.answer import NO_HEADERS
from sidecar.errors import MisdirectedError, OriginRefusedError

_SAFE = ("GET", "HEAD", "OPTIONS")
_REMEMBERED = 64
_CROSSING = {
    "Access-Control-Expose-Headers": "ETag, Location, Retry-After, Idempotency-Replayed, WWW-Authenticate",
    "Vary": "Origin",
}
_ALLOWED_HEADERS = "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID"
_REMEMBER_SECONDS = "600"


class Browsers:
    """`hosts`: the names under which the API may be called, besides IP addresses and localhost; None: any. `origins`: of whose
    pages it may be called.
    """

    def __init__(self, hosts: Collection[str] | None = None, origins: Collection[str] = ()) -> None:
        self._names = None if hosts is None else {"localhost", *map(str.lower, hosts)}
        self._origins = frozenset(origins)
        self._fine: set[str] = set()

    def check(self, method: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers that the answer needs for the page that asks. Raises `MisdirectedError` or `OriginRefusedError`."""
        host = headers.get("Host", "")
        if host not in self._fine:
            self._look_at(host)
        origin = headers.get("Origin")
        if origin is None:
            return NO_HEADERS
        if origin in self._origins:
            return {"Access-Control-Allow-Origin": origin, **_CROSSING}
        if method not in _SAFE and origin.partition("://")[2] != host:
            raise OriginRefusedError
        return NO_HEADERS

    def _look_at(self, host: str) -> None:
        """Remember what is fine: it is the same each time."""
        if self._names is not None and host and not _is_address(name := _without_port(host)) and name not in self._names:
            raise MisdirectedError
        if len(self._fine) < _REMEMBERED:
            self._fine.add(host)


def preflight(methods: Iterable[str]) -> Mapping[str, str]:
    """The headers that answer a page's question (`OPTIONS`) before its request. `methods`: those of the path."""
    return {
        "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Max-Age": _REMEMBER_SECONDS,
    }


def _without_port(host: str) -> str:
    """In lower case; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    """Such a name is not resolved, and so cannot be rebound."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
