"""What a page in somebody's browser may do: nothing, unless its origin is allowed.

A browser sits inside networks and on loopback, and runs pages of strangers. By DNS rebinding such a page calls the API under a
name of its own, which the `Host` tells; across origins it can send requests blindly, which the `Origin` tells.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache, partial
from ipaddress import ip_address

from sidecar.api.answer import NO_HEADERS
from sidecar.errors import MisdirectedError, OriginRefusedError

_SAFE = ("GET", "HEAD", "OPTIONS")
_CROSSING = {
    "Access-Control-Expose-Headers": "ETag, Location, Retry-After, Idempotency-Replayed, WWW-Authenticate",
    "Vary": "Origin",
}
_ALLOWED_HEADERS = "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Writer-Token, Last-Event-ID"
_REMEMBER_SECONDS = "600"


class Browsers:
    """`hosts`: the names under which the API may be called, besides IP addresses and localhost; None: any. `origins`: of whose
    pages it may be called.
    """

    def __init__(self, hosts: Collection[str] | None = None, origins: Collection[str] = ()) -> None:
        names = frozenset(["localhost", *map(str.lower, hosts or ())])
        self._is_ours: Callable[[str], bool] = lru_cache(64)(partial(_is_one_of, names))  # it is the same each time
        self._any_host = hosts is None
        self._origins = frozenset(origins)

    def check(self, method: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers that the answer needs for the page that asks. Raises `MisdirectedError` or `OriginRefusedError`."""
        host = headers.get("Host", "")
        if not (self._any_host or self._is_ours(host)):
            raise MisdirectedError
        origin = headers.get("Origin")
        if origin is None:
            return NO_HEADERS
        if origin in self._origins:
            return {"Access-Control-Allow-Origin": origin, **_CROSSING}
        if method not in _SAFE and origin.partition("://")[2] != host:
            raise OriginRefusedError
        return NO_HEADERS


def preflight(methods: Iterable[str]) -> Mapping[str, str]:
    """The headers that answer a page's question (`OPTIONS`) before its request. `methods`: those of the path."""
    return {
        "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Max-Age": _REMEMBER_SECONDS,
    }


def _is_one_of(names: Collection[str], host: str) -> bool:
    """Whether this `Host` is one of the names or an address, which nobody can rebind. No host: no browser."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].lower()
    return not host or name in names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
